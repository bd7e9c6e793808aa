"""Blocks that one dialect of a table counts through and the others by stage: `flat` lines of `names`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rws_hub.cells import WORDS, Cell, Fields, Shape, parse_cell

# A backbone has at most so many names.
_MAX_BLOCKS = 1 << 16
FLAT = re.compile(r"flat (\w+): ([a-z]+) = ([a-z]+) ([a-z]+)(?: as ([0-9 ]+))? by (.+)")


@dataclass(frozen=True, slots=True)
class Flat:
    """A dialect that numbers its blocks through: number `field` is block `pair` = (stage, block).

    Seen from that dialect, the stages have `sizes` blocks if that is how many there are, and else begin where the
    rows of the marker tensors change.
    """

    dialect: str
    field: str
    pair: tuple[str, str]
    sizes: tuple[int, ...]
    markers: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Numbering:
    """(stage, block) -> running number, and back."""

    numbers: Mapping[tuple[int, int], int]
    pairs: Mapping[int, tuple[int, int]]


def with_both_numbers(flat: Flat, fields: Fields, numbering: Numbering) -> Fields | None:
    """The fields with (stage, block) and the running number, or None if there is no such block."""
    if flat.field in fields:
        pair = numbering.pairs.get(int(fields[flat.field]))
        return None if pair is None else {**fields, **dict(zip(flat.pair, pair, strict=True))}
    if all(key in fields for key in flat.pair):
        stage, block = (int(fields[key]) for key in flat.pair)
        number = numbering.numbers.get((stage, block))
        return None if number is None else {**fields, flat.field: number}
    return fields


def count_by_shape(flat: Flat, layout: Mapping[str, Shape]) -> Numbering:
    """The numbering of a backbone in the dialect that counts through, from its names and shapes."""
    rows: dict[int, int] = {}
    for marker in flat.markers:
        for name, shape in layout.items():
            if (fields := marker.parse(name)) is not None:
                rows[int(fields.get(flat.field, 0))] = shape[0] if shape else 0
    if len(rows) == sum(flat.sizes):
        pairs = [(stage, block) for stage, size in enumerate(flat.sizes) for block in range(size)]
        return numbered(dict(zip(pairs, sorted(rows), strict=True)))
    numbers: dict[tuple[int, int], int] = {}
    stage, block, width = -1, 0, -1
    for k in sorted(rows):
        stage, block = (stage, block + 1) if rows[k] == width else (stage + 1, 0)
        width = rows[k]
        numbers[(stage, block)] = k
    return numbered(numbers)


def numbered(numbers: Mapping[tuple[int, int], int]) -> Numbering:
    """Both ways of a numbering."""
    return Numbering(numbers, {k: pair for pair, k in numbers.items()})


def parse_flat(match: re.Match[str], dialects: tuple[str, ...]) -> Flat:
    """A line that `FLAT` matched, of a table with these columns.

    Raises:
        ValueError: no such column, fields that are no numbers, too many blocks.
    """
    numbers = (match[2], match[3], match[4])
    if match[1] not in dialects or len(set(numbers)) < 3 or not WORDS.keys().isdisjoint(numbers):
        raise ValueError("a line `flat` names a column above it, and three different fields that are numbers")
    sizes = tuple(int(n) for n in (match[5] or "").split())
    if sum(sizes) > _MAX_BLOCKS:
        raise ValueError(f"{sum(sizes):,} blocks; a backbone has at most {_MAX_BLOCKS:,}")
    return Flat(match[1], match[2], (match[3], match[4]), sizes, tuple(parse_cell(m) for m in match[6].split()))
