"""One cell of a name table: a name template, and the part of the tensor that it speaks of.

Template: literal text with integer fields `{i}`, which may carry an offset or a stride (`{s+1}`, `{2*k+1}`) or be
fixed (`{s=0}`), and word fields (`{wb}`, `{bn}`). A view may follow:

    [k/n]           the k-th of n equal row blocks
    [:,1:]          columns, from the given one on; [:,:1] up to one, in additive cells only
    [None,None]     the tensor with two leading axes of length 1 added
    [0,0,0]         the tensor without its three leading axes of length 1
    [flat]          the tensor with all axes behind the first made one

`<7,7>` at the end says that the last axes of the model's tensor have these lengths, or it is another family's.
A cell may begin with `^` (the name is not below the backbone's prefix but below its parent: transformers'
classification heads) or `+` (additive: used only when reading this dialect, and summed with the other source).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Shape = tuple[int, ...]
Fields = Mapping[str, int | str]

WORDS = {"wb": ("weight", "bias"), "bn": ("weight", "bias", "running_mean", "running_var")}
# No number of a cell has more digits: no dimension has.
_DIGITS = "[0-9]{1,9}"
_FIELD = re.compile(
    rf"\{{(?:(?P<stride>(?!0){_DIGITS})\*)?(?P<name>[a-z]+)(?P<offset>[+-]{_DIGITS})?(?:=(?P<fixed>{_DIGITS}))?\}}"
)
_CELL = re.compile(
    r"(?P<mark>[\^+]?)(?P<template>[^\[\]<>]+)(?:\[(?P<view>[^\[\]]+)\])?"
    rf"(?:<(?P<last>{_DIGITS}(,{_DIGITS}){{,7}})>)?"
)
_BLOCK = re.compile(f"({_DIGITS})/({_DIGITS})")
_COLUMNS = re.compile(f":,({_DIGITS})?:({_DIGITS})?")
# Axes of length 1 that a view can add or drop.
_MAX_LIFT = 8
_MAX_FIELDS = 8


@dataclass(frozen=True, slots=True)
class Slice:
    """Indices [start, stop) of one axis."""

    axis: int
    start: int
    stop: int


def tiles(parts: Sequence[Slice | None], shape: Shape) -> bool:
    """Whether parts of a tensor (None: all of it) are all of it, and no element twice."""
    found = [p for p in parts if p is not None]
    if len(found) < len(parts):
        return len(parts) == 1
    axes = {p.axis for p in found}
    if len(axes) != 1 or not shape:
        return False
    ordered = sorted((p.start, p.stop) for p in found)
    edges = [0, *(stop for _, stop in ordered)]
    return [start for start, _ in ordered] == edges[:-1] and edges[-1] == shape[axes.pop()]


@dataclass(frozen=True, slots=True)
class View:
    """A part of a tensor, or the tensor with axes of length 1 added or dropped; all of it by default.

    Attributes:
        part, parts: the `part`-th of `parts` equal row blocks.
        first, last: columns [first, last); `last` None is the end.
        lift: leading axes of length 1 added (positive) or dropped (negative).
        flat: all axes behind the first made one.
    """

    part: int = 0
    parts: int = 1
    first: int = 0
    last: int | None = None
    lift: int = 0
    flat: bool = False

    @property
    def is_columns(self) -> bool:
        """Whether the view is a part along the second axis."""
        return bool(self.first) or self.last is not None

    def of(self, shape: Shape) -> Shape | None:
        """The shape of the view of a tensor, or None if the tensor has no such view."""
        if self.parts > 1:
            return (shape[0] // self.parts, *shape[1:]) if shape and shape[0] % self.parts == 0 else None
        if self.is_columns:
            stop = self.last if self.last is not None else (shape[1] if len(shape) > 1 else 0)
            return (
                (shape[0], stop - self.first, *shape[2:]) if len(shape) > 1 and shape[1] >= stop > self.first else None
            )
        if self.lift < 0:
            return shape[-self.lift :] if shape[: -self.lift] == (1,) * -self.lift else None
        if self.flat:
            return (shape[0], math.prod(shape[1:])) if shape else None
        return (1,) * self.lift + shape

    def whole(self, part: Shape) -> Shape | None:
        """The shape of the tensor whose view has the shape `part`, or None if there is none."""
        if self.parts > 1:
            return (part[0] * self.parts, *part[1:]) if part else None
        if self.first:
            return (part[0], part[1] + self.first, *part[2:]) if len(part) > 1 else None
        if self.lift > 0:
            return part[self.lift :] if part[: self.lift] == (1,) * self.lift else None
        return (1,) * -self.lift + part

    def slice(self, shape: Shape) -> Slice | None:
        """Where the view lies in a tensor of this shape; None: it is all of it."""
        if self.parts > 1:
            step = shape[0] // self.parts
            return Slice(0, self.part * step, (self.part + 1) * step)
        if self.is_columns:
            return Slice(1, self.first, shape[1] if self.last is None else self.last)
        return None

    def overlaps(self, other: View) -> bool:
        """Whether two views of one tensor share an element."""
        return self.parts != other.parts or self.parts == 1 or self.part == other.part


@dataclass(frozen=True)
class Cell:
    """One name template of one dialect and its view."""

    template: str
    view: View = View()
    in_parent: bool = False
    additive: bool = False
    last: Shape = ()

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields in the template."""
        return _fields(self.template)

    @property
    def fixed(self) -> Mapping[str, int]:
        """Fields that have one value only."""
        return _fixed(self.template)

    @property
    def is_numbered(self) -> bool:
        """Whether the template holds an integer field, so that it can occur many times."""
        return bool(self.fields - WORDS.keys())

    def takes(self, shape: Shape) -> bool:
        """Whether a tensor of this shape can be the one that the cell is about."""
        return not self.last or shape[-len(self.last) :] == self.last

    def parse(self, name: str) -> Fields | None:
        """Field values that spell `name`, or None."""
        match = _pattern(self.template).fullmatch(name)
        if match is None:
            return None
        values: dict[str, int | str] = {}
        for field in _FIELD.finditer(self.template):
            key, text = field["name"], match[field["name"]]
            if key in WORDS:
                values[key] = text
                continue
            value, rest = divmod(int(text) - int(field["offset"] or 0), int(field["stride"] or 1))
            if rest or value < 0 or (field["fixed"] and value != int(field["fixed"])):
                return None
            values[key] = value
        return values

    def format(self, fields: Fields) -> str:
        """The name that the field values spell."""

        def put(field: re.Match[str]) -> str:
            value = fields[field["name"]]
            return (
                value if isinstance(value, str) else str(value * int(field["stride"] or 1) + int(field["offset"] or 0))
            )

        return _FIELD.sub(put, self.template)


def parse_cell(text: str) -> Cell:
    """Read one cell.

    Raises:
        ValueError: it does not follow the notation.
    """
    match = _CELL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is no cell")
    template, additive = match["template"], match["mark"] == "+"
    literal = _FIELD.sub("\0", template)
    # Digits alone between two numbers leave open where one ends: reading a name could take for ever.
    if re.search(r"\0\d*\0", literal) or not re.fullmatch(r"[\w.\0-]+", literal, re.ASCII):
        raise ValueError(
            f"{text[:80]!r} is no name template (letters, digits, _ - and ., with a text that is no number between two "
            "fields)"
        )
    names = [m["name"] for m in _FIELD.finditer(template)]
    if len(set(names)) < len(names):
        raise ValueError(f"{text[:80]!r} holds a field twice")
    if len(names) > _MAX_FIELDS:
        raise ValueError(f"{text[:80]!r} holds {len(names):,} fields; at most {_MAX_FIELDS} are allowed")
    view = _parse_view(match["view"]) if match["view"] else View()
    if view.last is not None and not additive:
        raise ValueError(f"{text[:80]!r}: columns up to a given one can only be added (`+`)")
    last = tuple(map(int, match["last"].split(","))) if match["last"] else ()
    return Cell(template, view, match["mark"] == "^", additive, last)


def _parse_view(text: str) -> View:
    if (block := _BLOCK.fullmatch(text)) and int(block[1]) < int(block[2]):
        return View(part=int(block[1]), parts=int(block[2]))
    if columns := _COLUMNS.fullmatch(text):
        view = View(first=int(columns[1] or 0), last=int(columns[2]) if columns[2] else None)
        if view.first or view.last:
            return view
    axes = text.split(",")
    if set(axes) in ({"None"}, {"0"}) and len(axes) <= _MAX_LIFT:
        return View(lift=len(axes) if axes[0] == "None" else -len(axes))
    if text == "flat":
        return View(flat=True)
    raise ValueError(f"[{text[:80]}] is no view")


# The caches hold those of the package, and not all that any table of a stranger ever held.
@lru_cache(maxsize=4096)
def _fields(template: str) -> frozenset[str]:
    return frozenset(m["name"] for m in _FIELD.finditer(template))


@lru_cache(maxsize=4096)
def _fixed(template: str) -> Mapping[str, int]:
    return {m["name"]: int(m["fixed"]) for m in _FIELD.finditer(template) if m["fixed"]}


@lru_cache(maxsize=4096)
def _pattern(template: str) -> re.Pattern[str]:
    parts: list[str] = []
    position = 0
    for field in _FIELD.finditer(template):
        parts.append(re.escape(template[position : field.start()]))
        key = field["name"]
        inner = "|".join(WORDS[key]) if key in WORDS else "0|[1-9][0-9]*"
        parts.append(f"(?P<{key}>{inner})")
        position = field.end()
    parts.append(re.escape(template[position:]))
    return re.compile("".join(parts))
