"""Which backbone a model is: the family, dialect and prefix that explain its names; used when extracting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rws_hub.names import Family, Layout, Row, Shape, families
from rws_hub.resolve import HEADS, IDENTITY, Piece, plain_names, spell

# Added by wrappers in front of every name.
_WRAPPERS = ("module", "timm_model")


@dataclass(frozen=True, slots=True)
class Recognition:
    """A model's layout, explained. `pieces` maps every canonical body tensor onto the model's own."""

    family: str
    dialect: str
    prefix: str
    body: Mapping[str, Shape]
    head: Mapping[str, Shape]
    pieces: tuple[Piece, ...]


def recognise(layout: Layout) -> list[Recognition]:
    """Every complete explanation of a model's layout by a table; the identity one when there is none."""
    actual = plain_names(layout)
    plain = {p: layout[a] for p, a in actual.items()}
    found = [
        r
        for family in families().values()
        for dialect in family.dialects
        for prefix in _prefixes(family, dialect, plain)
        if (r := _explain(family, dialect, prefix, plain, actual))
    ]
    return found or [_identity(plain, actual)]


def _prefixes(family: Family, dialect: str, plain: Layout) -> set[str]:
    """What stands before the un-numbered body names of a dialect (a stem occurs once per backbone)."""
    cells = [c for r in family.rows if not r.head and (c := r.cells[dialect])]
    stems = [c for c in cells if not c.is_numbered]
    return {
        ".".join(parts[:cut]) + ("." if cut else "")
        for name in plain
        for parts in [name.split(".")]
        for cut in range(len(parts))
        if any(c.parse(".".join(parts[cut:])) is not None for c in stems)
    }


def _explain(family: Family, dialect: str, prefix: str, plain: Layout, actual: Mapping[str, str]) -> Recognition | None:
    """The recognition of everything below `prefix`, or None if one name or row block is left over."""
    parent = prefix[: prefix[:-1].rfind(".") + 1]
    body: dict[str, Shape] = {}
    head: dict[str, Shape] = {}
    pieces: list[Piece] = []
    numbered = False
    for name, shape in plain.items():
        row, fields = _row_of(family, dialect, prefix, parent, name)
        if row is None:
            if name.startswith(prefix):
                return None
            continue
        home = row.cells[family.canonical]
        if home is None:
            continue
        canonical = home.format(fields)
        if row.head:
            head[canonical] = shape
            continue
        numbered = numbered or any(isinstance(v, int) for v in fields.values())
        full = _canonical_shape(family, dialect, row, shape)
        if body.setdefault(canonical, full) != full:
            return None
        pieces += [
            Piece(canonical, p.rows, actual[prefix + p.model], p.model_rows)
            for p in spell(family, dialect, canonical, full)
            if prefix + p.model == name
        ]
    covered = {c: 0 for c in body}
    for piece in pieces:
        covered[piece.canonical] += piece.rows[1] - piece.rows[0]
    if not numbered or any(rows != (body[c][0] if body[c] else 1) for c, rows in covered.items()):
        return None
    return Recognition(family.name, dialect, prefix, _ordered(family, body), head, tuple(pieces))


def _row_of(
    family: Family, dialect: str, prefix: str, parent: str, name: str
) -> tuple[Row | None, dict[str, int | str]]:
    for row in family.rows:
        cell = row.cells[dialect]
        if cell is None:
            continue
        start = parent if cell.in_parent else prefix
        if name.startswith(start) and (fields := cell.parse(name.removeprefix(start))) is not None:
            return row, fields
    return None, {}


def _canonical_shape(family: Family, dialect: str, row: Row, shape: Shape) -> Shape:
    home, cell = row.cells[family.canonical], row.cells[dialect]
    assert home is not None and cell is not None
    if not shape or dialect == family.canonical or home.parts == cell.parts:
        return shape
    return (shape[0] // cell.parts * home.parts, *shape[1:])


def _ordered(family: Family, body: Mapping[str, Shape]) -> dict[str, Shape]:
    """The body in execution order of its units, names sorted within a unit."""
    last = (len(family.units),)
    return dict(sorted(body.items(), key=lambda kv: ((family.unit_of(kv[0]) or (last, ""))[0], kv[0])))


def _identity(plain: Layout, actual: Mapping[str, str]) -> Recognition:
    prefix = _wrapping(plain)
    own = {n.removeprefix(prefix): s for n, s in plain.items()}
    body = {n: s for n, s in own.items() if n.split(".")[0] not in HEADS}
    head = {n: s for n, s in own.items() if n not in body}
    pieces = tuple(Piece(n, (0, r), actual[prefix + n], (0, r)) for n, s in body.items() for r in [s[0] if s else 1])
    return Recognition(IDENTITY, IDENTITY, prefix, body, head, pieces)


def _wrapping(names: Iterable[str]) -> str:
    """What stands before every name and is no part of the backbone: a wrapper, or whatever a head is found behind."""
    parts = [n.split(".") for n in names]
    depth = 0
    while len({tuple(p[: depth + 1]) for p in parts}) == 1 and min(map(len, parts)) > depth + 1:
        inside = {p[depth + 1] for p in parts}
        if parts[0][depth] not in _WRAPPERS and not inside & HEADS:
            break
        depth += 1
    return "".join(f"{part}." for part in parts[0][:depth])
