"""Where a known backbone lives inside a model: pure work on names and shapes, used when patching.

Answered from complete layouts, the backbone's and the model's, so that the answer is unique. The other
question, which backbone a model *is*, is `recognise`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from rws_hub.cells import Cell, Fields, Shape, Slice
from rws_hub.names import Family, Layout, Row

IDENTITY = "identity"

# Added by wrappers anywhere in a name; they never carry meaning.
_WRAPPED = "base_layer"
TRANSPARENT = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", _WRAPPED})
# Top-level names that hold a classification head, for backbones without a table.
HEADS = frozenset(
    "head heads head_dist head_drop fc classifier cls_classifier distillation_classifier last_linear".split()
)


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
class Match:
    """One place in a model where a backbone's names were looked for.

    Attributes:
        dialect, prefix: how and below what the backbone's names were looked for.
        pieces: where the touched tensors are.
        missing: where they and the untouched ones are not.
        unexpected: the model's names that would be part of such a backbone, but are not of this one.
        mismatched: canonical names of touched tensors that have another shape.
        resized: the same of untouched ones (another input size, say), which is fine.
        body: the model's names of the whole backbone, touched or not.
    """

    dialect: str
    prefix: str
    pieces: tuple[Piece, ...]
    missing: tuple[Piece, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    resized: tuple[str, ...]
    body: frozenset[str]

    @property
    def fits(self) -> bool:
        """Whether every name is there and every touched shape is equal."""
        return not (self.missing or self.unexpected or self.mismatched)


@dataclass(frozen=True, slots=True)
class _Home:
    """One piece in a dialect, without prefix, and the shape that the model's tensor must have."""

    piece: Piece
    shape: Shape
    loose: bool

    def takes(self, found: Shape) -> bool:
        """Whether a model's tensor of this shape can hold the piece."""
        return same_shape(self.shape, found) or (self.loose and _flattened(self.shape) == _flattened(found))


# Everything that could spell one canonical tensor: alternatives, each a few homes.
_Spelling = list[list[_Home]]


def same_shape(a: Shape, b: Shape) -> bool:
    """Equal up to axes of length 1, which never permute data."""
    return a == b or [d for d in a if d != 1] == [d for d in b if d != 1]


def _flattened(shape: Shape) -> tuple[int, int]:
    rows = shape[0] if shape else 1
    size = 1
    for length in shape[1:]:
        size *= length
    return rows, size


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Names without transparent components -> names as they are. A clash keeps both as they are."""
    plain: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        short = name if TRANSPARENT.isdisjoint(parts) else ".".join(p for p in parts if p not in TRANSPARENT)
        plain.setdefault(short, []).append(name)
    return {k if len(v) == 1 else n: n for k, v in plain.items() for n in v}


def match_below(root: str, table: Family, body: Layout, touched: Iterable[str], target: Layout) -> list[Match]:
    """`match` of a backbone whose names in `body` all stand below `root`."""

    def back(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
        return tuple(replace(p, canonical=root + p.canonical) for p in pieces)

    inner = {n.removeprefix(root): shape for n, shape in body.items()}
    return [
        replace(
            m,
            pieces=back(m.pieces),
            missing=back(m.missing),
            mismatched=tuple(root + n for n in m.mismatched),
            resized=tuple(root + n for n in m.resized),
        )
        for m in match(table, inner, [n.removeprefix(root) for n in touched], target)
    ]


def match(table: Family | None, body: Layout, touched: Iterable[str], target: Layout) -> list[Match]:
    """Every place in `target` where the backbone `body` was found, best first; never empty.

    Args:
        table: name table of the backbone, in whose first dialect `body` is written; None: its own names only.
        body: layout of the backbone, complete.
        touched: names of `body` that a signature changes; their shapes must be equal.
        target: the model's names and shapes.
    """
    actual = plain_names(target)
    plain = {p: target[a] for p, a in actual.items()}
    touched = frozenset(touched)
    places: list[Match] = []
    for dialect, spelled in _spellings(table, body).items():
        for prefix in sorted(_hosts(spelled, plain)):
            places.append(_place(table, dialect, prefix, spelled, touched, plain, actual))
    places = [m for i, m in enumerate(places) if all(m.pieces != other.pieces for other in places[:i] if other.fits)]
    places.sort(key=lambda m: (len(m.missing) + len(m.unexpected), len(m.mismatched), m.dialect, m.prefix))
    if places:
        return places
    absent = tuple(Piece(n, None, n, None) for n in body)
    return [Match(table.canonical if table else IDENTITY, "", (), absent, (), (), (), frozenset())]


def _spellings(table: Family | None, body: Layout) -> dict[str, dict[str, _Spelling]]:
    """Dialect -> canonical name -> its spellings, for every dialect that has a name for every tensor."""
    if table is None:
        return {IDENTITY: {n: [[_Home(Piece(n, None, n, None), shape, False)]] for n, shape in body.items()}}
    numbering = table.numbering(table.canonical, body)
    rows = [r for r in table.rows if r.is_body and (not r.condition or r.condition.holds(table.canonical, body))]
    readings: dict[str, list[tuple[Row, Fields]]] = {}
    for name in body:
        found = ((row, table.read(row, table.canonical, name, numbering)) for row in rows)
        readings[name] = [(row, fields) for row, fields in found if fields is not None]
    spelled: dict[str, dict[str, _Spelling]] = {}
    for dialect in table.dialects:
        names = {n: _spell(table.canonical, dialect, n, shape, readings[n]) for n, shape in body.items()}
        if all(names.values()):
            spelled[dialect] = names
    return spelled


def _spell(root: str, dialect: str, name: str, shape: Shape, readings: list[tuple[Row, Fields]]) -> _Spelling:
    """The alternatives for one canonical tensor in a dialect, without prefix; empty if it has no name there."""
    alternatives: _Spelling = []
    for row, fields in readings:
        home, cell = row.cells[root], row.cells[dialect]
        if dialect == root:
            return [[_Home(Piece(name, None, name, None), shape, row.flattens)]]
        if home is None or cell is None or cell.additive:
            continue
        part = home.view.of(shape)
        whole = None if part is None else cell.view.whole(part)
        if whole is None:
            continue  # it has no such row blocks: this row is about another variant
        piece = Piece(name, home.view.slice(shape), cell.format(fields), cell.view.slice(whole))
        if not alternatives or (home.view.part == 0 and not home.additive):
            alternatives.append([])
        alternatives[-1].append(_Home(piece, whole, row.flattens))
    return [_joined(homes) for homes in alternatives]


def _joined(homes: list[_Home]) -> list[_Home]:
    """Row blocks that are the same ones of one tensor are that tensor."""
    first = homes[0]
    same = all(h.piece.model == first.piece.model and h.piece.part == h.piece.model_part for h in homes)
    if len(homes) == 1 or not same:
        return homes
    return [_Home(Piece(first.piece.canonical, None, first.piece.model, None), first.shape, first.loose)]


def _hosts(spelled: Mapping[str, _Spelling], plain: Layout) -> set[str]:
    """Prefixes below which a good part of the spelled names could live."""
    certain = [s[0][0].piece.model for s in spelled.values() if len(s) == 1]
    models = sorted(certain or [s[0][0].piece.model for s in spelled.values()])
    anchors = {models[0], models[len(models) // 2], models[-1]}
    return {
        name[: len(name) - len(anchor)]
        for anchor in anchors
        for name in plain
        if name == anchor or name.endswith("." + anchor)
    }


def _place(
    table: Family | None,
    dialect: str,
    prefix: str,
    spelled: Mapping[str, _Spelling],
    touched: frozenset[str],
    plain: Layout,
    actual: Mapping[str, str],
) -> Match:
    chosen = {name: _choose(spelling, prefix, plain) for name, spelling in spelled.items()}
    names = {prefix + h.piece.model: h.piece for homes in chosen.values() for h in homes}
    wrong = {
        name
        for name, homes in chosen.items()
        for h in homes
        if (found := plain.get(prefix + h.piece.model)) is not None and not h.takes(found)
    }
    return Match(
        dialect=dialect,
        prefix=prefix,
        pieces=tuple(
            Piece(name, h.piece.part, actual[prefix + h.piece.model], h.piece.model_part)
            for name, homes in chosen.items()
            if name in touched
            for h in homes
            if prefix + h.piece.model in plain
        ),
        missing=tuple(Piece(p.canonical, p.part, n, p.model_part) for n, p in names.items() if n not in plain),
        unexpected=tuple(_unexpected(table, dialect, prefix, names, plain, actual)),
        mismatched=tuple(sorted(wrong & touched)),
        resized=tuple(sorted(wrong - touched)),
        body=frozenset(actual[n] for n in names if n in plain),
    )


def _choose(spelling: _Spelling, prefix: str, plain: Layout) -> list[_Home]:
    """The first alternative that fits; else the first whose names are all there; else the first."""
    if len(spelling) == 1:
        return spelling[0]
    there = [homes for homes in spelling if all(prefix + h.piece.model in plain for h in homes)]
    fitting = (homes for homes in there if all(h.takes(plain[prefix + h.piece.model]) for h in homes))
    return next(fitting, (there or spelling)[0])


def _unexpected(
    table: Family | None, dialect: str, prefix: str, names: Collection[str], plain: Layout, actual: Mapping[str, str]
) -> list[str]:
    """A model's names below `prefix` that would belong to such a backbone and do not."""
    rows = () if table is None else table.rows
    ours = [c for r in rows if r.is_body and (c := r.cells[dialect])]
    outside = [c for r in rows if not r.is_body and (c := r.cells[dialect]) and not c.in_parent]
    tops = {n.removeprefix(prefix).split(".")[0] for n in names} - HEADS
    # An adapter (PEFT) keeps its own tensors beside the layer that it wraps.
    adapted = tuple(n.partition(f".{_WRAPPED}.")[0] + "." for n in actual.values() if f".{_WRAPPED}." in n)
    found: list[str] = []
    for name in plain:
        if name in names or not name.startswith(prefix) or actual[name].startswith(adapted):
            continue
        own = name.removeprefix(prefix)
        top = own.split(".")[0]
        near = top in tops if table else top not in HEADS
        if _is_one_of(ours, own) or (near and not _is_one_of(outside, own)):
            found.append(name)
    return sorted(found)


def _is_one_of(cells: Iterable[Cell], name: str) -> bool:
    return any(c.parse(name) is not None for c in cells)
