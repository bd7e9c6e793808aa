"""The clean values behind every patched tensor, and the one function that changes a set of them.

Every touched tensor has one anchor: a copy of its clean values and the set of deltas that are on it now.
The live values are always a function of those two and nothing else, recomputed from the clean copy; so no
order of add, rescale and remove can leave a trace, whichever handles and wrappers were used. Anchors belong
to the module that owns the tensor: a wrapper (DDP, torch.compile) and the bare model share them, a
`copy.deepcopy` or a pickle of a patched model has none and is simply a model with those weights.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from rws_hub import storage
from rws_hub.cells import Slice
from rws_hub.errors import PatchStateError
from rws_hub.plan import SignaturePlan
from rws_hub.signature import RobustWeightSignature
from rws_hub.spec import Op
from rws_hub.spelling import Piece

_INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class Delta:
    """One signature's part in one tensor at one strength. `order` makes the sum independent of history.

    `name` is the tensor's, as the model spells it, for messages.
    """

    order: str
    name: str
    signature: RobustWeightSignature
    pieces: tuple[Piece, ...]
    alpha: float


# Where one signature touches: the owning module, the attribute, and what is added there.
Place = tuple[nn.Module, str, Delta]


@dataclass(frozen=True, slots=True)
class _Anchor:
    """The clean values of one live tensor and what is on it."""

    clean: torch.Tensor
    deltas: Mapping[str, Delta]


_anchors: weakref.WeakKeyDictionary[nn.Module, dict[str, _Anchor]] = weakref.WeakKeyDictionary()


def commit(
    put: Sequence[Place],
    take: Sequence[Place],
    force: bool = False,
) -> None:
    """Change the set of deltas on every tensor named: all of them, or none."""
    targets: dict[tuple[nn.Module, str], dict[str, Delta]] = {}
    for module, attribute, delta in put:
        targets.setdefault((module, attribute), deltas_on(module, attribute))[delta.order] = delta
    for module, attribute, delta in take:
        targets.setdefault((module, attribute), deltas_on(module, attribute)).pop(delta.order, None)
    names = {(module, attribute): delta.name for module, attribute, delta in (*put, *take)}
    with torch.no_grad():
        _refuse_shared({names[place]: _tensor(*place) for place in targets if not deltas_on(*place)})
        writes = [_prepare(*place, names[place], deltas, force) for place, deltas in targets.items()]
        with _all_or_nothing(writes):
            for write, deltas in zip(writes, targets.values(), strict=True):
                write.live.copy_(write.after)
                _set_anchor(write, _Anchor(write.clean, deltas) if deltas else None)
            _drop_caches({module for module, _ in targets})


@dataclass(frozen=True, slots=True)
class _Write:
    """One prepared change: what is there, what it becomes, and the clean values behind both."""

    module: nn.Module
    attribute: str
    live: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    clean: torch.Tensor
    anchor: _Anchor | None


def _prepare(module: nn.Module, attribute: str, name: str, deltas: Mapping[str, Delta], force: bool) -> _Write:
    live = _tensor(module, attribute)
    anchor = _anchors.get(module, {}).get(attribute)
    if anchor is None:
        clean = live.detach().clone()
        return _Write(module, attribute, live, clean, compose(clean, deltas, name), clean, anchor)
    if anchor.clean.dtype != live.dtype or anchor.clean.shape != live.shape:
        raise PatchStateError(
            f"{name}: the model is {live.dtype} {list(live.shape)} now and was {anchor.clean.dtype} "
            f"{list(anchor.clean.shape)} when it was patched. Unpatch before converting; convert it back to go on."
        )
    clean = anchor.clean.to(live.device)
    if not force and not _same_bits(live, compose(clean, anchor.deltas, name)):
        raise PatchStateError(
            f"{name} was changed while it was patched (training, batch-norm statistics updated in train mode, or "
            "load_state_dict). Unpatching would undo that change: call unpatch(force=True) to restore the clean "
            "values all the same. Nothing was changed now."
        )
    return _Write(module, attribute, live, live.detach().clone(), compose(clean, deltas, name), clean, anchor)


def compose(clean: torch.Tensor, deltas: Mapping[str, Delta], name: str) -> torch.Tensor:
    """The live values: clean + sum(alpha * delta), or clean * exp(sum(alpha * delta)), in fp32, rounded once."""
    moving = [deltas[k] for k in sorted(deltas) if deltas[k].alpha != 0]
    if not moving:
        return clean
    compute = torch.float64 if clean.dtype == torch.float64 else torch.float32
    total = torch.zeros(clean.shape, dtype=torch.float32, device=clean.device)
    op: Op = "add"
    for delta in moving:
        for piece in delta.pieces:
            op = delta.signature.config.tensors[piece.canonical].op
            source = delta.signature.delta(piece.canonical)
            home = _cut(total, piece.model_part)
            home += _cut(source, piece.part).to(clean.device).reshape(home.shape) * delta.alpha
    value = clean.to(compute)
    # exp differs by a bit between devices and vector widths; in float64, rounded to float32, it does not.
    factor = total.cpu().double().exp().float().to(clean.device, compute) if op == "multiply" else None
    result = (value + total if factor is None else value * factor).to(clean.dtype)
    finite = torch.isfinite(result)
    if not bool(finite.all()) and not bool((finite | ~torch.isfinite(clean)).all()):
        strengths = ", ".join(f"{d.signature.config.corruption.name}={d.alpha:g}" for d in moving)
        raise PatchStateError(f"{name}: {strengths} overflows {clean.dtype}. Nothing was changed; use a smaller alpha.")
    return result


def _cut(tensor: torch.Tensor, part: Slice | None) -> torch.Tensor:
    return tensor if part is None else tensor.narrow(part.axis, part.start, part.stop - part.start)


def _refuse_shared(fresh: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors whose memory another model's patched tensor uses: their clean values are not to be seen now."""
    patched = [
        (found, next(iter(anchor.deltas.values())).name)
        for module, anchors in _anchors.items()
        for attribute, anchor in anchors.items()
        if (found := storage.extent(_tensor(module, attribute))) is not None
    ]
    for name, tensor in fresh.items():
        own = storage.extent(tensor)
        for other, there in patched:
            if own is not None and own.touches(other):
                raise PatchStateError(
                    f"{name} shares its memory with {there} of another model that is patched now; take that patch off "
                    "first, or give one of the models weights of its own. Nothing was changed."
                )


def _drop_caches(owners: Iterable[nn.Module]) -> None:
    """Let modules forget what they made of their weights and keep for evaluation (LeViT's gathered biases).

    They do so when they change to training, so they are changed there and back; every flag stays as it was.
    """
    for owner in owners:
        if type(owner).train is not nn.Module.train and not owner.training:
            flags = [(m, m.training) for m in owner.modules()]
            try:
                owner.train()
            finally:
                for module, training in flags:
                    module.training = training


@contextmanager
def _all_or_nothing(writes: Sequence[_Write]) -> Iterator[None]:
    try:
        yield
    except BaseException:  # KeyboardInterrupt too: a half-patched model must never be seen
        for write in writes:
            write.live.copy_(write.before)
            _set_anchor(write, write.anchor)
        raise


def _set_anchor(write: _Write, anchor: _Anchor | None) -> None:
    anchors = _anchors.setdefault(write.module, {})
    anchors.pop(write.attribute, None)
    if anchor is not None:
        anchors[write.attribute] = anchor
    if not anchors:
        del _anchors[write.module]


def deltas_on(module: nn.Module, attribute: str) -> dict[str, Delta]:
    """What is on one tensor now, by the digest of its signature; a copy."""
    anchor = _anchors.get(module, {}).get(attribute)
    return dict(anchor.deltas) if anchor else {}


def _tensor(module: nn.Module, attribute: str) -> torch.Tensor:
    """The tensor that is there now: load_state_dict(assign=True) may have replaced the object."""
    found: torch.Tensor | None = module._parameters.get(attribute)
    if found is None:
        found = module._buffers.get(attribute)
    if found is None:
        raise PatchStateError(
            f"{type(module).__name__} has no tensor {attribute!r} any more (pruned or parametrized meanwhile?). Undo "
            "that before changing the patch."
        )
    return found


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    kind = _INTEGER[a.element_size()]
    return torch.equal(a.detach().contiguous().view(kind), b.contiguous().view(kind))


def places(
    signature: RobustWeightSignature, alpha: float, plan: SignaturePlan, homes: Mapping[str, nn.Module]
) -> list[Place]:
    """What one signature adds where. `homes`: the owning module of each tensor's name, as far as it exists."""
    order = signature.config.digest
    return [
        (homes[b.model], b.model.rpartition(".")[2], Delta(order, b.model, signature, b.pieces, alpha))
        for b in plan.bindings
        if b.model in homes
    ]


def path_of(name: str) -> str:
    """The module path of a tensor's name."""
    return name.rpartition(".")[0]


def find_owner(model: nn.Module, name: str) -> nn.Module | None:
    """The module that holds a tensor now."""
    try:
        return model.get_submodule(path_of(name))
    except AttributeError:
        return None
