"""Why a signature does not fit a model, in one line a person can act on. Pure work on names and shapes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from rws_hub.cells import Shape
from rws_hub.names import Layout
from rws_hub.recognise import recognise
from rws_hub.resolve import Match

# Tensors whose size follows the input's, not the backbone's width.
_GRID = re.compile(r"(.*\.)?(pos_embed|position_embeddings?(\.weight)?|pos_embedding|relative_position_bias_table)")
_NUMBER = re.compile(r"\d+")


def diagnose(
    best: Match,
    source: str,
    family: str,
    body: Layout,
    touched: Collection[str],
    target: Layout,
    homes: Mapping[str, str],
) -> str:
    """The most telling difference between a signature's backbone and a model that it does not fit.

    Args:
        best: the place in the model that fits best.
        source: what to call the signature's backbone.
        family: its name table, or "identity".
        body: its layout.
        touched: names of the tensors that the signature changes.
        target: the model's names and shapes.
        homes: mismatched canonical name -> the model's name.
    """
    if best.missing or best.unexpected:
        found = recognise(target)[0]
        if found.table is not None and found.family != family:
            return f"another family: this model is of family {found.family!r} ({found.dialect} names), {source} is not"
        if 2 * len(best.missing) > len(body):
            return _another_architecture(source)
        names = [p.model for p in best.missing] or best.unexpected
        who, lacks = (source, "this model") if best.missing else ("this model", source)
        # Another depth: the same tensors, in blocks of other numbers.
        known = {_NUMBER.sub("#", n) for n in best.body}
        depth = all(_NUMBER.sub("#", n) in known for n in names) and not (best.missing and best.unexpected)
        count = f"{len(names)} tensor{'s' if len(names) > 1 else ''}"
        return f"another {'depth' if depth else 'variant'}: {who} has {count} that {lacks} has not, such as {names[0]}"
    other = [n for n in best.mismatched if not _GRID.fullmatch(n)]
    if other:
        name = next((n for n in other if len(body[n]) > 1), other[0])
        count = f"{len(best.mismatched)} of {len(touched)} tensors have another shape"
        return f"another width: {count}; {_shapes(name, body, target[homes[name]])}"
    name = best.mismatched[0]
    return (
        f"another input size: {_shapes(name, body, target[homes[name]])}. "
        "Create the model for the signature's input size, or use a signature that leaves this tensor alone"
    )


def _another_architecture(source: str) -> str:
    return (
        f"another architecture, or names that no table knows: most tensors of {source} are not in this model. If it is "
        "the same architecture, `rws map infer` finds the names and table= takes them"
    )


def _shapes(name: str, body: Layout, found: Shape) -> str:
    return f"{name} is {list(body[name])} in the signature and {list(found)} here"
