"""Why a signature does not fit a model, in one line a person can act on. Pure work on names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

from rws_hub.cells import Slice
from rws_hub.names import Family, Layout, families
from rws_hub.recognise import Recognition, recognise, why_unexplained
from rws_hub.resolve import Match, Misfit, plain_names
from rws_hub.spelling import flaw, written

# Tensors whose size follows the input's or its windows', not the backbone's width.
_POSITIONS = re.compile(r"(.*\.)?(pos_embed|position_embeddings?(\.weight)?|pos_embedding)")
_BIASES = re.compile(r"(.*\.)?relative_position_bias_table")


@dataclass(frozen=True, slots=True)
class Known:
    """A signature's backbone.

    Attributes:
        name: what to call it.
        table: the name table that its names are looked up in, if there is one.
        layout: its names and shapes.
        touched: names of the tensors that the signature changes.
    """

    name: str
    table: Family | None
    layout: Layout
    touched: Collection[str]


def diagnose(best: Match, known: Known, target: Layout) -> str:
    """The most telling difference between a signature's backbone and a model that it does not fit.

    Args:
        best: the place in the model that fits best.
        known: the signature's backbone.
        target: the model's names and shapes.
    """
    if computed := _computed(best, target):
        return computed
    if best.missing or best.unexpected:
        return _other_names(best, known, target)
    return _other_shapes(best, known)


def _computed(best: Match, target: Layout) -> str | None:
    """A tensor that the model does not hold, since it makes it of others at every forward pass."""
    names = plain_names(target, in_table=True)
    for name in (piece.model for piece in best.missing):
        owner, dot, own = name.rpartition(".")
        if any(n.startswith(f"{owner}{dot}parametrizations.{own}.") for n in names):
            undo = f"torch.nn.utils.parametrize.remove_parametrizations(module, {own!r})"
            return f"{name} is parametrized, so there is no tensor to change. Make it plain first: {undo}"
        if f"{name}_orig" in names:
            undo = f"torch.nn.utils.prune.remove(module, {own!r}), or remove_spectral_norm"
            return f"{name} is made of {name}_orig, so there is no tensor to change. Make it plain first: {undo}"
    return None


def _other_names(best: Match, known: Known, target: Layout) -> str:
    found, table = recognise(target)[0], known.table
    far = 2 * len(best.missing) > len(known.layout)
    owner, other = (known.name, "this model") if best.missing else ("this model", known.name)
    names = [p.model for p in best.missing] or best.unexpected
    count = f"{len(names)} tensor{'s' if len(names) > 1 else ''}"
    which = f"{owner} has {count} that {other} has not, such as {names[0]}"
    if found.table is not None and table is not None and found.family != table.name:
        named = f"this model is named like {found.family!r} ({found.dialect} names), {known.name} like {table.name!r}"
        return f"another architecture: {named}" + ("" if far else f"; {which}")
    if far and table is not None and table is not families().get(table.name):
        problem = flaw(table, known.layout)
        return f"the table {table.name} " + (
            problem or f"does not explain this model: it {why_unexplained(target, table)}"
        )
    if far:
        return (
            f"another architecture, or names that no table knows: most tensors of {known.name} are not in this model. "
            "If it is the same architecture, `rws map infer` finds the names and table= takes them"
        )
    return f"another {'depth' if _is_another_depth(known, found) else 'variant'}: {which}"


def _is_another_depth(known: Known, found: Recognition) -> bool:
    """Whether one of two backbones of a family has whole layers that the other lacks, and nothing else differs."""
    table = known.table
    if table is None or found.table is None or found.family != table.name:
        return False
    ours, theirs = ({n: u[1] for n in body if (u := table.unit_of(n))} for body in (known.layout, found.body))
    alone = set(ours.values()) ^ set(theirs.values())
    return bool(alone) and all((ours | theirs).get(n) in alone for n in known.layout.keys() ^ found.body.keys())


def _other_shapes(best: Match, known: Known) -> str:
    fixed = [m for m in best.misfits if not _follows_input(m)]
    if fixed:
        misfit = next((m for m in fixed if len(m.expected) > 1), fixed[0])
        count = f"{len(best.mismatched)} of {len(known.touched)} tensors"
        return f"another {_what(misfit, fixed, known)} ({count}): {_shapes(misfit, known)}"
    misfit = best.misfits[0]
    expected, found = ([d for d in shape if d != 1] for shape in (misfit.expected, misfit.found))
    if _BIASES.fullmatch(misfit.piece.canonical) and expected[1:] != found[1:]:
        return f"another number of heads: {_shapes(misfit, known)}"
    advice = "Create the model for the signature's input size, or use a signature that leaves this tensor alone"
    if _BIASES.fullmatch(misfit.piece.canonical):
        return f"another input or window size: {_shapes(misfit, known)}. {advice}"
    if any(known.layout[n] and not _POSITIONS.fullmatch(n) for n in best.resized) or expected[1:] != found[1:]:
        return f"another shape: {_shapes(misfit, known)}"
    if len(expected) == len(found) == 2 and math.isqrt(expected[0]) == math.isqrt(found[0]):
        return f"another number of positions, such as of class or register tokens: {_shapes(misfit, known)}"
    return f"another input size: {_shapes(misfit, known)}. {advice}"


def _follows_input(misfit: Misfit) -> bool:
    name = misfit.piece.canonical
    return bool(_POSITIONS.fullmatch(name) or _BIASES.fullmatch(name))


def _what(misfit: Misfit, fixed: Collection[Misfit], known: Known) -> str:
    """What the shape of a tensor is an instance of, where that is certain."""
    name, (expected, found) = misfit.piece.canonical, (misfit.expected, misfit.found)
    if len(expected) != 4 or len(found) != 4:
        return "shape"
    if expected[:2] == found[:2]:
        return "patch size" if "patch" in name else "kernel size"
    first = next(n for n, shape in known.layout.items() if len(shape) == 4)
    inputs = name == first and (expected[0], *expected[2:]) == (found[0], *found[2:])
    return "number of input channels" if inputs and len(fixed) == 1 else "shape"


def _shapes(misfit: Misfit, known: Known) -> str:
    piece, found = misfit.piece, list(misfit.found)
    whole = known.layout[piece.canonical]
    own = f"{piece.canonical}{written(piece.part)} is {_size(whole, piece.part)} in the signature"
    if piece.model_part is None:
        return f"{own} and {found} here"
    home = f"{piece.model}{written(piece.model_part)} of {list(misfit.expected)}"
    return f"{own} and should be {home}, which is {found} here"


def _size(whole: tuple[int, ...], part: Slice | None) -> list[int]:
    sizes = list(whole)
    if part is not None:
        sizes[part.axis] = part.stop - part.start
    return sizes
