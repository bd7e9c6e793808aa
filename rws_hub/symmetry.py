"""Which tensors of one model could change places without changing its function: no output tells them apart.

Asked are tensors that meet the same activations in the same operation, such as the first layers of two branches that
are added up, and those that meet in one operation. Summands that come in one after another, such as two biases, can
change places too, but `lockstep` tells them apart by when they come.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations

import torch
from torch import nn

from rws_hub.errors import InferenceError
from rws_hub.lockstep import Meeting, meetings, pair_up, renew
from rws_hub.pairing import Pair, copy_part
from rws_hub.trials import floating, gradients, kind_of, outputs, refill, tie

# Relative differences of what is equal but for rounding.
_EQUAL = 1e-8

_Names = tuple[str, ...]
_Swap = tuple[_Names, _Names]


def exchangeable(
    model: nn.Module, images: torch.Tensor, key: int, asked: Collection[str], seed: int, tick: Callable[[], object]
) -> tuple[tuple[str, str], ...]:
    """Pairs of tensors that could change places, all those of a branch with them.

    Args:
        model: in float64; its values are lost.
        images: an input, float64.
        key: which of its outputs counts.
        asked: the names to look at.
        seed: of the random weights.
        tick: called after every pass.
    """
    own = floating(model)
    refill(own, seed)
    candidates = list(_candidates(meetings(model, own, images), {n: own[n] for n in own if n in asked}))
    if not candidates:
        return ()
    # If two tensors can change places, the output hangs equally on both where all that could be equal is.
    tie(own)
    _, slopes = gradients(model, images, key)
    nearest: dict[_Names, _Names] = {}
    for one, other in candidates:
        if all(_equal(slopes.get(a), slopes.get(b)) for a, b in zip(one, other, strict=True)):
            nearest[other] = one
    left = [(one, other) for other, one in nearest.items()]
    found: dict[tuple[str, str], None] = {}
    while left:
        batch = _apart(left)
        moved = _exchanged(model, images, key, batch, seed, tick)
        if not moved and len(batch) > 1:  # one of them is not, or lies within another
            moved = [pair for each in batch for pair in _exchanged(model, images, key, [each], seed, tick)]
        found.update({(min(a, b), max(a, b)): None for a, b in moved if a in asked})
        left = [c for c in left if c not in batch]
    return tuple(found)


def _apart(candidates: Sequence[_Swap]) -> list[_Swap]:
    """As many as share no tensor, to be tried at once."""
    used: set[str] = set()
    chosen: list[_Swap] = []
    for one, other in candidates:
        if used.isdisjoint(one + other):
            used.update(one + other)
            chosen.append((one, other))
    return chosen


def _candidates(met: list[Meeting], own: Mapping[str, torch.Tensor]) -> Iterator[_Swap]:
    seen: set[str] = set()
    earlier: list[tuple[_Names, Meeting]] = []
    for meeting in met:
        names = tuple(n for n in meeting.names if n in own and n not in seen)
        seen.update(names)
        if not names:
            continue
        yield from (((a,), (b,)) for a, b in combinations(names, 2) if _sort(own, (a,)) == _sort(own, (b,)))
        for others, one in earlier:
            if one.call == meeting.call and _sort(own, others) == _sort(own, names) and one.like(meeting.print):
                yield others, names
        earlier.append((names, meeting))


def _sort(own: Mapping[str, torch.Tensor], names: _Names) -> list[tuple[object, ...]]:
    return [(*own[n].shape, kind_of(n, own[n])) for n in names]


def _equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return float((a - b).abs().max()) <= _EQUAL * float(a.abs().max())


def _exchanged(
    model: nn.Module,
    images: torch.Tensor,
    key: int,
    swaps: Sequence[_Swap],
    seed: int,
    tick: Callable[[], object],
) -> list[tuple[str, str]]:
    """All that changes places in a model if these do; empty if it is not the same function then."""
    renew(model)  # what it keeps of a run may belong to a graph, which no copy takes
    twin = copy.deepcopy(model)
    tensors = floating(model), floating(twin)
    for number, own in enumerate(tensors):
        refill(own, seed + number)
    places = [pair for one, other in swaps for pair in zip(one + other, other + one, strict=True)]
    given = [Pair(a, (0, 1), b, (0, 1)) for a, b in places]
    try:
        pairs, *_ = pair_up(model, twin, tensors, images, False, tick, given)
        refill(tensors[0], seed + 2)
        for pair in pairs:
            copy_part(tensors[0][pair.a], tensors[1][pair.b], pair)
        wanted, got = (outputs(m, images)[key] for m in (model, twin))
    except InferenceError:
        return []
    if float((wanted - got).abs().max()) > _EQUAL * float(wanted.abs().max()):
        return []
    return [(p.a, p.b) for p in pairs if p.a != p.b]
