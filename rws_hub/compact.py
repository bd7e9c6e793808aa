"""The short spelling of a config: names that share a value on one line, tensors by kind (docs/SPEC.md, section 2).

    "layer1.{0,1}.{bn1,bn2}.{bias,weight}": [64]

stands for all names that come of taking one word of each brace. What a config says, and its seal, do not hang on the
spelling: `expand` gives back what `compact` was given, and only what `compact` writes is read.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rws_hub import jsonio
from rws_hub.errors import CorruptArtifactError

# The first format that is spelled like this.
SINCE = 3
# Names that one table of a config can hold, characters of one of them, and of all.
MAX_NAMES, MAX_LENGTH, MAX_CHARACTERS = 65_536, 256, 1_048_576
# Dimensions that a shape can have, and the largest of them: a pattern repeats its shape for every name.
MAX_AXES, MAX_DIMENSION = 16, 2**40

_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_PART = re.compile(r"\{([0-9]{1,5})\.\.([0-9]{1,5})\}|\{(\w+(?:,\w+)+)\}|(\w+)", re.ASCII)
# For every part of a name the words that it can be.
_Pattern = tuple[tuple[str, ...], ...]

_KIND = ("op", "projected", "encoding", "granularity")
_NUMBERS = ("relative_error", "relative_norm")
_FOLDED = ("layout", "head")


def compact(config: Mapping[str, Any]) -> dict[str, Any]:
    """The short spelling of a config's JSON form."""
    backbone = {k: fold(v) if k in _FOLDED else v for k, v in config["backbone"].items()}
    kinds: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for name in in_order(config["tensors"]):
        facts = config["tensors"][name]
        kinds.setdefault(_kind(facts), {})[name] = [facts[k] for k in _numbers(facts["encoding"])]
    tensors = [{**dict(zip(_KIND, kind, strict=True)), "tensors": names} for kind, names in kinds.items()]
    return {**config, "backbone": backbone, "tensors": tensors}


def expand(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The JSON form that a short spelling stands for; types are checked later, as for any other config.

    Raises:
        CorruptArtifactError: nothing that can be spelled out.
    """
    expanded = dict(data)
    if isinstance(data.get("backbone"), dict):
        tables = {k: unfold(v, f"{where}: backbone.{k}") for k, v in data["backbone"].items() if k in _FOLDED}
        expanded["backbone"] = {**data["backbone"], **tables}
    if "tensors" in data:
        expanded["tensors"] = _spelled_out(data["tensors"], where)
    return expanded


def check_spelling(data: Mapping[str, Any], expanded: Mapping[str, Any], where: str) -> None:
    """Refuse another spelling of a config than that of `compact`; `expanded` is known to have the right types.

    Raises:
        CorruptArtifactError: names folded in another way, or tensors grouped in another.
    """
    expected = compact(expanded)
    for key in _FOLDED:
        if expected["backbone"][key].keys() != data["backbone"][key].keys():
            raise CorruptArtifactError(f"{where}: the names of backbone.{key} are not folded as the format demands")
    if [_kind(g) for g in expected["tensors"]] != [_kind(g) for g in data["tensors"]]:
        raise CorruptArtifactError(f"{where}: tensors are not grouped as the format demands")


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order of their parts, numbers as numbers: `blocks.2` before `blocks.10`."""
    return sorted(names, key=lambda name: [_order(word) for word in name.split(".")])


def fold(table: Mapping[str, Any]) -> dict[str, Any]:
    """Names that share a value, as few patterns; in the order of the first name of each."""
    groups: dict[str, list[str]] = {}
    for name in sorted(table):
        groups.setdefault(json.dumps(table[name]), []).append(name)
    lines = [(pattern, json.loads(value)) for value, names in groups.items() for pattern in _fold(names)]
    return dict(sorted(lines, key=lambda line: next(_names(line[0]), line[0])))


def unfold(table: Any, where: str) -> dict[str, Any]:
    """The opposite of `fold`.

    Raises:
        CorruptArtifactError: a pattern that is none, a name twice, too many names, a shape that cannot be.
    """
    if not isinstance(table, dict):
        raise CorruptArtifactError(f"{where}: expected an object, found {type(table).__name__}")
    found: dict[str, Any] = {}
    characters = 0
    for pattern, value in table.items():
        count, length = _measure(pattern, where)
        characters += count * length
        _check_size(len(found) + count, characters, where)
        axes = value if isinstance(value, list) else []
        if len(axes) > MAX_AXES or any(type(d) is int and abs(d) > MAX_DIMENSION for d in axes):
            raise CorruptArtifactError(f"{where}: {pattern[:80]} has an impossible shape")
        for name in _names(pattern):
            if name in found:
                raise CorruptArtifactError(f"{where}: {name} occurs twice")
            found[name] = value
    return found


def _spelled_out(groups: Any, where: str) -> dict[str, Any]:
    if not isinstance(groups, list):
        raise CorruptArtifactError(f"{where}: tensors must be a list since format {SINCE}")
    tensors: dict[str, Any] = {}
    characters = 0
    for i, group in enumerate(groups):
        if not isinstance(group, dict) or set(group) != {*_KIND, "tensors"} or not isinstance(group["tensors"], dict):
            raise CorruptArtifactError(f"{where}: tensors[{i}] must hold {', '.join(_KIND)} and tensors, and no more")
        keys = _numbers(group["encoding"])
        for name, found in group["tensors"].items():
            if not isinstance(found, list) or len(found) != len(keys) or name in tensors or len(name) > MAX_LENGTH:
                raise CorruptArtifactError(
                    f"{where}: tensors[{i}]: {jsonio.shown(name)} must be a name, once, with "
                    f"{'two' if len(keys) == 2 else 'three'} numbers"
                )
            characters += len(name)
            _check_size(len(tensors) + 1, characters, f"{where}: tensors")  # no more than the layout can hold
            tensors[name] = {k: group[k] for k in _KIND} | dict(zip(keys, found, strict=True))
    return {name: tensors[name] for name in in_order(tensors)}


def _check_size(names: int, characters: int, where: str) -> None:
    if names > MAX_NAMES or characters > MAX_CHARACTERS:
        raise CorruptArtifactError(
            f"{where}: more than {MAX_NAMES:,} names, or than {MAX_CHARACTERS:,} characters in them"
        )


def _numbers(encoding: Any) -> tuple[str, ...]:
    """What is told of each tensor."""
    return (*_NUMBERS, "rank") if encoding == "factors" else _NUMBERS


def _kind(facts: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(facts[k] for k in _KIND)


def _fold(names: Iterable[str]) -> list[str]:
    """Patterns for exactly these names: words that differ in one place only are put together, from the last place on.

    What stands before a place and what stands behind it are known by numbers, so that the work grows with the number
    of words only, whatever a hostile config holds.
    """
    befores: dict[tuple[int, str], int] = {}
    behinds: dict[tuple[tuple[str, ...], int], int] = {}
    rows: list[tuple[list[str], list[int], int]] = []  # words, the number of what is before each, and of what is behind
    for name in names:
        words, before = name.split("."), [0]
        for word in words[:-1]:
            before.append(befores.setdefault((before[-1], word), len(befores) + 1))
        rows.append((words, before, 0))
    for place in reversed(range(max(len(words) for words, _, _ in rows))):
        short = [row for row in rows if len(row[0]) <= place]
        merged: dict[tuple[int, int], list[tuple[list[str], list[int], int]]] = {}
        for row in rows:
            if len(row[0]) > place:
                merged.setdefault((row[1][place], row[2]), []).append(row)
        rows = short
        for alike in merged.values():
            found = [words[place] for words, _, _ in alike]
            choice = tuple(sorted(found, key=_order) if len(found) > 1 else found)
            behind = behinds.setdefault((choice, alike[0][2]), len(behinds) + 1)
            rows.append((alike[0][0], alike[0][1], behind))
    parts = {number: part for part, number in behinds.items()}
    return [".".join(_chain(behind, parts)) for _, _, behind in rows]


def _chain(behind: int, parts: Mapping[int, tuple[tuple[str, ...], int]]) -> Iterator[str]:
    """The parts of a pattern, spelled, from the first one on."""
    while behind:
        words, behind = parts[behind]
        yield _spell(words)


def _spell(words: tuple[str, ...]) -> str:
    """One part of a pattern; three or more numbers in a row as a range."""
    if len(words) == 1:
        return words[0]
    numbers = [int(w) for w in words] if all(_NUMBER.fullmatch(w) for w in words) else []
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{{{numbers[0]}..{numbers[-1]}}}"
    return "{" + ",".join(words) + "}"


def _order(word: str) -> tuple[int, int, str]:
    return (0, int(word), "") if _NUMBER.fullmatch(word) else (1, 0, word)


def _parts(pattern: str) -> list[Sequence[str] | range] | None:
    """The words of every part, numbers in a row as a range; None if it is no pattern."""
    parts: list[Sequence[str] | range] = []
    at = 0
    while len(parts) < MAX_LENGTH and (match := _PART.match(pattern, at)) is not None:
        first, last, words, word = match.groups()
        parts.append(range(int(first), int(last) + 1) if first else words.split(",") if words else [word])
        at = match.end()
        if at == len(pattern):
            return parts
        if pattern[at] != ".":
            return None
        at += 1
    return None


def _measure(pattern: str, where: str) -> tuple[int, int]:
    """How many names a pattern stands for, and the length of the longest, without spelling out any of them."""
    if pattern.count(",") >= MAX_NAMES:  # as many names at least; to take it apart would need much memory
        return pattern.count(",") + 1, 1
    parts = _parts(pattern)
    if parts is not None and all(map(len, parts)):
        lengths = (len(str(p[-1])) if isinstance(p, range) else max(map(len, p)) for p in parts)
        length = len(parts) - 1 + sum(lengths)
        if length <= MAX_LENGTH:
            return math.prod(map(len, parts)), length
    raise CorruptArtifactError(f"{where}: {pattern[:80]!r} cannot be a tensor name, nor a pattern of such")


def _names(pattern: str) -> Iterator[str]:
    parts = [[str(word) for word in part] for part in _parts(pattern) or []]
    return (".".join(words) for words in itertools.product(*parts)) if parts else iter(())
