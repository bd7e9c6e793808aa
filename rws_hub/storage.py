"""Which live tensors share memory. Names do not tell: tied, viewed and expanded tensors look like any other."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Extent:
    """The bytes of one dense tensor: its device, the first byte and the one behind the last, and its exact layout."""

    device: torch.device
    start: int
    stop: int
    layout: tuple[object, ...]

    def same(self, other: Extent) -> bool:
        """The very same elements in the same order: a second name of one tensor."""
        return (self.device, self.start, self.layout) == (other.device, other.start, other.layout)

    def touches(self, other: Extent) -> bool:
        """Whether any byte may be common."""
        return self.device == other.device and self.start < other.stop and other.start < self.stop


def extent(tensor: torch.Tensor) -> Extent | None:
    """Where a tensor lies; None if it has no memory of its own to speak of (meta, sparse, empty, a subclass)."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) or type(tensor).__name__ == "Buffer"
    if not plain or tensor.is_meta or tensor.layout != torch.strided or not tensor.numel():
        return None
    reach = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    layout = (tensor.dtype, tuple(tensor.shape), tensor.stride())
    start = tensor.data_ptr()
    return Extent(tensor.device, start, start + (reach + 1) * tensor.element_size(), layout)


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether two elements may share memory (expanded views, sliding windows)."""
    reach = 0
    for step, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1):
        if step <= reach:
            return True
        reach += (size - 1) * step
    return False
