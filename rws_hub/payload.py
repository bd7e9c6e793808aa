"""`rws.safetensors`: exactly the tensors that the config promises, or nothing.

The whole layout of the file follows from the config, so the header is checked against it name by name
*before* any tensor memory is taken; then the digest is checked, then the values. The file is written here
and not by the safetensors library (which reads it, and a test holds that it would write the same bytes):
so the bytes are the same whatever its version, and codes of any size are never in memory twice.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from rws_hub import codec, jsonio, pools
from rws_hub.codec import Packed
from rws_hub.config import is_tensor_name
from rws_hub.errors import CorruptArtifactError
from rws_hub.spec import MAX_CONFIG_BYTES, PAYLOAD_FILE, Data, SignatureConfig, TensorFacts

_ITEM_BYTES = {"U8": 1, "I16": 2, "F16": 2, "BF16": 2, "F32": 4}
_DTYPES = {"U8": torch.uint8, "I16": torch.int16, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# Data in this order of dtypes, then by name, as the safetensors library lays it out.
_ORDER = ("F32", "BF16", "F16", "I16", "U8")

# safetensors dtype and shape of every tensor of a payload, by its full name.
_Specs = Mapping[str, tuple[str, tuple[int, ...]]]


def write_payload(tensors: Mapping[str, torch.Tensor]) -> memoryview:
    """The bytes of `rws.safetensors`. Same tensors, same bytes."""
    specs = {name: (_NAMES[t.dtype], tuple(t.shape)) for name, t in tensors.items()}
    header, offsets = _header(specs)
    data = np.zeros(8 + len(header) + sum(_nbytes(*spec) for spec in specs.values()), np.uint8).data
    data[:8] = len(header).to_bytes(8, "little")
    data[8 : 8 + len(header)] = header
    for name, tensor in tensors.items():
        start, stop = (8 + len(header) + offset for offset in offsets[name])
        data[start:stop] = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return data


def parts_of(tensors: Mapping[str, Packed]) -> dict[str, torch.Tensor]:
    """The payload tensors of deltas that are kept as they are, by full name."""
    return {f"{name}.{suffix}": part for name, packed in tensors.items() for suffix, part in packed.parts.items()}


def read_payload(data: Data, config: SignatureConfig) -> dict[str, Packed]:
    """Verify `rws.safetensors` and read it; codes are views of `data` unless that is immutable.

    Raises:
        CorruptArtifactError: naming the tensor or the digest that does not hold.
    """
    check_header(data, config)
    found = hashlib.sha256(data).hexdigest()
    if found != config.payload.sha256:
        raise CorruptArtifactError(
            f"{PAYLOAD_FILE}: sha256 is {found[:12]}..., config.json says {config.payload.sha256[:12]}...: "
            "the file was damaged or replaced. Fetch the artifact again."
        )
    tensors = payload_tensors(bytearray(data) if isinstance(data, bytes) else data, config)
    for name, packed in tensors.items():
        codec.check_values(name, packed, config.codec.bits)
    return tensors


def payload_tensors(data: bytearray | memoryview, config: SignatureConfig) -> dict[str, Packed]:
    """The stored deltas of a payload that is known to be right; codes are views of it, all else is copied."""
    header, offsets = _header(_promised(config))
    first = 8 + len(header)

    def part(name: str, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
        start, stop = offsets[name]
        if dtype == "U8":
            return torch.frombuffer(data, dtype=torch.uint8, count=stop - start, offset=first + start)
        return torch.frombuffer(bytearray(data[first + start : first + stop]), dtype=_DTYPES[dtype]).reshape(shape)

    if config.codec.scheme == "entropy":
        return pools.split({name: part(name, *spec) for name, spec in _promised(config).items()}, config)
    return {
        name: Packed(
            config.shape(name),
            facts.encoding,
            facts.granularity,
            {s: part(f"{name}.{s}", *spec) for s, spec in _parts(config, name, facts).items()},
        )
        for name, facts in config.tensors.items()
    }


class Unread(Mapping[str, Packed]):
    """The stored deltas of a payload that is known to be right, decompressed when one of them is first asked for."""

    def __init__(self, data: memoryview, config: SignatureConfig) -> None:
        self._data, self._config = data, config
        self._tensors: dict[str, Packed] | None = None

    def __getitem__(self, name: str) -> Packed:
        if self._tensors is None:
            self._tensors = payload_tensors(self._data, self._config)
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._config.tensors)

    def __len__(self) -> int:
        return len(self._config.tensors)


def check_header(data: Data, config: SignatureConfig) -> None:
    """Compare the safetensors header with what the config promises, without touching tensor data.

    Raises:
        CorruptArtifactError: size, header syntax, a missing, unexpected, duplicate or odd name, dtype,
            shape or offset.
    """
    if len(data) != config.payload.bytes:
        raise CorruptArtifactError(
            f"{PAYLOAD_FILE}: {len(data):,} bytes, config.json says {config.payload.bytes:,}: "
            f"the file is {'truncated' if len(data) < config.payload.bytes else 'too long'}. Fetch it again."
        )
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: not a safetensors file (the header does not fit)")
    if length > MAX_CONFIG_BYTES:  # it names the same tensors as the config, in fewer words
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: a header of {length:,} bytes; at most {MAX_CONFIG_BYTES:,}")
    header = jsonio.parse(bytes(data[8 : 8 + length]), f"{PAYLOAD_FILE} header")
    if not isinstance(header, dict):
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: the header is not an object")
    if odd := [n for n in header if not is_tensor_name(n)]:
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: {jsonio.shown(odd[0])} cannot be a tensor name")
    promised = _promised(config)
    for name in promised:
        if name not in header:
            raise CorruptArtifactError(f"{PAYLOAD_FILE}: the tensor {name} is missing")
    for name in header:
        if name not in promised:
            raise CorruptArtifactError(f"{PAYLOAD_FILE}: unexpected tensor {name}; config.json does not know it")
    for name, (dtype, shape) in promised.items():
        _check_entry(name, header[name], dtype, shape)
    _check_cover(header, len(data) - 8 - length)
    if bytes(data[8 : 8 + length]) != _header(promised)[0]:
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: the header is not spelled or ordered as the format demands")


def _header(specs: _Specs) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The JSON header, padded to whole 8 bytes, and where each tensor's data lies behind it."""
    offsets: dict[str, tuple[int, int]] = {}
    entries: dict[str, dict[str, Any]] = {}
    end = 0
    for name, (dtype, shape) in sorted(specs.items(), key=lambda kv: (_ORDER.index(kv[1][0]), kv[0])):
        offsets[name] = (end, end + _nbytes(dtype, shape))
        end = offsets[name][1]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets[name])}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8), offsets


def _promised(config: SignatureConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Everything the payload must hold, by full name."""
    if config.codec.scheme == "entropy":
        return pools.specs(config)
    return {
        f"{name}.{suffix}": spec
        for name, facts in config.tensors.items()
        for suffix, spec in _parts(config, name, facts).items()
    }


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * _ITEM_BYTES[dtype]


def _parts(config: SignatureConfig, name: str, facts: TensorFacts) -> dict[str, tuple[str, tuple[int, ...]]]:
    return codec.part_specs(facts, config.shape(name), config.codec)


def _check_entry(name: str, entry: Any, dtype: str, shape: tuple[int, ...]) -> None:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: the header entry of {name} is malformed")
    if entry["dtype"] != dtype or repr(entry["shape"]) != repr(list(shape)):  # [1] == [True] == [1.0]
        raise CorruptArtifactError(
            f"{PAYLOAD_FILE}: {name} must be {dtype} {list(shape)}, found {_spelled(entry['dtype'])} "
            f"{jsonio.shown(entry['shape'])}"
        )
    offsets = entry["data_offsets"]
    if not (
        isinstance(offsets, list) and len(offsets) == 2 and all(type(o) is int and abs(o) < 2**63 for o in offsets)
    ):
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: {name} has malformed offsets")
    if offsets[1] - offsets[0] != _nbytes(dtype, shape):
        raise CorruptArtifactError(
            f"{PAYLOAD_FILE}: {name} has {offsets[1] - offsets[0]} bytes, not what its shape needs"
        )


def _spelled(dtype: object) -> str:
    return jsonio.named(dtype) if isinstance(dtype, str) else jsonio.shown(dtype)


def _check_cover(header: Mapping[str, Any], size: int) -> None:
    """Every byte belongs to exactly one tensor."""
    end = 0
    for start, stop in sorted((e["data_offsets"] for e in header.values()), key=lambda o: (o[0], o[1])):
        if start != end:
            raise CorruptArtifactError(f"{PAYLOAD_FILE}: tensors overlap or leave a hole at byte {end}")
        end = stop
    if end != size:
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: {size} bytes of data, the header covers {end}")
