"""What is on every patched tensor, the way back to its clean values, and the one function that changes a set of them.

Every touched tensor has one anchor: the way back to its clean values (`removal`), and the set of deltas that are on it
now. The live values are always a function of the clean ones and that set and nothing else; so no order of add, rescale
and remove can leave a trace, whichever handles and wrappers were used. Anchors belong to the module that owns the
tensor: a wrapper (DDP, torch.compile) and the bare model share them, a `copy.deepcopy` or a pickle of a patched model
has none and is simply a model with those weights.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from rws_hub import gates, shards, storage
from rws_hub.deltas import Delta, moving
from rws_hub.errors import PatchStateError
from rws_hub.plan import SignaturePlan
from rws_hub.removal import Way
from rws_hub.signature import RobustWeightSignature
from rws_hub.writing import Target, block_of, written

# Where one signature touches: the owning module, the attribute, and what is added there.
Place = tuple[nn.Module, str, Delta]
# Only where.
Home = tuple[nn.Module, str]
# Chooses the way back for a tensor that gets its first delta.
Chooser = Callable[[torch.Tensor, Delta], Way]


@dataclass(frozen=True, slots=True)
class Anchor:
    """The way back from one live tensor, what it was when it was patched, what was written, and what is on it.

    `held` is the number of its elements in this process, `square` the squared norm of its clean values (`clean.sizes`).
    """

    way: Way
    seals: dict[int, bytes]
    dtype: torch.dtype
    shape: torch.Size
    held: int
    square: float
    block: int
    deltas: Mapping[str, Delta]


_anchors: weakref.WeakKeyDictionary[nn.Module, dict[str, Anchor]] = weakref.WeakKeyDictionary()


def commit(
    put: Sequence[Place],
    take: Sequence[Place],
    way: Chooser | None = None,
    sizes: Mapping[Home, float] | None = None,
    force: bool = False,
) -> None:
    """Change the set of deltas on every tensor named: all of them, or none. Within `gates.one_change`.

    Args:
        put: what to add, or to give another strength.
        take: what to take off.
        way: chooses the way back for tensors that have none yet.
        sizes: squared norms of the values of these (`clean.sizes`).
        force: overwrite values that somebody else has changed.

    Raises:
        PatchStateError: as `writing.written`; a tensor that cannot be changed now. Nothing was changed.
    """
    sets = after(put, take)
    some = {(module, attribute): delta for module, attribute, delta in (*put, *take)}
    _refuse_shared({some[place].name: tensor_of(*place) for place in sets if not deltas_on(*place)})
    anchors, targets = [], []
    for place, deltas in sets.items():
        before = anchor_of(*place)
        live = tensor_of(*place)
        following = _next(before, live, some[place], deltas, way, (sizes or {}).get(place, 0.0))
        anchors.append((*place, before, following))
        targets.append(target_of(some[place].name, live, before, following))
    owners = {module for module, _ in sets}
    with gates.change(owners), _written_everywhere(targets, force), _set(anchors):
        _drop_caches(owners)


def after(put: Sequence[Place], take: Sequence[Place]) -> dict[Home, dict[str, Delta]]:
    """What would be on every tensor named after a change, by the digests of the signatures."""
    sets: dict[Home, dict[str, Delta]] = {}
    for module, attribute, delta in take:
        sets.setdefault((module, attribute), deltas_on(module, attribute)).pop(delta.order, None)
    for module, attribute, delta in put:
        sets.setdefault((module, attribute), deltas_on(module, attribute))[delta.order] = delta
    return sets


def kept_bytes(places: Iterable[Place]) -> int:
    """Bytes that the ways back of some tensors take in memory."""
    found = {(m, a): anchor for m, a, _ in places if (anchor := anchor_of(m, a))}
    return sum(anchor.way.nbytes for anchor in found.values())


def _next(
    before: Anchor | None,
    live: torch.Tensor,
    delta: Delta,
    deltas: Mapping[str, Delta],
    way: Chooser | None,
    square: float,
) -> Anchor | None:
    if before is None:
        assert way is not None
        with torch.no_grad():
            return Anchor(way(live, delta), {}, live.dtype, live.shape, _held(live), square, block_of(live), deltas)
    if before.dtype != live.dtype or before.shape != live.shape:
        raise PatchStateError(
            f"{delta.name}: the model is {live.dtype} {list(live.shape)} now and was {before.dtype} "
            f"{list(before.shape)} when it was patched. Unpatch before converting; convert it back to go on."
        )
    if live.is_meta or before.held != _held(live):
        found = "on the meta device and holds no values" if live.is_meta else "spread over processes in another way"
        raise PatchStateError(
            f"{delta.name}: it is {found} now. Nothing was changed; put it back as it was when it was patched."
        )
    return dataclasses.replace(before, way=before.way.next(), seals={}, deltas=deltas) if deltas else None


def _held(live: torch.Tensor) -> int:
    """How many elements are here."""
    return live.numel() if live.is_meta else shards.part_of(live).values.numel()


def target_of(name: str, live: torch.Tensor, before: Anchor | None, after: Anchor | None) -> Target:
    """One tensor, and what is to become of it."""
    (block,) = {anchor.block for anchor in (before, after) if anchor}
    return Target(
        name,
        live,
        moving(before.deltas.values()) if before else (),
        moving(after.deltas.values()) if after else (),
        before.way if before else None,
        after.way if after else None,
        before.seals if before else {},
        after.seals if after else {},
        block,
    )


@contextmanager
def _written_everywhere(targets: Sequence[Target], force: bool) -> Iterator[None]:
    """`written`; and if any process that holds a shard of these tensors fails, all of them do."""
    tensors, told = [t.live for t in targets], False
    try:
        with written(targets, force):
            told = True
            if shards.agree(tensors, failed=False):
                raise PatchStateError("another process that holds shards of the model refused. Nothing was changed.")
            yield
    except BaseException:
        if not told:
            shards.agree(tensors, failed=True)
        raise


@contextmanager
def _set(anchors: Sequence[tuple[nn.Module, str, Anchor | None, Anchor | None]]) -> Iterator[None]:
    try:
        for module, attribute, _, after in anchors:
            _set_anchor(module, attribute, after)
        yield
    except BaseException:
        for module, attribute, before, _ in anchors:
            _set_anchor(module, attribute, before)
        raise


def _set_anchor(module: nn.Module, attribute: str, anchor: Anchor | None) -> None:
    anchors = _anchors.setdefault(module, {})
    anchors.pop(attribute, None)
    if anchor is not None:
        anchors[attribute] = anchor
    if not anchors:
        del _anchors[module]


def _refuse_shared(fresh: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors whose memory another model's patched tensor uses: their clean values are not to be seen now."""
    patched = [
        (found, next(iter(anchor.deltas.values())).name)
        for module, anchors in _anchors.items()
        for attribute, anchor in anchors.items()
        if (found := storage.extent(tensor_of(module, attribute))) is not None
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


def anchor_of(module: nn.Module, attribute: str) -> Anchor | None:
    """The anchor of one tensor, if anything is on it."""
    return _anchors.get(module, {}).get(attribute)


def deltas_on(module: nn.Module, attribute: str) -> dict[str, Delta]:
    """What is on one tensor now, by the digest of its signature; a copy."""
    anchor = anchor_of(module, attribute)
    return dict(anchor.deltas) if anchor else {}


def refuse_twice(on: Sequence[Place], off: Sequence[Place]) -> None:
    """Refuse what is on the model already.

    Raises:
        PatchStateError: naming the signature.
    """
    seen: set[tuple[nn.Module, str, str]] = set()
    gone = {(module, attribute, delta.order) for module, attribute, delta in off}
    for module, attribute, delta in on:
        there = delta.order in deltas_on(module, attribute) and (module, attribute, delta.order) not in gone
        if (module, attribute, delta.order) in seen or there:
            raise PatchStateError(
                f"the model carries this very signature ({delta.signature.config.corruption.name}) already; "
                "use set_alpha to change its strength. active_patches(model) lists the handles."
            )
        seen.add((module, attribute, delta.order))


def tensor_of(module: nn.Module, attribute: str) -> torch.Tensor:
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


def places(
    signature: RobustWeightSignature, alpha: float, plan: SignaturePlan, homes: Mapping[str, nn.Module]
) -> list[Place]:
    """What one signature adds where. `homes`: the owning module of each tensor's name, as far as it exists."""
    found: list[Place] = []
    for b in plan.bindings:
        if b.model in homes:
            owner, attribute = homes[b.model], b.model.rpartition(".")[2]
            shape = tuple(tensor_of(owner, attribute).shape)
            found.append((owner, attribute, Delta(b.model, shape, signature, b.pieces, alpha)))
    return found


def path_of(name: str) -> str:
    """The module path of a tensor's name."""
    return name.rpartition(".")[0]


def find_owner(model: nn.Module, name: str) -> nn.Module | None:
    """The module that holds a tensor now."""
    try:
        return model.get_submodule(path_of(name))
    except AttributeError:
        return None
