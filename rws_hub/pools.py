"""The payload of an entropy-coded signature: a few tensors that hold the parts of all deltas (docs/SPEC.md, section 6).

    frame    U8   one zstd frame of the symbols of all wide deltas that have such
    escapes  I16  their codes that are no symbol; left out where there are none
    factors  U8   one zstd frame of the factors of all others; shifts, U8, one for each component of them
    steps    F32  one for each wide delta
    halves   F16  the vectors that are kept in half precision, one after the other; singles F32 likewise

Always in the order of sorted names. Hundreds of small vectors would each cost more in a header than in numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import torch

from rws_hub import factors, frames, symbols
from rws_hub.codec import Packed
from rws_hub.errors import CorruptArtifactError
from rws_hub.spec import CODED, PAYLOAD_FILE, SignatureConfig, stream_bytes

_POOLS = {"halves": "float16", "singles": "float32"}


def pool(deltas: Iterable[Packed], size: int) -> dict[str, torch.Tensor]:
    """All deltas as the tensors of a payload.

    Args:
        deltas: in the order of sorted names. The symbols of one are compressed and let go before the next is asked for.
        size: of all their symbols together, in bytes.
    """
    found: dict[str, list[torch.Tensor]] = {label: [] for label in ("escapes", "shifts", "steps", *_POOLS)}
    products: list[memoryview] = []
    labels = {encoding: label for label, encoding in _POOLS.items()}

    def streams() -> Iterator[memoryview]:
        for packed in deltas:
            if packed.encoding == "symbols":
                found["escapes"].append(packed.parts["escapes"])
                found["steps"].append(packed.parts["step"])
                yield packed.parts["symbols"].numpy().data
            elif packed.encoding == "factors":
                found["shifts"].append(packed.parts["shifts"])
                found["steps"].append(packed.parts["step"])
                products.append(packed.parts["factors"].numpy().data)
            else:
                found[labels[packed.encoding]].append(packed.parts["values"].reshape(-1))

    frame = torch.frombuffer(frames.compress(streams(), size), dtype=torch.uint8)
    pooled = {"frame": frame} | {label: torch.cat(parts) for label, parts in found.items() if parts}
    if products:
        compressed = frames.compress(products, sum(map(len, products)))
        pooled["factors"] = torch.frombuffer(compressed, dtype=torch.uint8)
    return {label: tensor for label, tensor in pooled.items() if tensor.numel()}


def specs(config: SignatureConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What the payload must hold: name -> (safetensors dtype, shape)."""
    counts = {label: sum(_count(config, n) for n in _of(config, e)) for label, e in _POOLS.items()}
    found = {
        "frame": ("U8", config.codec.frame or 0),
        "escapes": ("I16", config.codec.escapes or 0),
        "factors": ("U8", config.codec.factors or 0),
        "shifts": ("U8", sum(config.tensors[n].rank or 0 for n in _of(config, "factors"))),
        "steps": ("F32", len(_of(config, *CODED))),
        "halves": ("F16", counts["halves"]),
        "singles": ("F32", counts["singles"]),
    }
    return {label: (dtype, (count,)) for label, (dtype, count) in found.items() if count}


def symbol_bytes(config: SignatureConfig) -> int:
    """Of all symbols, decompressed."""
    return sum(stream_bytes(_count(config, n), config.codec.bits) for n in _of(config, "symbols"))


def split(parts: Mapping[str, torch.Tensor], config: SignatureConfig) -> dict[str, Packed]:
    """The stored deltas, by name in the order of the config; the opposite of `pool`.

    Raises:
        CorruptArtifactError: the frame does not hold what the config promises.
    """
    found = _symbols(parts, config) | _factors(parts, config)
    for i, name in enumerate(_of(config, *CODED)):
        step = parts["steps"][i : i + 1]
        factored = found[name].encoding == "factors"
        zero = float(step) == 0 and not factored and not step.signbit()
        if not (symbols.MIN_STEP <= float(step) <= (factors.MAX_STEP if factored else symbols.MAX_STEP) or zero):
            raise CorruptArtifactError(f"{name}: the step is {float(step)}, which no encoder writes")
        found[name].parts["step"] = step
    for label, encoding in _POOLS.items():
        at = 0
        for name in _of(config, encoding):
            values = parts[label][at : at + _count(config, name)].clone()
            at += values.numel()
            found[name] = Packed(config.shape(name), encoding, None, {"values": values.reshape(config.shape(name))})  # type: ignore[arg-type]
    return {name: found[name] for name in config.tensors}


def _symbols(parts: Mapping[str, torch.Tensor], config: SignatureConfig) -> dict[str, Packed]:
    width = config.codec.bits
    size = symbol_bytes(config)
    data = frames.decompress(parts["frame"].numpy().data, size, PAYLOAD_FILE)
    stream = torch.frombuffer(data or bytearray(1), dtype=torch.uint8)[:size]
    escapes = parts.get("escapes", torch.empty(0, dtype=torch.int16, device="cpu"))
    found: dict[str, Packed] = {}
    at = passed = 0
    for name in _of(config, "symbols"):
        count = _count(config, name)
        own = stream[at : at + stream_bytes(count, width)]
        at += len(own)
        places, squares = symbols.scan(name, own, width, count, most=len(escapes) - passed)
        values = escapes[passed : passed + len(places)]
        passed += len(places)
        sizes = values.int().abs()
        if len(values) != len(places) or bool(((sizes <= symbols.top(width)) | (sizes > symbols.MAX_CODE)).any()):
            raise CorruptArtifactError(f"{name}: its codes and those that stand aside do not belong together")
        own_parts = {"symbols": own, "escapes": values, "places": places, "squares": squares}
        found[name] = Packed(config.shape(name), "symbols", None, own_parts)
    if passed != len(escapes):
        raise CorruptArtifactError(f"{PAYLOAD_FILE}: {len(escapes) - passed} codes stand aside that no symbol asks for")
    return found


def _factors(parts: Mapping[str, torch.Tensor], config: SignatureConfig) -> dict[str, Packed]:
    names = _of(config, "factors")
    if not names:
        return {}
    data = frames.decompress(parts["factors"].numpy().data, sum(map(config.factor_codes, names)), PAYLOAD_FILE)
    stream = torch.frombuffer(data, dtype=torch.uint8)
    found: dict[str, Packed] = {}
    at = passed = 0
    for name in names:
        own, shape = stream[at : at + config.factor_codes(name)], config.shape(name)
        shifts = parts["shifts"][passed : passed + (config.tensors[name].rank or 0)]
        at, passed = at + len(own), passed + len(shifts)
        found[name] = Packed(shape, "factors", None, factors.parts(name, own, shifts, shape[0]))
    return found


def _of(config: SignatureConfig, *encodings: str) -> list[str]:
    return sorted(n for n, f in config.tensors.items() if f.encoding in encodings)


def _count(config: SignatureConfig, name: str) -> int:
    return math.prod(config.shape(name))
