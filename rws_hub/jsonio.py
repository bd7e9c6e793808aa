"""JSON <-> frozen dataclasses, strictly: no key, type or value is ever guessed.

Unknown keys, missing keys, duplicate keys, wrong types and non-finite numbers are errors that name
the path of the value (`config.json: codec.bits`). Only the type forms that the artifact's own
dataclasses use are understood.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from rws_hub.errors import CorruptArtifactError

T = TypeVar("T")

# Commas and opening brackets that a text can have: what is parsed takes far more memory than what says it.
MAX_VALUES = 2**20
# Integers lie within 64 bits: sums and messages of larger ones are what Python refuses, or never finishes.
_MAX_INTEGER = 2**63
_PLAIN_KEY = re.compile(r"[\w.-]{1,100}", re.ASCII)
_SHOWN = 60

# A list or object of plain values stays on one line: a layout of 300 shapes is read by people too, and the file
# is a part of the artifact's size.
_FLAT = re.compile(r"([\[{])\n\s*([^\[\]{}]*?)\n\s*([\]}])")


def to_json(value: object) -> Any:
    """The JSON form of a dataclass (tuples become lists, nested dataclasses become objects).

    A field that may be left out (its default is None) is left out when it is None.
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: to_json(v) for f, v in found if v is not None or f.default is not None}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    return value


def pretty(data: Any) -> str:
    """Text for a file a person may open: indented, keys in the given order, what is flat on one line."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    # The pattern needs a raw newline after the bracket, which a JSON string cannot hold: strings are safe.
    return _FLAT.sub(lambda m: m[1] + re.sub(r",\n\s*", ", ", m[2]) + m[3], text) + "\n"


def canonical(data: Any) -> bytes:
    """The bytes a digest is taken over: sorted keys, no spaces, UTF-8."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse(text: str | bytes, where: str) -> Any:
    """Parse JSON; duplicate keys and NaN/Infinity are refused.

    Raises:
        CorruptArtifactError: not JSON, not UTF-8, a duplicate key, a non-finite number, too deep, too many values.
    """
    marks: tuple[Any, ...] = (",", "[", "{") if isinstance(text, str) else (b",", b"[", b"{")
    if (values := sum(map(text.count, marks))) > MAX_VALUES:
        raise CorruptArtifactError(f"{where}: {values:,} commas and brackets; at most {MAX_VALUES:,} are allowed")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise CorruptArtifactError(f"{where}: the key {shown(key)} occurs twice")
            seen[_sound(key, where)] = value
        return seen

    def refuse_constant(name: str) -> Any:
        raise CorruptArtifactError(f"{where}: the number {name} is not allowed; every number must be finite")

    try:
        # json.loads(bytes) would also take UTF-16, UTF-32 and a byte order mark.
        text = text if isinstance(text, str) else text.decode("utf-8")
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant)
    except CorruptArtifactError:
        raise
    except (ValueError, RecursionError) as error:  # bad syntax, bad UTF-8, an integer of 5,000 digits
        raise CorruptArtifactError(f"{where}: not valid JSON ({error})") from error


def decode(kind: type[T], data: Any, where: str) -> T:
    """Build the dataclass `kind` from parsed JSON.

    Raises:
        CorruptArtifactError: naming the path of the first value that does not fit.
    """
    return typing.cast("T", _decode(kind, data, where))


def _decode(kind: Any, data: Any, where: str) -> Any:
    if kind in (str, int, float, bool):
        return _decode_plain(kind, data, where)
    if dataclasses.is_dataclass(kind):
        return _decode_object(kind, data, where)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in args:
            return None
        (inner,) = (a for a in args if a is not type(None))
        return _decode(inner, data, where)
    if origin is Literal:
        if data not in args or isinstance(data, bool) != isinstance(args[0], bool):
            raise CorruptArtifactError(f"{where}: expected one of {list(args)}, found {shown(data)}")
        return data
    if origin is tuple:
        if not isinstance(data, list):
            raise CorruptArtifactError(f"{where}: expected a list, found {shown(data)}")
        return tuple(_decode(args[0], v, f"{where}[{i}]") for i, v in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            raise CorruptArtifactError(f"{where}: expected an object, found {shown(data)}")
        return {k: _decode(args[1], v, f"{where}.{named(k)}") for k, v in data.items()}
    raise TypeError(f"{where}: {kind} is no type that a config uses")


def _decode_object(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise CorruptArtifactError(f"{where}: expected an object, found {shown(data)}")
    hints, names, optional = _fields(kind)
    if unknown := sorted(data.keys() - hints.keys()):
        raise CorruptArtifactError(f"{where}: unknown key {shown(unknown[0])}; known keys are {', '.join(names)}")
    if missing := [n for n in names if n not in data and n not in optional]:
        raise CorruptArtifactError(f"{where}: the key {missing[0]!r} is missing")
    if null := sorted(n for n in optional if n in data and data[n] is None):
        raise CorruptArtifactError(f"{where}: the key {null[0]!r} is null; leave it out")
    return kind(**{n: _decode(hints[n], data[n], f"{where}.{n}") for n in names if n in data})


@cache
def _fields(kind: Any) -> tuple[Mapping[str, Any], tuple[str, ...], frozenset[str]]:
    """Type hints of a dataclass by field, its fields in order, and those that may be left out."""
    fields = dataclasses.fields(kind)
    hints = typing.get_type_hints(kind)
    return hints, tuple(f.name for f in fields), frozenset(f.name for f in fields if f.default is None)


def _decode_plain(kind: Any, data: Any, where: str) -> Any:
    if kind is float and type(data) is int and abs(data) < 2**53:
        data = float(data)
    if type(data) is not kind:
        raise CorruptArtifactError(f"{where}: expected {kind.__name__}, found {shown(data)}")
    if kind is int and not -_MAX_INTEGER <= data < _MAX_INTEGER:
        raise CorruptArtifactError(f"{where}: expected an integer of 64 bits, found {shown(data)}")
    if kind is str:
        _sound(data, where)
    if kind is float and not math.isfinite(data):
        raise CorruptArtifactError(f"{where}: expected a finite number, found {data}")
    return data


def _sound(text: str, where: str) -> str:
    """The text itself, if UTF-8 can hold it: an escape such as `ud800` alone is JSON, but half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorruptArtifactError(f"{where}: {shown(text)} holds half of a surrogate pair") from error
    return text


def named(text: str) -> str:
    """A name for messages: as it is if it is a plain word, else as `shown`."""
    return text if _PLAIN_KEY.fullmatch(text) else shown(text)


def shown(data: Any) -> str:
    """A value as a short printable line, for messages: whatever it is, it cannot steer a terminal or fill it."""
    if isinstance(data, str):
        data = data[:_SHOWN]  # escapes make it longer
    text = repr(data)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
