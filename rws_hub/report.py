"""Many parameter names as few lines: `blocks.{0..5}.attn.qkv.weight`, as loading reports print them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

# A number with a leading zero is text: folded, "07" could not be told from "7".
_NUMBER = re.compile(r"(?<!\d)(?:0|[1-9]\d*)(?!\d)", re.ASCII)
_GAP = "\0"


def fold_names(names: Iterable[str]) -> list[str]:
    """Names with runs of numbers folded together; exactly the given names, never more."""
    return [line for line, _ in fold_pairs((n, "") for n in names)]


def fold_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same for (source, target) pairs whose numbers move together."""
    groups: dict[tuple[str, str], list[tuple[list[int], list[int]]]] = {}
    for source, target in dict.fromkeys(pairs):
        key = (_NUMBER.sub(_GAP, source), _NUMBER.sub(_GAP, target))
        groups.setdefault(key, []).append((_numbers(source), _numbers(target)))
    return [line for (s, t), members in groups.items() for line in _fold_group(s, t, members)]


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
