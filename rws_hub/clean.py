"""A live model as it was before it was patched: read for judging it, while whatever is on it stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import torch

from rws_hub import deltas, shards
from rws_hub.anchors import Anchor, Home, anchor_of, target_of, tensor_of
from rws_hub.bounds import exact_square_of, square_of
from rws_hub.codec import is_wide
from rws_hub.deltas import Scratch, moving
from rws_hub.kinship import marked
from rws_hub.storage import extent
from rws_hub.writing import clean_values

# What can be patched can be read; anything else beside it is left out.
_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


def rows_near(home: Home, start: int, stop: int) -> torch.Tensor:
    """Rows [start, stop) of the clean values of a tensor that takes summands, on the CPU.

    Where something is on it they are what subtracting gives, which is wrong by a rounding; NaN in rows that another
    process holds, infinity for whatever is not finite in those of this one (`kinship.marked`).
    """
    live, anchor = tensor_of(*home), anchor_of(*home)
    if anchor is None and not shards.is_sharded(live):
        return marked(live.detach()[start:stop].cpu())
    part = shards.part_of(live)
    first, last = max(start, part.first), min(stop, part.first + len(part.values))
    held = part.values[max(0, first - part.first) : max(0, last - part.first)]
    if anchor is not None and held.numel() and (on := moving(anchor.deltas.values())):
        flat = held.reshape(-1)
        at = first * (flat.numel() // len(held))
        change = deltas.total(on, at, flat.numel(), Scratch(flat.numel(), flat.device))
        held = held if change is None else (flat.double() - change).view(held.shape)
    if not shards.is_sharded(live):
        return marked(held.cpu())
    found = torch.full((stop - start, *live.shape[1:]), torch.nan, dtype=torch.float64, device="cpu")
    if first < last:
        found[first - start : last - start] = marked(held.cpu())
    return found


def whole(home: Home, name: str) -> torch.Tensor:
    """The clean values of a tensor that is here as a whole, on the CPU, bit for bit; `name` is for messages.

    Raises:
        PatchStateError: they cannot be restored.
    """
    live, anchor = tensor_of(*home), anchor_of(*home)
    if anchor is None:
        return live.detach().cpu()
    return clean_values(target_of(name, live, anchor, anchor)).view(live.shape).cpu()


def layer_of(home: Home) -> list[Home]:
    """What a tensor is measured against: itself if it is wide, or else all that its layer has of numbers."""
    module, attribute = home
    if is_wide(tuple(tensor_of(module, attribute).shape)):
        return [home]
    own = {**module._parameters, **module._buffers}
    return [(module, n) for n, t in own.items() if t is not None and _readable(t)]


def sizes(homes: Iterable[Home], *, exact: bool = False) -> dict[Home, float]:
    """The squared norms of clean values, estimated or `exact`; of a running variance, a square already, the sum."""
    found: dict[Home, float] = {}
    fresh: dict[torch.device, list[Home]] = {}
    for home in dict.fromkeys(homes):
        if (anchor := anchor_of(*home)) is not None:
            found[home] = _restored(home, anchor) if exact else anchor.square
        else:
            fresh.setdefault(tensor_of(*home).device, []).append(home)
    for of_device in fresh.values():
        found |= zip(of_device, _measured(of_device, exact_square_of if exact else square_of), strict=True)
    return found


def _restored(home: Home, anchor: Anchor) -> float:
    live = tensor_of(*home)
    if home[1] == "running_var":
        return anchor.square
    clean = clean_values(target_of(home[1], live, anchor, anchor))
    return shards.summed([live], [float(exact_square_of(clean))])[0]


def _measured(homes: Collection[Home], square: Callable[[torch.Tensor], torch.Tensor]) -> list[float]:
    live = [tensor_of(*home) for home in homes]
    with torch.no_grad():
        squares = [
            (part.sum() if name == "running_var" else square(part)).float()
            for part, (_, name) in ((shards.part_of(t).values, home) for t, home in zip(live, homes, strict=True))
        ]
        return shards.summed(live, torch.stack(squares).tolist())


def _readable(tensor: torch.Tensor) -> bool:
    return tensor.dtype in _DTYPES and (shards.is_sharded(tensor) or extent(tensor) is not None)
