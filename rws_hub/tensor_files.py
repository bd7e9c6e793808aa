"""One safetensors file: where the bytes of every tensor lie, and some of its elements at a time.

The safetensors library checks a file; ranges are read here. The library reads a slice through a mapping of the whole
file, whose pages stay in memory as long as it is open, or else reads the whole tensor for every slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from rws_hub import jsonio
from rws_hub.cells import Shape
from rws_hub.errors import CheckpointError

# The floating dtypes of a file that can be read here.
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# No parameter has a longer name; all that could stand before one is tried, part by part.
MAX_NAME = 1024
# Of a header, in bytes: what is made of it takes many times its size.
MAX_HEADER = 2**24


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: its safetensors dtype, its shape, and where its bytes begin and end in the file."""

    dtype: str
    shape: Shape
    start: int
    stop: int


def read_entries(file: Path) -> dict[str, Entry]:
    """Every tensor of a file by name, in the order of their bytes, from its header alone.

    Raises:
        CheckpointError: not a readable safetensors file.
    """
    try:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if length > MAX_HEADER:
                raise ValueError(f"a header of {length:,} bytes; at most {MAX_HEADER:,}")
            header = jsonio.parse(handle.read(length), "header")
        with safe_open(file, framework="pt", backend="pread"):
            pass  # size, syntax, dtypes and offsets hold, and the offsets leave no hole
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from error
    header.pop("__metadata__", None)
    if long := next((name for name in header if len(name) > MAX_NAME), None):
        raise CheckpointError(f"{file}: a name of {len(long):,} characters, {long[:40]!r}...; at most {MAX_NAME:,}")
    entries = {
        name: Entry(e["dtype"], tuple(e["shape"]), *(8 + length + offset for offset in e["data_offsets"]))
        for name, e in header.items()
    }
    return dict(sorted(entries.items(), key=lambda kv: (kv[1].start, kv[1].stop)))


def read_elements(file: Path, entry: Entry, first: int, count: int) -> torch.Tensor:
    """Elements from `first` on, in row-major order, of a floating tensor: [count], in its own dtype, on the CPU.

    Raises:
        CheckpointError: the file cannot be read, or ends before that; it was changed since `read_entries`.
    """
    found = torch.empty(count, dtype=FLOATS[entry.dtype], device="cpu")
    data = found.view(torch.uint8).numpy().data
    try:
        with file.open("rb") as handle:
            handle.seek(entry.start + first * found.element_size())
            got = handle.readinto(data)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from error
    if got != len(data):
        raise CheckpointError(f"{file}: ends before its header says; it was changed while it was read")
    return found


def read_rows(file: Path, entry: Entry, start: int, stop: int) -> torch.Tensor:
    """Rows [start, stop) of axis 0 of a floating tensor; a tensor without axes is returned whole.

    Raises:
        CheckpointError: as `read_elements`.
    """
    if not entry.shape:
        return read_elements(file, entry, 0, 1).reshape(())
    length = math.prod(entry.shape[1:])
    return read_elements(file, entry, start * length, (stop - start) * length).reshape(stop - start, *entry.shape[1:])
