"""Float deltas <-> packed codes (docs/SPEC.md, section 5): uniform, symmetric, zero exactly representable.

A value is `code * step`, rounded once to float32; codes are written as symbols (`symbols`), which an entropy coder
makes small. Formats 1 and 2 have codes of equal length instead, b bits each in a dense little-endian stream, with
bfloat16 scales, one per row or per tensor: they are read for ever, and written no more.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from rws_hub import symbols
from rws_hub.errors import CorruptArtifactError
from rws_hub.rate import Grid
from rws_hub.rounding import quantize, taps
from rws_hub.spec import Codec, Encoding, Granularity, TensorFacts

# A half-precision vector must keep this relative error, or it is stored in single precision.
MAX_HALF_ERROR = 1e-3

# Elements worked on at a time: encoding a tensor of any size takes little more memory than the tensor.
_BLOCK = 2**16


@dataclass(frozen=True, slots=True)
class Packed:
    """One delta as stored. `parts` are its tensors: "symbols", "escapes", "step"; "codes", "scales"; or "values"."""

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


def encode_wide(shape: tuple[int, ...], blocks: Iterable[torch.Tensor], grid: Grid) -> Encoded:
    """Encode a delta that arrives as float32 blocks of rows, in order; a large one is never whole in memory."""
    count, written = math.prod(shape), 0
    # A mapping of its own, so that a signature of any size is given back to the system when it is dropped.
    codes = torch.frombuffer(mmap.mmap(-1, 2 * count), dtype=torch.int16)
    step, length = grid.step(shape), taps(shape)
    error = square = 0.0
    for block in blocks:
        for part in block.reshape(-1, length).split(max(1, _BLOCK // length)):  # type: ignore[no-untyped-call]
            found = quantize(part, step)
            codes[written : written + found.numel()] = found.reshape(-1)
            written += found.numel()
            error += norm((found.float() * step).sub_(part)) ** 2
            square += norm(part) ** 2
    stream, escapes = symbols.pack(codes, grid.width)
    steps = torch.tensor([step], dtype=torch.float32, device="cpu")
    packed = Packed(shape, "symbols", None, {"symbols": stream, "escapes": escapes, "step": steps})
    return Encoded(packed, math.sqrt(error / square) if square else 0.0, math.sqrt(square))


def encode_plain(shape: tuple[int, ...], blocks: Iterable[torch.Tensor], half: bool) -> Encoded:
    """Keep a delta as it is: in half precision if that is asked for and fine enough, else in single."""
    delta = torch.cat([b.reshape(-1) for b in blocks]).reshape(shape)
    halves = delta.to(torch.float16)
    fine = bool(torch.isfinite(halves).all()) and relative_error(delta, halves.float()) <= MAX_HALF_ERROR
    keep = half and fine
    packed = Packed(shape, "float16" if keep else "float32", None, {"values": halves if keep else delta})
    return Encoded(packed, relative_error(delta, unpack(packed, 32)), norm(delta))


def is_wide(shape: tuple[int, ...]) -> bool:
    """Whether a tensor has more than one axis longer than 1: those are quantized, vectors are not."""
    return sum(d > 1 for d in shape) > 1


def unpack(packed: Packed, bits: int) -> torch.Tensor:
    """The float32 delta. Bit-identical everywhere: one exact integer times one float, rounded once."""
    if packed.encoding == "symbols":
        step = packed.parts["step"]
        codes = symbols.unpack(packed.parts["symbols"], packed.parts["escapes"], bits, math.prod(packed.shape))
        return codes.mul_(step).reshape(packed.shape)
    if packed.encoding != "codes":
        # A copy: what is handed out must not be the stored values themselves.
        return packed.parts["values"].to(torch.float32, copy=True).reshape(packed.shape)
    short = unpack_bits(packed.parts["codes"], bits, math.prod(packed.shape))
    scales = packed.parts["scales"].to(torch.float32)
    return short.to(torch.float32).reshape(len(scales), -1).mul_(scales[:, None]).reshape(packed.shape)


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


def unpack_bits(stream: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The first `count` codes of a dense stream of formats 1 and 2, int8."""
    groups = np.zeros((stream.numel() // bits, 8), np.uint8)
    groups[:, :bits] = stream.numpy().reshape(-1, bits)
    words = groups.view("<u8").reshape(-1)
    codes = np.empty((len(words), 8), np.int8)
    mask, offset = np.uint64(2**bits - 1), 2 ** (bits - 1)
    for i in range(8):
        codes[:, i] = (((words >> np.uint64(bits * i)) & mask).astype(np.int16) - offset).astype(np.int8)
    return torch.from_numpy(codes.reshape(-1)[:count])
