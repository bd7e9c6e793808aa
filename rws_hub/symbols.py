"""Quantized deltas as symbols of 4 or 8 bits, ready for an entropy coder (docs/SPEC.md, section 5).

A code q becomes the symbol q + t, t = 2^(width-1) - 1; codes beyond [-t, t] become the one symbol that is left, and
stand aside as 16-bit numbers, in order. Two 4-bit symbols share a byte: the first half of a tensor in the low bits,
the second in the high bits, so that any run of elements is a run of bytes.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from rws_hub.errors import CorruptArtifactError
from rws_hub.spec import stream_bytes

MAX_CODE = 2**15 - 1
# A step that is not zero lies between these: no product with a code is subnormal (some machines flush those to zero)
# or infinite.
MIN_STEP, MAX_STEP = 2.0**-126, 2.0**112
# Elements worked on at a time.
_BLOCK = 2**16


def top(width: int) -> int:
    """The largest code that a symbol holds."""
    return (1 << (width - 1)) - 1


def pack(codes: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, integers of any shape within +-MAX_CODE -> symbols (uint8) and escapes (int16)."""
    largest = top(width)
    stream = torch.zeros(stream_bytes(codes.numel(), width), dtype=torch.uint8, device="cpu")
    escapes = []
    for i, run in enumerate(codes.reshape(-1).split(len(stream))):  # type: ignore[no-untyped-call]
        for at in range(0, len(run), _BLOCK):
            block = run[at : at + _BLOCK].to(torch.int32)
            beyond = block.abs() > largest
            escapes.append(block[beyond].to(torch.int16))
            found = torch.where(beyond, 2 * largest + 1, block + largest).to(torch.uint8)
            stream[at : at + len(found)] |= found << (4 * i)
    if width == 4 and codes.numel() % 2:
        stream[-1] |= largest << 4  # what lies behind the last element is code 0
    return stream, torch.cat(escapes)


def read(stream: torch.Tensor, width: int, start: int, out: torch.Tensor, scratch: torch.Tensor) -> None:
    """Write codes from element `start` on into `out` (float32 [n]), exactly, but for those that stand aside.

    `scratch` (uint8, at least [n]) is on the device of `out`; nothing but symbols is moved there.
    """
    count, half = out.numel(), stream.numel()
    stop, codes = start + count, scratch[: out.numel()]
    if width == 8:
        codes.copy_(stream[start:stop])
    else:
        low = max(0, min(stop, half) - start)
        if low:
            torch.bitwise_and(_beside(out, stream[start : start + low]), 15, out=codes[:low])
        if low < count:
            high = stream[max(start, half) - half : stop - half]
            torch.bitwise_right_shift(_beside(out, high), 4, out=codes[low:])
    codes.sub_(top(width))  # modulo 256: read as signed numbers they are the codes
    out.copy_(codes.view(torch.int8))


def _beside(out: torch.Tensor, symbols: torch.Tensor) -> torch.Tensor:
    return symbols if out.is_cpu else symbols.to(out.device)


def scan(
    name: str, stream: torch.Tensor, width: int, count: int, most: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which elements of a tensor stand aside, int64, in order; and the sum of the squares of all other codes, int64.

    Args:
        name: of the tensor.
        stream: its symbols.
        width: bits of one.
        count: elements of the tensor.
        most: how many can stand aside; None: all of them.

    Raises:
        CorruptArtifactError: bits behind the last element that no encoder writes, or more that stand aside than can.
    """
    codes, largest = stream.numpy(), top(width)
    aside: list[list[np.ndarray]] = [[], []]
    squares = passed = 0
    for at in range(0, len(codes), _BLOCK):
        block = codes[at : at + _BLOCK]
        squared: list[np.ndarray] = []
        for half, run in enumerate((block,) if width == 8 else (block & 15, block >> 4)):
            first = half * len(codes) + at
            if first + len(run) > count and (run[max(0, count - first) :] != largest).any():
                raise CorruptArtifactError(f"{name}: the symbols end with stray bits")
            aside[half].append(np.flatnonzero(run == 2 * largest + 1) + first)
            passed += len(aside[half][-1])
            if most is not None and passed > most:  # each takes many times the memory of the symbol that asks for it
                raise CorruptArtifactError(f"{name}: its codes and those that stand aside do not belong together")
            # The squares of two codes of four bits fit into eight; those below zero are right modulo 256.
            run = run - np.uint8(largest) if width == 4 else run.astype(np.int32) - largest
            run *= run
            squared.append(run)
        squares += int(np.add.reduce(functools.reduce(np.add, squared), dtype=np.uint32))
    places = np.concatenate([*aside[0], *aside[1]])
    squares -= (largest + 1) ** 2 * len(places)
    return torch.from_numpy(places), torch.tensor(squares, dtype=torch.int64, device="cpu")
