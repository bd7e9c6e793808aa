"""Parameter names as data: one table per family, one row per parameter, one column per dialect.

A table (`maps/*.map`) is read in both directions, so there are no reverse rules. A cell is a name
template with integer fields (`{i}`, `{s+1}`) and word fields (`{wb}`, `{bn}`), and may end in a view
`[k/n]`: the k-th of n equal row blocks. `=` repeats the cell to the left, `-` means that the dialect
has no such tensor, `^` that the name is not below the backbone's prefix but below its parent
(transformers' classification heads). `head:` marks rows of the classification head. `unit` lines
name the layers in execution order. Needs neither torch nor any model library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

Shape = tuple[int, ...]
Layout = Mapping[str, Shape]

WORDS = {"wb": ("weight", "bias"), "bn": ("weight", "bias", "running_mean", "running_var")}
_FIELD = re.compile(r"\{(?P<name>[a-z]+)(?P<offset>\+\d+)?\}")
_VIEW = re.compile(r"\[(\d+)/(\d+)\]$")


@dataclass(frozen=True, slots=True)
class Cell:
    """One name template of one dialect, with an optional row block (part `k` of `parts`)."""

    template: str
    part: int = 0
    parts: int = 1
    in_parent: bool = False

    @property
    def is_numbered(self) -> bool:
        """Whether the template holds an integer field, so that it can occur many times."""
        return any(m["name"] not in WORDS for m in _FIELD.finditer(self.template))

    def parse(self, name: str) -> dict[str, int | str] | None:
        """Field values that spell `name`, or None."""
        match = _pattern(self.template).fullmatch(name)
        if match is None:
            return None
        fields: dict[str, int | str] = {}
        for field in _FIELD.finditer(self.template):
            key, offset = field["name"], int(field["offset"] or 0)
            text = match[key]
            fields[key] = text if key in WORDS else int(text) - offset
        return None if any(isinstance(v, int) and v < 0 for v in fields.values()) else fields

    def format(self, fields: Mapping[str, int | str]) -> str:
        """The name that the field values spell."""

        def put(field: re.Match[str]) -> str:
            value = fields[field["name"]]
            return value if isinstance(value, str) else str(value + int(field["offset"] or 0))

        return _FIELD.sub(put, self.template)


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter pattern: a cell per dialect (None: the dialect has no such tensor)."""

    cells: Mapping[str, Cell | None]
    head: bool


@dataclass(frozen=True, slots=True)
class Unit:
    """A layer: `label` template and the canonical prefixes of its tensors."""

    label: Cell
    prefixes: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One table. `dialects[0]` is canonical."""

    name: str
    dialects: tuple[str, ...]
    rows: tuple[Row, ...]
    units: tuple[Unit, ...]

    @property
    def canonical(self) -> str:
        """The dialect whose names an artifact is written in."""
        return self.dialects[0]

    def unit_of(self, name: str) -> tuple[tuple[int, ...], str] | None:
        """Sort key (execution order) and label of the unit that holds a canonical name."""
        for order, unit in enumerate(self.units):
            for prefix in unit.prefixes:
                depth = prefix.template.count(".") + 1
                fields = prefix.parse(".".join(name.split(".")[:depth]))
                if fields is not None:
                    indices = tuple(v for v in fields.values() if isinstance(v, int))
                    return (order, *indices), unit.label.format(fields)
        return None


@cache
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


def parse_family(name: str, text: str) -> Family:
    """Read one table.

    Raises:
        ValueError: naming the line that does not follow the notation.
    """
    dialects: tuple[str, ...] = ()
    rows: list[Row] = []
    units: list[Unit] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#")[0].strip()
        if not line:
            continue
        if line.startswith("columns:"):
            dialects = tuple(c.strip() for c in line.removeprefix("columns:").split("|"))
        elif line.startswith("unit "):
            label, _, prefixes = line.removeprefix("unit ").partition(":")
            units.append(Unit(Cell(label.strip()), tuple(Cell(p) for p in prefixes.split())))
        else:
            rows.append(_parse_row(line, dialects, f"{name}.map line {number}"))
    return Family(name, dialects, tuple(rows), tuple(units))


def _parse_row(line: str, dialects: tuple[str, ...], where: str) -> Row:
    head = line.startswith("head:")
    texts = [c.strip() for c in line.removeprefix("head:").split("|")]
    if len(texts) != len(dialects):
        raise ValueError(f"{where}: {len(texts)} cells for {len(dialects)} columns")
    cells: dict[str, Cell | None] = {}
    left: Cell | None = None
    for dialect, text in zip(dialects, texts, strict=True):
        left = left if text == "=" else None if text == "-" else _parse_cell(text)
        cells[dialect] = left
    fields = {frozenset(m["name"] for m in _FIELD.finditer(c.template)) for c in cells.values() if c}
    if len(fields) != 1:
        raise ValueError(f"{where}: the cells of a row must hold the same fields")
    return Row(cells, head)


def _parse_cell(text: str) -> Cell:
    in_parent = text.startswith("^")
    text = text.removeprefix("^")
    if view := _VIEW.search(text):
        return Cell(text[: view.start()], int(view[1]), int(view[2]), in_parent)
    return Cell(text, in_parent=in_parent)


@cache
def families() -> Mapping[str, Family]:
    """Every table that ships with the package, by name."""
    folder = resources.files("rws_hub") / "maps"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".map")), key=lambda f: f.name)
    return {f.name[:-4]: parse_family(f.name[:-4], f.read_text("utf-8")) for f in files}
