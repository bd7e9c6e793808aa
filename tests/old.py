"""What is written no more: codes of equal length with one scale per row or tensor, and the count-sketch."""

import base64
import math
from collections.abc import Mapping

import numpy as np
import torch

from rws_hub.codec import Packed, encode_plain, is_wide
from rws_hub.kinship import count_sketch
from rws_hub.names import Layout
from rws_hub.spec import Sketch

MIN_ROW = 32


def pack(delta: torch.Tensor, bits: int) -> Packed:
    """One delta as formats 1 and 2 store it."""
    shape = tuple(delta.shape)
    if not is_wide(shape):
        return encode_plain(shape, [delta], half=True).packed
    by_row = math.prod(shape[1:]) >= MIN_ROW
    codes, scales = quantize(delta.reshape(shape[0] if by_row else 1, -1), bits)
    return Packed(
        shape, "codes", "row" if by_row else "tensor", {"codes": pack_bits(codes, bits), "scales": scales.bfloat16()}
    )


def sketch(layout: Layout, weights: Mapping[str, torch.Tensor]) -> Sketch:
    """The count-sketch of clean weights."""
    levels = count_sketch(layout, lambda name, start, stop: weights[name][start:stop])
    return Sketch("countsketch-256-v1", base64.b64encode(levels.tobytes()).decode())


def quantize(rows: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales, one per row, of least squared error over 15 clipping points."""
    top = 2 ** (bits - 1) - 1
    best_error, best = torch.full((len(rows),), math.inf), torch.zeros(len(rows))
    for clip in np.linspace(1.0, 0.3, 15):
        scale = (rows.abs().amax(dim=1) * (float(clip) / top)).bfloat16().float()
        error = (_codes(rows, scale, top) * scale[:, None] - rows).square().sum(dim=1)
        best = torch.where(error < best_error, scale, best)
        best_error = torch.minimum(error, best_error)
    return _codes(rows, best, top).to(torch.int8), best


def pack_bits(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes as a dense little-endian stream in offset binary: 8 of them fill `bits` bytes."""
    fields = [int(c) + 2 ** (bits - 1) for c in codes.reshape(-1)]
    fields += [2 ** (bits - 1)] * (-len(fields) % 8)
    number = sum(field << (bits * i) for i, field in enumerate(fields))
    return torch.frombuffer(bytearray(number.to_bytes(len(fields) // 8 * bits, "little")), dtype=torch.uint8)


def _codes(rows: torch.Tensor, scale: torch.Tensor, top: int) -> torch.Tensor:
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))[:, None]
    return torch.where(scale[:, None] > 0, (rows / safe).round().clamp(-top, top), torch.zeros_like(rows))
