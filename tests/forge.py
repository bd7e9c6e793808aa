"""Artifacts taken apart, changed and sealed again, so that every check can be met on its own."""

import contextlib
import copy
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import old
import torch

from rws_hub import RobustWeightSignature, compact, jsonio, pools
from rws_hub.codec import Packed
from rws_hub.config import parse_config
from rws_hub.errors import CorruptArtifactError
from rws_hub.payload import parts_of, read_payload, write_payload
from rws_hub.spec import UNSEALED_KEYS, Codec, Payload, stream_bytes

DTYPES = {"U8": 1, "I16": 2, "F16": 2, "BF16": 2, "F32": 4}


def pool(tensors: Mapping[str, Packed], width: int) -> dict[str, torch.Tensor]:
    """Deltas by name as the tensors of a payload."""
    deltas = [tensors[n] for n in sorted(tensors)]
    size = sum(stream_bytes(math.prod(p.shape), width) for p in deltas if p.encoding == "symbols")
    return pools.pool(deltas, size)


def small_models(seed: int = 3) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A made-up backbone with every kind of tensor, and its robust twin."""
    generator = torch.Generator().manual_seed(seed)
    standard = {
        "conv.weight": torch.randn(6, 4, 3, 3, generator=generator),
        "norm.weight": torch.rand(6, generator=generator) + 0.5,
        "norm.running_var": torch.rand(6, generator=generator) + 0.5,
        "gate.weight": torch.randn(3, 5, generator=generator),
        "tail.weight": torch.randn(8, 6, generator=generator),
        "head.weight": torch.randn(2, 8, generator=generator),
    }
    return standard, {n: t * torch.exp(torch.randn(t.shape, generator=generator) * 0.05) for n, t in standard.items()}


@cache
def small_signature(bits: float = 4, seed: int = 3) -> RobustWeightSignature:
    """Its signature; config and payload are about 3 KB and half a KB."""
    standard, robust = small_models(seed)
    return RobustWeightSignature.extract(
        standard=standard,
        robust=robust,
        corruption="fog",
        severity=5,
        dataset="cifar10",
        license="apache-2.0",
        layers=["conv.*", "norm.*", "gate.*"],
        description="A small one.",
        bits=bits,
    )


@cache
def old_signature(bits: int = 4, seed: int = 3) -> RobustWeightSignature:
    """The same in format 1, with codes of equal length; config and payload are about 4 KB and 1 KB."""
    exact = small_signature(32, seed)
    tensors, facts = {}, {}
    for name in exact.names:
        tensors[name] = old.pack(exact.delta(name), bits)
        encoding, granularity = tensors[name].encoding, tensors[name].granularity
        facts[name] = dataclasses.replace(exact.config.tensors[name], encoding=encoding, granularity=granularity)
    payload = bytes(write_payload(parts_of(tensors)))
    layout, standard = {n: exact.config.shape(n) for n in exact.names}, small_models(seed)[0]
    config = dataclasses.replace(
        exact.config,
        format_version=1,
        sketch=old.sketch(layout, standard),
        codec=Codec("uniform", bits),
        tensors=facts,
        payload=Payload(len(payload), hashlib.sha256(payload).hexdigest()),
    ).with_seal()
    return load(config.to_text(), payload)


def config_data(signature: RobustWeightSignature) -> dict[str, Any]:
    """The config as plain JSON data, free to change."""
    return json.loads(signature.config.to_text())


def sealed(data: dict[str, Any]) -> str:
    """Text of a config whose digest holds, whatever its values."""
    values = data
    version = data.get("format_version")
    if isinstance(version, int) and version >= compact.SINCE:
        with contextlib.suppress(CorruptArtifactError):  # refused before its digest is looked at
            values = compact.expand(data, "")
    values = {k: v for k, v in values.items() if k not in UNSEALED_KEYS}
    return jsonio.pretty(data | {"digest": hashlib.sha256(jsonio.canonical(values)).hexdigest()})


def put(data: Any, path: str, value: Any) -> Any:
    """A copy with one value changed; `path` is written as `codec.bits`, with `/` for names that hold dots."""
    data = copy.deepcopy(data)
    *steps, last = (int(s) if s.isdigit() else s for s in (path.split("/") if "/" in path else path.split(".")))
    place = data
    for step in steps:
        place = place[step]
    if value is DELETE:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    return data


DELETE = object()


def vouched(data: dict[str, Any], payload: bytes) -> str:
    """Text of a config that vouches for a payload, by size and sha256."""
    fact = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    return sealed(data | {"payload": fact})


def load(text: str | bytes, payload: bytes) -> RobustWeightSignature:
    """Both files read, every check taken."""
    config = parse_config(text)
    return RobustWeightSignature(config, read_payload(payload, config), payload)


def split(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    length = int.from_bytes(payload[:8], "little")
    return json.loads(payload[8 : 8 + length]), payload[8 + length :]


def join(header: dict[str, Any] | str, data: bytes) -> bytes:
    """A safetensors file from a header, right or wrong, and data; an object is spelled as the format demands."""
    text = (header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))).encode()
    text += b" " * (-len(text) % 8 if isinstance(header, dict) else 0)
    return len(text).to_bytes(8, "little") + text + data


def with_header(payload: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The payload with its header changed in place, or replaced by what `change` returns."""
    header, data = split(payload)
    changed = change(header)
    return join(header if changed is None else changed, data)


def with_bytes(payload: bytes, name: str, change: Callable[[bytearray], None]) -> bytes:
    """The payload with the bytes of one tensor changed in place."""
    header, data = split(payload)
    start, stop = header[name]["data_offsets"]
    part = bytearray(data[start:stop])
    change(part)
    return join(header, data[:start] + bytes(part) + data[stop:])
