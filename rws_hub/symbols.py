"""Quantized deltas as symbols of 4 or 8 bits, ready for an entropy coder (docs/SPEC.md, section 5).

A code q becomes the symbol q + t, t = 2^(width-1) - 1; codes beyond [-t, t] become the one symbol that is left, and
stand aside as 16-bit numbers, in order. Two 4-bit symbols share a byte: the first half of a tensor in the low bits,
the second in the high bits, so that any run of elements is a run of bytes.
"""

from __future__ import annotations

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


def unpack(stream: torch.Tensor, escapes: torch.Tensor, width: int, count: int) -> torch.Tensor:
    """Codes, float32 [count], exact."""
    symbols = symbols_of(stream, width)[:count]
    codes = symbols.float().sub_(top(width))
    if len(escapes):
        codes[symbols == 2 * top(width) + 1] = escapes.float()
    return codes


def symbols_of(stream: torch.Tensor, width: int) -> torch.Tensor:
    """The symbols of one tensor, uint8, with those that fill its last byte."""
    return stream if width == 8 else torch.cat([stream & 15, stream >> 4])


def escapes_in(name: str, stream: torch.Tensor, width: int, count: int) -> int:
    """How many codes of a tensor stand aside.

    Raises:
        CorruptArtifactError: bits behind the last element that no encoder writes.
    """
    symbols = symbols_of(stream, width)
    if bool((symbols[count:] != top(width)).any()):
        raise CorruptArtifactError(f"{name}: the symbols end with stray bits")
    return int((symbols[:count] == 2 * top(width) + 1).sum())
