"""How far a patch would move a model: the norm of what is added, in terms of the weights that it is added to.

The norm of a delta is counted from what is stored, never taken from what a config says of it. That of the weights is
estimated from some of them where that is far from any limit, and else counted too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from rws_hub.codec import is_wide, norm_of, unpack
from rws_hub.deltas import Delta
from rws_hub.plan import Change

# So many elements, in so many runs, stand for a tensor that has more of them.
_SAMPLE, _RUNS = 2**13, 128
# An estimate is trusted up to this share of a limit: filters and channels may be pruned, or scaled by themselves.
TRUSTED = 0.5

# The squared norm of what a tensor of a model is measured against, by its name.
Square = Callable[[str], float]


def square_of(values: torch.Tensor) -> torch.Tensor:
    """||values||^2, estimated from some of them if they are many; one number, where the values are."""
    count, length = values.numel(), _SAMPLE // _RUNS
    if count <= _SAMPLE:
        return exact_square_of(values)
    flat = values.reshape(-1)
    # Odd, so that runs begin at other places of one filter after the other.
    stride = ((count - length) // (_RUNS - 1) - 1) | 1
    some = flat.as_strided((_RUNS, length), (stride, 1), flat.storage_offset())
    return exact_square_of(some).mul(count / _SAMPLE)


def exact_square_of(values: torch.Tensor) -> torch.Tensor:
    """||values||^2; one number, where the values are."""
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    norm: torch.Tensor = torch.linalg.vector_norm(values, dtype=wide)
    return norm.square()


def changes(touched: Mapping[str, Sequence[Delta]], square: Square) -> tuple[tuple[Change, ...], float | None]:
    """What deltas do to a model: tensor by tensor, the largest change first, and to all wide tensors together.

    Args:
        touched: the model's names, and all that shall be on each of these tensors.
        square: of a wide tensor its own squared norm, of a vector that of all tensors of its layer; a running
            variance, as the square of a standard deviation, counts with its sum.
    """
    found: list[Change] = []
    moved = whole = 0.0
    for names in _together(touched):
        on = {(d.order, p.canonical): d for n in names for d in touched[n] for p in d.pieces if d.alpha}
        if not on:
            continue
        by_signature: dict[str, float] = {}
        stated: dict[str, float] = {}
        for (order, canonical), delta in on.items():
            packed, config = delta.signature.tensors[canonical], delta.signature.config
            norm = abs(delta.alpha) * norm_of(packed, config.codec.bits)
            by_signature[order] = math.hypot(by_signature.get(order, 0.0), norm)
            recorded = abs(delta.alpha) * config.tensors[canonical].relative_norm
            stated[order] = max(stated.get(order, 0.0), recorded)
        norm = sum(by_signature.values())
        if next(iter(on.values())).op == "multiply":
            count = sum(d.signature.elements(c) for (_, c), d in on.items()) / len(by_signature)
            found.append(Change(names, norm / math.sqrt(count) / 2, None, _factor(on)))
            continue
        wide = is_wide(touched[names[0]][0].shape)
        under = sum(square(n) for n in names)
        if wide:
            moved, whole = math.hypot(moved, norm), whole + under
        found.append(Change(names, ratio(norm, under), sum(stated.values()) if wide else None, None))
    found.sort(key=lambda change: -change.relative_norm)
    return tuple(found), ratio(moved, whole) if moved or whole else None


def ratio(norm: float, square: float) -> float:
    """A norm in terms of one whose square is given; nothing is no change of nothing."""
    if not math.isfinite(square):
        return 0.0  # of weights that are not finite nothing can be said
    return norm / math.sqrt(square) if square > 0 else math.inf if norm else 0.0


def excess(found: Sequence[Change], touched: Mapping[str, Sequence[Delta]], limit: float) -> str:
    """Why changes are refused; nothing if none is beyond the limit."""
    if not found or found[0].relative_norm <= limit:
        return ""
    worst = found[0]
    on = {d.order: d for n in worst.names for d in touched[n] if d.alpha}
    strengths = ", ".join(f"{d.signature.config.corruption.name}={d.alpha:g}" for d in on.values())
    share = limit / worst.relative_norm
    if not share:
        most = "no strength is within it"
    elif len(on) == 1:
        alpha = next(iter(on.values())).alpha
        most = f"the largest within it is alpha {math.copysign(_floor(abs(alpha) * share), alpha):g}"
    else:
        most = f"within it are all strengths times {_floor(share):g}"
    kind = "the logarithm of its standard deviations by" if worst.factor is not None else "it by"
    times = "" if worst.factor is not None else " times its norm"
    return (
        f"{', '.join(worst.names)}: {strengths} would change {kind} {worst.relative_norm:.3g}{times}, and "
        f"max_relative_norm is {limit:g} (docs/RELIABILITY.md); {most}. To insist, patch with "
        f"max_relative_norm={_ceil(worst.relative_norm):g} (--max-relative-norm)."
    )


def _together(touched: Mapping[str, Sequence[Delta]]) -> list[tuple[str, ...]]:
    """Tensors of a model that a signature has in one, or the other way round, so that every twin gives one answer."""
    group: dict[tuple[str, str], int] = {}
    members: list[list[str]] = []
    for name, deltas in touched.items():
        keys = {(d.order, p.canonical) for d in deltas for p in d.pieces}
        first, *others = sorted({group[k] for k in keys if k in group}) or [len(members)]
        members.append([])
        for other in others:
            members[first] += members[other]
            members[other] = []
            group |= {k: first for k, v in group.items() if v == other}
        members[first].append(name)
        group |= dict.fromkeys(keys, first)
    return [tuple(names) for names in members if names]


def _factor(on: Mapping[tuple[str, str], Delta]) -> float:
    """By which a running variance is multiplied or divided at most; at least 1."""
    most: dict[str, float] = {}
    for (order, canonical), delta in on.items():
        bits = delta.signature.config.codec.bits
        largest = float(unpack(delta.signature.tensors[canonical], bits).abs().max())
        most[order] = max(most.get(order, 0.0), abs(delta.alpha) * largest)
    total = sum(most.values())
    return math.exp(total) if total < 700 else math.inf


def _floor(value: float) -> float:
    """To three digits, down."""
    return _digits(value, math.floor)


def _ceil(value: float) -> float:
    """To three digits, up."""
    return _digits(value, math.ceil)


def _digits(value: float, to: Callable[[float], int]) -> float:
    if value == 0 or not math.isfinite(value):
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return to(value / unit) * unit
