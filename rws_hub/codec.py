"""Float deltas <-> packed codes (docs/SPEC.md, section 5): uniform, symmetric, zero exactly representable.

A value is `code * scale`; codes are signed integers of 2 to 8 bits in [-(2^(b-1)-1), 2^(b-1)-1], stored
offset by 2^(b-1) as a dense little-endian bit stream (8 codes fill exactly b bytes). Scales are bfloat16,
one per row of axis 0 or one per tensor, so that row blocks can be split off after decoding without loss.
The scale is rounded *before* the codes are chosen: its rounding costs no accuracy.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from rws_hub.errors import CorruptArtifactError
from rws_hub.spec import Codec, Encoding, Granularity, TensorFacts

# Shorter rows would spend a noticeable part of a bit per weight on their scale.
MIN_ROW = 32
# A half-precision vector must keep this relative error, or it is stored in single precision.
MAX_HALF_ERROR = 1e-3
# Clipping points tried, as shares of the largest magnitude; the least squared error wins.
_CLIPS = tuple(float(c) for c in np.linspace(1.0, 0.3, 15))

# Elements worked on at a time: encoding a tensor of any size takes little more memory than the tensor.
_BLOCK = 2**16


@dataclass(frozen=True, slots=True)
class Packed:
    """One delta as stored. `parts` are the payload tensors by suffix ("codes", "scales" or "values")."""

    shape: tuple[int, ...]
    encoding: Encoding
    granularity: Granularity | None
    parts: dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A stored delta, ||decoded - delta|| / ||delta|| (0 for a zero delta), and ||delta||."""

    packed: Packed
    relative_error: float
    norm: float


def encode(shape: tuple[int, ...], blocks: Iterable[torch.Tensor], bits: int) -> Encoded:
    """Encode a delta that arrives as float32 blocks of rows, in order; a large one is never whole in memory.

    Vectors (at most one axis longer than 1) are kept in half precision, or single where half is too coarse.
    """
    wide = sum(d > 1 for d in shape) > 1
    if bits < 32 and wide and math.prod(shape[1:]) >= MIN_ROW:
        return _encode_rows(shape, blocks, bits)
    delta = torch.cat([b.reshape(-1) for b in blocks]).reshape(shape)
    if bits < 32 and wide:
        codes, scales = _quantize(delta.reshape(1, -1), bits)
        packed = Packed(shape, "codes", "tensor", {"codes": pack_bits(codes, bits), "scales": scales})
    else:
        half = delta.to(torch.float16)
        coarse = not bool(torch.isfinite(half).all()) or relative_error(delta, half.float()) > MAX_HALF_ERROR
        keep = bits == 32 or coarse
        packed = Packed(shape, "float32" if keep else "float16", None, {"values": delta if keep else half})
    return Encoded(packed, relative_error(delta, unpack(packed, bits)), norm(delta))


def _encode_rows(shape: tuple[int, ...], blocks: Iterable[torch.Tensor], bits: int) -> Encoded:
    length = math.prod(shape[1:])
    # A mapping of its own, so that a signature of any size is given back to the system when it is dropped.
    stream = torch.frombuffer(mmap.mmap(-1, packed_bytes(math.prod(shape), bits)), dtype=torch.uint8)
    scales = torch.empty(shape[0], dtype=torch.bfloat16, device="cpu")
    pending = torch.empty(0, dtype=torch.int8, device="cpu")
    error = square = 0.0
    row, written, step = 0, 0, max(1, _BLOCK // length)
    for block in blocks:
        for rows in block.reshape(-1, length).split(step):  # type: ignore[no-untyped-call]
            codes, scale = _quantize(rows, bits)
            scales[row : row + len(rows)] = scale
            row += len(rows)
            error += norm((codes.float() * scale[:, None].float()).sub_(rows)) ** 2
            square += norm(rows) ** 2
            pending = torch.cat([pending, codes.reshape(-1)])
            whole = len(pending) if row == shape[0] else len(pending) // 8 * 8
            packed = pack_bits(pending[:whole], bits)
            stream[written : written + len(packed)] = packed
            written, pending = written + len(packed), pending[whole:]
    stored = Packed(shape, "codes", "row", {"codes": stream, "scales": scales})
    return Encoded(stored, math.sqrt(error / square) if square else 0.0, math.sqrt(square))


def unpack(packed: Packed, bits: int) -> torch.Tensor:
    """The float32 delta. Bit-identical everywhere: one exact integer times one float, rounded once."""
    if packed.encoding != "codes":
        # A copy: what is handed out must not be the stored values themselves.
        return packed.parts["values"].to(torch.float32, copy=True).reshape(packed.shape)
    codes = unpack_bits(packed.parts["codes"], bits, math.prod(packed.shape))
    scales = packed.parts["scales"].to(torch.float32)
    return codes.to(torch.float32).reshape(len(scales), -1).mul_(scales[:, None]).reshape(packed.shape)


def relative_error(exact: torch.Tensor, decoded: torch.Tensor) -> float:
    """||decoded - exact|| / ||exact||, unitless; 0 for a zero delta."""
    size = norm(exact)
    squares = 0.0
    for x, y in zip(_blocks(exact), _blocks(decoded), strict=True):
        difference = y.double().sub_(x)
        squares += float(difference @ difference)
    return math.sqrt(squares) / size if size else math.sqrt(squares)


def norm(tensor: torch.Tensor) -> float:
    """Euclidean norm of all elements, in float64."""
    return math.sqrt(sum(float(x.double() @ x.double()) for x in _blocks(tensor)))


def _blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = tensor.reshape(-1)
    return (flat[i : i + _BLOCK] for i in range(0, flat.numel(), _BLOCK))


def part_specs(facts: TensorFacts, shape: tuple[int, ...], codec: Codec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What the payload must hold for one delta: suffix -> (safetensors dtype, shape)."""
    if facts.encoding == "codes":
        scales = shape[0] if facts.granularity == "row" else 1
        return {"codes": ("U8", (packed_bytes(math.prod(shape), codec.bits),)), "scales": ("BF16", (scales,))}
    return {"values": ("F16" if facts.encoding == "float16" else "F32", shape)}


def check_values(name: str, packed: Packed, bits: int) -> None:
    """Refuse numbers that no encoder writes.

    Raises:
        CorruptArtifactError: a non-finite value, a negative scale, a code out of range or stray padding bits.
    """
    for suffix in ("scales", "values"):
        part = packed.parts.get(suffix)
        if part is not None and not bool(torch.isfinite(part).all()):
            raise CorruptArtifactError(f"{name}.{suffix} holds a value that is not finite")
    if packed.encoding != "codes":
        return
    if bool((packed.parts["scales"] < 0).any()):
        raise CorruptArtifactError(f"{name}.scales holds a negative scale")
    count = math.prod(packed.shape)
    padded = unpack_bits(packed.parts["codes"], bits, -(-count // 8) * 8)
    if bool((padded[:count] < -(2 ** (bits - 1)) + 1).any()) or bool((padded[count:] != 0).any()):
        raise CorruptArtifactError(f"{name}.codes holds a code outside its {bits}-bit range")


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` codes: whole groups of 8 codes, `bits` bytes each."""
    return -(-count // 8) * bits


def pack_bits(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Signed codes of any shape -> uint8 vector. Padding codes are zero."""
    flat = codes.reshape(-1).numpy()
    stream = np.empty((-(-flat.size // 8), bits), np.uint8)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK].astype(np.int16) + 2 ** (bits - 1)
        groups = np.full((-(-block.size // 8), 8), 2 ** (bits - 1), np.uint64)
        groups.reshape(-1)[: block.size] = block
        words = np.zeros(len(groups), "<u8")
        for i in range(8):
            words |= groups[:, i] << np.uint64(bits * i)
        stream[start // 8 : start // 8 + len(groups)] = words.view(np.uint8).reshape(-1, 8)[:, :bits]
    return torch.from_numpy(stream.reshape(-1))


def unpack_bits(stream: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Inverse of `pack_bits`: the first `count` codes as int8."""
    groups = np.zeros((stream.numel() // bits, 8), np.uint8)
    groups[:, :bits] = stream.numpy().reshape(-1, bits)
    words = groups.view("<u8").reshape(-1)
    codes = np.empty((len(words), 8), np.int8)
    mask, offset = np.uint64(2**bits - 1), 2 ** (bits - 1)
    for i in range(8):
        codes[:, i] = (((words >> np.uint64(bits * i)) & mask).astype(np.int16) - offset).astype(np.int8)
    return torch.from_numpy(codes.reshape(-1)[:count])


def _quantize(rows: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (int8, as `rows`) and scales (bfloat16, one per row) of least squared error over `_CLIPS`."""
    top = 2 ** (bits - 1) - 1
    largest = rows.abs().amax(dim=1)
    best_error = torch.full_like(largest, math.inf)
    best_scale = torch.zeros_like(largest)
    for clip in _CLIPS:
        scale = (largest * (clip / top)).to(torch.bfloat16).float()
        codes = _codes(rows, scale, top)
        error = (codes * scale[:, None] - rows).square_().sum(dim=1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
    return _codes(rows, best_scale, top).to(torch.int8), best_scale.to(torch.bfloat16)


def _codes(rows: torch.Tensor, scale: torch.Tensor, top: int) -> torch.Tensor:
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))[:, None]
    codes = torch.round(rows / safe).clamp_(-top, top)
    return torch.where(scale[:, None] > 0, codes, torch.zeros_like(codes))
