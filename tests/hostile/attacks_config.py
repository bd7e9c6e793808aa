"""Attacks on `config.json`: each value, key and way of spelling, sealed again unless the seal is what is attacked."""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Iterator
from typing import Any

from corpus import Attack, artifact, bases, load, refused
from forge import DELETE, put, sealed
from mutants import Origin
from test_hostile import CONFIGS, SMALL

from rws_hub.errors import FormatVersionError, NotASignatureError
from rws_hub.spec import FORMAT_VERSION

HUGE = 10**4299
SHA = "0" * 64

# Path, value, and a piece of what is said.
VALUES: list[tuple[str, Any, str]] = [
    ("format_version", 0, "format_version must be a positive integer, found 0"),
    ("format_version", -1, "format_version must be a positive integer"),
    ("format_version", True, "format_version must be a positive integer, found True"),
    ("format_version", "1", "format_version must be a positive integer, found '1'"),
    ("format_version", 1.0, "format_version must be a positive integer, found 1.0"),
    ("format_version", None, "format_version must be a positive integer, found None"),
    ("format_version", HUGE, "format_version must be a positive integer, found 1000"),
    ("rws_hub_version", 1, "rws_hub_version: expected str, found 1"),
    ("rws_hub_version", None, "rws_hub_version: expected str"),
    ("description", 5, "description: expected str"),
    ("description", None, "description: expected str"),
    ("license", "", "license must be one plain word"),
    ("license", "a b", "license must be one plain word"),
    ("license", "../x", "license must be one plain word"),
    ("license", "mit\n# License", "license must be one plain word"),
    ("license", "\u202etim", "license must be one plain word"),
    ("license", "\x1b[2Jmit", "license must be one plain word"),
    ("license", "x" * 5000 + " ", "license must be one plain word"),
    ("license", "{{ 7 * 7 }}", "license must be one plain word"),
    ("license", "\uff4dit", "license must be one plain word"),
    ("corruption", [], "corruption: expected an object"),
    ("corruption.name", "fog\n# x", "corruption.name must be one plain word"),
    ("corruption.name", "<script>", "corruption.name must be one plain word"),
    ("corruption.name", "f\u043eg", "corruption.name must be one plain word"),
    ("corruption.name", "fog\u200b", "corruption.name must be one plain word"),
    ("corruption.severity", 0, "corruption.severity must be 1 to 5"),
    ("corruption.severity", 6, "corruption.severity must be 1 to 5"),
    ("corruption.severity", True, "corruption.severity: expected int, found True"),
    ("corruption.severity", 5.0, "corruption.severity: expected int, found 5.0"),
    ("corruption.severity", HUGE, "corruption.severity: expected an integer of 64 bits"),
    ("corruption.dataset", "a b", "corruption.dataset must be one word or a Hub id"),
    ("corruption.dataset", "/etc", "corruption.dataset must be one word or a Hub id"),
    ("corruption.dataset", "a/b/c", "corruption.dataset must be one word or a Hub id"),
    ("corruption.dataset", "a/b--c", "corruption.dataset must be one word or a Hub id"),
    ("corruption.dataset", "a/..", "corruption.dataset must be one word or a Hub id"),
    ("recommended_alpha", "1", "recommended_alpha: expected float"),
    ("recommended_alpha", True, "recommended_alpha: expected float"),
    ("recommended_alpha", None, "recommended_alpha: expected float"),
    ("recommended_alpha", 2**53, "recommended_alpha: expected float"),
    ("recommended_alpha", HUGE, "recommended_alpha: expected float"),
    ("relative_error", -0.5, "relative_error is never negative"),
    ("backbone", None, "backbone: expected an object"),
    ("backbone.library", 1, "backbone.library: expected str"),
    ("backbone.repo_id", "../../x", "backbone.repo_id '../../x' is not a Hub id"),
    ("backbone.repo_id", "model", "backbone.repo_id 'model' is not a Hub id"),
    ("backbone.repo_id", "a/b/c", "is not a Hub id"),
    ("backbone.repo_id", "a/b@main", "is not a Hub id"),
    ("backbone.repo_id", "https://x/y", "is not a Hub id"),
    ("backbone.repo_id", "a/" + "b" * 97, "is not a Hub id"),
    ("backbone.revision", "main", "backbone.revision 'main' is not a 40-hex commit"),
    ("backbone.revision", "A" * 40, "is not a 40-hex commit"),
    ("backbone.revision", "\u0661" * 40, "is not a 40-hex commit"),
    ("backbone.revision", "0" * 41, "is not a 40-hex commit"),
    ("backbone.family", None, "backbone.family: expected str"),
    ("backbone.function", {"activation": 1}, "backbone.function.activation: expected str"),
    ("backbone.function", {"\x1b[2J": 1}, "expected str"),
    ("backbone.function", [], "backbone.function: expected an object"),
    ("backbone.layout", [], "backbone.layout: expected an object"),
    ("backbone.layout", None, "backbone.layout: expected an object"),
    ("backbone.layout", {}, "is touched but is not in the backbone's layout"),
    ("backbone.head", [["a", 1]], "backbone.head: expected an object"),
    ("backbone.table", None, "table' is null; leave it out"),
    ("backbone.table", 5, "backbone.table: expected str"),
    ("sources", [], "sources must be (pretrained,) standard, robust"),
    ("sources", [{"role": "standard", "sha256": SHA}] * 2, "sources must be (pretrained,) standard, robust"),
    ("sources", [{"role": "robust", "sha256": SHA}, {"role": "standard", "sha256": SHA}], "sources must be"),
    ("sources", [{"role": "standard", "sha256": SHA}] * 9, "sources must be"),
    ("sources.0.role", "clean", "role: expected one of"),
    ("sources.0.sha256", "0" * 63, "is not a sha256 in hex"),
    ("sources.0.sha256", "A" * 64, "is not a sha256 in hex"),
    ("sources.0.sha256", "\u0660" * 64, "is not a sha256 in hex"),
    ("sketch.values", "", "sketch.values must hold 256 bytes, found 0"),
    ("sketch.values", "!" * 344, "sketch.values is not base64"),
    ("sketch.values", "\u00e9" * 344, "sketch.values is not base64"),
    ("sketch.values", base64.b64encode(bytes(255)).decode(), "sketch.values must hold 256 bytes, found 255"),
    ("sketch.values", base64.b64encode(bytes(2**20)).decode(), "sketch.values must hold 256 bytes"),
    ("sketch.values", [0] * 256, "sketch.values: expected str"),
    ("sketch.method", "pickle", "sketch.method: expected one of"),
    ("extraction.recipe", "three-branch", "extraction.recipe: expected one of"),
    ("extraction.method", True, "extraction.method: expected one of"),
    ("extraction.layers", ["shallow"], "extraction.layers: expected one of"),
    ("extraction.share", "0.7", "extraction.share: expected float"),
    ("extraction.patterns", [1], "extraction.patterns[0]: expected str"),
    ("extraction.patterns", {"a": 1}, "extraction.patterns: expected a list"),
    ("extraction.batchnorm", None, "extraction.batchnorm: expected one of"),
    ("extraction.profile", {}, "extraction.profile: expected a list"),
    ("extraction.profile.0.parameters", -1, "are never negative"),
    ("extraction.profile.0.parameters", 1.5, "parameters: expected int"),
    ("extraction.profile.0.parameters", 2**63, "parameters: expected an integer of 64 bits"),
    ("extraction.profile.0.relative_difference", -1.0, "are never negative"),
    ("extraction.profile.0.touched", 1, "touched: expected bool"),
    ("codec", {}, "codec: the key 'scheme' is missing"),
    ("codec.scheme", "zip", "codec.scheme: expected one of"),
    ("codec.scheme", ["entropy"], "codec.scheme: expected one of"),
    ("codec.bits", 0, "with 0 bits does not exist"),
    ("codec.bits", -4, "with -4 bits does not exist"),
    ("codec.bits", 9, "with 9 bits does not exist"),
    ("codec.bits", HUGE, "codec.bits: expected an integer of 64 bits"),
    ("codec.bits", 4.0, "codec.bits: expected int, found 4.0"),
    ("codec.frame", None, "codec: the key 'frame' is null"),
    ("codec.escapes", "0", "codec.escapes: expected int"),
    ("payload.bytes", -1, "payload.bytes is -1, but the tensors take"),
    ("payload.bytes", 0, "payload.bytes is 0, but the tensors take"),
    ("payload.bytes", 2**40, "payload.bytes is 1,099,511,627,776, but the tensors take"),
    ("payload.bytes", 2**63 - 1, "payload.bytes is 9,223,372,036,854,775,807"),
    ("payload.bytes", HUGE, "payload.bytes: expected an integer of 64 bits"),
    ("payload.bytes", 1e3, "payload.bytes: expected int"),
    ("payload.sha256", SHA, "the file was damaged or replaced"),
    ("payload.sha256", "0" * 65, "is not a sha256 in hex"),
    ("payload.sha256", None, "payload.sha256: expected str"),
    ("tensors", 5, "tensors"),
    ("tensors", None, "tensors"),
]  # fmt: skip

# Names that are none, and shapes that cannot be.
NAMES = [
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:x",
    "",
    ".",
    "..",
    ".a",
    "a.",
    "a..b",
    "a\0b",
    "a b",
    "a\nb",
    "\u00e4",
    "a" * 257,
    "\uff43onv.weight",
    "c\u043env.weight",
    "conv\u200b.weight",
    "conv\u202e.weight",
    "\x1b[2J",
    "a.{",
    "a.}",
    "__proto__.x y",
    "a'b",
    'a"b',
]
SHAPES: list[Any] = [
    [0],
    [-1],
    [2**40 + 1],
    [2**20, 2**20, 2],
    [2**63],
    [HUGE],
    [True],
    [1.0],
    ["1"],
    [None],
    [[1]],
    [1] * 17,
    [2**40] * 16,
    5,
    "1",
    None,
    {"0": 1},
    [2] * 60_000,
    [1] * 100_000,
    [[[[[[1]]]]]],
]

# Patterns of the short spelling.
PATTERNS = [
    ("{0..99999}.{0..99999}", "more than 65,536 names"),
    ("{0..65536}", "more than 65,536 names"),
    (".".join(["{0..9}"] * 40), "more than 65,536 names"),
    (".".join(["{a,b}"] * 60), "more than 65,536 names"),
    (".".join(["{a,b}"] * 130), "cannot be a tensor name, nor a pattern"),
    ("w" * 200 + "{0..9999}", "cannot be a tensor name, nor a pattern"),
    ("{" + ",".join("a" * 200 + str(i) for i in range(6000)) + "}", "characters in them"),
    ("{" + "a," * 70_000 + "a}", "more than 65,536 names"),
    ("{5..1}", "nor a pattern of such"),
    ("{0..}", "nor a pattern of such"),
    ("{..3}", "nor a pattern of such"),
    ("{-1..3}", "nor a pattern of such"),
    ("{0..123456}", "nor a pattern of such"),
    ("{a}", "nor a pattern of such"),
    ("{a,}", "nor a pattern of such"),
    ("{,a}", "nor a pattern of such"),
    ("{}", "nor a pattern of such"),
    ("{a,{b,c}}", "nor a pattern of such"),
    ("{a,b", "nor a pattern of such"),
    ("a,b}", "nor a pattern of such"),
    ("{a.b,c}", "nor a pattern of such"),
    ("{a,b}{c,d}", "nor a pattern of such"),
    ("x{0..3}", "nor a pattern of such"),
    ("{a, b}", "nor a pattern of such"),
    ("{\u0661..\u0663}", "nor a pattern of such"),
    ("{q,q}", "q occurs twice"),
    ("{0,0..2}", "nor a pattern of such"),
    ("zz.{1..2}", "not folded as the format demands"),
    ("zz.{b,a}", "not folded as the format demands"),
    ("zz.{0,1,2}", "not folded as the format demands"),
    ("zz.{00..03}", "not folded as the format demands"),
    ("zz.{10,9}", "not folded as the format demands"),
]  # fmt: skip


def attacks() -> Iterator[Attack]:
    """All of them."""
    for name, origin in bases().items():
        yield from _values(name, origin)
        yield from _keys(name, origin)
        yield from _texts(name, origin)
        if origin.config.format_version >= 3:
            yield from _short(name, origin)
    for case, (text, kind, message) in CONFIGS.items():
        yield Attack(case, "config", artifact(text, SMALL.payload), load, kind, message)


def _brief(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:30]}... of {len(text):,} characters"


def _there(data: Any, path: str) -> bool:
    *steps, last = path.split(".")
    for step in steps:
        data = data[int(step)] if isinstance(data, list) else data.get(step, {})
    return len(data) > int(last) if isinstance(data, list) else last in data


def _values(name: str, origin: Origin) -> Iterator[Attack]:
    data = origin.data
    for path, value, message in VALUES:
        if not _there(data, path) and path not in ("backbone.table",):
            continue
        said = f"{path} = {_brief(json.dumps(value))}"
        claims = said if value in (2**40, 2**63 - 1) else ""
        text = sealed(put(data, path, value))
        yield refused(f"{name}: {said}", "config", artifact(text, origin.payload), message, claims)
    for word in NAMES:
        changed = copy.deepcopy(data)
        changed["backbone"]["head"] = {word: [1]}
        yield refused(
            f"{name}: the name {word[:20]!r}", "config", artifact(sealed(changed), origin.payload), "annot be a tensor"
        )
    for shape in SHAPES:
        changed = copy.deepcopy(data)
        changed["backbone"]["layout"]["zz"] = shape
        yield refused(
            f"{name}: the shape {_brief(str(shape))}",
            "config",
            artifact(sealed(changed), origin.payload),
            "backbone.layout"
            if not isinstance(shape, list) or not all(type(d) is int and abs(d) < 2**63 for d in shape)
            else "impossible shape",
        )
    first = next(iter(data["backbone"]["layout"]))
    changed = copy.deepcopy(data)
    changed["backbone"]["head"][first] = data["backbone"]["layout"][first]
    yield refused(
        f"{name}: a name in layout and head",
        "config",
        artifact(sealed(changed), origin.payload),
        "in the backbone's layout and in its head",
    )
    touched = next(iter(origin.config.tensors))
    for shape in ([2**40], [2**20, 2**20], [1, 2**39, 2]):
        changed = copy.deepcopy(data)
        layout = dict(origin.config.backbone.layout)
        layout[touched] = tuple(shape)
        from rws_hub.compact import fold

        spelled = {k: list(v) for k, v in layout.items()}
        changed["backbone"]["layout"] = fold(spelled) if origin.config.format_version >= 3 else spelled
        yield refused(
            f"{name}: {touched} of shape {shape}",
            "config",
            artifact(sealed(changed), origin.payload),
            _claimed(origin, touched, shape),
            f"shape {shape}",
        )


def _claimed(origin: Origin, name: str, shape: list[int]) -> str:
    encoding = origin.config.tensors[name].encoding
    if encoding == "factors" and 1 in (shape[0], math.prod(shape[1:])):
        return "cannot be factors of rank"
    return "cannot stand for" if encoding in ("symbols", "factors") else "but the tensors take"


def _keys(name: str, origin: Origin) -> Iterator[Attack]:
    """Unknown and missing keys, and values of another format."""
    data = origin.data
    for path in (
        "",
        "corruption.",
        "backbone.",
        "sources.0.",
        "sketch.",
        "extraction.",
        "extraction.profile.0.",
        "codec.",
        "payload.",
    ):
        text = sealed(put(data, f"{path}zz", 1))
        yield refused(
            f"{name}: an unknown key in {path or 'all'}", "config", artifact(text, origin.payload), "unknown key 'zz'"
        )
    paths = [k for k in data if k not in ("format", "format_version")] + [
        f"{k}.{i}"
        for k, v in data.items()
        if isinstance(v, dict) and k != "tensors"
        for i in v
        if i not in ("table", "frame", "escapes", "factors")
    ]
    for path in paths:
        without = put(data, path, DELETE)
        text = json.dumps(without) if path == "digest" else sealed(without)
        yield refused(
            f"{name}: without {path}",
            "config",
            artifact(text, origin.payload),
            f"the key '{path.rpartition('.')[2]}' is missing",
        )
    other = put(data, "format_version", 1 + origin.config.format_version % 2)
    yield refused(f"{name}: keys of another format", "config", artifact(sealed(other), origin.payload), "")
    newer = put(data, "format_version", FORMAT_VERSION + 1)
    yield refused(
        f"{name}: a newer format",
        "config",
        artifact(sealed(newer), origin.payload),
        "pip install -U",
        error=FormatVersionError,
    )
    for value in ("peft", None, 5, ["rws"], "RWS", "rws "):
        text = json.dumps(data | {"format": value})
        yield refused(
            f"{name}: format = {value!r}",
            "config",
            artifact(text, origin.payload),
            "is not that of a robust",
            error=NotASignatureError,
        )


def _texts(name: str, origin: Origin) -> Iterator[Attack]:
    """Spellings that are no JSON, or JSON that says two things."""
    text = origin.text.decode()
    alpha = json.dumps(origin.config.recommended_alpha)
    cases: dict[str, tuple[str | bytes, str]] = {
        "cut in the middle": (text[: len(text) // 2], "not valid JSON"),
        "without its last brace": (text.rstrip()[:-1], "not valid JSON"),
        "twice": (text + text, "not valid JSON"),
        "with a byte behind": (text + "\0", "not valid JSON"),
        "with a comment": ("// signature\n" + text, "not valid JSON"),
        "with single quotes": (text.replace('"', "'"), "not valid JSON"),
        "with a comma too many": (text.rstrip()[:-1] + ",}", "not valid JSON"),
        "with a raw line end in a string": (text.replace('"format"', '"for\nmat"', 1), "not valid JSON"),
        "with a byte order mark": (text.encode("utf-8-sig"), "not valid JSON"),
        "in UTF-16": (text.encode("utf-16"), "not valid JSON"),
        "in UTF-32": (text.encode("utf-32-le"), "not valid JSON"),
        "overlong UTF-8": (text.encode().replace(b'"format"', b'"f\xc0\xafrmat"', 1), "not valid JSON"),
        "with half a character": (
            text.replace(f'"{origin.config.license}"', '"\\ud800"', 1),
            "half of a surrogate pair",
        ),
        "Infinity": (text.replace(f'"recommended_alpha": {alpha}', '"recommended_alpha": Infinity'), "is not allowed"),
        "-Infinity": (
            text.replace(f'"recommended_alpha": {alpha}', '"recommended_alpha": -Infinity'),
            "is not allowed",
        ),
        "1e400": (
            text.replace(f'"recommended_alpha": {alpha}', '"recommended_alpha": 1e400'),
            "expected a finite number",
        ),
        "a number in hex": (
            text.replace(f'"recommended_alpha": {alpha}', '"recommended_alpha": 0x1'),
            "not valid JSON",
        ),
        "a strength changed": (
            text.replace(f'"recommended_alpha": {alpha}', '"recommended_alpha": 9.5'),
            "digest does not hold",
        ),
        "an integer of 4,301 digits": (text.replace('"bits": ', '"bits": ' + "1" * 4300, 1), "not valid JSON"),
        "deeply nested": ('{"format": "rws", "a": ' + "[" * 200_000, "not valid JSON"),
        "nested objects": ('{"a":' * 100_000, "not valid JSON"),
        "a million lists": ('{"format": "rws", "a": [' + "[]," * 1_100_000 + "[]]}", "commas and brackets; at most"),
        "more than 16 MiB": (text + " " * 2**24, "at most 16,777,216 are allowed"),
        "the digest of nothing": (text.replace(origin.config.digest, SHA), "the digest does not hold"),
        "a digest in capitals": (
            text.replace(origin.config.digest, origin.config.digest.upper()),
            "digest does not hold",
        ),
        "a digest that steers the terminal": (text.replace(origin.config.digest, "\\u001b[2J"), "digest does not hold"),
    }
    for key in (
        "format",
        "format_version",
        "license",
        "backbone",
        "codec",
        "payload",
        "digest",
        "layout",
        "sha256",
        "bytes",
    ):
        cases[f"the key {key} twice"] = (
            text.replace(f'"{key}"', f'"{key}": 1, "{key}"', 1),
            f"the key '{key}' occurs twice",
        )
    for case, (spelled, message) in cases.items():
        yield refused(f"{name}: {case}", "config", artifact(spelled, origin.payload), message)


def _short(name: str, origin: Origin) -> Iterator[Attack]:
    """The short spelling."""
    data = origin.data
    for pattern, message in PATTERNS:
        changed = copy.deepcopy(data)
        changed["backbone"]["layout"][pattern] = [97]
        claims = f"pattern {pattern[:30]}" if "65,536 names" in message else ""
        yield refused(
            f"{name}: the pattern {_brief(pattern)}",
            "config",
            artifact(sealed(changed), origin.payload),
            message,
            claims,
        )
    group = data["tensors"][0]
    one, numbers = next((n, [0.1, 0.1, *found[2:]]) for n, found in group["tensors"].items())
    said = "two" if len(numbers) == 2 else "three"
    groups: dict[str, tuple[Any, str]] = {
        "groups as an object": ({}, "tensors must be a list since format 3"),
        "no groups": ([], "a signature must touch at least one tensor"),
        "a group of nothing": ([*data["tensors"], {**group, "tensors": {}}], "not grouped as the format demands"),
        "a group twice": ([*data["tensors"], group], "must be a name, once"),
        "a group torn in two": (
            [
                {**group, "tensors": {one: group["tensors"][one]}},
                *data["tensors"][1:],
                {**group, "tensors": {k: v for k, v in group["tensors"].items() if k != one}},
            ],
            "not grouped as the format demands",
        ),
        "a group with a key more": ([{**group, "x": 1}], "must hold op, projected, encoding"),
        "a group with a key less": (
            [{k: v for k, v in group.items() if k != "op"}],
            "must hold op, projected, encoding",
        ),
        "a group that is a list": ([[1]], "must hold op, projected, encoding"),
        "names in a list": ([{**group, "tensors": [one]}], "must hold op, projected, encoding"),
        "a number more": (
            [{**group, "tensors": {one: [*numbers, 0.1]}}],
            f"must be a name, once, with {said} numbers",
        ),
        "numbers as texts": ([{**group, "tensors": {one: ["0", "0", *numbers[2:]]}}], "expected float"),
        "an error that is negative": ([{**group, "tensors": {one: [-0.1, *numbers[1:]]}}], "are never negative"),
        "a name of a million dots": ([{**group, "tensors": {"." * 10**6: numbers}}], "must be a name, once"),
        "70,000 names": (
            [{**group, "tensors": {f"n{i}": numbers for i in range(70_000)}}],
            "more than 65,536 names",
        ),
        "an operation of its own": ([{**group, "op": "replace"}], "op: expected one of"),
        "an encoding of its own": (
            [{**group, "encoding": "pickle", "tensors": {one: numbers[:2]}}],
            "encoding: expected one of",
        ),
        "codes of an old format": (
            [{**group, "encoding": "codes", "granularity": "row", "tensors": {one: numbers[:2]}}],
            f"has codes, but the codec is {origin.config.codec.scheme}",
        ),
        "rows without codes": ([{**group, "granularity": "row"}], "granularity goes with encoding 'codes' only"),
        "a list for an operation": ([{**group, "op": ["add"]}], "op: expected one of"),
    }
    if len(data["tensors"]) > 1:
        groups["groups backwards"] = (data["tensors"][::-1], "not grouped as the format demands")
    for case, (value, message) in groups.items():
        text = sealed({**data, "tensors": value})
        yield refused(f"{name}: {case}", "config", artifact(text, origin.payload), message)
    codec = [
        ("frame", 0, "codec.frame and codec.escapes are missing"),
        ("frame", -1, "codec.frame and codec.escapes are missing"),
        ("frame", 2**62, "but the tensors take"),
        ("frame", DELETE, "codec.frame and codec.escapes are missing"),
        ("escapes", DELETE, "codec.frame and codec.escapes are missing"),
        ("escapes", -1, "cannot stand for"),
        ("escapes", 2**40, "cannot stand for"),
        ("escapes", 2**62, "cannot stand for"),
    ]
    for key, value, message in codec if origin.config.codec.scheme == "entropy" else []:
        claims = f"codec.{key} {value}" if isinstance(value, int) and value >= 2**40 else ""
        text = sealed(put(data, f"codec.{key}", value))
        yield refused(
            f"{name}: codec.{key} = {value if value is not DELETE else 'none'}",
            "config",
            artifact(text, origin.payload),
            message,
            claims,
        )
