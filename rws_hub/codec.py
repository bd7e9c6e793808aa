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
from functools import lru_cache

import numpy as np
import torch

from rws_hub import factoring, factors, symbols
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
    """One delta as stored.

    `parts` are its tensors: "symbols", "escapes", "step"; "factors", "shifts", "step"; "codes", "scales"; or "values".
    Others follow from these and are not stored: "places", the elements that "escapes" belong to, and "squares", the sum
    of the squares of all other codes; and what `factors.parts` makes of factors, whose squares are summed when they are
    first asked for.
    """

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
    places, squares = symbols.scan("", stream, grid.width, count)
    parts = {
        "symbols": stream,
        "escapes": escapes,
        "places": places,
        "squares": squares,
        "step": torch.tensor([step], dtype=torch.float32, device="cpu"),
    }
    packed = Packed(shape, "symbols", None, parts)
    return Encoded(packed, math.sqrt(error / square) if square else 0.0, math.sqrt(square))


def encode_factors(name: str, shape: tuple[int, ...], blocks: Iterable[torch.Tensor], grid: Grid) -> Encoded:
    """Encode a delta that arrives as float32 blocks of rows as factors; the grid says which deltas can be."""
    delta = torch.cat([b.reshape(-1, shape[1]) for b in blocks])
    found = factoring.factor(delta, grid.step(shape))
    stream = (found.codes.to(torch.int16) + factors.TOP).to(torch.uint8).reshape(-1)
    parts = factors.parts(name, stream, found.shifts, shape[0])
    parts["step"] = torch.tensor([found.step], dtype=torch.float32, device="cpu")
    packed = Packed(shape, "factors", None, parts)
    return Encoded(packed, relative_error(delta, unpack(packed, grid.width)), norm(delta))


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
    delta = torch.empty(packed.shape, dtype=torch.float32, device="cpu")
    flat = delta.view(-1)
    scratch = torch.empty(min(_BLOCK, len(flat)), dtype=torch.uint8, device="cpu")
    for at in range(0, len(flat), _BLOCK):
        read(packed, bits, at, flat[at : at + _BLOCK], 1.0, scratch)
    return delta


def read(packed: Packed, bits: int, start: int, out: torch.Tensor, alpha: float, scratch: torch.Tensor) -> None:
    """Write alpha times the delta into `out`, from element `start` on in row-major order.

    What is written is fp32(code) * fp32(step * alpha), rounded once; a value that is kept as it is counts as a code,
    with a step of 1.

    Args:
        packed: the delta.
        bits: of its codes or symbols.
        start: the first element.
        out: float32 [n], on any device.
        alpha: patch strength, unitless.
        scratch: uint8, at least [n], on the device of `out`; what is in it does not matter.
    """
    stop, parts = start + out.numel(), packed.parts
    if packed.encoding == "symbols":
        symbols.read(parts["symbols"], bits, start, out, scratch)
        if parts["places"].numel():
            places = parts["places"].numpy()
            begin, end = np.searchsorted(places, (start, stop))
            if begin < end:
                own = torch.from_numpy(places[begin:end] - start).to(out.device)
                out[own] = parts["escapes"][begin:end].to(out.device).float()
        out.mul_(_rounded(float(parts["step"]) * alpha))
    elif packed.encoding == "factors":
        factors.read(parts["left"], parts["right"], start, out)
        out.mul_(_rounded(float(parts["step"]) * alpha))
    elif packed.encoding == "codes":
        first = start // 8 * 8
        short = unpack_bits(parts["codes"][first * bits // 8 : -(-stop // 8) * bits], bits, stop - first)
        out.copy_(short[start - first :])
        out.mul_(_scales(packed, start, stop, alpha).to(out.device))
    else:
        out.copy_(parts["values"].reshape(-1)[start:stop])
        out.mul_(_rounded(alpha))


def largest(packed: Packed, bits: int) -> float:
    """No element of the delta is larger in magnitude; not the least such number."""
    parts = packed.parts
    if packed.encoding == "symbols":
        code = int(parts["escapes"].int().abs().max()) if parts["escapes"].numel() else symbols.top(bits)
        return code * float(parts["step"])
    if packed.encoding == "factors":
        return float(parts["largest"]) * float(parts["step"])
    if packed.encoding == "codes":
        return float(2 ** (bits - 1) * parts["scales"].float().max())
    return float(parts["values"].float().abs().max())


@lru_cache(maxsize=256)
def _rounded(value: float) -> float:
    """To binary32; infinity, if it is too large: what comes of that is refused where it is written."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _scales(packed: Packed, start: int, stop: int, alpha: float) -> torch.Tensor:
    """fp32(scale * alpha) for elements start to stop of formats 1 and 2: one number, or one for each."""
    scaled = (packed.parts["scales"].double() * alpha).float()
    if len(scaled) == 1:
        return scaled
    length = math.prod(packed.shape[1:])
    row = start // length
    return scaled[row : -(-stop // length)].repeat_interleave(length)[start - row * length :][: stop - start]


def norm_of(packed: Packed, bits: int) -> float:
    """||delta||, to about six digits; what is not kept as symbols is read for it."""
    if packed.encoding == "symbols":
        squares = float(packed.parts["squares"]) + norm(packed.parts["escapes"]) ** 2
        return float(packed.parts["step"]) * math.sqrt(squares)
    if packed.encoding == "factors":
        if not packed.parts["squares"].numel():
            found = factors.squares(packed.parts["left"], packed.parts["right"], packed.parts["shifts"])
            packed.parts["squares"] = torch.tensor(found, dtype=torch.float64, device="cpu")
        return float(packed.parts["step"]) * math.sqrt(float(packed.parts["squares"]))
    return norm(packed.parts["values"] if packed.encoding != "codes" else unpack(packed, bits))


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
        if part is not None and not all(bool(torch.isfinite(block).all()) for block in _blocks(part)):
            raise CorruptArtifactError(f"{name}.{suffix} holds a value that is not finite")
    if packed.encoding != "codes":
        return
    if bool((packed.parts["scales"] < 0).any()):
        raise CorruptArtifactError(f"{name}.scales holds a negative scale")
    if not bool(torch.isfinite(packed.parts["scales"].float() * (2 ** (bits - 1) - 1)).all()):
        raise CorruptArtifactError(f"{name}.scales holds a scale whose products are not finite")
    count, stream = math.prod(packed.shape), packed.parts["codes"]
    for start in range(0, count, _BLOCK):
        padded = unpack_bits(stream[start // 8 * bits : (start + _BLOCK) // 8 * bits], bits, _BLOCK)
        own, rest = padded[: count - start], padded[count - start :]
        if bool((own < -(2 ** (bits - 1)) + 1).any()) or bool((rest != 0).any()):
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
