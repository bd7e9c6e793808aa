"""Other ways to store the matrices of a weight difference, each written from what its authors say it does.

    signs     BitDelta (arXiv 2402.10193): one sign for each weight, and one scale for each tensor, the mean magnitude.
              Its scales are then trained on data; these are not, as nothing else here sees data.
    absmax    codes of b bits, from -(2^(b-1) - 1) to 2^(b-1) - 1, of the largest magnitude of a group of weights in
              memory order, float16; or of a whole tensor, which with b = 4 is what deltatensors does.
    low_rank  the truncated singular value decomposition, as two float16 factors of one rank for all tensors, as
              mergekit's extraction of LoRAs from a model and its twin; a kernel is a matrix of its output channels.

All of them are given what no published one does: zstd, and of several layouts the one that is smallest with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rws_hub import frames

Deltas = Mapping[str, Tensor]  # float32, of two or more axes


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Bytes that all matrices take, shapes and names not counted; and what a reader makes of them, float32 by name."""

    nbytes: int
    decoded: dict[str, Tensor]


def signs(deltas: Deltas) -> Stored:
    """One bit for each weight, 4 bytes for each tensor."""
    scales = {n: d.abs().mean() for n, d in deltas.items()}
    codes = [(d.reshape(-1) >= 0).to(torch.uint8).numpy() for d in deltas.values()]
    decoded = {n: torch.where(d >= 0, scales[n], -scales[n]) for n, d in deltas.items()}
    return Stored(_smallest(codes, 1) + 4 * len(deltas), decoded)


def absmax(deltas: Deltas, bits: int, group: int | None) -> Stored:
    """Rounded to the nearest code.

    Args:
        deltas: see there.
        bits: of a code, 2 to 8.
        group: weights that share a scale; None is a whole tensor.
    """
    most = 2 ** (bits - 1) - 1
    codes, scales, decoded = [], 0, {}
    for name, delta in deltas.items():
        flat = delta.reshape(-1)
        size = group or len(flat)
        rows = torch.nn.functional.pad(flat, (0, -len(flat) % size)).reshape(-1, size)
        largest = rows.abs().amax(1, keepdim=True).half().float()
        step = largest / most
        found = (rows / step.clamp_min(torch.finfo(torch.float32).tiny)).round().clamp(-most, most)
        codes.append((found.reshape(-1)[: len(flat)] + most).to(torch.uint8).numpy())
        scales += 2 * len(rows)
        decoded[name] = (found * step).reshape(-1)[: len(flat)].reshape(delta.shape)
    return Stored(_smallest(codes, bits) + scales, decoded)


def low_rank(deltas: Deltas, ranks: Sequence[int]) -> dict[int, Stored]:
    """The best approximation of every rank; a matrix that is no larger than its factors is kept itself."""
    found = {rank: Stored(0, {}) for rank in ranks}
    for name, delta in deltas.items():
        matrix = delta.reshape(len(delta), -1)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        root = values.sqrt()
        for rank in ranks:
            factors = [left[:, :rank] * root[:rank], root[:rank, None] * right[:rank]]
            if sum(f.numel() for f in factors) >= matrix.numel():
                factors = [matrix]
            halves = [f.half() for f in factors]
            whole = halves[0].float() if len(halves) == 1 else halves[0].float() @ halves[1].float()
            stored = found[rank]
            size = stored.nbytes + sum(2 * f.numel() for f in halves)
            found[rank] = Stored(size, {**stored.decoded, name: whole.reshape(delta.shape)})
    return found


def packed(codes: NDArray[np.uint8], bits: int) -> bytes:
    """Codes one behind the other, `bits` bits each, without gaps."""
    planes = np.unpackbits(codes[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(planes.reshape(-1)).tobytes()


def _smallest(codes: Sequence[NDArray[np.uint8]], bits: int) -> int:
    """Bytes of the smallest of: packed; packed, one code a byte, or codes aligned to half bytes, with zstd on it."""
    dense = [packed(c, bits) for c in codes]
    layouts = [dense, [c.tobytes() for c in codes]]
    if bits <= 4:
        layouts.append([packed(c, 4) for c in codes])
    small = (len(frames.compress(parts, sum(map(len, parts)))) for parts in layouts)
    return min(sum(map(len, dense)), *small)
