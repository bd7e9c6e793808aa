"""Where a known backbone lives inside a model: pure work on names and shapes, used when patching.

Answered from complete layouts, the backbone's and the model's, so that the answer is unique. The other
question, which backbone a model *is*, is `recognise`'s.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from rws_hub.cells import Cell, Shape
from rws_hub.names import Family, Layout
from rws_hub.spelling import IDENTITY, Piece, Spelling, choose, refuse_collisions, spellings

# Added by wrappers anywhere in a name; they never carry meaning.
_WRAPPED = "base_layer"
TRANSPARENT = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", _WRAPPED})
# timm's `features_only` spells the first levels of a model as one: `stages_0.blocks` for `stages.0.blocks`.
_FLATTENED = re.compile(r"(?<![^.])(stem|stages|layers|blocks|features)_(\d+)(?![^.])")
# Top-level names that hold a classification head, for backbones without a table.
HEADS = frozenset(
    "head heads head_dist head_drop fc classifier cls_classifier distillation_classifier last_linear".split()
)


@dataclass(frozen=True, slots=True)
class Misfit:
    """A tensor of the model that has another shape than the piece of a signature needs that would go there."""

    piece: Piece
    expected: Shape
    found: Shape


@dataclass(frozen=True, slots=True)
class Match:
    """One place in a model where a backbone's names were looked for.

    Attributes:
        dialect, prefix: how and below what the backbone's names were looked for.
        pieces: where the touched tensors are.
        missing: where they and the untouched ones are not.
        unexpected: the model's names that would be part of such a backbone, but are not of this one.
        misfits: touched tensors that have another shape, in the order of the layout.
        resized: the same of untouched ones (another input size, say), which is fine.
        absent: untouched ones of the last layer that the model was built without, which is fine, too.
        body: the model's names of the whole backbone, touched or not.
    """

    dialect: str
    prefix: str
    pieces: tuple[Piece, ...]
    missing: tuple[Piece, ...]
    unexpected: tuple[str, ...]
    misfits: tuple[Misfit, ...]
    resized: tuple[str, ...]
    absent: tuple[str, ...]
    body: frozenset[str]

    @property
    def mismatched(self) -> tuple[str, ...]:
        """Canonical names of the touched tensors that have another shape."""
        return tuple(dict.fromkeys(m.piece.canonical for m in self.misfits))

    @property
    def fits(self) -> bool:
        """Whether every name is there and every touched shape is equal."""
        return not (self.missing or self.unexpected or self.misfits)


def plain_names(names: Iterable[str], in_table: bool = False) -> dict[str, str]:
    """Names without transparent components -> names as they are. A clash keeps both as they are.

    Args:
        names: of a model.
        in_table: spell flattened stages as tables do, too.
    """
    plain: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        short = name if TRANSPARENT.isdisjoint(parts) else ".".join(p for p in parts if p not in TRANSPARENT)
        short = _FLATTENED.sub(r"\1.\2", short) if in_table else short
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
            misfits=tuple(replace(w, piece=replace(w.piece, canonical=root + w.piece.canonical)) for w in m.misfits),
            resized=tuple(root + n for n in m.resized),
            absent=tuple(root + n for n in m.absent),
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
    actual = plain_names(target, table is not None)
    plain = {p: target[a] for p, a in actual.items()}
    touched = frozenset(touched)
    places: list[Match] = []
    for dialect, spelled in spellings(table, body).items():
        for prefix in sorted(_hosts(spelled, plain)):
            places.append(_place(table, dialect, prefix, spelled, touched, plain, actual))
    places = [m for i, m in enumerate(places) if all(m.pieces != other.pieces for other in places[:i] if other.fits)]
    # What fits, then what was found most of: a place deep inside has little to miss, and tells little.
    places.sort(key=lambda m: (not m.fits, -len(m.body), len(m.misfits), m.dialect, m.prefix))
    if places:
        return places
    absent = tuple(Piece(n, None, n, None) for n in body)
    return [Match(table.canonical if table else IDENTITY, "", (), absent, (), (), (), (), frozenset())]


def _hosts(spelled: Mapping[str, Spelling], plain: Layout) -> set[str]:
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
    spelled: Mapping[str, Spelling],
    touched: frozenset[str],
    plain: Layout,
    actual: Mapping[str, str],
) -> Match:
    chosen = {name: choose(spelling, prefix, plain) for name, spelling in spelled.items()}
    refuse_collisions(table, [h for homes in chosen.values() for h in homes])
    names = {prefix + h.piece.model: h.piece for homes in chosen.values() for h in homes}
    wrong = [
        Misfit(replace(h.piece, model=actual[prefix + h.piece.model]), h.shape, found)
        for homes in chosen.values()
        for h in homes
        if (found := plain.get(prefix + h.piece.model)) is not None and not h.takes(found)
    ]
    lost = {p.canonical for n, p in names.items() if n not in plain}
    cut_off = {n for n in lost - touched if table is not None and table.is_tail(n)}
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
        missing=tuple(replace(p, model=n) for n, p in names.items() if n not in plain and p.canonical not in cut_off),
        unexpected=tuple(_unexpected(table, dialect, prefix, names, plain, actual)),
        misfits=tuple(m for m in wrong if m.piece.canonical in touched),
        resized=tuple(sorted({m.piece.canonical for m in wrong} - touched)),
        absent=tuple(sorted(cut_off)),
        body=frozenset(actual[n] for n in names if n in plain),
    )


def _unexpected(
    table: Family | None, dialect: str, prefix: str, names: Collection[str], plain: Layout, actual: Mapping[str, str]
) -> list[str]:
    """A model's names below `prefix` that would belong to such a backbone and do not."""
    rows = () if table is None else table.rows
    ours = [c for r in rows if r.is_body and (c := r.cells[dialect])]
    outside = [c for r in rows if not r.is_body and (c := r.cells[dialect]) and not c.in_parent]
    tops = {n.removeprefix(prefix).split(".")[0] for n in names} - HEADS
    # A module that holds a token or a position table of the backbone could hold another: registers, say.
    beside = any("." not in n.removeprefix(prefix) for n in names)
    # An adapter (PEFT) keeps its own tensors beside the layer that it wraps.
    adapted = tuple(n.partition(f".{_WRAPPED}.")[0] + "." for n in actual.values() if f".{_WRAPPED}." in n)
    found: list[str] = []
    for name in plain:
        if name in names or not name.startswith(prefix) or actual[name].startswith(adapted):
            continue
        own = name.removeprefix(prefix)
        top = own.split(".")[0]
        near = (top in tops or (beside and top == own)) if table else top not in HEADS
        if _is_one_of(ours, own) or (near and not _is_one_of(outside, own)):
            found.append(name)
    return sorted(found)


def _is_one_of(cells: Iterable[Cell], name: str) -> bool:
    return any(c.parse(name) is not None for c in cells)
