"""How a backbone's tensors are spelled in every dialect of its table: pure work on names and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from rws_hub.cells import Fields, Shape, Slice, View, tiles
from rws_hub.errors import NameTableError
from rws_hub.names import Family, Layout, Row

IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a canonical tensor is a part of a model's tensor, element by element in row-major order.

    None is the whole tensor; the two may then differ in axes of length 1.
    """

    canonical: str
    part: Slice | None
    model: str
    model_part: Slice | None


@dataclass(frozen=True, slots=True)
class Home:
    """One piece in a dialect, without prefix, and the shape that the model's tensor must have."""

    piece: Piece
    shape: Shape
    loose: bool
    summed: bool = False

    def takes(self, found: Shape) -> bool:
        """Whether a model's tensor of this shape can hold the piece."""
        return same_shape(self.shape, found) or (self.loose and _flattened(self.shape) == _flattened(found))


# Everything that could spell one canonical tensor: alternatives, each a few homes.
Spelling = list[list[Home]]


def same_shape(a: Shape, b: Shape) -> bool:
    """Equal up to axes of length 1, which never permute data."""
    return a == b or [d for d in a if d != 1] == [d for d in b if d != 1]


def _flattened(shape: Shape) -> tuple[int, int]:
    return (shape[0] if shape else 1), math.prod(shape[1:])


def spellings(table: Family | None, body: Layout) -> dict[str, dict[str, Spelling]]:
    """Dialect -> canonical name -> its spellings, for every dialect that has a name for every tensor."""
    if table is None:
        return {IDENTITY: {n: [[Home(Piece(n, None, n, None), shape, False)]] for n, shape in body.items()}}
    return _spellings(_Table(table.text, table.dialects, table), tuple(body.items()))


@dataclass(frozen=True, slots=True)
class _Table:
    """A table by what it says."""

    text: str
    dialects: tuple[str, ...]
    table: Family = field(compare=False)


# Half of what planning a patch takes, and the same for every signature of one backbone.
@lru_cache(maxsize=8)
def _spellings(known: _Table, tensors: tuple[tuple[str, Shape], ...]) -> dict[str, dict[str, Spelling]]:
    table, body = known.table, dict(tensors)
    readings = _readings(table, body)
    spelled: dict[str, dict[str, Spelling]] = {}
    for dialect in table.dialects:
        names = {n: _spell(table.canonical, dialect, n, shape, readings[n]) for n, shape in body.items()}
        if all(names.values()):
            spelled[dialect] = names
    return spelled


def _readings(table: Family, body: Layout) -> dict[str, list[tuple[Row, Fields]]]:
    """The rows that are about each canonical tensor, in order."""
    root = table.canonical
    numbering = table.numbering(root, body)
    rows = [r for r in table.rows if r.is_body and not r.never and (not r.condition or r.condition.holds(root, body))]
    return {n: [(r, fields) for r in rows if (fields := table.read(r, root, n, numbering)) is not None] for n in body}


def _spell(root: str, dialect: str, name: str, shape: Shape, readings: list[tuple[Row, Fields]]) -> Spelling:
    """The alternatives for one canonical tensor in a dialect, without prefix; empty if it has no name there."""
    found = _alternatives(root, dialect, name, shape, readings)
    # Where some part of the tensor has no row, the table has no spelling for it.
    return [_joined(homes) for homes in found if tiles([h.piece.part for h in homes], shape)]


def _alternatives(root: str, dialect: str, name: str, shape: Shape, readings: list[tuple[Row, Fields]]) -> Spelling:
    """The same, also those that lack a part of the tensor."""
    alternatives: Spelling = []
    taken: list[View] = []
    for row, fields in readings:
        home, cell = row.cells[root], row.cells[dialect]
        if dialect == root:
            return [[Home(Piece(name, None, name, None), shape, row.flattens)]]
        if home is None or cell is None or cell.additive:
            continue
        part = home.view.of(shape)
        whole = None if part is None else cell.view.whole(part)
        if whole is None:
            continue  # it has no such row blocks: this row is about another variant
        piece = Piece(name, home.view.slice(shape), cell.format(fields), cell.view.slice(whole))
        # The parts of one alternative may stand in any order; one that is there already begins the next.
        if not alternatives or (not home.additive and any(home.view.overlaps(v) for v in taken)):
            alternatives.append([])
            taken = []
        if not home.additive:
            taken.append(home.view)
        alternatives[-1].append(Home(piece, whole, row.flattens, home.additive))
    return alternatives


def _joined(homes: list[Home]) -> list[Home]:
    """Row blocks that are the same ones of one tensor are that tensor."""
    first = homes[0]
    same = all(h.piece.model == first.piece.model and h.piece.part == h.piece.model_part for h in homes)
    if len(homes) == 1 or not same:
        return homes
    return [Home(Piece(first.piece.canonical, None, first.piece.model, None), first.shape, first.loose)]


def refuse_collisions(table: Family | None, homes: Iterable[Home]) -> None:
    """Refuse a table that sends two tensors to one place."""
    if both := _collision(homes):
        raise NameTableError(f"the table {table.name if table else IDENTITY} {both}")


def _collision(homes: Iterable[Home]) -> str:
    """What a table sends to one place, if it does."""
    taken: dict[str, list[Piece]] = {}
    for piece in (h.piece for h in homes if not h.summed):
        for other in taken.get(piece.model, ()):
            if _overlap(piece.model_part, other.model_part):
                both = " and ".join(p.canonical + written(p.part) for p in (other, piece))
                return f"sends {both} to the same rows of {piece.model}"
        taken.setdefault(piece.model, []).append(piece)
    return ""


def written(part: Slice | None) -> str:
    """A part of a tensor behind its name: `[0:64]`, `[:, 1:5]`; nothing for all of it."""
    if part is None:
        return ""
    return f"[{part.start}:{part.stop}]" if part.axis == 0 else f"[:, {part.start}:{part.stop}]"


def flaw(table: Family, body: Layout) -> str:
    """What a table loses or doubles of a backbone, to stand behind the table's name; nothing if it is sound.

    Every column must hold every number of the backbone once. A column that has `-` for one of its tensors has no
    such backbone and is not asked, nor is one that speaks of columns.
    """
    readings = _readings(table, body)
    for dialect in table.dialects[1:]:
        if any(all(row.cells[dialect] is None for row, _ in rows) for rows in readings.values()):
            continue
        used = [row.cells[d] for rows in readings.values() for row, _ in rows for d in (table.canonical, dialect)]
        if any(c is not None and c.view.is_columns for c in used):
            continue
        found = {n: _alternatives(table.canonical, dialect, n, shape, readings[n]) for n, shape in body.items()}
        for name, shape in body.items():
            if problem := _unspelled(name, shape, found[name]) or _torn(name, found[name]):
                return f"{problem} in its column {dialect!r}"
        certain = [h for ways in found.values() if len(ways) == 1 for h in ways[0]]
        if problem := _collision(certain) or _uncovered(h for ways in found.values() for homes in ways for h in homes):
            return f"{problem} in its column {dialect!r}"
    return ""


def _unspelled(name: str, shape: Shape, found: Spelling) -> str:
    """Why none of these alternatives spells a tensor."""
    if any(tiles([h.piece.part for h in homes], shape) for homes in found):
        return ""
    parts = [p for homes in found for h in homes if (p := h.piece.part) is not None]
    if parts and (gap := _gap(parts, shape[0])):
        twice = next((p for p in parts if parts.count(p) > 1), None)
        return f"has no row for {name}{written(gap)}" + (f", and two for {name}{written(twice)}," if twice else "")
    return f"has no set of rows that makes up {name} of shape {list(shape)}"


def _torn(name: str, found: Spelling) -> str:
    """Two places for one part of a tensor in one tensor of the model."""
    places: dict[tuple[str, Slice | None], Slice | None] = {}
    for piece in (h.piece for homes in found for h in homes):
        place = places.setdefault((piece.model, piece.part), piece.model_part)
        if place != piece.model_part:
            here, there = (piece.model + written(p) for p in (place, piece.model_part))
            return f"sends {name}{written(piece.part)} both to {here} and to {there}"
    return ""


def _uncovered(homes: Iterable[Home]) -> str:
    """What a table leaves out of a dialect's tensor of which it uses a part."""
    parts: dict[str, list[Slice | None]] = {}
    rows: dict[str, int] = {}
    for home in homes:
        parts.setdefault(home.piece.model, []).append(home.piece.model_part)
        rows[home.piece.model] = home.shape[0] if home.shape else 1
    for model, found in parts.items():
        blocks = [p for p in found if p is not None and p.axis == 0]
        if len(blocks) == len(found) and (gap := _gap(blocks, rows[model])):
            return f"has no row for {model}{written(gap)}"
    return ""


def _gap(parts: Iterable[Slice], stop: int) -> Slice | None:
    """The first rows up to `stop` that are in no part."""
    end = 0
    for part in sorted(parts, key=lambda p: p.start):
        if part.start > end:
            return Slice(0, end, part.start)
        end = max(end, part.stop)
    return Slice(0, end, stop) if end < stop else None


def _overlap(a: Slice | None, b: Slice | None) -> bool:
    return a is None or b is None or a.axis != b.axis or (a.start < b.stop and b.start < a.stop)


def choose(spelling: Spelling, prefix: str, plain: Layout) -> list[Home]:
    """The first alternative that fits; else the first whose names are all there; else the first."""
    if len(spelling) == 1:
        return spelling[0]
    there = [homes for homes in spelling if all(prefix + h.piece.model in plain for h in homes)]
    fitting = (homes for homes in there if all(h.takes(plain[prefix + h.piece.model]) for h in homes))
    return next(fitting, (there or spelling)[0])
