"""Which live tensors a patch could write into and restore exactly; tensors that share memory are patched once."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rws_hub import shards, storage
from rws_hub.plan import Binding, Rejection
from rws_hub.resolve import Match
from rws_hub.signature import RobustWeightSignature

_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_PLAIN = ("Parameter", "Tensor", "Buffer")


def why_not(name: str, tensor: torch.Tensor) -> list[Rejection]:
    """Live tensors that a patch could not write into and restore exactly."""
    why = None
    if tensor.is_meta:
        why = "it is on the meta device and holds no values; load the weights first"
    elif tensor.is_inference():
        why = "it was created in inference mode and cannot be changed; create the model outside of it"
    elif shards.is_sharded(tensor):
        why = shards.why_not(tensor)
    elif type(tensor).__name__ not in _PLAIN:
        why = f"it is a {type(tensor).__name__}; only plain dense tensors can be patched"
    elif tensor.layout != torch.strided or tensor.dtype not in _DTYPES:
        why = f"it is {tensor.layout}, {tensor.dtype}; expected a dense fp16, bf16, fp32 or fp64 tensor"
    elif storage.overlaps_itself(tensor):
        why = "some of its elements share memory (an expanded view, say); clone it first"
    return [Rejection("unusable", "", why, name)] if why else []


def once_per_storage(
    bindings: list[Binding], place: Match, tensors: Mapping[str, torch.Tensor], signature: RobustWeightSignature
) -> tuple[list[Binding], list[Rejection]]:
    """Tied tensors are patched once, and nothing but what the signature touches may change with them."""
    if not tensors:
        return bindings, []  # a file or a state dict: every name has its own values there
    extents = {n: e for n, t in tensors.items() if (e := storage.extent(t)) is not None}
    touched = {p.model for p in place.pieces}
    kept: dict[str, Binding] = {}
    rejected: list[Rejection] = []
    for binding in bindings:
        own = extents.get(binding.model)
        first = kept.setdefault(binding.model, binding)
        if first is not binding and not _equal_deltas(first, binding, signature):
            detail = f"it shares its storage with {first.model}, and the signature holds different deltas for the two"
            rejected.append(Rejection("unusable", "", detail, binding.pieces[0].model))
        for name, other in extents.items():
            if own is None or name == binding.model or not own.touches(other):
                continue
            if not own.same(other):
                rejected.append(Rejection("unusable", "", f"it shares some of its memory with {name}", binding.model))
            elif name in place.body and name not in touched:
                detail = f"it shares its storage with {name}, which the signature does not touch"
                rejected.append(Rejection("unusable", "", detail, binding.model))
    return list(kept.values()), rejected


def _equal_deltas(a: Binding, b: Binding, signature: RobustWeightSignature) -> bool:
    """Whether two bindings put the same numbers into the same rows."""
    rows = [[(p.part, p.model_part) for p in x.pieces] for x in (a, b)]
    deltas = [[signature.delta(p.canonical) for p in x.pieces] for x in (a, b)]
    return rows[0] == rows[1] and all(torch.equal(x, y) for x, y in zip(*deltas, strict=True))


def first_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Name -> the first name of the same values, so that a shared tensor is found whichever name is used."""
    first: dict[object, str] = {}
    return {n: first.setdefault(_identity(t), n) for n, t in tensors.items()}


def _identity(tensor: torch.Tensor) -> object:
    found = storage.extent(tensor)
    return id(tensor) if found is None else found
