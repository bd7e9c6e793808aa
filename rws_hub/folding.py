"""Pairs of tensor names as rows of a name table: numbers become fields, weight and bias one word. Pure text.

A row is written with fields only where it spells exactly the pairs it stands for, given all names of both models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rws_hub.cells import WORDS, Shape, parse_cell
from rws_hub.names import Layout
from rws_hub.pairing import Pair, is_flat
from rws_hub.resolve import HEADS

_NUMBER = re.compile(r"(?<![\d])(?:0|[1-9]\d*)(?!\d)")
_FIELDS = "ijklmnop"


@dataclass(frozen=True, slots=True)
class Names:
    """Names and shapes of both models."""

    a: Layout
    b: Layout


@dataclass(frozen=True, slots=True)
class _Line:
    """A row in the making: names without their word, the words, and the views."""

    a: str
    b: str
    words: tuple[str, ...]
    a_view: str
    b_view: str
    head: bool


def table_text(pairs: Sequence[Pair], names: Names, columns: tuple[str, str], about: Iterable[str]) -> str:
    """A whole `.map` file: comments, columns, and a row for every group of pairs."""
    heads = {p.b for p in pairs if _is_head(p.a)}
    prefix = _prefix([p.b for p in pairs if p.b not in heads], heads)
    lines = _with_words([_line(p, names, p.b in heads) for p in pairs])
    rows: list[tuple[str, str]] = []
    for group in _by_skeleton(lines):
        for a, b, head in _fold(group, names):
            rows.append((("head: " if head else "") + a, _below(b, prefix, head)))
    width = max(len(a) for a, _ in rows)
    body = [f"{a:<{width}} | {b}" for a, b in rows]
    return "\n".join([*(f"# {line}" for line in about), f"columns: {columns[0]} | {columns[1]}", "", *body, ""])


def _is_head(name: str) -> bool:
    top, _, rest = name.partition(".")
    return top in HEADS and not rest.startswith("norm")


def _prefix(body: Sequence[str], heads: Iterable[str]) -> str:
    """What stands before every name of the second model's backbone, if its head does not stand there, too."""
    parts = [n.split(".") for n in body]
    depth = 0
    while parts and min(map(len, parts)) > depth + 1 and len({tuple(p[: depth + 1]) for p in parts}) == 1:
        depth += 1
    prefix = "".join(f"{p}." for p in parts[0][:depth]) if parts else ""
    return prefix if prefix.count(".") == 1 and any(not h.startswith(prefix) for h in heads) else ""


def _below(cell: str, prefix: str, head: bool) -> str:
    return cell.removeprefix(prefix) if not head else ("^" if prefix else "") + cell


def _line(pair: Pair, names: Names, head: bool) -> _Line:
    ours, theirs = (f"[{k}/{n}]" if n > 1 else "" for k, n in (pair.a_part, pair.b_part))
    shapes = names.a[pair.a], names.b[pair.b]
    if not ours and not theirs:
        ours, theirs = ("[flat]", "") if is_flat(*shapes) else ("", "[flat]") if is_flat(*shapes[::-1]) else ("", "")
        theirs = theirs or _lift(*shapes)
    a, b = (_split(n) for n in (pair.a, pair.b))
    if a[1] != b[1]:
        return _Line(pair.a, pair.b, (), ours, theirs, head)
    return _Line(a[0], b[0], (a[1],) if a[1] else (), ours, theirs, head)


def _split(name: str) -> tuple[str, str]:
    """A name and its last word, if that is a usual one."""
    stem, _, word = name.rpartition(".")
    return (stem, word) if word in WORDS["bn"] and stem else (name, "")


def _lift(a: Shape, b: Shape) -> str:
    """The view of B's tensor that has A's leading axes of length 1."""
    more = len(a) - len(b)
    if more > 0 and a == (1,) * more + b:
        return "[" + ",".join(["None"] * more) + "]"
    if more < 0 and b == (1,) * -more + a:
        return "[" + ",".join(["0"] * -more) + "]"
    return ""


def _with_words(lines: Sequence[_Line]) -> list[_Line]:
    """Lines that differ in their word only, put together where the words are a whole set."""
    groups: dict[_Line, list[_Line]] = {}
    for line in lines:
        groups.setdefault(_Line(line.a, line.b, (), line.a_view, line.b_view, line.head), []).append(line)
    out: list[_Line] = []
    for bare, members in groups.items():
        words = tuple(m.words[0] for m in members if m.words)
        whole = set(words) in (set(WORDS["wb"]), set(WORDS["bn"])) and len(words) == len(members)
        out += [_Line(bare.a, bare.b, words, bare.a_view, bare.b_view, bare.head)] if whole else members
    return out


def _by_skeleton(lines: Sequence[_Line]) -> list[list[_Line]]:
    groups: dict[tuple[object, ...], list[_Line]] = {}
    for line in lines:
        key = (_NUMBER.sub("#", line.a), _NUMBER.sub("#", line.b), frozenset(line.words), line.a_view, line.b_view)
        groups.setdefault(key, []).append(line)
    return list(groups.values())


def _fold(group: Sequence[_Line], names: Names) -> list[tuple[str, str, bool]]:
    """Cells for one group: one row if fields can spell it exactly, else rows for its parts."""
    numbers = [(_numbers(m.a), _numbers(m.b)) for m in group]
    first = group[0]
    if len(group) == 1:
        return [(*_cells(first, first.a, first.b), first.head)]
    varying = [c for c in range(len(numbers[0][0])) if len({a[c] for a, _ in numbers}) > 1]
    fields = dict(zip(varying, _FIELDS, strict=False))
    theirs = _follow(numbers, fields)
    if theirs is not None and len(varying) <= len(_FIELDS):
        a = _put(first.a, {c: f"{{{f}}}" for c, f in fields.items()})
        b = _put(first.b, theirs)
        if _spells(a, [m.a for m in group], first.words, names.a) and _spells(
            b, [m.b for m in group], first.words, names.b
        ):
            return [(*_cells(first, a, b), first.head)]
    if not varying:  # one name of A, several of B
        return [(*_cells(m, m.a, m.b), m.head) for m in group]
    ways = ([row for part in _split_at(group, axis) for row in _fold(part, names)] for axis in varying)
    return min(ways, key=len)


def _split_at(group: Sequence[_Line], axis: int) -> list[list[_Line]]:
    """The lines by their number at one place in the name of A."""
    parts: dict[int, list[_Line]] = {}
    for line in group:
        parts.setdefault(_numbers(line.a)[axis], []).append(line)
    return [parts[value] for value in sorted(parts)]


def _follow(numbers: Sequence[tuple[list[int], list[int]]], fields: Mapping[int, str]) -> dict[int, str] | None:
    """For every varying number of B the field of A that it follows, at a constant distance; None if there is none."""
    found: dict[int, str] = {}
    for column in range(len(numbers[0][1])):
        if len({b[column] for _, b in numbers}) == 1:
            continue
        for source, field in fields.items():
            offsets = {b[column] - a[source] for a, b in numbers}
            if len(offsets) == 1 and all(f"{{{field}" not in cell for cell in found.values()):
                offset = offsets.pop()
                found[column] = f"{{{field}{offset:+d}}}" if offset else f"{{{field}}}"
                break
        else:
            return None
    return found if len(found) == len(fields) else None


def _spells(template: str, members: Sequence[str], words: Sequence[str], layout: Layout) -> bool:
    """Whether a template is read from exactly these names, among all of a model."""
    try:
        cell = parse_cell(template)
    except ValueError:  # two fields without text between
        return False
    stems = {n.rpartition(".")[0] if words else n for n in layout if not words or n.rpartition(".")[2] in words}
    return {s for s in stems if cell.parse(s) is not None} == set(members)


def _cells(line: _Line, a: str, b: str) -> tuple[str, str]:
    word = "" if not line.words else "." + (line.words[0] if len(line.words) == 1 else _set_of(line.words))
    return a + word + line.a_view, b + word + line.b_view


def _set_of(words: Sequence[str]) -> str:
    return "{wb}" if set(words) == set(WORDS["wb"]) else "{bn}"


def _put(name: str, cells: Mapping[int, str]) -> str:
    count = iter(range(len(name)))
    return _NUMBER.sub(lambda m: cells.get(next(count), m[0]), name)


def _numbers(name: str) -> list[int]:
    return [int(n) for n in _NUMBER.findall(name)]
