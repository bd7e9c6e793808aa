"""Numbers as bits: compared, hashed, and counted in steps from one number of a dtype to the next."""

from __future__ import annotations

import numpy as np
import torch
import xxhash

_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def integer_of(dtype: torch.dtype) -> torch.dtype:
    """The integers of the same size."""
    return _INTEGER[dtype.itemsize]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two flat tensors of one dtype hold the same bits: -0.0 is not 0.0, and NaN is itself."""
    if a.is_cpu and b.is_cpu:
        # Several times as fast as torch.equal on integers, and faster on wide ones.
        wide = np.int64 if not a.nbytes % 8 else np.int16
        return np.array_equal(np.frombuffer(bytes_of(a), wide), np.frombuffer(bytes_of(b), wide))
    kind = integer_of(a.dtype)
    return torch.equal(a.detach().view(kind), b.detach().view(kind).to(a.device))


def digest(values: torch.Tensor) -> bytes:
    """Of the bits of a flat tensor: against accidents, at the speed of memory."""
    return xxhash.xxh3_128_digest(bytes_of(values))


def bytes_of(values: torch.Tensor) -> memoryview:
    """The bytes of a flat tensor."""
    return values.detach().cpu().view(torch.uint8).numpy().data


def ordinal(values: torch.Tensor) -> torch.Tensor:
    """Where each number stands in the order of all numbers of its dtype; -0.0 stands before 0.0."""
    found = _mirrored(values.cpu().view(integer_of(values.dtype)))
    return found.to(torch.int32) if found.dtype == torch.int16 else found  # room for differences


def value_at(order: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The numbers that stand there."""
    return _mirrored(order.to(integer_of(dtype))).view(dtype)


def _mirrored(bits: torch.Tensor) -> torch.Tensor:
    """Sign and magnitude <-> two's complement."""
    return bits ^ ((bits >> (8 * bits.element_size() - 1)) & torch.iinfo(bits.dtype).max)
