"""Attacks by what lies in the folder: pipes, links, folders and holes for files; cards, results and figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from corpus import Attack, artifact, bases, refused, results, save, whole
from forge import DELETE, put, small_signature
from side import results as measured

from rws_hub.errors import (
    ArtifactError,
    CardError,
    CorruptArtifactError,
    FormatVersionError,
    NotASignatureError,
    RWSError,
)
from rws_hub.spec import CARD_FILE, CONFIG_FILE, PAYLOAD_FILE, RESULTS_FILE

PNG = b"\x89PNG\r\n\x1a\n"
TERABYTE = 2**40
Make = Callable[[Path], None]


def hole(file: Path) -> None:
    """A terabyte on paper."""
    with file.open("wb") as handle:
        handle.truncate(TERABYTE)


def linked(file: Path) -> None:
    """A link to a file outside the folder."""
    secret = file.parent.parent / f"{file.parent.name}-secret"
    secret.write_bytes(PNG + b"secret")
    file.symlink_to(secret)


INSTEAD: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a folder": lambda file: file.mkdir(),
    "a link to a device": lambda file: file.symlink_to("/dev/zero"),
    "a link to itself": lambda file: file.symlink_to(file),
    "a link to nothing": lambda file: file.symlink_to("nowhere"),
    "a link to its folder": lambda file: file.symlink_to("."),
    "a terabyte": hole,
}


def attacks() -> Iterator[Attack]:
    """All of them."""
    yield from _files()
    yield from _figures()
    yield from _cards()
    yield from _results()


def _instead(origin_name: str, path: str, put_there: Callable[[Path], None]) -> Make:
    origin = bases()[origin_name]

    def make(folder: Path) -> None:
        artifact(origin.text, origin.payload)(folder)
        file = folder / path
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        put_there(file)

    return make


def _files() -> Iterator[Attack]:
    for name in bases():
        for case, put_there in INSTEAD.items():
            claims = "a terabyte of holes" if put_there is hole else ""
            gone = case != "a terabyte"
            yield refused(
                f"{name}: for its config {case}", "folder", _instead(name, CONFIG_FILE, put_there),
                "so this is not a robust weight signature" if gone else "at most 16,777,216 are allowed",
                claims, NotASignatureError if gone else None,
            )  # fmt: skip
            yield refused(
                f"{name}: for its payload {case}", "folder", _instead(name, PAYLOAD_FILE, put_there),
                "rws.safetensors is missing" if gone else "the file is too long", claims,
            )  # fmt: skip
            for path in (CARD_FILE, RESULTS_FILE):
                message = (
                    "at most 1,048,576 are allowed" if not gone else "is a link" if "link" in case else "is no file"
                )
                make = _instead(name, path, put_there)
                yield Attack(f"{name}: for {path} {case}", "folder", make, whole, CorruptArtifactError, message, claims)
        for path in (CARD_FILE, RESULTS_FILE, "figures/a.png"):
            yield Attack(
                f"{name}: {path} a link to a secret",
                "folder",
                _instead(name, path, linked),
                whole,
                CorruptArtifactError,
                "is a link",
            )
        for subfolder in ("..", "../x", "/etc", "a/../..", "a\\b", "./.."):
            yield Attack(
                f"{name}: the subfolder {subfolder}", "folder", artifact(bases()[name].text, bases()[name].payload),
                _subfolder(subfolder), ArtifactError, "must be a plain relative path",
            )  # fmt: skip


def _subfolder(subfolder: str) -> Callable[[Path], object]:
    from rws_hub import RobustWeightSignature

    return lambda folder: RobustWeightSignature.from_pretrained(folder, subfolder=subfolder)


def _figures() -> Iterator[Attack]:
    name = next(iter(bases()))
    pictures = {
        "no picture": b"picture",
        "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "a page": b"<!doctype html><script>alert(1)</script>",
        "a JPEG": b"\xff\xd8\xff\xe0" + bytes(20),
        "nothing": b"",
        "half a signature": PNG[:7],
        "a script": b"#!/bin/sh\ntrue\n",
        "a pickle": b"\x80\x02}q\x00.",
    }
    for case, data in pictures.items():
        make = _instead(name, "figures/a.png", lambda file, data=data: file.write_bytes(data))  # type: ignore[misc]
        yield Attack(f"a figure that is {case}", "folder", make, whole, CorruptArtifactError, "is no PNG")
    for case, put_there in INSTEAD.items():
        message = (
            "at most 16,777,216 are allowed" if put_there is hole else "is a link" if "link" in case else "is no file"
        )
        make = _instead(name, "figures/a.png", put_there)
        yield Attack(f"for a figure {case}", "folder", make, whole, CorruptArtifactError, message)

    def link_of_figures(file: Path) -> None:
        elsewhere = file.parent.parent / f"{file.parent.name}-elsewhere"
        elsewhere.mkdir(exist_ok=True)
        (elsewhere / "a.png").write_bytes(PNG)
        file.symlink_to(elsewhere)

    yield Attack(
        "a link for the folder of figures",
        "folder",
        _instead(name, "figures", link_of_figures),
        whole,
        CorruptArtifactError,
        "is a link",
    )
    for word in ("a b.png", "a\nb.png", "a)(x.png", "\u202egnp.png", "<b>.png", "..png", "a'b.png"):
        make = _instead(name, f"figures/{word}", lambda file: file.write_bytes(PNG))  # type: ignore[misc]
        yield Attack(
            f"a figure called {word!r}", "folder", make, _card_of, CardError, "a figure must be a picture inside"
        )


def _card_of(folder: Path) -> object:
    from rws_hub.contents import read_contents

    return read_contents(folder).files(None)


ALIASES = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{', '.join([f'*{chr(97 + i)}'] * 9)}]}}\n" for i in range(9)
)

METADATA: list[tuple[str, str, str]] = [
    ("aliases that grow", ALIASES, "uses an alias"),
    ("merges that grow", MERGES, "uses an alias"),
    ("an alias of itself", "a: &a [*a]\n", "uses an alias"),
    ("an alias of nothing", "a: *b\n", "uses an alias"),
    ("an object of Python", "a: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
    ("a module of Python", "a: !!python/module:os\n", "is not valid YAML"),
    ("a name of Python", "a: !!python/name:os.system\n", "is not valid YAML"),
    ("a tag of its own", "a: !x y\n", "is not valid YAML"),
    ("no truth value", "a: !!bool maybe\n", "is not valid YAML"),
    ("no time", "a: !!timestamp now\n", "is not valid YAML"),
    ("no number", "a: !!float x\n", "is not valid YAML"),
    ("no whole number", "a: !!int ''\n", "is not valid YAML"),
    ("a day that is none", "a: 2001-99-99\n", "is not valid YAML"),
    ("a number that overflows", "a: " + ":".join(["59"] * 300) + ".5\n", "is not valid YAML"),
    ("a number of 5,000 digits", "a: " + "9" * 5000 + "\n", "is not valid YAML"),
    ("no base64", "a: !!binary '\u00e9'\n", "is not valid YAML"),
    ("a list for a key", "? [a, b]\n: c\n", "is not valid YAML"),
    ("a mapping for a key", "? {a: b}\n: c\n", "is not valid YAML"),
    ("deep nesting", "a: " + "[" * 2**18 + "\n", "are read"),
    ("nesting", "a: " + "[" * 5000 + "\n", "is nested more than 50 times"),
    ("a key twice", "a: 1\na: 2\n", "has the key 'a' twice"),
    ("a long key twice", f"{'a' * 1000}: 1\n" * 2, "twice"),
    ("a list", "- a\n- b\n", "is not a YAML mapping"),
    ("a word", "word\n", "is not a YAML mapping"),
    ("tabs", "\ta: b\n", "is not valid YAML"),
    ("a control character", "a: \x07\n", "is not valid YAML"),
    ("tags that are no words", "tags: [{a: b}]\n", "is not a list of words"),
    ("a model index that is none", "model-index: 5\n", "is not a list"),
    ("another licence", "license: mit\n", "but the signature's licence is apache-2.0"),
    ("a licence that is a mapping", "license: {a: b}\n", "is not a list of words"),
]  # fmt: skip


def _cards() -> Iterator[Attack]:
    def saved(text: str | bytes) -> Make:
        signature = small_signature()
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        return artifact(signature.config.to_text(), signature.payload, card=data)

    def of(case: str, text: str | bytes, message: str, error: type[RWSError] = CardError) -> Attack:
        return Attack(f"a card with {case}", "card", saved(text), save, error, message)

    for case, text, message in METADATA:
        yield of(case, f"---\n{text}---\n\n# Mine\n", message)
    begin, end = "<!-- rws-hub:begin -->", "<!-- rws-hub:end -->"
    yield of("metadata that never ends", "---\na: b\n", "is never closed")
    yield of("an end and no begin", f"# Mine\n{end}\n", "0 begin and 1 end markers")
    yield of("a begin and no end", f"# Mine\n{begin}\n", "1 begin and 0 end markers")
    yield of("two blocks", f"{begin}\n{end}\n{begin}\n{end}\n", "2 begin and 2 end markers")
    yield of("a block backwards", f"{end}\n{begin}\n", "1 begin and 1 end markers")
    yield of("50,000 begins", f"{begin}\n" * 20_000, "20000 begin")
    yield of("no UTF-8", b"# Mine \xff\n", "is not UTF-8 text")
    yield of("UTF-16", "# Mine\n".encode("utf-16"), "is not UTF-8 text")
    yield of("half a character", "# Mine \ud800\n", "is not UTF-8 text")
    yield of("more than a mebibyte", "# Mine\n" + "x" * 2**20, "at most 1,048,576 are allowed", CorruptArtifactError)


RESULTS: list[tuple[str, Any, str]] = [
    ("format", "rws", "holds no results"),
    ("format", None, "holds no results"),
    ("format_version", 0, "must be a positive integer"),
    ("format_version", True, "must be a positive integer"),
    ("format_version", 10**4299, "must be a positive integer"),
    ("payload_sha256", "D" * 64, "is not a sha256"),
    ("payload_sha256", "\x1b[2J", "is not a sha256"),
    ("command", "", "one line of 1 to 2000 printable"),
    ("command", "a\nb", "one line of 1 to 2000 printable"),
    ("command", "a\x1b[2Jb", "one line of 1 to 2000 printable"),
    ("command", "\u202eb", "one line of 1 to 2000 printable"),
    ("command", "x" * 2001, "one line of 1 to 2000 printable"),
    ("versions", [], "versions: expected an object"),
    ("versions", {"torch": 2}, "versions.torch: expected str"),
    ("versions", {"\x1b[2J": "2"}, "one line of 1 to 2000 printable"),
    ("versions", {"\x1b[2J": 2}, "expected str"),
    ("versions", {"x" * 3000: "2"}, "one line of 1 to 2000 printable"),
    ("evaluations", [], "evaluations is empty"),
    ("evaluations", {}, "evaluations: expected a list"),
    ("evaluations.0", 5, "evaluations[0]: expected an object"),
    ("evaluations.0.dataset", "", "one line of 1 to 2000 printable"),
    ("evaluations.0.dataset", "a | b\n", "one line of 1 to 2000 printable"),
    ("evaluations.0.dataset_id", "../x", "is not a Hub id"),
    ("evaluations.0.dataset_id", "a", "is not a Hub id"),
    ("evaluations.0.split", "te\u2028st", "one line of 1 to 2000 printable"),
    ("evaluations.0.metric", "f1", "metric: expected one of"),
    ("evaluations.0.corruption", "fog\n", "must be one plain word"),
    ("evaluations.0.severity", 6, "severity must be 1 to 5"),
    ("evaluations.0.severity", True, "severity: expected int"),
    ("evaluations.0.target", " ", "one line of 1 to 2000 printable"),
    ("evaluations.0.alpha", "1", "alpha: expected float"),
    ("evaluations.0.alpha", 10**400, "alpha: expected float"),
    ("evaluations.0.images", 0, "images must be at least 1"),
    ("evaluations.0.images", 10**4299, "images: expected an integer of 64 bits"),
    ("evaluations.0.seed", 2**63, "seed: expected an integer of 64 bits"),
    ("evaluations.0.seed", 0.0, "seed: expected int"),
    ("evaluations.0.clean", None, "clean: expected an object"),
    ("evaluations.0.clean.patched", 1.5, "must be a fraction from 0 to 1"),
    ("evaluations.0.clean.patched", -0.1, "must be a fraction from 0 to 1"),
    ("evaluations.0.clean.patched", True, "patched: expected float"),
    ("evaluations.0.clean.robust", "x", "robust: expected float"),
    ("evaluations.0.corrupted.zz", 1, "unknown key 'zz'"),
    ("zz", 1, "unknown key 'zz'"),
    ("command", DELETE, "the key 'command' is missing"),
    ("evaluations.0.alpha", DELETE, "the key 'alpha' is missing"),
]  # fmt: skip


def _results() -> Iterator[Attack]:
    data = json.loads(measured().to_text())
    text = measured().to_text()

    def of(case: str, raw: str | bytes, message: str, error: type[RWSError] = CorruptArtifactError) -> Iterator[Attack]:
        found = raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")
        signature = small_signature()
        make = artifact(signature.config.to_text(), signature.payload, results=found)
        yield Attack(f"results with {case}", "results", make, results, error, message)
        yield Attack(f"beside a signature, results with {case}", "results", make, whole, error, message)

    for path, value, message in RESULTS:
        said = "none" if value is DELETE else json.dumps(value)[:30]
        yield from of(f"{path} = {said}", json.dumps(put(data, path, value)), message)
    yield from of("a newer format", json.dumps(data | {"format_version": 2}), "pip install -U", FormatVersionError)
    yield from of(
        "a setting twice", json.dumps(put(data, "evaluations.1", data["evaluations"][0])), "of one and the same setting"
    )
    yield from of("NaN", text.replace("0.88", "NaN", 1), "the number NaN is not allowed")
    yield from of("1e999", text.replace("0.88", "1e999", 1), "expected a finite number")
    yield from of(
        "a key twice", text.replace('"command"', '"command": "x", "command"', 1), "the key 'command' occurs twice"
    )
    yield from of("half a character", text.replace('"rws eval"', '"\\ud800"', 1), "half of a surrogate pair")
    yield from of("no JSON", "results", "not valid JSON")
    yield from of("nothing", "", "not valid JSON")
    yield from of("a list", "[]", "holds no results")
    yield from of("deep nesting", "[" * 100_000, "not valid JSON")
    yield from of("more than a mebibyte", text + " " * 2**20, "at most 1,048,576 are allowed")
    yield from of("a million lists", '{"a": [' + "[]," * 300_000 + "[]]}", "holds no results")
    other = json.dumps(data | {"payload_sha256": "0" * 64})
    make = artifact(small_signature().config.to_text(), small_signature().payload, results=other.encode())
    yield Attack(
        "results of another signature",
        "results",
        make,
        whole,
        CorruptArtifactError,
        "these numbers are of another signature",
    )
