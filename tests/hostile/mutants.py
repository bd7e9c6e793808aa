"""Artifacts changed at random, by a seed: bytes, tokens, JSON values, payload tensors, cards, results, name tables.

A *shallow* mutant is changed and no more. A *deep* one is sealed again, so that the digests hold and only the checks
behind them can refuse it. Works on any artifact that can be read, of whatever format.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from forge import join, split

from rws_hub import compact, jsonio
from rws_hub.config import parse_config
from rws_hub.errors import ArtifactError
from rws_hub.frames import compress, decompress
from rws_hub.payload import write_payload
from rws_hub.pools import symbol_bytes
from rws_hub.spec import UNSEALED_KEYS, SignatureConfig

Data = dict[str, Any]
NUMBERS = [
    *range(-1, 10), 15, 16, 31, 32, 33, 63, 64, 127, 128, 255, 256, 257, 1023, 1024, 32767, 32768, 65535, 65536, 2**24,
    2**26, 2**27, 2**31 - 1, 2**31, 2**32, 2**40, 2**40 + 1, 2**53, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63), 10**18,
    10**100, 10**4299, 0.5, -0.0, 1e-320, 1e308, -1e308, 1.0, 1e-6, 3.4e38,
]  # fmt: skip
TEXTS = [
    "", "a", "rws", "..", "/etc/passwd", "../x", "a.b", "a..b", "\0", "\x1b[2J", "\u202e", "\ud800", "Ä", "😀", "null",
    "{0..9}", "{0..99999}.{0..99999}", "{a,b}.{c,d}", "x" * 257, "identity", "vit", "resnet", "running_var", "codes",
    "symbols", "factors", "float16", "float32", "row", "tensor", "add", "multiply", "entropy", "uniform",
    "<!-- rws-hub:end -->", "{{ 7 * 7 }}", "| a | b |", "\n# x",
]  # fmt: skip
OTHERS: list[Any] = [None, True, False, [], {}, [[]], [1], {"a": 1}, [0], [None]]
TOKENS = [
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"1e999", b"-", b"0", b"\\u0000", b"\xff",
    b"\0", b" ",
]  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """An honest artifact.

    `parts` are the tensors of its payload, and `streams` the contents of those that are compressed, by name.
    """

    name: str
    config: SignatureConfig
    text: bytes
    payload: bytes
    parts: dict[str, torch.Tensor]
    streams: dict[str, bytes]

    @property
    def stream(self) -> bytes:
        """The decompressed symbols, if it has any."""
        return self.streams.get("frame", b"")

    @property
    def data(self) -> Data:
        """The config as JSON data, free to change."""
        found: Data = json.loads(self.text)
        return found


@dataclass(frozen=True)
class Mutant:
    """What came of an origin; `deep` if it was sealed again."""

    origin: Origin
    kind: str
    text: bytes
    payload: bytes
    deep: bool


def read_origin(name: str, text: bytes, payload: bytes) -> Origin:
    """An honest artifact, taken apart."""
    import safetensors.torch

    config = parse_config(text)
    parts = safetensors.torch.load(payload)
    sizes = {
        "frame": symbol_bytes(config),
        "factors": sum(config.factor_codes(n) for n, f in config.tensors.items() if f.encoding == "factors"),
    }
    streams = {n: bytes(decompress(parts[n].numpy().data, s, name)) for n, s in sizes.items() if n in parts}
    return Origin(name, config, text, payload, parts, streams)


def origins(fixtures: Path) -> list[Origin]:
    """The published fixtures of every format version, and small artifacts of every scheme."""
    from forge import old_signature, small_signature

    found = [
        read_origin(
            f"{f.parent.parent.name}/{f.parent.name}", f.read_bytes(), (f.parent / "rws.safetensors").read_bytes()
        )
        for f in sorted(fixtures.glob("v*/*/config.json"))
    ]
    made = {"small": small_signature(), "small float32": small_signature(32), "small uniform": old_signature()}
    return found + [read_origin(n, s.config.to_text().encode(), s.payload) for n, s in made.items()]


def mutate(origin: Origin, others: Sequence[Origin], draw: random.Random) -> Mutant:
    """A mutant of an artifact."""
    kinds = [k for k, (_, fits) in KINDS.items() if fits(origin)]
    kind = draw.choices(kinds, [_WEIGHTS.get(k, 3) for k in kinds])[0]
    return replace(KINDS[kind][0](origin, draw, others), kind=kind)


def _shallow_config(origin: Origin, draw: random.Random, others: Sequence[Origin]) -> Mutant:
    text = change_bytes(origin.text, draw, [o.text for o in others])
    return Mutant(origin, "", text, origin.payload, False)


def _shallow_payload(origin: Origin, draw: random.Random, others: Sequence[Origin]) -> Mutant:
    payload = change_bytes(origin.payload, draw, [o.payload for o in others])
    return Mutant(origin, "", origin.text, payload, False)


def _swapped(origin: Origin, draw: random.Random, others: Sequence[Origin]) -> Mutant:
    """The payload of another artifact, vouched for or not."""
    other, deep = draw.choice(others), draw.random() < 0.7
    return _seal(origin, origin.data, other.payload) if deep else Mutant(origin, "", origin.text, other.payload, False)


def _deep_config(origin: Origin, draw: random.Random, others: Sequence[Origin]) -> Mutant:
    data = origin.data
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        change_value(data, draw)
    return _seal(origin, data, origin.payload, vouch=draw.random() < 0.8)


def _deep_payload(origin: Origin, draw: random.Random, others: Sequence[Origin]) -> Mutant:
    return _seal(origin, origin.data, change_bytes(origin.payload, draw, [o.payload for o in others]))


def _deep_header(origin: Origin, draw: random.Random, others: Sequence[Origin]) -> Mutant:
    header, rest = split(origin.payload)
    change_value(header, draw)
    return _seal(origin, origin.data, join(header, rest))


def _deep_tensors(origin: Origin, draw: random.Random, others: Sequence[Origin]) -> Mutant:
    """One payload tensor with other numbers in it, or another length; the config may count what is there."""
    parts = {n: t.clone() for n, t in origin.parts.items()}
    name = draw.choice(sorted(parts))
    raw = bytearray(parts[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    size = parts[name].element_size()
    raw = bytearray(change_bytes(bytes(raw), draw, [origin.payload]))
    raw = raw[: len(raw) // size * size] or bytearray(size)
    parts[name] = torch.frombuffer(raw, dtype=torch.uint8).view(parts[name].dtype)
    return _counted(origin, parts, draw.random() < 0.8)


def _deep_symbols(origin: Origin, draw: random.Random, others: Sequence[Origin]) -> Mutant:
    """Other symbols, compressed anew."""
    return _deep_stream(origin, "frame", origin.parts, draw)


def _deep_factors(origin: Origin, draw: random.Random, others: Sequence[Origin]) -> Mutant:
    """Other factors, compressed anew, and perhaps other shifts of their components."""
    parts = dict(origin.parts)
    if draw.random() < 0.3:
        shifts = parts["shifts"].clone()
        shifts[draw.randrange(len(shifts))] = draw.choice([*range(27), 255])
        parts["shifts"] = shifts
    return _deep_stream(origin, "factors", parts, draw)


def _deep_stream(origin: Origin, label: str, parts: dict[str, torch.Tensor], draw: random.Random) -> Mutant:
    """Other contents of what is compressed, said honestly, with a frame header that lies, or with a bomb behind it."""
    honest = origin.streams[label]
    stream = change_bytes(honest, draw, [honest])
    if draw.random() < 0.7:  # of the right length
        stream = (stream + honest)[: len(honest)]
    frame = bytearray(compress([stream], len(stream), draw.choice([1, 3, 19])))
    how = draw.random()
    if how < 0.3:
        frame = bytearray(change_bytes(bytes(frame), draw, [bytes(frame)]))
    elif how < 0.35:
        bomb = compress([draw.choice([b"\0", b"\x7e", b"\x7f", b"\xff"]) * 2**20] * 4, 2**22, 1)
        frame = frame[: _start(frame)] + bomb[_start(bomb) :] if draw.random() < 0.7 else bomb
    return _counted(origin, parts | {label: torch.frombuffer(frame or bytearray(1), dtype=torch.uint8)}, True)


def _start(frame: bytearray) -> int:
    """Where the blocks of a zstd frame begin, behind the size that it states."""
    single = frame[4] >> 5 & 1
    return 5 + (1 - single) + (single, 2, 4, 8)[frame[4] >> 6]


def _counted(origin: Origin, parts: dict[str, torch.Tensor], counted: bool) -> Mutant:
    data = origin.data
    if counted and "frame" in parts:
        data["codec"] |= {
            "frame": parts["frame"].numel(),
            "escapes": parts["escapes"].numel() if "escapes" in parts else 0,
        }
        if "factors" in parts:
            data["codec"]["factors"] = parts["factors"].numel()
    return _seal(origin, data, bytes(write_payload(parts)))


def _deep_table(origin: Origin, draw: random.Random, others: Sequence[Origin]) -> Mutant:
    """The name table that the artifact brings, changed."""
    data = origin.data
    table = change_bytes(
        data["backbone"]["table"].encode(), draw, [b"{i}{s}|[1/3] = - ^ + <7,7> [None] with x: flat a: k = s b by "]
    )
    data["backbone"]["table"] = table.decode("utf-8", "ignore")
    return _seal(origin, data, origin.payload)


def _seal(origin: Origin, data: Data, payload: bytes, vouch: bool = True) -> Mutant:
    """Sealed again, and vouching for the payload unless the config is to say something else of it."""
    if vouch:
        data["payload"] = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    try:
        values = compact.expand(data, "") if data.get("format_version", 0) >= compact.SINCE else data
        values = {k: v for k, v in values.items() if k not in UNSEALED_KEYS}
        data["digest"] = hashlib.sha256(jsonio.canonical(values)).hexdigest()
        text = json.dumps(data, ensure_ascii=False)
    except (ArtifactError, TypeError, ValueError):
        text = json.dumps(data)  # what cannot be sealed is tried as it is
    return Mutant(origin, "", text.encode("utf-8", "surrogatepass"), payload, True)


def change_bytes(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    """One to four changes of bytes."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        at = draw.randrange(len(found) + 1)
        stop = min(len(found), at + draw.choice([1, 2, 4, 8, 64]))
        how = draw.randrange(9)
        if how == 0 and at < len(found):
            found[at] ^= 1 << draw.randrange(8)
        elif how == 1 and at < len(found):
            found[at] = draw.randrange(256)
        elif how == 2:
            del found[at:stop]
        elif how == 3:
            found[at:at] = found[at:stop]
        elif how == 4:
            del found[at:]
        elif how == 5:
            other = draw.choice(others)
            begin = draw.randrange(len(other) + 1)
            found[at:stop] = other[begin : begin + draw.choice([1, 4, 16, 256])]
        elif how == 6:
            found[at:stop] = draw.choice(TOKENS)
        elif how == 7:
            found[at:stop] = str(draw.choice(NUMBERS)).encode()[:40]
        else:
            value = draw.choice([n for n in (0, 1, 255, 65535, 2**31, 2**32 - 1, 2**63, 2**64 - 1)])
            found[at:stop] = value.to_bytes(8, "little")[: max(1, stop - at)]
    return bytes(found)


def change_value(data: Any, draw: random.Random) -> None:
    """Change one value of JSON data in place, somewhere."""
    place, key = _somewhere(data, draw)
    if key is None:
        return
    value, how = place[key], draw.randrange(10)
    if how == 0:
        del place[key]
    elif how < 4:
        place[key] = copy.deepcopy(draw.choice((OTHERS, TEXTS, NUMBERS)[how - 1]))
    elif how == 4 and isinstance(place, dict):
        place[draw.choice([draw.choice(TEXTS), str(key) + "x", str(key)[:-1]])] = place.pop(key)
    elif how == 5 and isinstance(place, list):
        place.insert(key, copy.deepcopy(value))
    elif how == 6:
        other_place, other = _somewhere(data, draw)
        if other is not None:
            place[key] = copy.deepcopy(other_place[other])
    else:
        place[key] = _changed(value, draw)


def _changed(value: Any, draw: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return draw.choice([value + 1, value - 1, value * 2, -value, value * 1000, draw.choice(NUMBERS)])
    if isinstance(value, str):
        at = draw.randrange(len(value) + 1)
        return value[:at] + draw.choice(TEXTS) + value[at + draw.randrange(3) :]
    return draw.sample(value, len(value)) if isinstance(value, list) else dict(reversed(value.items()))


def _somewhere(data: Any, draw: random.Random) -> tuple[Any, Any]:
    """A random container of JSON data and one of its keys; the key is None if nothing is in there."""
    place = data
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return place, None
        key = draw.choice(keys)
        if not isinstance(place[key], (dict, list)) or not place[key] or draw.random() < 0.15:
            return place, key
        place = place[key]


def _always(origin: Origin) -> bool:
    return True


KINDS: dict[str, tuple[Callable[[Origin, random.Random, Sequence[Origin]], Mutant], Callable[[Origin], bool]]] = {
    "config, bytes": (_shallow_config, _always),
    "payload, bytes": (_shallow_payload, _always),
    "payload of another": (_swapped, _always),
    "config, values, sealed again": (_deep_config, _always),
    "payload, bytes, sealed again": (_deep_payload, _always),
    "payload, header, sealed again": (_deep_header, _always),
    "payload, tensors, sealed again": (_deep_tensors, _always),
    "payload, symbols, sealed again": (_deep_symbols, lambda origin: "frame" in origin.streams),
    "payload, factors, sealed again": (_deep_factors, lambda origin: "factors" in origin.streams),
    "name table, sealed again": (_deep_table, lambda origin: origin.config.backbone.table is not None),
}
_WEIGHTS = {
    "config, bytes": 10,
    "payload, bytes": 10,
    "config, values, sealed again": 8,
    "payload of another": 1,
    "payload, symbols, sealed again": 2,
    "payload, factors, sealed again": 4,
}
