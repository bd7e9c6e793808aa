"""Where a known backbone lives inside a model: pure work on names and shapes, used when patching.

Answered from complete layouts, the backbone's and the model's, so that the answer is unique. The other
question, which backbone a model *is*, is `recognise`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rws_hub.names import Family, Layout, Shape, families

IDENTITY = "identity"

# Added by wrappers anywhere in a name; they never carry meaning.
TRANSPARENT = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"})
# Top-level names that hold a classification head, for backbones without a table.
HEADS = frozenset(
    "head heads head_dist head_drop fc classifier cls_classifier distillation_classifier last_linear".split()
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `rows` of the canonical tensor are rows `model_rows` of the model's tensor (axis 0, half-open)."""

    canonical: str
    rows: tuple[int, int]
    model: str
    model_rows: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Match:
    """One place in a model where a backbone's names were looked for.

    `missing` and `unexpected` are the model's spellings; `mismatched` are canonical names of touched
    tensors; `resized` are canonical names of untouched ones (another input size, say), which is fine. `body`
    holds the model's names of the whole backbone, touched or not.
    """

    dialect: str
    prefix: str
    pieces: tuple[Piece, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    resized: tuple[str, ...]
    body: frozenset[str]

    @property
    def fits(self) -> bool:
        """Whether every name is there and every touched shape is equal."""
        return not (self.missing or self.unexpected or self.mismatched)


def same_shape(a: Shape, b: Shape) -> bool:
    """Equal up to axes of length 1, which never permute data."""
    return [d for d in a if d != 1] == [d for d in b if d != 1]


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Names without transparent components -> names as they are. A clash keeps both as they are."""
    plain: dict[str, list[str]] = {}
    for name in names:
        plain.setdefault(".".join(p for p in name.split(".") if p not in TRANSPARENT), []).append(name)
    return {k if len(v) == 1 else n: n for k, v in plain.items() for n in v}


def match(family: str, body: Layout, touched: Iterable[str], target: Layout) -> list[Match]:
    """Every place in `target` where the backbone `body` was found, best first; never empty.

    Args:
        family: name table of the backbone, or "identity".
        body: canonical layout of the backbone, complete.
        touched: canonical names a signature changes; their shapes must be equal.
        target: the model's names and shapes.
    """
    actual = plain_names(target)
    plain = {p: target[a] for p, a in actual.items()}
    touched = frozenset(touched)
    table = families().get(family)
    places: list[Match] = []
    for dialect in table.dialects if table else (IDENTITY,):
        spelled = [p for name, shape in body.items() for p in spell(table, dialect, name, shape)]
        if len({p.canonical for p in spelled}) < len(body):
            continue  # this dialect has no name for some tensor of the backbone
        for prefix in sorted(_hosts(spelled, plain)):
            places.append(_place(table, dialect, prefix, spelled, body, touched, plain, actual))
    places.sort(key=lambda m: (len(m.missing) + len(m.unexpected), len(m.mismatched), m.dialect, m.prefix))
    if places:
        return places
    everything = tuple(sorted(body))
    return [Match(table.canonical if table else IDENTITY, "", (), everything, (), (), (), frozenset())]


def spell(table: Family | None, dialect: str, name: str, shape: Shape) -> list[Piece]:
    """The pieces of one canonical tensor in a dialect, without prefix; empty if it has no name there."""
    rows = shape[0] if shape else 1
    if table is None:
        return [Piece(name, (0, rows), name, (0, rows))]
    pieces: list[Piece] = []
    template: str | None = None
    for row in table.rows:
        home, cell = row.cells[table.canonical], row.cells[dialect]
        if row.head or home is None or cell is None or (fields := home.parse(name)) is None:
            continue
        if template not in (None, home.template):
            break  # rows of another template are another alternative; the first one wins
        template = home.template
        if dialect == table.canonical:
            return [Piece(name, (0, rows), name, (0, rows))]
        if rows % home.parts:
            return []  # not a fused tensor after all
        step = rows // home.parts
        pieces.append(
            Piece(
                name,
                (home.part * step, (home.part + 1) * step),
                cell.format(fields),
                (cell.part * step, (cell.part + 1) * step),
            )
        )
    return pieces


def _hosts(spelled: list[Piece], plain: Layout) -> set[str]:
    """Prefixes below which a good part of the spelled names could live."""
    models = sorted(p.model for p in spelled)
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
    spelled: list[Piece],
    body: Layout,
    touched: frozenset[str],
    plain: Layout,
    actual: Mapping[str, str],
) -> Match:
    names = {prefix + p.model for p in spelled}
    shapes: dict[str, Shape] = {}
    for piece in spelled:  # the rows a model tensor must have: those of all its pieces together
        shape = body[piece.canonical]
        whole = max(piece.model_rows[1], shapes.get(piece.model, (0,))[0])
        shapes[piece.model] = (whole, *shape[1:]) if shape else ()
    wrong = {
        p.canonical
        for p in spelled
        if prefix + p.model in plain and not same_shape(plain[prefix + p.model], shapes[p.model])
    }
    return Match(
        dialect=dialect,
        prefix=prefix,
        pieces=tuple(
            Piece(p.canonical, p.rows, actual[prefix + p.model], p.model_rows)
            for p in spelled
            if p.canonical in touched and prefix + p.model in plain
        ),
        missing=tuple(sorted(n for n in names if n not in plain)),
        unexpected=tuple(sorted(n for n in plain if n not in names and _is_body(table, dialect, prefix, n))),
        mismatched=tuple(sorted(wrong & touched)),
        resized=tuple(sorted(wrong - touched)),
        body=frozenset(actual[n] for n in names if n in plain),
    )


def _is_body(table: Family | None, dialect: str, prefix: str, name: str) -> bool:
    """Whether a model's name would belong to a backbone below `prefix`."""
    if not name.startswith(prefix):
        return False
    name = name.removeprefix(prefix)
    if table is None:
        return name.split(".")[0] not in HEADS
    cells = (r.cells[dialect] for r in table.rows if not r.head)
    return any(c is not None and c.parse(name) is not None for c in cells)
