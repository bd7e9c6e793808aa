"""How a backbone's tensors are spelled in every dialect of its table: pure work on names and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rws_hub.cells import Fields, Shape, Slice, tiles
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
    numbering = table.numbering(table.canonical, body)
    rows = [r for r in table.rows if r.is_body and (not r.condition or r.condition.holds(table.canonical, body))]
    readings: dict[str, list[tuple[Row, Fields]]] = {}
    for name in body:
        found = ((row, table.read(row, table.canonical, name, numbering)) for row in rows)
        readings[name] = [(row, fields) for row, fields in found if fields is not None]
    spelled: dict[str, dict[str, Spelling]] = {}
    for dialect in table.dialects:
        names = {n: _spell(table.canonical, dialect, n, shape, readings[n]) for n, shape in body.items()}
        if all(names.values()):
            spelled[dialect] = names
    return spelled


def _spell(root: str, dialect: str, name: str, shape: Shape, readings: list[tuple[Row, Fields]]) -> Spelling:
    """The alternatives for one canonical tensor in a dialect, without prefix; empty if it has no name there."""
    alternatives: Spelling = []
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
        if not alternatives or (home.view.part == 0 and not home.additive):
            alternatives.append([])
        alternatives[-1].append(Home(piece, whole, row.flattens, home.additive))
    # Where some part of the tensor has no row, the table has no spelling for it.
    return [_joined(homes) for homes in alternatives if tiles([h.piece.part for h in homes], shape)]


def _joined(homes: list[Home]) -> list[Home]:
    """Row blocks that are the same ones of one tensor are that tensor."""
    first = homes[0]
    same = all(h.piece.model == first.piece.model and h.piece.part == h.piece.model_part for h in homes)
    if len(homes) == 1 or not same:
        return homes
    return [Home(Piece(first.piece.canonical, None, first.piece.model, None), first.shape, first.loose)]


def refuse_collisions(table: Family | None, homes: Iterable[Home]) -> None:
    """Refuse a table that sends two tensors to one place."""
    taken: dict[str, list[Piece]] = {}
    for home in homes:
        piece = home.piece
        for other in () if home.summed else taken.get(piece.model, ()):
            if _overlap(piece.model_part, other.model_part):
                named = table.name if table else IDENTITY
                both = f"{other.canonical} and {piece.canonical}"
                raise NameTableError(f"the table {named} sends {both} to the same rows of {piece.model}")
        if not home.summed:
            taken.setdefault(piece.model, []).append(piece)


def _overlap(a: Slice | None, b: Slice | None) -> bool:
    return a is None or b is None or a.axis != b.axis or (a.start < b.stop and b.start < a.stop)


def choose(spelling: Spelling, prefix: str, plain: Layout) -> list[Home]:
    """The first alternative that fits; else the first whose names are all there; else the first."""
    if len(spelling) == 1:
        return spelling[0]
    there = [homes for homes in spelling if all(prefix + h.piece.model in plain for h in homes)]
    fitting = (homes for homes in there if all(h.takes(plain[prefix + h.piece.model]) for h in homes))
    return next(fitting, (there or spelling)[0])
