"""Parameter names as data: one table per family, one row per parameter, one column per dialect.

A table (`maps/*.map`; docs/NAMES.md shows how to write one) is read in both directions, so there are no reverse rules.
What stands between the bars is a cell (`cells`). `=` repeats the cell to the left, `-` means that the dialect has
no such tensor. A row may begin with

    head:           classification head; not part of the backbone
    extra:          nor is this; only the dialects that have it name it
    needs:          a backbone of this family has at least one such tensor
    never:          a backbone that has such a tensor is of another family
    with NAME:      the row holds where the backbone has the tensor of this canonical name
    without NAME:   the row holds where it has not

Rows are tried in order: a later row of the same tensor is an alternative for models that spell it otherwise.
`unit` lines name the layers in execution order; `flat` lines number the blocks of a dialect that does not count them
by stage. Needs neither torch nor any model library.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path

from rws_hub.cells import Cell, Fields, Shape, parse_cell
from rws_hub.errors import NameTableError
from rws_hub.numbering import FLAT, Flat, Numbering, count_by_shape, numbered, parse_flat, with_both_numbers

Layout = Mapping[str, Shape]

# Far above what any table needs; a table may come from a stranger. Reading a backbone's names takes time for every
# name, row and column.
MAX_TABLE_BYTES = 1 << 16
MAX_COLUMNS, MAX_LINES = 16, 512
_PREFIX = re.compile(r"(head|extra|needs|never|with ([\w.]+)|without ([\w.]+)):\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether a backbone must have (or lack) a tensor; its name by dialect."""

    names: Mapping[str, str]
    present: bool

    def holds(self, dialect: str, names: Collection[str]) -> bool:
        """Whether it holds for the backbone with these names."""
        return (self.names.get(dialect, "") in names) == self.present


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter pattern: a cell per dialect (None: the dialect has no such tensor).

    Attributes:
        text: the row as written, without the blanks between its cells.
        is_body: whether the tensor is part of the backbone.
        is_head: whether it is of the classification head.
        needed: whether a backbone of this family has at least one such tensor.
        never: whether it has none.
        fixed: fields that have one value only.
    """

    text: str
    cells: Mapping[str, Cell | None]
    is_body: bool
    is_head: bool
    needed: bool
    never: bool
    condition: Condition | None
    fixed: Mapping[str, int]

    @property
    def flattens(self) -> bool:
        """Whether one dialect holds the tensor with its axes made one."""
        return any(c is not None and c.view.flat for c in self.cells.values())


@dataclass(frozen=True, slots=True)
class Unit:
    """A layer: `label` template and the canonical prefixes of its tensors."""

    label: Cell
    prefixes: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One table, as read from `text`. `dialects[0]` is canonical."""

    name: str
    text: str
    dialects: tuple[str, ...]
    rows: tuple[Row, ...]
    units: tuple[Unit, ...]
    flat: Flat | None

    @property
    def canonical(self) -> str:
        """The dialect whose names an artifact is written in."""
        return self.dialects[0]

    def rooted(self, dialect: str) -> Family:
        """The same table for signatures that are written in another of its dialects."""
        return replace(self, dialects=(dialect, *(d for d in self.dialects if d != dialect)), units=())

    def numbering(self, dialect: str, layout: Layout) -> Numbering:
        """(stage, block) -> running number of a backbone, from its names in one dialect."""
        if self.flat is None:
            return numbered({})
        if dialect == self.flat.dialect:
            return count_by_shape(self.flat, layout)
        stage, block = self.flat.pair
        cells = [c for r in self.rows if (c := r.cells[dialect]) and {stage, block} <= c.fields]
        found = {(int(f[stage]), int(f[block])) for c in cells for n in layout if (f := c.parse(n))}
        return numbered({pair: k for k, pair in enumerate(sorted(found))})

    def read(self, row: Row, dialect: str, name: str, numbering: Numbering) -> Fields | None:
        """Field values of a row, for every dialect, from one name; None if the row is not about it."""
        cell = row.cells[dialect]
        fields = None if cell is None else cell.parse(name)
        if fields is not None and self.flat is not None:
            fields = with_both_numbers(self.flat, fields, numbering)
        return fields if fields is None or all(fields[key] == value for key, value in row.fixed.items()) else None

    def unit_of(self, name: str) -> tuple[tuple[int, ...], str] | None:
        """Sort key (execution order) and label of the unit that holds a canonical name."""
        for order, unit in enumerate(self.units):
            for prefix in unit.prefixes:
                depth = prefix.template.count(".") + 1
                fields = prefix.parse(".".join(name.split(".")[:depth]))
                if fields is not None:
                    first, *rest = [v for v in fields.values() if isinstance(v, int)] or [0]
                    return (self._group(unit), first, order, *rest), unit.label.format(fields)
        return None

    def is_tail(self, name: str) -> bool:
        """Whether a canonical name is of the last layer, of which there is one: models cut to features lack it."""
        unit, last = self.unit_of(name), self.units[-1:]
        return unit is not None and not last[0].label.is_numbered and unit[1] == last[0].label.template

    def _group(self, unit: Unit) -> int:
        """Units that count by the same first number (a stage) are executed in turn, number by number."""
        start = unit.label.template.partition("{")[0]
        return next(i for i, u in enumerate(self.units) if u.label.template.partition("{")[0] == start)


def parse_family(name: str, text: str) -> Family:
    """Read one table.

    Raises:
        ValueError: naming the line that does not follow the notation.
    """
    if len(text) > MAX_TABLE_BYTES:
        raise ValueError(f"{name}: {len(text):,} characters; a table has at most {MAX_TABLE_BYTES:,}")
    if odd := next((c for c in text if not c.isprintable() and c not in "\t\r\n\xa0"), None):
        number = text[: text.index(odd)].count("\n") + 1
        raise ValueError(f"{name}, line {number}: the character {odd!r} cannot be printed; remove it")
    lines = [raw.split("#")[0].strip() for raw in text.splitlines()]
    if (count := sum(map(bool, lines))) > MAX_LINES:
        raise ValueError(f"{name}: {count:,} lines; a table has at most {MAX_LINES}, comments not counted")
    dialects: tuple[str, ...] = ()
    rows: list[Row] = []
    units: list[Unit] = []
    flat: Flat | None = None
    for number, line in enumerate(lines, 1):
        try:
            if line.startswith("columns:") and dialects:
                raise ValueError("a second line `columns:`; a table has one")
            if line.startswith("columns:"):
                dialects = _parse_columns(line.removeprefix("columns:"))
            elif line.startswith("unit "):
                units.append(_parse_unit(line.removeprefix("unit ")))
            elif match := FLAT.fullmatch(line):
                flat = parse_flat(match, dialects)
            elif line:
                rows.append(_parse_row(line, dialects, rows, flat))
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}") from error
    if len(set(dialects)) < max(len(dialects), 2) or not rows:
        raise ValueError(f"{name}: expected a line `columns: a | b` with different names, and rows below it")
    return Family(name, text, dialects, tuple(rows), tuple(units), flat)


def read_table(path: str | Path) -> Family:
    """Read a table from a `.map` file; it goes by the name of the file.

    Raises:
        NameTableError: no such file, or not in the notation.
    """
    file = Path(path)
    if file == Path():
        raise NameTableError(f"table={str(path)!r} names no file; pass the path of a name table (a .map file)")
    try:
        with file.open("rb") as handle:
            return parse_family(file.stem, handle.read(MAX_TABLE_BYTES + 1).decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise NameTableError(f"{file}: no name table ({error})") from error


def _parse_columns(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split("|"))
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"{len(names):,} columns; a table has at most {MAX_COLUMNS}")
    return names


def _parse_unit(text: str) -> Unit:
    label, _, prefixes = text.partition(":")
    unit = Unit(parse_cell(label.strip()), tuple(parse_cell(p) for p in prefixes.split()))
    if any(not unit.label.fields <= prefix.fields for prefix in unit.prefixes):
        raise ValueError(f"the label of a unit holds a field that one of its prefixes lacks ({label.strip()[:80]})")
    return unit


def _parse_row(line: str, dialects: tuple[str, ...], above: list[Row], flat: Flat | None) -> Row:
    prefix = _PREFIX.match(line)
    texts = [c.strip() for c in line[prefix.end() if prefix else 0 :].split("|")]
    if len(texts) != len(dialects):
        raise ValueError(f"{len(texts)} cells for {len(dialects)} columns")
    cells: dict[str, Cell | None] = {}
    left: Cell | None = None
    for dialect, text in zip(dialects, texts, strict=True):
        left = left if text == "=" else None if text == "-" else parse_cell(text)
        cells[dialect] = left
    fields = [set(c.fields) for c in cells.values() if c]
    for each in fields if flat else ():
        each |= set(flat.pair) if flat and flat.field in each else set()
        each -= {flat.field} if flat else set()
    if not fields or any(f != fields[0] for f in fields):
        raise ValueError("the cells of a row must hold the same fields")
    condition = None
    if prefix and (wanted := prefix[2] or prefix[3]):
        known = next((r for r in above if (c := r.cells[dialects[0]]) and c.template == wanted), None)
        if known is None:
            raise ValueError(f"no row above is about {wanted[:80]}")
        condition = Condition({d: c.template for d, c in known.cells.items() if c}, bool(prefix[2]))
    fixed = {key: value for c in cells.values() if c for key, value in c.fixed.items()}
    word = prefix[1] if prefix else ""
    if word != "extra" and cells[dialects[0]] is None:
        raise ValueError("the first column holds the canonical name; only `extra:` rows have none")
    is_body, is_head = word not in ("head", "extra"), word == "head"
    return Row(" | ".join(texts), cells, is_body, is_head, word == "needs", word == "never", condition, fixed)


@cache
def families() -> Mapping[str, Family]:
    """Every table that ships with the package, by name."""
    folder = resources.files("rws_hub") / "maps"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".map")), key=lambda f: f.name)
    return {f.name[:-4]: parse_family(f.name[:-4], f.read_text("utf-8")) for f in files}


# A cache that grew with every table ever read would be a leak.
@lru_cache(maxsize=64)
def table_of(family: str, text: str | None) -> Family | None:
    """The table of an artifact: the one it brings, else the package's, else None.

    Raises:
        ValueError: `text` does not follow the notation.
    """
    return families().get(family) if text is None else parse_family(family, text)
