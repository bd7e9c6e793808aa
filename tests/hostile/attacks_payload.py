"""Attacks on `rws.safetensors`: its header, its tensors, its compressed frame; the config vouches for each of them."""

from __future__ import annotations

import copy
import gzip
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from corpus import Attack, artifact, bases, load, refused
from forge import join, put, sealed, split, vouched
from mutants import Origin
from test_hostile import DATA, PAYLOADS
from test_hostile_entropy import CASES

from rws_hub.compact import fold
from rws_hub.errors import CorruptArtifactError
from rws_hub.frames import compress, zstd
from rws_hub.payload import write_payload

HUGE = 10**4299
NAN = math.nan
MAGIC = bytes.fromhex("28b52ffd")

# What an entry of the header says instead, and a piece of what is said to that.
ENTRIES: list[tuple[str, Any, str]] = [
    ("dtype", "I8", "must be"),
    ("dtype", "F64", "must be"),
    ("dtype", "BOOL", "must be"),
    ("dtype", "u8", "must be"),
    ("dtype", "F4", "must be"),
    ("dtype", "", "must be"),
    ("dtype", None, "must be"),
    ("dtype", ["U8"], "must be"),
    ("dtype", "\x1b[2J" * 1000, "must be"),
    ("shape", [], "must be"),
    ("shape", [0], "must be"),
    ("shape", [-1], "must be"),
    ("shape", [2**40], "must be"),
    ("shape", [HUGE], "must be"),
    ("shape", [True], "must be"),
    ("shape", [1.0], "must be"),
    ("shape", ["8"], "must be"),
    ("shape", [1, 1, 1], "must be"),
    ("shape", None, "must be"),
    ("shape", {}, "must be"),
    ("shape", 8, "must be"),
    ("shape", [[[[[[8]]]]]], "must be"),
    ("shape", [1] * 100_000, "must be"),
    ("data_offsets", [], "has malformed offsets"),
    ("data_offsets", [0], "has malformed offsets"),
    ("data_offsets", [0, 1, 2], "has malformed offsets"),
    ("data_offsets", ["0", "8"], "has malformed offsets"),
    ("data_offsets", [0.0, 8.0], "has malformed offsets"),
    ("data_offsets", [False, True], "has malformed offsets"),
    ("data_offsets", None, "has malformed offsets"),
    ("data_offsets", {"0": 8}, "has malformed offsets"),
    ("data_offsets", [0, HUGE], "has malformed offsets"),
    ("data_offsets", [-9 * HUGE, 9 * HUGE], "has malformed offsets"),
    ("data_offsets", [0, 2**40], "not what its shape needs"),
    ("data_offsets", [2**62, 0], "not what its shape needs"),
    ("data_offsets", [-(2**62), 2**62], "not what its shape needs"),
    ("x", 1, "is malformed"),
]  # fmt: skip

NAMES = ["../../etc/passwd", "/etc/passwd", "", ".", "a/b", "a\0", "\u00e4", "x" * 257, "\x1b[2J", "__metadata__ "]

LENGTHS = [0, 1, 7, 20, 2**16, 2**20, 10**8, 2**31 - 1, 2**31, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1]


def attacks() -> Iterator[Attack]:
    """All of them."""
    for name, origin in bases().items():
        yield from _headers(name, origin)
        yield from _files(name, origin)
        yield from _values(name, origin)
        for label in origin.streams:
            yield from _frames(name, origin, label)
    for case, (payload, message) in PAYLOADS.items():
        yield refused(f"format 1: {case}", "payload", artifact(vouched(DATA, payload), payload), message)
    for case, ((text, payload), message) in CASES.items():
        yield refused(f"format 3: {case}", "frame", artifact(text, payload), message)


def _vouched(origin: Origin, payload: bytes) -> Callable[..., Any]:
    return artifact(vouched(origin.data, payload), payload)


def _headers(name: str, origin: Origin) -> Iterator[Attack]:
    header, rest = split(origin.payload)
    for place, first in (("first", next(iter(header))), ("last", list(header)[-1])):
        for i, (key, value, message) in enumerate(ENTRIES):
            changed = copy.deepcopy(header)
            changed[first][key] = value
            payload = join(changed, rest)
            claims = f"{key} {value} in the header" if value in ([2**40], [0, 2**40], [2**62, 0]) else ""
            yield refused(f"{name}: {place} tensor, {key} {i}", "payload", _vouched(origin, payload), message, claims)
        for key in ("dtype", "shape", "data_offsets"):
            changed = copy.deepcopy(header)
            del changed[first][key]
            yield refused(
                f"{name}: {place} tensor without {key}",
                "payload",
                _vouched(origin, join(changed, rest)),
                "is malformed",
            )
        for entry in (None, [], "U8", 5):
            changed = header | {first: entry}
            yield refused(
                f"{name}: {place} entry is {entry!r}", "payload", _vouched(origin, join(changed, rest)), "is malformed"
            )
        start, stop = header[first]["data_offsets"]
        for by in (-1, 1, 8, 2**40):
            changed = copy.deepcopy(header)
            changed[first]["data_offsets"] = [start + by, stop + by]
            yield refused(
                f"{name}: {place} tensor moved by {by}",
                "payload",
                _vouched(origin, join(changed, rest)),
                "overlap or leave a hole" if place == "first" or by < 0 or len(header) > 1 else "",
            )
        without = {n: e for n, e in header.items() if n != first}
        yield refused(
            f"{name}: without the {place} tensor",
            "payload",
            _vouched(origin, join(without, rest)),
            f"the tensor {first} is missing",
        )
        text = json.dumps(header, separators=(",", ":"))
        twice = text[:-1] + f',"{first}":{json.dumps(header[first])}}}'
        yield refused(
            f"{name}: the {place} tensor twice", "payload", _vouched(origin, join(twice, rest)), "occurs twice"
        )
        escaped = text.replace(f'"{first}"', '"' + "".join(f"\\u{ord(c):04x}" for c in first) + '"', 1)
        yield refused(
            f"{name}: the {place} name in escapes",
            "payload",
            _vouched(origin, join(escaped, rest)),
            "not spelled or ordered",
        )
    for word in NAMES:
        changed = header | {word: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}
        yield refused(
            f"{name}: also a tensor {word[:20]!r}",
            "payload",
            _vouched(origin, join(changed, rest)),
            "cannot be a tensor name",
        )
    for word, entry in {
        "extra": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]},
        "__metadata__": {"format": "pt"},
    }.items():
        yield refused(
            f"{name}: also {word}",
            "payload",
            _vouched(origin, join(header | {word: entry}, rest)),
            f"unexpected tensor {word}",
        )
    text = json.dumps(header, separators=(",", ":"))
    spelled: dict[str, tuple[str, str]] = {
        "a header with blanks": (json.dumps(header), "not spelled or ordered"),
        "a header with line ends": (json.dumps(header, indent=1), "not spelled or ordered"),
        "a header padded with tabs": (text + "\t" * 8, "not spelled or ordered"),
        "a header padded with eight blanks more": (text + " " * (-len(text) % 8 + 8), "not spelled or ordered"),
        "a header padded with zeros": (text + "\0" * 8, "not valid JSON"),
        "a header with a comma too many": (text[:-1] + ",}", "not valid JSON"),
        "two headers": (text + text, "not valid JSON"),
        "a header that is a list": ("[" + text + "]", "the header is not an object"),
        "a header that is a number": ("8" * 8, "the header is not an object"),
        "a header that is null": ("null    ", "the header is not an object"),
        "an empty object": ("{}      ", "is missing"),
        "a deep header": ("[" * 100_000, "not valid JSON"),
        "a header of a million lists": ("[" + "[]," * 1_100_000 + "[]]", "commas and brackets; at most"),
        "offsets with a minus zero": (text.replace("[0,", "[-0,"), "not spelled or ordered"),
    }  # fmt: skip
    if len(header) > 1:
        spelled["tensors in another order"] = (
            json.dumps(dict(reversed(header.items())), separators=(",", ":")),
            "not spelled or ordered",
        )
    for case, (changed_text, message) in spelled.items():
        payload = join(changed_text, rest)
        data = origin.data
        yield refused(f"{name}: {case}", "payload", artifact(vouched(data, payload), payload), message)
    for length in LENGTHS:
        payload = length.to_bytes(8, "little") + origin.payload[8:]
        fits = length <= len(payload) - 8
        claims = f"a header of {length:,} bytes" if length >= 2**40 else ""
        yield refused(
            f"{name}: a header length of {length}",
            "payload",
            _vouched(origin, payload),
            "header: not valid JSON" if fits else "the header does not fit",
            claims,
        )


def _files(name: str, origin: Origin) -> Iterator[Attack]:
    """Other files, and this one cut, made longer or changed."""
    payload = origin.payload
    files: dict[str, bytes] = {
        "an empty file": b"",
        "seven bytes": payload[:7],
        "a length alone": payload[:8],
        "a header alone": payload[: 8 + int.from_bytes(payload[:8], "little")],
        "half of it": payload[: len(payload) // 2],
        "a byte less": payload[:-1],
        "a byte more": payload + b"\0",
        "it twice": payload * 2,
        "a pickle": b"\x80\x02cos\nsystem\n(S'true'\ntR." + bytes(len(payload)),
        "a zip file": b"PK\3\4" + bytes(len(payload)),
        "a gzip file": gzip.compress(payload, mtime=0),
        "a zstd file": zstd.compress(payload),
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(len(payload)),
        "a page": b"<!doctype html>" + bytes(len(payload)),
        "a pointer to a file": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "zeros": bytes(len(payload)),
        "ones": b"\xff" * len(payload),
        "another one": next(o.payload for n, o in bases().items() if n != name),
    }  # fmt: skip
    for case, data in files.items():
        yield refused(f"{name}: {case}, not vouched for", "payload", artifact(origin.text, data), "rws.safetensors")
        yield Attack(f"{name}: {case}, vouched for", "payload", _vouched(origin, data), load, CorruptArtifactError, "")
    for at in (0, 8, len(payload) // 2, len(payload) - 1):
        changed = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        yield refused(
            f"{name}: a bit of byte {at} turned", "payload", artifact(origin.text, changed), "rws.safetensors"
        )


def _values(name: str, origin: Origin) -> Iterator[Attack]:
    """Numbers that no encoder writes, in every tensor that holds numbers."""
    for label, part in origin.parts.items():
        if not part.is_floating_point():
            continue
        values = {"NaN": NAN, "infinite": math.inf, "minus infinite": -math.inf}
        if label == "steps" or label.endswith(".scales"):
            values |= {"negative": -1.0}
        if label.endswith(".scales"):
            values |= {"too large for its codes": 3e38}
        if label == "steps":
            values |= {"minus zero": -0.0, "subnormal": 1e-40, "too large": 3e38}
        for case, value in values.items():
            for at in sorted({0, part.numel() - 1}):
                changed = part.clone().reshape(-1)
                changed[at] = value
                parts = origin.parts | {label: changed.reshape(part.shape)}
                payload = bytes(write_payload(parts))
                said = {"negative": "a negative scale", "too large for its codes": "whose products are not finite"}
                message = "which no encoder writes" if label == "steps" else said.get(case, "is not finite")
                yield refused(f"{name}: {label}[{at}] is {case}", "payload", _vouched(origin, payload), message)
    if origin.config.codec.scheme == "uniform":
        bits = origin.config.codec.bits
        for label, part in origin.parts.items():
            if not label.endswith(".codes"):
                continue
            raw = part.clone()
            raw[:bits] = 0  # eight codes of -2^(b-1)
            payload = bytes(write_payload(origin.parts | {label: raw}))
            yield refused(f"{name}: {label} of the lowest code", "payload", _vouched(origin, payload), "outside its")


def counted(origin: Origin, parts: dict[str, torch.Tensor], data: dict[str, Any] | None = None) -> Callable[..., Any]:
    """A payload with these tensors instead of its own, and a config that counts what is in them."""
    found = {n: p for n, p in (origin.parts | parts).items() if p.numel()}
    payload = bytes(write_payload(found))
    data = data or origin.data
    lengths = {n: len(found[n]) if n in found else 0 for n in ("frame", "escapes", "factors")}
    codec = data["codec"] | {n: length for n, length in lengths.items() if n in data["codec"]}
    return artifact(vouched({**data, "codec": codec}, payload), payload)


def as_bytes(data: bytes) -> torch.Tensor:
    """The same as a tensor."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def by_hand(
    size: int, width: int, window: int | None = None, dictionary: int | None = None, blocks: bytes = b"\1\0\0"
) -> bytes:
    """The header of a zstd frame that states a size in so many bytes, and blocks (an empty last one)."""
    flag = {0: 0, 1: 0, 2: 1, 4: 2, 8: 3}[width]
    single = window is None
    descriptor = flag << 6 | (0x20 if single else 0) | (0 if dictionary is None else 3)
    stated = size - 256 if width == 2 else size
    head = MAGIC + bytes([descriptor]) + (b"" if window is None else bytes([window]))
    return (
        head
        + (b"" if dictionary is None else dictionary.to_bytes(4, "little"))
        + stated.to_bytes(width, "little")
        + blocks
    )


def _frames(name: str, origin: Origin, label: str) -> Iterator[Attack]:
    """One of the compressed tensors, damaged in all the ways that a frame can be."""
    stream, size = origin.streams[label], len(origin.streams[label])
    good = bytes(compress([stream], size))
    raw = (size << 3 | 1).to_bytes(3, "little") + stream  # one last block, as it is
    rle = (size << 3 | 3).to_bytes(3, "little") + b"\xff"
    skippable = bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"abcd"
    unsized = zstd.compress(stream, options={zstd.CompressionParameter.content_size_flag: 0})
    checked = bytearray(zstd.compress(stream, options={zstd.CompressionParameter.checksum_flag: 1}))
    checked[-1] ^= 1
    bomb = bytes(compress([bytes(2**20)] * 64, 2**26))
    cases: dict[str, tuple[bytes, str]] = {
        "a frame of a byte more": (bytes(compress([stream, b"\1"], size + 1)), "bytes, the shapes need"),
        "blocks of another size": (
            by_hand(size, 4, blocks=((size + 1) << 3 | 1).to_bytes(3, "little") + stream),
            "the compressed codes are",
        ),
        "a block longer than stated": (
            by_hand(size, 4, blocks=((size + 9) << 3 | 3).to_bytes(3, "little") + b"\xff"),
            "the compressed codes are",
        ),
        "a block of the reserved kind": (
            by_hand(size, 4, blocks=(size << 3 | 7).to_bytes(3, "little") + stream),
            "the compressed codes are",
        ),
        "no last block": (
            by_hand(size, 4, blocks=(size << 3).to_bytes(3, "little") + stream),
            "the compressed codes are cut off",
        ),
        "the reserved bit": (good[:4] + bytes([good[4] | 8]) + good[5:], "the compressed codes are"),
        "a wrong checksum": (bytes(checked), "the compressed codes are damaged"),
        "without a checksum that it announces": (
            good[:4] + bytes([good[4] | 4]) + good[5:],
            "the compressed codes are",
        ),
        "a dictionary": (by_hand(size, 4, dictionary=77, blocks=raw), "the compressed codes are"),
        "a frame that states no size": (unsized, "state no size"),
        "a skippable frame first": (skippable + good, "do not begin as a zstd frame does"),
        "a skippable frame behind": (good + skippable, "cut off, or something follows"),
        "a skippable frame alone": (skippable, "do not begin as a zstd frame does"),
        "two frames": (good + good, "cut off, or something follows"),
        "two frames, half of it each": (
            bytes(compress([stream[: size // 2]], size // 2))
            + bytes(compress([stream[size // 2 :]], size - size // 2)),
            "bytes, the shapes need",
        ),
        "an empty frame behind": (good + by_hand(0, 4), "cut off, or something follows"),
        "a byte behind": (good + b"\0", "cut off, or something follows"),
        "a line end behind": (good + b"\n", "cut off, or something follows"),
        "cut by a byte": (good[:-1], "the compressed codes are"),
        "its magic alone": (MAGIC, "the compressed codes are damaged"),
        "one byte": (b"\x28", "do not begin as a zstd frame does"),
        "an old zstd": (bytes.fromhex("27b52ffd") + good[4:], "do not begin as a zstd frame does"),
        "an lz4 frame": (bytes.fromhex("04224d18") + good[4:], "do not begin as a zstd frame does"),
        "as it is, not compressed": (stream, "do not begin as a zstd frame does"),
        "a bomb of 64 MiB": (bomb, "state 67,108,864 bytes"),
        "a bomb behind an honest size": (
            by_hand(size, 4, window=0x98)[:-3] + bomb[bomb.index(b"\0\0", 5) :],
            "the compressed codes ask for a window",
        ),
        "every code the largest": (
            by_hand(size, 4, blocks=rle),
            "a code outside of +-127" if label == "factors" else _odd(origin),
        ),
    }
    if size:
        cases |= {
            "an empty frame": (by_hand(0, 4), "state 0 bytes"),
            "a frame that ends at once": (by_hand(size, 4), "the compressed codes are"),
        }
    else:
        for case in ("every code the largest", "two frames, half of it each", "as it is, not compressed"):
            del cases[case]
    for width in (1, 2, 4, 8):
        for stated in (0, 1, size - 1, size + 1, 2**20, 2**32 - 1, 2**32, 2**40, 2**63, 2**64 - 1, 2**64 - 2):
            if stated not in (size, -1) and (256 if width == 2 else 0) <= stated < (1 << 8 * width) + (
                256 if width == 2 else 0
            ):
                cases[f"a size of {stated} in {width} bytes"] = (
                    by_hand(stated, width, blocks=raw),
                    "the compressed codes",
                )
    for window in (0x00, 0x50, 0x88, 0x89, 0x98, 0xA0, 0xB0, 0xC0, 0xF8, 0xFF)[0 if size else 3 :]:
        cases[f"a window byte of {window:#x} and no data"] = (by_hand(size, 4, window=window), "the compressed codes")
    for case, (frame, message) in cases.items():
        claims = (
            case
            if "2**40" in case
            or "1099511627776" in case
            or "18446744073709551614" in case
            or "0xff" in case
            or "bomb" in case
            else ""
        )
        yield refused(f"{name}, {label}: {case}", "frame", counted(origin, {label: as_bytes(frame)}), message, claims)
    for window in (0x89, 0xA0, 0xFF):  # beyond 2^27
        frame = by_hand(size, 4, window=window, blocks=raw)
        yield refused(
            f"{name}, {label}: a window byte of {window:#x}",
            "frame",
            counted(origin, {label: as_bytes(frame)}),
            "the compressed codes ask for a window of",
            "a window beyond 2^27 bytes",
        )
    if label == "frame" and size:
        yield from _escapes(name, origin)
        yield from _large(name, origin)


def _odd(origin: Origin) -> str:
    """What is said of nothing but escapes: it depends on whether a tensor ends within a byte."""
    counts = [math.prod(origin.config.shape(n)) for n, f in origin.config.tensors.items() if f.encoding == "symbols"]
    return "stray bits" if origin.config.codec.bits == 4 and any(n % 2 for n in counts) else "do not belong together"


def _escapes(name: str, origin: Origin) -> Iterator[Attack]:
    aside = origin.parts.get("escapes", torch.empty(0, dtype=torch.int16))
    top = (1 << (origin.config.codec.bits - 1)) - 1
    escapes: dict[str, tuple[list[int], str]] = {
        "an escape more": ([*aside.tolist(), top + 1], "codes stand aside that no symbol asks for"),
        "60 escapes more": ([*aside.tolist(), *[top + 1] * 60], "60 codes stand aside that no symbol asks for"),
    }
    if len(aside):
        escapes |= {
            "an escape less": (aside.tolist()[:-1], "do not belong together"),
            "an escape that a symbol could hold": ([top, *aside.tolist()[1:]], "do not belong together"),
            "an escape of -2^15": ([-(2**15), *aside.tolist()[1:]], "do not belong together"),
            "no escapes": ([], "do not belong together"),
        }
    for case, (found, message) in escapes.items():
        make = counted(origin, {"escapes": torch.tensor(found, dtype=torch.int16)})
        yield refused(f"{name}: {case}", "frame", make, message)


def _large(name: str, origin: Origin) -> Iterator[Attack]:
    """Small files that do hold what they claim: 2^26 bytes of symbols, every one of which asks for an escape."""
    wide = next(n for n, f in origin.config.tensors.items() if f.encoding == "symbols")
    width = origin.config.codec.bits
    others = len(origin.stream) - -(-math.prod(origin.config.shape(wide)) * width // 8)
    count = (2**26 - others) * 8 // width
    layout = {n: list(s) for n, s in origin.config.backbone.layout.items()} | {wide: [count]}
    data = put(origin.data, "backbone.layout", fold(layout))
    frame = bytes(compress([b"\xff" * 2**20] * 64, 2**26, 1))
    yield refused(
        f"{name}: 2^26 bytes of nothing but escapes",
        "frame",
        counted(origin, {"frame": as_bytes(frame)}, data),
        "do not belong together",
        "2^26 bytes of symbols, which it holds",
    )
    claimed = put(data, "backbone.layout", fold(layout | {wide: [count * 4]}))
    yield refused(
        f"{name}: more than 2^26 bytes of symbols",
        "frame",
        counted(origin, {"frame": as_bytes(frame)}, claimed),
        "cannot stand for",
        "2^28 bytes of symbols",
    )
    for bits, small in ((4, 2**30), (8, 2**40)):
        text = sealed(put(put(origin.data, "codec.bits", bits), "backbone.layout", fold(layout | {wide: [small]})))
        yield refused(
            f"{name}: {small} codes of {bits} bits",
            "config",
            artifact(text, origin.payload),
            "cannot stand for",
            f"{small} codes of {bits} bits",
        )
