"""Attacks on deltas that are stored as factors (format 5): what the config says of them, and what the payload holds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from attacks_payload import as_bytes, counted
from corpus import Attack, artifact, bases, refused
from forge import DELETE, put, sealed
from mutants import Data, Origin

from rws_hub.compact import fold, in_order
from rws_hub.factors import MAX_STEP, TOP
from rws_hub.frames import compress
from rws_hub.spec import ALWAYS_EXPANDED, MAX_EXPANSION, MAX_PRODUCT

HUGE = 10**4299
NUMBER = "expected an integer of 64 bits"


def attacks() -> Iterator[Attack]:
    """All of them."""
    for name, origin in bases().items():
        if "factors" in origin.parts:
            yield from _ranks(name, origin)
            yield from _claims(name, origin)
            yield from _codes(name, origin)
            yield from _parts(name, origin)
            yield from _large(name, origin)
        else:
            yield from _none(name, origin)
        yield from _counts(name, origin)


def factored(origin: Origin) -> list[str]:
    """Names of the deltas that are factors, as they lie in the payload."""
    return sorted(n for n, f in origin.config.tensors.items() if f.encoding == "factors")


def with_rank(data: Data, name: str, *rank: Any) -> Data:
    """A copy in which a delta has another third number, or none, or more."""
    changed = copy.deepcopy(data)
    for group in changed["tensors"]:
        if name in group["tensors"]:
            group["tensors"][name] = [*group["tensors"][name][:2], *rank]
    return changed


def shaped(data: Data, origin: Origin, name: str, shape: tuple[int, ...]) -> Data:
    """A copy in which a delta has another shape."""
    layout = {n: list(s) for n, s in origin.config.backbone.layout.items()} | {name: list(shape)}
    return put(data, "backbone.layout", fold(layout))


def regrouped(origin: Origin, name: str, encoding: str, numbers: list[Any]) -> Data:
    """A copy in which a delta has another encoding, all groups being in order."""
    data = origin.data
    for group in data["tensors"]:
        group["tensors"].pop(name, None)
    kind = {"op": "add", "projected": origin.config.tensors[name].projected, "encoding": encoding, "granularity": None}
    for group in data["tensors"]:
        if {k: v for k, v in group.items() if k != "tensors"} == kind:
            group["tensors"][name] = numbers
            break
    else:
        data["tensors"].append(kind | {"tensors": {name: numbers}})
    order = in_order(origin.config.tensors)
    groups = [g for g in data["tensors"] if g["tensors"]]
    data["tensors"] = sorted(groups, key=lambda g: min(map(order.index, g["tensors"])))
    return data


def _config(origin: Origin, data: Data) -> Callable[..., Any]:
    return artifact(sealed(data), origin.payload)


def _ranks(name: str, origin: Origin) -> Iterator[Attack]:
    """The third number of a tensor."""
    data = origin.data
    for one in factored(origin):
        shape = origin.config.shape(one)
        rank = origin.config.tensors[one].rank or 0
        cases: list[tuple[str, tuple[Any, ...], str]] = [
            ("0", (0,), "cannot be factors of rank 0"),
            ("-1", (-1,), "cannot be factors of rank -1"),
            ("one more than can be", (min(shape) + 1,), f"cannot be factors of rank {min(shape) + 1}"),
            ("2^40", (2**40,), "cannot be factors of rank 1099511627776"),
            ("-2^62", (-(2**62),), "cannot be factors of rank -4611686018427387904"),
            ("of 4,300 digits", (HUGE,), NUMBER),
            ("true", (True,), "rank: expected int, found True"),
            ("a float", (1.0,), "rank: expected int, found 1.0"),
            ("a text", ("5",), "rank: expected int, found '5'"),
            ("a list", ([5],), "rank: expected int"),
            ("null", (None,), "the key 'rank' is null"),
            ("missing", (), "must be a name, once, with three numbers"),
            ("twice", (rank, rank), "must be a name, once, with three numbers"),
            ("one more", (rank + 1,), "shifts must be U8"),
            ("as many as can be", (min(shape),), "shifts must be U8"),
        ]
        if rank > 1:
            cases.append(("one less", (rank - 1,), "shifts must be U8"))
        for case, value, message in cases:
            claims = "a rank of 2^40" if case == "2^40" else ""
            make = _config(origin, with_rank(data, one, *value))
            yield refused(f"{name}: the rank of {one}: {case}", "config", make, message, claims)
    first = factored(origin)[0]
    for kept in ([], [7], [1], [2**26], [7, 1], [1, 7], [1, 1, 7]):
        make = _config(origin, with_rank(shaped(data, origin, first, tuple(kept)), first, 2))
        yield refused(f"{name}: rank 2 of the shape {kept}", "config", make, "cannot be factors of rank 2")
    make = _config(origin, put(data, "tensors", [g | {"granularity": "row"} for g in data["tensors"]]))
    yield refused(f"{name}: factors with granularity", "config", make, "granularity goes with encoding 'codes' only")
    for one, facts in origin.config.tensors.items():
        if facts.encoding == "factors":
            other = regrouped(origin, one, "symbols", [0.1, 0.1, facts.rank])
        else:
            other = with_rank(data, one, 1)
            bare = regrouped(origin, one, "factors", [0.1, 0.1])
            yield refused(
                f"{name}: {one} as factors without a rank", "config", _config(origin, bare), "with three numbers"
            )
            many = regrouped(origin, one, "factors", [0.1, 0.1, 10**6])
            yield refused(
                f"{name}: {one} as factors of rank 10^6", "config", _config(origin, many), "cannot be factors of rank"
            )
        message = "must be a name, once, with two numbers"
        yield refused(f"{name}: a rank of {one}, which is no factors", "config", _config(origin, other), message)


def _counts(name: str, origin: Origin) -> Iterator[Attack]:
    """`codec.factors`, and the version that goes with it."""
    data, some = origin.data, "factors" in origin.parts
    version = origin.config.format_version
    nothing = "cannot stand for" if origin.config.codec.scheme == "entropy" else "go with scheme 'entropy' only"
    older = f"format_version is {version}, but its keys are those of format"
    values: list[tuple[Any, str]] = [
        (None, "codec: the key 'factors' is null"),
        (0, "cannot stand for"),
        (-1, "cannot stand for"),
        (-(2**62), "cannot stand for"),
        (2**40, "but the tensors take"),
        (2**62, "but the tensors take"),
        (HUGE, "codec.factors: " + NUMBER),
        (True, "codec.factors: expected int, found True"),
        (1.0, "codec.factors: expected int, found 1.0"),
        ("1", "codec.factors: expected int, found '1'"),
        ([1], "codec.factors: expected int"),
    ]
    for value, message in values:
        there = value is None or type(value) is not int or value == HUGE
        said = message if some or there else older
        claims = f"codec.factors {value}" if value in (2**40, 2**62) else ""
        label = "4,300 digits" if value == HUGE else repr(value)
        make = _config(origin, put(data, "codec.factors", value))
        yield refused(f"{name}: codec.factors = {label}", "config", make, said, claims)
        if not some and not there:
            make = _config(origin, put(put(data, "codec.factors", value), "format_version", 5))
            said = nothing if version >= 3 else "tensors must be a list since format 3"
            yield refused(f"{name}: as format 5, codec.factors = {label}", "config", make, said)
    for other in range(1, 6):
        if other != version and (other >= 3) == (version >= 3):
            make = _config(origin, put(data, "format_version", other))
            message = f"format_version is {other}, but its keys are those of format"
            yield refused(f"{name}: as format {other}", "config", make, message)
    if some:
        without = put(data, "codec.factors", DELETE)
        for other, message in ((4, "cannot stand for"), (5, older), (3, "its keys are those of format 4")):
            make = _config(origin, put(without, "format_version", other))
            yield refused(f"{name}: as format {other}, without codec.factors", "config", make, message)
        for by in (-1, 1):
            make = _config(origin, put(data, "codec.factors", data["codec"]["factors"] + by))
            yield refused(f"{name}: codec.factors is {by} off", "config", make, "must be U8")
        bare = put(data, "codec", {"scheme": "float32", "bits": 32, "factors": data["codec"]["factors"]})
        make = _config(origin, bare)
        yield refused(f"{name}: factors with scheme 'float32'", "config", make, "but the codec is float32")


def _none(name: str, origin: Origin) -> Iterator[Attack]:
    """Factors where an older format has none."""
    data, first = origin.data, next(iter(origin.config.tensors))
    uniform = origin.config.codec.scheme
    if origin.config.format_version < 3:
        for case, value, message in (
            ("a rank", 1, "rank goes with encoding 'factors', and only with it"),
            ("a rank of null", None, "the key 'rank' is null"),
        ):
            make = _config(origin, put(data, f"tensors/{first}/rank", value))
            yield refused(f"{name}: {case}", "config", make, message)
        facts = data["tensors"][first] | {"encoding": "factors", "granularity": None}
        make = _config(origin, put(data, f"tensors/{first}", facts))
        yield refused(f"{name}: factors without a rank", "config", make, "rank goes with encoding 'factors'")
        make = _config(origin, put(data, f"tensors/{first}", facts | {"rank": 1}))
        yield refused(f"{name}: factors of rank 1", "config", make, f"has factors, but the codec is {uniform}")
        return
    message = "cannot stand for" if uniform == "entropy" else f"has factors, but the codec is {uniform}"
    wide = next(n for n in origin.config.tensors if len(origin.config.shape(n)) > 1)
    make = _config(origin, regrouped(origin, wide, "factors", [0.1, 0.1, 1]))
    yield refused(f"{name}: factors that codec.factors does not count", "config", make, message)
    for label in ("factors", "shifts"):
        make = counted(origin, {label: torch.ones(3, dtype=torch.uint8)})
        yield refused(f"{name}: a tensor {label}", "payload", make, f"unexpected tensor {label}")


def _claims(name: str, origin: Origin) -> Iterator[Attack]:
    """Small files that claim large products, or many codes."""
    data, one = origin.data, factored(origin)[0]
    most = data["codec"]["factors"]
    others = [n for n in factored(origin) if n != one]
    elements = sum(math.prod(origin.config.shape(n)) for n in others)
    codes = sum(origin.config.factor_codes(n) for n in others)
    product = max(MAX_PRODUCT * most, ALWAYS_EXPANDED)
    stored = max(MAX_EXPANSION * most, ALWAYS_EXPANDED) // 4
    cases: list[tuple[tuple[int, ...], int, str]] = [
        ((2**20, 2**20), 1, "cannot stand for"),
        ((2**20, 2**20), 2**20, "cannot stand for"),
        ((2**40,), 1, "cannot stand for"),
        ((1, 2**40), 1, "cannot stand for"),
        ((2**40, 1), 1, "cannot stand for"),
        ((2**13, 2**13), 2**13, "cannot stand for"),
        ((2, product // 2), 1, "cannot stand for"),
        ((product - elements + 1, 1), 1, "cannot stand for"),
        ((1, stored - codes), 1, "cannot stand for"),
        ((2**20, 2**20, 2), 1, "impossible shape"),
        # Not too much yet: what they claim is not there.
        ((2, (product - elements) // 2), 1, "cannot stand for"),
        ((1, stored - codes - 1), 1, "shifts must be U8"),
        ((2**12, 2**12), 2**10, "but the tensors take"),
    ]
    for shape, rank, message in cases:
        make = _config(origin, shaped(with_rank(data, one, rank), origin, one, shape))
        said = f"{list(shape)} at rank {rank}"
        yield refused(f"{name}: {said}", "config", make, message, f"a product of {said}")
    rank = origin.config.tensors[one].rank or 0
    make = _config(origin, shaped(data, origin, one, (2**11, 2**11)))
    yield refused(f"{name}: [2048, 2048] at rank {rank}", "config", make, "the compressed codes state", "2^22 elements")


def compressed(stream: bytes | bytearray) -> dict[str, torch.Tensor]:
    """The factors of a payload."""
    return {"factors": as_bytes(bytes(compress([bytes(stream)], len(stream))))}


def components(origin: Origin) -> Iterator[tuple[str, int, int, int, int]]:
    """Of every component its tensor, its number there, its place among all, where its codes begin, and their number."""
    at = place = 0
    for name in factored(origin):
        rank, count = origin.config.tensors[name].rank or 0, origin.config.factor_codes(name)
        for i in range(rank):
            yield name, i, place, at, count // rank
            at, place = at + count // rank, place + 1


def reaching(origin: Origin, name: str, exact: bool) -> dict[str, torch.Tensor]:
    """A payload of which one product could reach 2^24 exactly, or one more; all of its codes are 1 or -1."""
    stream, shifts = bytearray(origin.streams["factors"]), origin.parts["shifts"].clone()
    own = [(place, at, count) for n, _, place, at, count in components(origin) if n == name]
    found = _halves(len(own)) if exact else [*_halves(len(own) - 1), 0]
    for (place, at, count), shift in zip(own, found, strict=True):
        stream[at : at + count] = bytes(TOP + (-1) ** (i % 3) for i in range(count))
        shifts[place] = shift
    return compressed(stream) | {"shifts": shifts}


def _halves(count: int) -> list[int]:
    """So many shifts, two at least, by which ones are 2^24 together."""
    return [*range(23, 24 - count, -1), 25 - count]


def _codes(name: str, origin: Origin) -> Iterator[Attack]:
    """Factors and shifts that no encoder writes, of every component."""
    stream, shifts = origin.streams["factors"], origin.parts["shifts"]
    for one, i, place, at, count in components(origin):
        where, outputs = f"{name}: component {i} of {one}", origin.config.shape(one)[0]
        for side, start, stop in (("left", at, at + outputs), ("right", at + outputs, at + count)):
            for first, last in ((start, stop), (start, start + 1), (stop - 1, stop)):
                make = counted(origin, compressed(stream[:first] + b"\xff" * (last - first) + stream[last:]))
                label = f"{where}, {side}, {first - start} to {last - start}: the code 128"
                yield refused(label, "frame", make, f"{one}: a factor holds a code outside of +-127")
            make = counted(origin, compressed(stream[:start] + bytes([TOP]) * (stop - start) + stream[stop:]))
            yield refused(f"{where}, {side}: all zero", "frame", make, f"{one}: a component is zero")
        for shift in (25, 26, 31, 32, 63, 64, 127, 128, 254, 255):
            changed_shifts = shifts.clone()
            changed_shifts[place] = shift
            make = counted(origin, {"shifts": changed_shifts})
            yield refused(f"{where}: a shift of {shift}", "frame", make, f"{one}: a component is zero, or shifted by")
        full = stream[:at] + bytes([0, 254] * count)[:count] + stream[at + count :]
        changed_shifts = shifts.clone()
        changed_shifts[place] = 24
        make = counted(origin, compressed(full) | {"shifts": changed_shifts})
        yield refused(f"{where}: as large as can be", "frame", make, f"{one}: the product of its factors could reach")
    for one in factored(origin):
        if (origin.config.tensors[one].rank or 0) > 2:
            make = counted(origin, reaching(origin, one, exact=False))
            yield refused(f"{name}: one more than 2^24 in {one}", "frame", make, "could reach 16,777,217; at most")


def _parts(name: str, origin: Origin) -> Iterator[Attack]:
    """The tensors of a payload that factors are in."""
    shifts, factors = origin.parts["shifts"], origin.parts["factors"]
    swapped = origin.parts | {"shifts": factors, "factors": shifts}
    cases: dict[str, tuple[dict[str, torch.Tensor], str]] = {
        "a shift less": ({"shifts": shifts[1:]}, "shifts must be U8"),
        "a shift more": ({"shifts": torch.cat([shifts, shifts[:1]])}, "shifts must be U8"),
        "no shifts": ({"shifts": shifts[:0]}, "the tensor shifts is missing"),
        "shifts as int16": ({"shifts": shifts.short()}, "shifts must be U8"),
        "shifts as float16": ({"shifts": shifts.half()}, "shifts must be U8"),
        "shifts in two axes": ({"shifts": shifts.view(1, -1)}, "shifts must be U8"),
        "factors as int16": ({"factors": factors.short()}, "factors must be U8"),
        "factors in two axes": ({"factors": factors.view(1, -1)}, "factors must be U8"),
        "no factors": ({"factors": factors[:0]}, "cannot stand for"),
        "a step less": ({"steps": origin.parts["steps"][1:]}, "steps must be F32"),
        "a step more": ({"steps": torch.cat([origin.parts["steps"], torch.ones(1)])}, "steps must be F32"),
        "steps as float16": ({"steps": origin.parts["steps"].half()}, "steps must be F32"),
        "shifts for factors": (swapped, "must be U8"),
        "factors for the frame": ({"frame": factors}, "the shapes need"),
        "the frame for factors": ({"factors": origin.parts["frame"]}, "the shapes need"),
    }
    for case, (parts, message) in cases.items():
        yield refused(f"{name}: {case}", "payload", counted(origin, parts), message)
    stepped = sorted(n for n, f in origin.config.tensors.items() if f.encoding in ("symbols", "factors"))
    above = float(torch.nextafter(torch.tensor(MAX_STEP), torch.tensor(math.inf)))
    below = float(torch.nextafter(torch.tensor(2.0**-126), torch.tensor(0.0)))
    for one in factored(origin):
        for step in (0.0, -0.0, math.nan, math.inf, -math.inf, -1.0, -(2.0**-126), below, 1e-45, above, 2.0**112, 3e38):
            steps = origin.parts["steps"].clone()
            steps[stepped.index(one)] = step
            make = counted(origin, {"steps": steps})
            yield refused(f"{name}: a step of {step} of {one}", "payload", make, f"{one}: the step is")
    if not origin.stream:
        data = put(origin.data, "codec.escapes", 1)
        yield refused(f"{name}: an escape of no symbol", "config", _config(origin, data), "cannot stand for")
        data = put(origin.data, "codec.frame", DELETE)
        yield refused(f"{name}: no frame", "config", _config(origin, data), "codec.frame and codec.escapes are missing")


def _large(name: str, origin: Origin) -> Iterator[Attack]:
    """Small files that do hold as many codes as may always be, and more."""
    one = factored(origin)[0]
    others = [n for n in factored(origin) if n != one]
    rest = sum(origin.config.factor_codes(n) for n in others)
    rank, used = 2**10, sum(origin.config.tensors[n].rank or 0 for n in others)
    sides = (ALWAYS_EXPANDED // 4 - rest) // rank
    data = shaped(with_rank(origin.data, one, rank), origin, one, (sides // 2, sides - sides // 2))
    shifts = torch.zeros(rank + used, dtype=torch.uint8)
    size = rank * sides + rest
    cases = {
        "nothing but zeros": (bytes([TOP]), "a component is zero"),
        "nothing but 255": (b"\xff", "a factor holds a code outside of +-127"),
        "products that are too large": (b"\0", "could reach"),
    }
    for case, (byte, message) in cases.items():
        stream = byte * size
        parts = {
            "factors": as_bytes(bytes(compress([stream], size, 1))),
            "shifts": shifts + (24 if byte == b"\0" else 0),
        }
        yield refused(f"{name}: 2^24 codes, {case}", "frame", counted(origin, parts, data), message, "2^24 codes")
    more = shaped(with_rank(origin.data, one, rank), origin, one, (sides, sides))
    make = counted(origin, {"factors": as_bytes(bytes(compress([b"\x80" * size * 2], size * 2, 1)))}, more)
    yield refused(f"{name}: 2^25 codes", "frame", make, "cannot stand for", "2^25 codes, which it holds")
