"""Many parameter names as few lines: `blocks.{0..5}.attn.qkv.weight`, as loading reports print them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

# A number with a leading zero is text: folded, "07" could not be told from "7".
_NUMBER = re.compile(r"(?<!\d)(?:0|[1-9]\d*)(?!\d)", re.ASCII)
_GAP = "\0"
_LEAVES = ("weight", "bias", "running_mean", "running_var")
_LEAF = re.compile(rf"\.({'|'.join(_LEAVES)})(?![\w.])")


def fold_names(names: Iterable[str]) -> list[str]:
    """Names with runs of numbers folded together; exactly the given names, never more."""
    return [line for line, _ in fold_pairs((n, "") for n in names)]


def fold_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same for (source, target) pairs whose numbers move together, and whose last words do."""
    groups: dict[tuple[str, str], list[tuple[list[int], list[int]]]] = {}
    for source, target in dict.fromkeys(pairs):
        key = (_NUMBER.sub(_GAP, source), _NUMBER.sub(_GAP, target))
        groups.setdefault(key, []).append((_numbers(source), _numbers(target)))
    return _fold_leaves([line for (s, t), members in groups.items() for line in _fold_group(s, t, members)])


def _fold_leaves(lines: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """`norm.{weight,bias}` for the two lines that differ in that word only, on both sides."""
    groups: dict[tuple[str, str], list[str]] = {}
    for source, target in lines:
        leaf = _LEAF.search(source)
        word = leaf[1] if leaf else ""
        same = bool(leaf) and (not target or [m[1] for m in _LEAF.finditer(target)] == [word])
        key = (_LEAF.sub("." + _GAP, source), _LEAF.sub("." + _GAP, target)) if same else (source, target)
        groups.setdefault(key, []).append(word)
    out: list[tuple[str, str]] = []
    for (source, target), words in groups.items():
        ordered = sorted(words, key=_LEAVES.index) if _GAP in source else words
        text = ordered[0] if len(ordered) == 1 else "{" + ",".join(ordered) + "}"
        out.append((source.replace(_GAP, text), target.replace(_GAP, text)))
    return out


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a plain table: columns as wide as their longest text, a rule below the header."""
    rows = [header, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-+-".join("-" * width for width in widths), *lines[1:]]


def _fold_group(source: str, target: str, members: list[tuple[list[int], list[int]]]) -> list[tuple[str, str]]:
    columns = [{m[0][i] for m in members} for i in range(len(members[0][0]))]
    if len(members) == 1 or len(members) == len({tuple(m[0]) for m in members}) == math.prod(map(len, columns)):
        return [(_put(source, [m[0] for m in members]), _put(target, [m[1] for m in members]))]
    # Not a full grid (layer1 has three blocks, layer2 four): split along the first number that varies.
    axis = next((i for i, c in enumerate(columns) if len(c) > 1), None)
    if axis is None:  # one source, several targets
        parts = [[m] for m in members]
    else:
        parts = [[m for m in members if m[0][axis] == value] for value in sorted(columns[axis])]
    return [line for part in parts for line in _fold_group(source, target, part)]


def _put(template: str, numbers: Sequence[Sequence[int]]) -> str:
    texts = iter(_span(sorted(set(column))) for column in zip(*numbers, strict=True))
    return re.sub(_GAP, lambda _: next(texts), template)


def _span(values: list[int]) -> str:
    if len(values) == 1:
        return str(values[0])
    if len(values) > 2 and values[-1] - values[0] + 1 == len(values):
        return f"{{{values[0]}..{values[-1]}}}"
    return "{" + ",".join(map(str, values)) + "}"


def _numbers(text: str) -> list[int]:
    return [int(n) for n in _NUMBER.findall(text)]
