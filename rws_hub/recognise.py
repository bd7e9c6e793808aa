"""Which backbone a model is: the family, dialect and prefix that explain its names; used when extracting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rws_hub.cells import Cell, Shape, Slice, tiles
from rws_hub.names import Family, Layout, Row, families
from rws_hub.numbering import Numbering
from rws_hub.resolve import HEADS, plain_names
from rws_hub.spelling import IDENTITY, Piece

# Added by wrappers in front of every name.
_WRAPPERS = ("module", "timm_model")


@dataclass(frozen=True, slots=True)
class Recognition:
    """A model's layout, explained.

    `pieces` maps every canonical body tensor onto the model's own. Where two of them are the same part of one
    canonical tensor, it is their sum.
    """

    table: Family | None
    dialect: str
    prefix: str
    body: Mapping[str, Shape]
    head: Mapping[str, Shape]
    pieces: tuple[Piece, ...]

    @property
    def family(self) -> str:
        """Name of the table, or "identity"."""
        return self.table.name if self.table else IDENTITY


def recognise(layout: Layout, tables: Iterable[Family] | None = None) -> list[Recognition]:
    """Every complete explanation of a model's layout by a table; the identity one when there is none.

    Args:
        layout: names and shapes of a model.
        tables: where to look; None: in every table of the package.
    """
    actual = plain_names(layout, in_table=True)
    plain = {p: layout[a] for p, a in actual.items()}
    found: dict[frozenset[Piece], Recognition] = {}
    for family in families().values() if tables is None else tables:
        for dialect in family.dialects:
            for prefix in _prefixes(family, dialect, plain):
                explained = _explain(family, dialect, prefix, plain, actual)
                if isinstance(explained, Recognition):
                    # Two dialects that spell this backbone alike are one explanation.
                    found.setdefault(frozenset(explained.pieces), explained)
    return list(found.values()) or [_identity(layout)]


def why_unexplained(layout: Layout, table: Family) -> str:
    """Why a table does not explain a model, to stand behind the table's name; of the column that explains most."""
    actual = plain_names(layout, in_table=True)
    plain = {p: layout[a] for p, a in actual.items()}
    if recognise(layout, [table])[0].table is not None:
        return "explains only a part of it, or more than one backbone"
    reasons: list[tuple[int, str]] = []
    for dialect in table.dialects:
        for prefix in _prefixes(table, dialect, plain) or [""]:
            _, outside = _outside(table, dialect, prefix, plain)
            inside = {n.removeprefix(prefix): s for n, s in plain.items() if n.startswith(prefix) and n not in outside}
            rows, numbering = _rows(table, dialect, inside), table.numbering(dialect, inside)
            left = [n for n, s in inside.items() if not any(_pieces(table, dialect, n, s, rows, numbering))]
            why = _explain(table, dialect, prefix, plain, actual)
            if left:
                more = f" and {len(left) - 1} more" if len(left) > 1 else ""
                why = f"has no row for {prefix}{left[0]}{more}"
            if isinstance(why, str):
                above = len(plain) - len(inside) - len(outside)
                reasons.append((len(left) + above, f"{why} in its column {dialect!r}"))
    return min(reasons)[1]


def _prefixes(family: Family, dialect: str, plain: Layout) -> list[str]:
    """What stands before the un-numbered body names of a dialect (a stem occurs once per backbone)."""
    cells = [c for r in family.rows if r.is_body and (c := r.cells[dialect])]
    stems = [c for c in cells if not c.is_numbered]
    lasts = {c.template.rpartition(".")[2] for c in stems}
    found: dict[str, None] = {}
    for name in plain:
        parts = name.split(".")
        if parts[-1] not in lasts and not any("{" in last for last in lasts):
            continue
        for cut in range(len(parts)):
            if any(c.parse(".".join(parts[cut:])) is not None for c in stems):
                found[".".join(parts[:cut]) + ("." if cut else "")] = None
    return sorted(found)


def _rows(family: Family, dialect: str, inside: Layout) -> list[Row]:
    """The rows that hold for a backbone with these names."""
    held = (r for r in family.rows if not r.condition or r.condition.holds(dialect, inside))
    return [r for r in held if r.is_body and not r.never]


def _explain(family: Family, dialect: str, prefix: str, plain: Layout, actual: Mapping[str, str]) -> Recognition | str:
    """The recognition of everything below `prefix`, or why there is none: a name or row block is left over, say."""
    head, outside = _outside(family, dialect, prefix, plain)
    inside = {n.removeprefix(prefix): s for n, s in plain.items() if n.startswith(prefix) and n not in outside}
    never = [c for r in family.rows if r.never and (c := r.cells[dialect])]
    if strange := next((n for n in inside if any(c.parse(n) is not None for c in never)), None):
        return f"says of {strange} that such a backbone never has it"
    rows = _rows(family, dialect, inside)
    numbering = family.numbering(dialect, inside)
    body: dict[str, Shape] = {}
    parts: dict[str, list[Slice | None]] = {}
    pieces: list[Piece] = []
    unseen = {r.text for r in rows if r.needed}
    numbered = False
    for name, shape in inside.items():
        found = list(_pieces(family, dialect, name, shape, rows, numbering))
        for row, cell, piece, full in found:
            if body.setdefault(piece.canonical, full) != full:
                return f"makes {piece.canonical} of parts that do not go together, such as {name}"
            if not cell.additive:
                parts.setdefault(piece.canonical, []).append(piece.part)
            unseen.discard(row.text)
            numbered = numbered or cell.is_numbered
            pieces.append(Piece(piece.canonical, piece.part, actual[prefix + name], piece.model_part))
        if not found:
            return f"has no row for {name}"
    if unseen:
        return f"needs a tensor that is not there ({sorted(unseen)[0].partition(' | ')[0]})"
    if torn := next((n for n, shape in body.items() if not tiles(parts.get(n, []), shape)), None):
        return f"does not make up all of {torn}"
    if not numbered:
        return "has no numbered row that holds"
    return Recognition(family, dialect, prefix, _ordered(family, body), head, tuple(pieces))


def _outside(family: Family, dialect: str, prefix: str, plain: Layout) -> tuple[dict[str, Shape], set[str]]:
    """The canonical head below (or beside) `prefix`, and every name that is no part of the backbone."""
    parent = prefix[: prefix[:-1].rfind(".") + 1]
    head: dict[str, Shape] = {}
    names: set[str] = set()
    for row in family.rows:
        cell, home = row.cells[dialect], row.cells[family.canonical]
        if row.is_body or cell is None:
            continue
        start = parent if cell.in_parent else prefix
        for name, shape in plain.items():
            fields = cell.parse(name.removeprefix(start)) if name.startswith(start) and name not in names else None
            if fields is None:
                continue
            names.add(name)
            if row.is_head and home is not None:
                head[home.format(fields)] = shape
    return head, names


def _pieces(
    family: Family, dialect: str, name: str, shape: Shape, rows: Iterable[Row], numbering: Numbering
) -> Iterator[tuple[Row, Cell, Piece, Shape]]:
    """What one tensor of a model holds: rows whose parts of it do not overlap, and the canonical shapes they imply."""
    taken: list[Cell] = []
    for row in rows:
        cell, home = row.cells[dialect], row.cells[family.canonical]
        if cell is None or home is None or (fields := family.read(row, dialect, name, numbering)) is None:
            continue
        if dialect == family.canonical:
            yield row, cell, Piece(name, None, name, None), shape
            return
        if not cell.additive and any(cell.view.overlaps(other.view) for other in taken):
            continue  # an alternative spelling; the first one is the one
        part = cell.view.of(shape) if cell.takes(shape) else None
        full = None if part is None else home.view.whole(part)
        if full is None:
            continue
        if not cell.additive:
            taken.append(cell)
        piece = Piece(home.format(fields), home.view.slice(full), name, cell.view.slice(shape))
        yield row, cell, piece, full


def _ordered(family: Family, body: Mapping[str, Shape]) -> dict[str, Shape]:
    """The body in execution order of its units, names sorted within a unit."""
    last = (len(family.units),)
    return dict(sorted(body.items(), key=lambda kv: ((family.unit_of(kv[0]) or (last, ""))[0], kv[0])))


def _identity(layout: Layout) -> Recognition:
    actual = plain_names(layout)
    plain = {p: layout[a] for p, a in actual.items()}
    prefix = _wrapping(plain)
    own = {n.removeprefix(prefix): s for n, s in plain.items()}
    body = {n: s for n, s in own.items() if n.split(".")[0] not in HEADS}
    head = {n: s for n, s in own.items() if n not in body}
    pieces = tuple(Piece(n, None, actual[prefix + n], None) for n in body)
    return Recognition(None, IDENTITY, prefix, body, head, pieces)


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
