"""Which part of a live tensor this process holds: all of it, or some rows of a DTensor (FSDP2)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a tensor, from the `first` on, in the memory of the tensor itself."""

    values: torch.Tensor
    first: int

    @property
    def offset(self) -> int:
        """Elements of the whole tensor that come before it."""
        return self.first * math.prod(self.values.shape[1:])


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether a tensor is spread over processes."""
    return type(tensor).__name__ == "DTensor"


def why_not(tensor: torch.Tensor) -> str | None:
    """Why a DTensor cannot be patched part by part, in words."""
    placed: Any = tensor
    for placement in placed.placements:
        if not (placement.is_replicate() or (type(placement).__name__ == "Shard" and placement.dim == 0)):
            return f"it is a DTensor placed as {placement!r}; expected whole copies, or shards of its first axis"
    return None


def part_of(tensor: torch.Tensor) -> Part:
    """What this process holds of a tensor."""
    if not is_sharded(tensor):
        return Part(tensor.detach(), 0)
    placed: Any = tensor
    first, rows = 0, tensor.shape[0] if tensor.ndim else 1
    coordinate = placed.device_mesh.get_coordinate()
    for axis, placement in enumerate(placed.placements):
        if not placement.is_replicate():
            # As torch.chunk does it: equal runs, the last ones shorter or empty.
            run = -(-rows // placed.device_mesh.size(axis))
            skipped = min(coordinate[axis] * run, rows)
            first, rows = first + skipped, min(run, rows - skipped)
    return Part(placed.to_local().detach(), first)


def reshard(model: nn.Module) -> None:
    """Have FSDP2 let go of whole tensors that it keeps after a forward pass: what is written to them would be lost."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for module in model.modules():
            if any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__):
                module.reshard()  # type: ignore[operator]


def agree(tensors: Collection[torch.Tensor], failed: bool) -> bool:
    """Whether any process that shares these tensors has failed. Every one of them has to call this."""
    meshes = {t.device_mesh for t in tensors if is_sharded(t)}  # type: ignore[attr-defined]
    for mesh in sorted(meshes, key=repr):
        flag = torch.tensor([float(failed)], device=mesh.device_type)
        for axis in range(mesh.ndim):
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=mesh.get_group(axis))
        failed = bool(flag.item())
    return failed


def summed(tensors: Sequence[torch.Tensor], values: Sequence[float]) -> list[float]:
    """Numbers that are about the own parts of tensors, summed over the processes that share these."""
    found = list(values)
    meshes = {t.device_mesh for t in tensors if is_sharded(t)}  # type: ignore[attr-defined]
    for mesh in sorted(meshes, key=repr):
        own = [i for i, t in enumerate(tensors) if is_sharded(t) and t.device_mesh == mesh]  # type: ignore[attr-defined]
        # What is there in several copies counts once.
        told = torch.tensor([values[i] / _copies(tensors[i]) for i in own], device=mesh.device_type)
        for axis in range(mesh.ndim):
            torch.distributed.all_reduce(told, torch.distributed.ReduceOp.SUM, group=mesh.get_group(axis))
        for i, value in zip(own, told.tolist(), strict=True):
            found[i] = value
    return found


def _copies(tensor: torch.Tensor) -> int:
    placed: Any = tensor
    return math.prod(placed.device_mesh.size(i) for i, p in enumerate(placed.placements) if p.is_replicate())
