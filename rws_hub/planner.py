"""Decide where every delta of a signature goes in a model, before a weight is touched.

Whatever can fail about fit, fails here; `patching.patch` carries out an accepted plan and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from rws_hub import kinship, storage
from rws_hub.diagnosis import diagnose
from rws_hub.errors import NameTableError
from rws_hub.names import Family, Layout, families, read_table, table_of
from rws_hub.plan import Binding, PatchPlan, Rejection, SignaturePlan
from rws_hub.recognise import recognise
from rws_hub.resolve import IDENTITY, Match, Piece, match
from rws_hub.signature import RobustWeightSignature
from rws_hub.sources import Weights, WeightsLike, by_canonical, gather, live_tensors, open_weights, tensor_rows

_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_PLAIN = ("Parameter", "Tensor", "Buffer")


def plan_patch(model: WeightsLike, *signatures: RobustWeightSignature, table: str | Path | None = None) -> PatchPlan:
    """Decide where every delta of the signatures would go in a model. Pure: nothing is changed.

    Args:
        model: an `nn.Module` (on any device, meta too), a state dict, or a path to (sharded) safetensors.
        signatures: what would be added; each is planned for itself.
        table: a name table of your own (docs/NAMES.md), used instead of those of the package.

    Returns:
        A plan; `plan.ok`, `plan.explain()` and `plan.require()` tell.

    Raises:
        CheckpointError: a path that cannot be read as weights.
        NameTableError: a table that cannot be read, or that does not explain a signature's names.

    Example:
        >>> plan_patch(model, fog).ok
        True
    """
    require_signatures(signatures)
    if isinstance(model, nn.Module):
        plan = plan_module(model, signatures, table)
        tensors = live_tensors(model)
        if any(t.is_meta for t in tensors.values()):
            return plan
        layout = {n: tuple(t.shape) for n, t in tensors.items()}
        weights = Weights(plan.target, layout, partial(tensor_rows, tensors))
    else:
        weights = open_weights(model, "the state dict" if isinstance(model, Mapping) else Path(model).name)
        plans = (_plan_one(weights.layout, {}, weights.label, s, tab) for s, tab in _with_tables(signatures, table))
        plan = PatchPlan(weights.label, tuple(plans))
    judged = (
        dataclasses.replace(p, similarity=_similarity(p.bindings, weights, s)) if p.ok else p
        for p, s in zip(plan.signatures, signatures, strict=True)
    )
    return dataclasses.replace(plan, signatures=tuple(judged))


def require_signatures(found: Sequence[object]) -> None:
    """Refuse anything else, with a hint for those who pass an id or a list."""
    for each in found:
        if not isinstance(each, RobustWeightSignature):
            raise TypeError(
                f"expected a RobustWeightSignature, found {type(each).__name__}; load one with "
                "RobustWeightSignature.from_pretrained(folder_or_hub_id)"
            )


def plan_module(
    model: nn.Module, signatures: Sequence[RobustWeightSignature], table: str | Path | None = None
) -> PatchPlan:
    """`plan_patch` of a live module without judging kinship: names and shapes only, no value is read."""
    tensors = live_tensors(model)
    layout = {n: tuple(t.shape) for n, t in tensors.items() if t.is_floating_point() and t.numel()}
    label = type(model).__name__
    return PatchPlan(label, tuple(_plan_one(layout, tensors, label, s, t) for s, t in _with_tables(signatures, table)))


_Signed = tuple[RobustWeightSignature, Family | None]


def _with_tables(signatures: Sequence[RobustWeightSignature], path: str | Path | None) -> list[_Signed]:
    """Each signature with the table that its names are looked up in."""
    if path is None:
        return [(s, table_of(s.config.backbone.family, s.config.backbone.table)) for s in signatures]
    given = read_table(path)
    chosen: list[_Signed] = []
    for signature in signatures:
        table = _rooted([given], signature.config.backbone.layout)
        if table is None:
            raise NameTableError(
                f"{path}: none of its columns ({', '.join(given.dialects)}) explains every name of the signature "
                f"{signature.config.corruption.name!r}, such as {signature.names[0]}"
            )
        chosen.append((signature, table))
    return chosen


def _rooted(tables: Sequence[Family], layout: Layout) -> Family | None:
    """The table that explains a signature's layout, with the dialect it is written in first."""
    found = recognise(layout, tables)[0]
    return next((t.rooted(found.dialect) for t in tables if t.name == found.family and not found.prefix), None)


def _plan_one(
    layout: Layout,
    tensors: Mapping[str, torch.Tensor],
    label: str,
    signature: RobustWeightSignature,
    table: Family | None,
) -> SignaturePlan:
    first = _first_names(tensors)
    places = _places(layout, first, signature, table)
    best = places[0]
    fitting = [m for m in places if m.fits]
    rejected = _rejections(best, signature, layout)
    diagnosis = _diagnosis(best, signature, layout) if rejected else ""
    if len(fitting) > 1:
        found = ", ".join(f"'{m.prefix}'" for m in fitting)
        detail = f"the backbone occurs under {found}; patch one submodule alone"
        rejected = [Rejection("unusable", "", detail, label)]
    grouped: dict[str, list[Piece]] = {}
    for piece in best.pieces if best.fits else ():
        grouped.setdefault(piece.model, []).append(piece)
    bindings = [Binding(first.get(n, n), tuple(pieces)) for n, pieces in grouped.items()]
    if not rejected:
        rejected = [r for n in grouped if n in tensors for r in _unusable(n, tensors[n])]
    if not rejected:
        bindings, rejected = _once_per_storage(bindings, best, tensors, signature)
    if rejected and not diagnosis:
        diagnosis = f"{rejected[0].model}: {rejected[0].detail}"
    return SignaturePlan(
        name=signature.config.corruption.name,
        family=table.name if table else IDENTITY,
        dialect=best.dialect,
        prefix=best.prefix,
        bindings=tuple(bindings),
        rejected=tuple(rejected),
        diagnosis=diagnosis,
        resized=best.resized,
        similarity=None,
        touched=sum(signature.elements(n) for n in signature.names),
    )


def _places(
    layout: Layout, first: Mapping[str, str], signature: RobustWeightSignature, table: Family | None
) -> list[Match]:
    """Where the signature's backbone is in a model, best first."""
    body = signature.config.backbone.layout
    places = match(table, body, signature.names, layout)
    if sum(m.fits for m in places) != 1 and any(first[n] != n for n in first):
        # A signature made from a model with tied tensors, or a backbone that goes by two names.
        once = {n: shape for n, shape in layout.items() if first[n] == n}
        again = match(table, body, signature.names, once)
        places = again if again[0].fits else places
    if table is None and not places[0].fits and (known := _rooted(list(families().values()), body)):
        # Written before there was a table for its family.
        places = [m for m in match(known, body, signature.names, layout) if m.fits] or places
    return places


def _source(signature: RobustWeightSignature) -> str:
    name = signature.config.backbone.architecture
    return "the signature's backbone" + ("" if name == "unknown" else f" {name}")


def _diagnosis(best: Match, signature: RobustWeightSignature, layout: Layout) -> str:
    backbone = signature.config.backbone
    homes = {p.canonical: p.model for p in best.pieces}
    return diagnose(best, _source(signature), backbone.family, backbone.layout, signature.names, layout, homes)


def _rejections(best: Match, signature: RobustWeightSignature, layout: Layout) -> list[Rejection]:
    homes = by_canonical(best.pieces)
    out: list[Rejection] = []
    for name in best.mismatched:
        models = [p.model for p in homes[name]]
        found = " + ".join(str(list(layout[m])) for m in models)
        detail = f"signature {list(signature.config.shape(name))}, model {found}"
        out.append(Rejection("mismatched", name, detail, " + ".join(dict.fromkeys(models))))
    out += [
        Rejection("missing", p.canonical, "the signature's backbone has it, this model has not", p.model)
        for p in best.missing
    ]
    out += [
        Rejection("unexpected", "", "this model has it, the signature's backbone has not", n) for n in best.unexpected
    ]
    return out


def _unusable(name: str, tensor: torch.Tensor) -> list[Rejection]:
    """Live tensors that a patch could not write into and restore exactly."""
    why = None
    if tensor.is_meta:
        why = "it is on the meta device and holds no values; load the weights first"
    elif tensor.is_inference():
        why = "it was created in inference mode and cannot be changed; create the model outside of it"
    elif type(tensor).__name__ not in _PLAIN:
        why = f"it is a {type(tensor).__name__}; only plain dense tensors can be patched"
    elif tensor.layout != torch.strided or tensor.dtype not in _DTYPES:
        why = f"it is {tensor.layout}, {tensor.dtype}; expected a dense fp16, bf16, fp32 or fp64 tensor"
    elif storage.overlaps_itself(tensor):
        why = "some of its elements share memory (an expanded view, say); clone it first"
    return [Rejection("unusable", "", why, name)] if why else []


def _once_per_storage(
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


def _first_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Name -> the first name of the same values, so that a shared tensor is found whichever name is used."""
    first: dict[object, str] = {}
    return {n: first.setdefault(_identity(t), n) for n, t in tensors.items()}


def _identity(tensor: torch.Tensor) -> object:
    found = storage.extent(tensor)
    return id(tensor) if found is None else found


def _similarity(bindings: Sequence[Binding], weights: Weights, signature: RobustWeightSignature) -> float | None:
    """Cosine of the model's sketch with the source's, over the tensors that the signature touches."""
    homes = by_canonical(Piece(p.canonical, p.part, b.model, p.model_part) for b in bindings for p in b.pieces)
    # A summand cannot be read back out of a sum.
    shapes = {
        n: signature.config.shape(n) for n, ps in homes.items() if all(p.part is None or p.part.axis == 0 for p in ps)
    }
    if all(sum(d > 1 for d in shape) <= 1 for shape in shapes.values()):
        return None  # vectors only: a sketch says nothing about them

    def rows(name: str, start: int, stop: int) -> torch.Tensor:
        return gather(weights, homes[name], shapes[name], start, stop)

    return kinship.similarity(kinship.sketch(shapes, rows), signature.config.sketch)
