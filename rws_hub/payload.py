"""`rws.safetensors`: exactly the tensors that the config promises, or nothing.

The whole layout of the file follows from the config, so the header is checked against it name by name
*before* any tensor memory is taken; then the digest is checked, then the values. Written without a
metadata key: safetensors writes several keys in random order, and same input must give same bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from rws_hub import codec, jsonio
from rws_hub.codec import Packed
from rws_hub.config import is_tensor_name
from rws_hub.errors import CorruptArtifactError
from rws_hub.spec import PAYLOAD_FILE, SignatureConfig, TensorFacts

_ITEM_BYTES = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4}


def write_payload(tensors: Mapping[str, Packed]) -> bytes:
    """The bytes of `rws.safetensors`. Same tensors, same bytes."""
    flat = {f"{name}.{suffix}": part for name, p in tensors.items() for suffix, part in p.parts.items()}
    return safetensors.torch.save(flat)


def read_payload(data: bytes, config: SignatureConfig) -> dict[str, Packed]:
    """Verify and read `rws.safetensors`.

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
    try:
        loaded = safetensors.torch.load(data)
    except SafetensorError as error:  # stricter than check_header: odd white space in the header, say
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: not a safetensors file ({error})") from error
    tensors: dict[str, Packed] = {}
    for name, facts in config.tensors.items():
        parts = {s: loaded[f"{name}.{s}"] for s in _parts(config, name, facts)}
        tensors[name] = Packed(config.shape(name), facts.encoding, facts.granularity, parts)
        codec.check_values(name, tensors[name], config.codec.bits)
    return tensors


def check_header(data: bytes, config: SignatureConfig) -> None:
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
    header = jsonio.parse(data[8 : 8 + length], f"{PAYLOAD_FILE} header")
    if not isinstance(header, dict):
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: the header is not an object")
    if odd := [n for n in header if not is_tensor_name(n)]:
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: {odd[0]!r} cannot be a tensor name")
    promised = {
        f"{name}.{suffix}": spec
        for name, facts in config.tensors.items()
        for suffix, spec in _parts(config, name, facts).items()
    }
    for name in promised:
        if name not in header:
            raise CorruptArtifactError(f"{PAYLOAD_FILE}: the tensor {name} is missing")
    for name in header:
        if name not in promised:
            raise CorruptArtifactError(f"{PAYLOAD_FILE}: unexpected tensor {name}; config.json does not know it")
    for name, (dtype, shape) in promised.items():
        _check_entry(name, header[name], dtype, shape)
    _check_cover(header, len(data) - 8 - length)


def _parts(config: SignatureConfig, name: str, facts: TensorFacts) -> dict[str, tuple[str, tuple[int, ...]]]:
    return codec.part_specs(facts, config.shape(name), config.codec)


def _check_entry(name: str, entry: Any, dtype: str, shape: tuple[int, ...]) -> None:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: the header entry of {name} is malformed")
    if entry["dtype"] != dtype or repr(entry["shape"]) != repr(list(shape)):  # [1] == [True] == [1.0]
        raise CorruptArtifactError(
            f"{PAYLOAD_FILE}: {name} must be {dtype} {list(shape)}, found {entry['dtype']} {entry['shape']}"
        )
    offsets = entry["data_offsets"]
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(o) is int for o in offsets)):
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: {name} has malformed offsets")
    if offsets[1] - offsets[0] != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise CorruptArtifactError(
            f"{PAYLOAD_FILE}: {name} has {offsets[1] - offsets[0]} bytes, not what its shape needs"
        )


def _check_cover(header: Mapping[str, Any], size: int) -> None:
    """Every byte belongs to exactly one tensor."""
    end = 0
    for start, stop in sorted((e["data_offsets"] for e in header.values()), key=lambda o: (o[0], o[1])):
        if start != end:
            raise CorruptArtifactError(f"{PAYLOAD_FILE}: tensors overlap or leave a hole at byte {end}")
        end = stop
    if end != size:
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: {size} bytes of data, the header covers {end}")
