"""Attacks on name tables, as a file and in an artifact, and on checkpoints: files, indices and shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from corpus import Attack, artifact, bases, checkpoint, load, table
from forge import put, sealed

from rws_hub.errors import CheckpointError, CorruptArtifactError, NameTableError

DIGITS = "9" * 5000
ROW = "columns: a | b\n"
# Text of a table, and a piece of what is said.
TABLES: dict[str, tuple[str, str]] = {
    "nothing": ("", "expected a line `columns: a | b`"),
    "no columns": ("x | y\n", "2 cells for 0 columns"),
    "no rows": (ROW, "expected a line `columns: a | b`"),
    "one column": ("columns: a\nx\n", "expected a line `columns: a | b`"),
    "a column twice": ("columns: a | a\nx | y\n", "expected a line `columns: a | b`"),
    "two lines of columns": (ROW + ROW + "x | y\n", "a second line `columns:`"),
    "17 columns": (
        "columns: " + " | ".join(f"c{i}" for i in range(17)) + "\nx" + " | =" * 16 + "\n",
        "17 columns; a table has at most 16",
    ),
    "20,000 columns": (
        "columns: " + "|".join(f"{i:x}" for i in range(11_000)) + "\n",
        "columns; a table has at most 16",
    ),
    "513 lines": (ROW + "x | y\n" * 512, "513 lines; a table has at most 512"),
    "30,000 lines": (ROW + "|\n" * 30_000, "lines; a table has at most 512"),
    "65,537 characters": (ROW + "x | y\n" + "#" * 65_537, "a table has at most 65,536"),
    "a control character": (ROW + "x | \x1b[2J\n", "cannot be printed"),
    "a zero": (ROW + "x | y\0\n", "cannot be printed"),
    "letters that turn the line": (ROW + "x | y\u202e\n", "cannot be printed"),
    "other letters": (ROW + "\u0445 | y\n", "is no name template"),
    "a path": (ROW + "../../etc/passwd | y\n", "is no name template"),
    "a regular expression": (ROW + "(a+)+ | y\n", "is no name template"),
    "another one": (ROW + "x.*y | =\n", "is no name template"),
    "a set of letters": (ROW + "x[a-z]y | =\n", "is no cell"),
    "numbers with digits between": (
        ROW + "{a}1{b}1{c}1{d}1{e}1{f}x | =\n",
        "with a text that is no number between two fields",
    ),
    "numbers side by side": (ROW + "x.{a}{b} | =\n", "with a text that is no number between two fields"),
    "nine fields": (ROW + ".".join(f"{{{c}}}" for c in "abcdefghi") + " | =\n", "9 fields; at most 8 are allowed"),
    "5,000 fields": (
        ROW
        + ".".join("{%s}" % (chr(97 + i // 676) + chr(97 + i // 26 % 26) + chr(97 + i % 26)) for i in range(5000))
        + " | =\n",
        "5,000 fields; at most 8 are allowed",
    ),
    "a field twice": (ROW + "x.{a}.{a} | =\n", "holds a field twice"),
    "a field that is not closed": (ROW + "x.{a | =\n", "is no name template"),
    "a field in a field": (ROW + "x.{a{b}} | =\n", "is no name template"),
    "other fields": (ROW + "x.{a} | y.{b}\n", "must hold the same fields"),
    "an offset of 5,000 digits": (ROW + f"x.{{a+{DIGITS}}} | =\n", "is no name template"),
    "a stride of 5,000 digits": (ROW + f"x.{{{DIGITS}*a}} | =\n", "is no name template"),
    "a stride of zero": (ROW + "x.{0*a} | =\n", "is no name template"),
    "a number of 5,000 digits": (ROW + f"x.{{a={DIGITS}}} | =\n", "is no name template"),
    "Arabic digits": (ROW + "x.{a+\u0663} | =\n", "is no name template"),
    "a block of 5,000 digits": (ROW + f"x[0/{DIGITS}] | y\n", "is no view"),
    "a block behind the last": (ROW + "x[3/3] | y\n", "is no view"),
    "no blocks": (ROW + "x[0/0] | y\n", "is no view"),
    "columns of 5,000 digits": (ROW + f"x[:,{DIGITS}:] | y\n", "is no view"),
    "columns up to a given one": (ROW + "x[:,:1] | y\n", "can only be added"),
    "nine axes": (ROW + f"x[{','.join(['None'] * 9)}] | y\n", "is no view"),
    "10,000 axes": (ROW + f"x[{','.join(['None'] * 10_000)}] | y\n", "is no view"),
    "30,000 axes dropped": (ROW + f"x[{','.join(['0'] * 30_000)}] | y\n", "is no view"),
    "a view that runs": (ROW + "x[__import__('os')] | y\n", "is no view"),
    "lengths of 5,000 digits": (ROW + f"x<{DIGITS}> | y\n", "is no cell"),
    "nine lengths": (ROW + "x<1,1,1,1,1,1,1,1,1> | y\n", "is no cell"),
    "two views": (ROW + "x[0/2][1/2] | y\n", "is no cell"),
    "a condition on nothing": (ROW + "with x: y | z\n", "no row above is about x"),
    "no canonical name": (ROW + "- | y\n", "the first column holds the canonical name"),
    "a cell too many": (ROW + "x | y | z\n", "3 cells for 2 columns"),
    "a unit of another field": (ROW + "x.{a} | =\nunit u{b}: x.{a}\n", "holds a field that one of its prefixes lacks"),
    "a unit without a label": (ROW + "x | y\nunit : x\n", "is no cell"),
    "blocks of a column that is none": (ROW + "flat z: k = s b by x\nx | y\n", "names a column above it"),
    "blocks by one field": (ROW + "flat b: k = k b by x\nx | y\n", "three different fields that are numbers"),
    "blocks by words": (ROW + "flat b: wb = s bn by x\nx | y\n", "three different fields that are numbers"),
    "2^40 blocks": (ROW + f"flat b: k = s b as {2**40} by x\nx | y\n", "blocks; a backbone has at most 65,536"),
    "blocks of 5,000 digits": (ROW + f"flat b: k = s b as {DIGITS} by x\nx | y\n", "line 2"),
}


def attacks() -> Iterator[Attack]:
    """All of them."""
    origin = next(o for o in bases().values() if o.config.backbone.table is not None)
    for case, (text, message) in TABLES.items():
        raw = text.encode("utf-8", "surrogatepass")
        yield Attack(f"a table with {case}, as a file", "table", _file("own.map", raw), table, NameTableError, message)
        inside = artifact(sealed(put(origin.data, "backbone.table", text)), origin.payload)
        yield Attack(f"a table with {case}, in an artifact", "table", inside, load, CorruptArtifactError, message)
    yield Attack(
        "a table that is no UTF-8",
        "table",
        _file("own.map", b"columns: a | \xff\n"),
        table,
        NameTableError,
        "no name table",
    )
    yield Attack(
        "a table that is a folder", "table", lambda f: (f / "own.map").mkdir(), table, NameTableError, "no name table"
    )
    wide = (
        "columns: "
        + " | ".join(f"c{i}" for i in range(16))
        + "\n"
        + "".join(f"x{i}" + " | =" * 15 + "\n" for i in range(500))
    )
    data = put(origin.data, "backbone.table", wide)
    layout = {f"n{i}": [1] for i in range(2_000)}
    data = put(data, "backbone.layout", data["backbone"]["layout"] | layout)
    many = artifact(sealed(data), origin.payload)
    yield Attack(
        "a table of 8,000 cells for 2,000 names",
        "table",
        many,
        load,
        CorruptArtifactError,
        "too many to be read by a table of",
    )
    yield from _checkpoints()
    yield from _indices()


def _file(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def tensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

FILES: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "a length alone": (8).to_bytes(8, "little"),
    "a header of 2^64 bytes": tensors({"w": ENTRY}, bytes(8), 2**64 - 1),
    "a header of a terabyte": tensors({"w": ENTRY}, bytes(8), 2**40),
    "a header beyond the file": tensors({"w": ENTRY}, bytes(8), 1000),
    "no JSON": tensors(b"{" * 100),
    "a list": tensors([1]),
    "deep nesting": tensors(b'{"a":' * 10_000),
    "UTF-16": tensors(json.dumps({"w": ENTRY}).encode("utf-16"), bytes(8)),
    "half a character": tensors(b'{"\\ud800":' + json.dumps(ENTRY).encode() + b"}", bytes(8)),
    "a name twice": tensors(f'{{"w": {json.dumps(ENTRY)}, "w": {json.dumps(ENTRY)}}}'.encode(), bytes(8)),
    "a name twice, of two places": tensors(
        f'{{"w": {json.dumps(ENTRY)}, "w": {json.dumps(ENTRY | {"data_offsets": [8, 16]})}}}'.encode(), bytes(16)
    ),
    "metadata twice": tensors(
        f'{{"__metadata__": {{}}, "w": {json.dumps(ENTRY)}, "__metadata__": {{}}}}'.encode(), bytes(8)
    ),
    "metadata that is a number": tensors({"__metadata__": 5, "w": ENTRY}, bytes(8)),
    "metadata of numbers": tensors({"__metadata__": {"a": 5}, "w": ENTRY}, bytes(8)),
    "a dtype that is none": tensors({"w": ENTRY | {"dtype": "F33"}}, bytes(8)),
    "a shape of another size": tensors({"w": ENTRY | {"shape": [3]}}, bytes(8)),
    "a shape that overflows": tensors({"w": ENTRY | {"shape": [2**32, 2**32, 4]}}, bytes(8)),
    "a shape of 2^40": tensors({"w": ENTRY | {"shape": [2**40]}}, bytes(8)),
    "a negative shape": tensors({"w": ENTRY | {"shape": [-2]}}, bytes(8)),
    "a shape of halves": tensors({"w": ENTRY | {"shape": [2.0]}}, bytes(8)),
    "a shape of 5,000 digits": tensors(
        b'{"w": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 8]}}', bytes(8)
    ),
    "offsets backwards": tensors({"w": ENTRY | {"data_offsets": [8, 0]}}, bytes(8)),
    "negative offsets": tensors({"w": ENTRY | {"data_offsets": [-8, 0]}}, bytes(8)),
    "offsets beyond the file": tensors({"w": ENTRY | {"data_offsets": [2**40, 2**40 + 8]}}, bytes(8)),
    "three offsets": tensors({"w": ENTRY | {"data_offsets": [0, 8, 8]}}, bytes(8)),
    "an overlap": tensors({"v": ENTRY, "w": ENTRY}, bytes(8)),
    "half an overlap": tensors({"v": ENTRY, "w": ENTRY | {"data_offsets": [4, 12]}}, bytes(12)),
    "a hole": tensors({"v": ENTRY, "w": ENTRY | {"data_offsets": [16, 24]}}, bytes(24)),
    "bytes in front": tensors({"w": ENTRY | {"data_offsets": [8, 16]}}, bytes(16)),
    "bytes behind": tensors({"w": ENTRY}, bytes(16)),
    "fewer bytes": tensors({"w": ENTRY}, bytes(7)),
    "a key missing": tensors({"w": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "an entry that is a list": tensors({"w": [1]}, bytes(8)),
    "an entry that is null": tensors({"w": None}, bytes(8)),
    "a name of 1,025 characters": tensors({"w" * 1025: ENTRY}, bytes(8)),
    "a name of a million dots": tensors({"." * 10**6: ENTRY}, bytes(8)),
    "300,000 names": tensors({f"n{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(300_000)}),
    "a pickle": b"\x80\x02cos\nsystem\n(S'true'\ntR.",
    "a zip file": b"PK\3\4" + bytes(100),
    "zeros": bytes(1000),
}


def _checkpoints() -> Iterator[Attack]:
    for case, data in FILES.items():
        claims = (
            "2^40 in the header of a checkpoint"
            if case in ("a header of a terabyte", "a shape of 2^40", "offsets beyond the file")
            else ""
        )
        yield Attack(
            f"a checkpoint: {case}",
            "checkpoint",
            _file("model.safetensors", data),
            checkpoint,
            CheckpointError,
            "",
            claims,
        )
    others: dict[str, Callable[[Path], None]] = {
        "nothing": lambda folder: (folder / "readme").touch(),
        "a pickle of torch": _file("model.bin", b"\x80\x02."),
        "two files": lambda folder: [(folder / f"{n}.safetensors").touch() for n in "ab"] and None,
        "a pipe": lambda folder: __import__("os").mkfifo(folder / "model.safetensors"),
        "a folder": lambda folder: (folder / "model.safetensors").mkdir(),
        "a link to nothing": lambda folder: (folder / "model.safetensors").symlink_to("nowhere"),
        "a link to a device": lambda folder: (folder / "model.safetensors").symlink_to("/dev/zero"),
    }
    for case, make in others.items():
        yield Attack(f"a checkpoint's folder with {case}", "checkpoint", make, checkpoint, CheckpointError, "")


def _indices() -> Iterator[Attack]:
    names = {
        "a path above": "../model.safetensors",
        "an absolute path": "/etc/passwd.safetensors",
        "a subfolder": "a/model.safetensors",
        "a pickle": "model.bin",
        "nothing": "",
        "a dot": ".",
        "a number": 5,
        "a list for a name": ["model.safetensors"],
        "null": None,
        "a zero": "a\0.safetensors",
        "a shard that is not there": "b.safetensors",
        "a name that steers the terminal": "\x1b[2J.safetensors",
        "a long name": "x" * 5000 + ".safetensors",
        "itself": "model.safetensors.index.json",
        "a URL": "https://x/model.safetensors",
    }
    shard = tensors({"w": ENTRY}, bytes(8))

    def of(case: str, index: bytes) -> Attack:
        def make(folder: Path) -> None:
            (folder / "model.safetensors.index.json").write_bytes(index)
            (folder / "a.safetensors").write_bytes(shard)

        return Attack(
            f"an index with {case}", "checkpoint", make, checkpoint, CheckpointError, "model.safetensors.index.json"
        )

    for case, name in names.items():
        yield of(case, json.dumps({"weight_map": {"w": name}}).encode())
    texts = {
        "no JSON": b"index",
        "nothing in it": b"",
        "no map": b"{}",
        "a list": b"[]",
        "a map that is a list": b'{"weight_map": []}',
        "a map that is null": b'{"weight_map": null}',
        "deep nesting": b'{"weight_map": ' + b"[" * 100_000,
        "UTF-16": "{}".encode("utf-16"),
        "NaN": b'{"weight_map": NaN}',
        "a name twice": b'{"weight_map": {"w": "a.safetensors", "w": "b.safetensors"}}',
        "a million lists": b'{"weight_map": [' + b"[]," * 1_100_000 + b"[]]}",
    }
    for case, text in texts.items():
        yield of(case, text)

    def double(folder: Path) -> None:
        for name in "ab":
            (folder / f"{name}.safetensors").write_bytes(shard)
        index = {"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    yield Attack("one tensor in two shards", "checkpoint", double, checkpoint, CheckpointError, "the tensor w is in")

    def two(folder: Path) -> None:
        for name in "ab":
            (folder / f"{name}.safetensors.index.json").write_text("{}")

    yield Attack("two indices", "checkpoint", two, checkpoint, CheckpointError, "found 2 indices")
