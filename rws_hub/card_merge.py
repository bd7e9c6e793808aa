"""The generated block of a card, and how it comes into a card that people have written in.

A person owns everything outside the markers, the pipeline tag and every metadata key that we do not write; the
other keys state facts, which are ours. What they wrote between the markers is recognised by digests and moved
below the block; no text of theirs is ever lost.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from rws_hub.card_metadata import read_metadata
from rws_hub.errors import CardError

NOTES = "## Notes kept from the previous card"

_BEGIN = re.compile(r"<!-- rws-hub:begin(?: sha256=([0-9a-f]{64}))? -->")
_END = re.compile(r"<!-- rws-hub:end -->")
# Not from within a run of line ends: each of a million would be tried, to the end of all.
_DIGESTS = re.compile(r"(?<!\n)\n*<!-- rws-hub:pieces((?: [0-9a-f]{8})*) -->")

_FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(?:|(.*?)\n)---[ \t]*(?:\n|\Z)", re.DOTALL)
_ITEM = re.compile(r"([-*+]|\d+[.)])\s")
_FENCE = re.compile(r"\s*(`{3,}(?=[^`]*$)|~{3,})")
_SEPARATOR = re.compile(r"\|[\s:|-]+")

# Values of these keys are sets: ours and theirs together. Any other key has one owner.
_UNITED = ("tags", "datasets", "metrics")
_SEQUENCE = "tag:yaml.org,2002:seq"
_NULL = "tag:yaml.org,2002:null"
# What is written where no person chose another; so this value is never taken for a person's.
PIPELINE_TAG = "image-classification"
_BASE_MODEL_TAG = "base_model:adapter:"
# Metadata is written with one line per value, however long.
YAML_WIDTH = 10**6


@dataclass(frozen=True, slots=True)
class _Card:
    """A card taken apart. `block` is None if it has no markers; then all of its text is `before`."""

    metadata: list[tuple[Node, Node]]
    before: str
    block: str | None
    sha256: str | None
    after: str


def merge_card(new: str, existing: str) -> str:
    """Put the generated parts of `new` into `existing`, keeping what people wrote in either.

    Text outside the markers stays where it is; if `existing` has no markers, the block comes after its text.
    Metadata keys that we do not write and another pipeline_tag stay, word for word (YAML comments cannot be
    kept); tags, datasets and metrics are united; model-index entries of other names stay; another licence is
    refused; the other keys that we write are facts, and ours win. If someone edited
    inside the block, the paragraphs, list items, table rows and code blocks that are theirs move to a section
    "Notes kept from the previous card" below it. Line ends are those of `existing`.

    Merging twice changes nothing: merge(new, merge(new, x)) == merge(new, x).

    Args:
        new: a card by `render_card`, or one that such a card was merged into.
        existing: any README.md.

    Raises:
        CardError: the metadata of `existing` is not a YAML mapping or states another licence, or its markers
            are damaged. It is never overwritten then.
    """
    ours, theirs = _parse(new, "the new card"), _parse(existing, "the existing card")
    if ours.block is None:
        raise CardError("the new card has no generated block")
    outside = _digests(theirs.before + "\n\n" + theirs.after)
    before = _join(theirs.before, _foreign(ours.before, outside))
    after = _join(theirs.after, _foreign(ours.after, outside))
    if theirs.block is not None and theirs.sha256 != _sha256(theirs.block):
        known = _DIGESTS.search(theirs.block)
        generated = set(known[1].split()) if known else set()
        kept_elsewhere = outside | _digests(ours.before + "\n\n" + ours.after)
        written = _foreign(_DIGESTS.sub("", theirs.block), generated | _digests(ours.block) | kept_elsewhere)
        after = _with_notes(after, written)
    block = f"<!-- rws-hub:begin sha256={_sha256(ours.block)} -->\n{ours.block}\n<!-- rws-hub:end -->"
    metadata = yaml.serialize(
        _merge_metadata(ours, theirs), Dumper=yaml.SafeDumper, allow_unicode=True, width=YAML_WIDTH
    )
    merged = f"---\n{metadata}---\n\n{_join(before, block, after)}\n"
    return merged.replace("\n", "\r\n") if existing.partition("\n")[0].endswith("\r") else merged


def seal(block: str) -> str:
    """A generated block between its markers, with the digests by which later edits are recognised.

    The begin marker holds the digest of all that stands between the markers: a block that still has it was
    not edited. If it was, the digests of the single pieces tell what was generated from what a person wrote.

    Raises:
        CardError: the block itself contains a marker.
    """
    block = block.strip("\n")
    if any(marker.search(block) for marker in (_BEGIN, _END, _DIGESTS)):
        raise CardError("a value contains one of the comments that mark the generated part of a card")
    digests = " ".join(dict.fromkeys(_digest(p) for p in _pieces(block)))
    block += f"\n\n<!-- rws-hub:pieces {digests} -->"
    return f"<!-- rws-hub:begin sha256={_sha256(block)} -->\n{block}\n<!-- rws-hub:end -->"


def _parse(card: str, what: str) -> _Card:
    card = re.sub(r"\r\n?", "\n", card.removeprefix("\ufeff"))
    front = _FRONT_MATTER.match(card)
    if front is None and card.lstrip().split("\n", 1)[0].rstrip() == "---":
        raise CardError(f"{what} begins with --- but the metadata block is never closed; close or remove it")
    metadata = read_metadata(front[1] or "", what) if front else []
    body = card[front.end() :] if front else card
    begins, ends = list(_BEGIN.finditer(body)), list(_END.finditer(body))
    if not begins and not ends:
        return _Card(metadata, body.strip("\n"), None, None, "")
    if len(begins) != 1 or len(ends) != 1 or begins[0].end() > ends[0].start():
        raise CardError(
            f"{what} has {len(begins)} begin and {len(ends)} end markers of the generated block; expected one "
            "begin marker and one end marker after it. Restore them, or delete both with the text between them"
        )
    begin, end = begins[0], ends[0]
    return _Card(
        metadata,
        before=body[: begin.start()].strip("\n"),
        block=body[begin.end() : end.start()].strip("\n"),
        sha256=begin[1],
        after=body[end.end() :].strip("\n"),
    )


def _merge_metadata(ours: _Card, theirs: _Card) -> MappingNode:
    """Nodes, not values: YAML would read a person's `language: no` as false, and write it back as that."""
    merged = {key.value: (key, value) for key, value in ours.metadata}
    for key, value in theirs.metadata:
        if key.value == "license" and key.value in merged:
            _require_same_licence(merged[key.value][1], value)
        if key.value == "pipeline_tag" and value.tag != _NULL and value.value != PIPELINE_TAG:
            merged[key.value] = (key, value)
        if key.value in _UNITED and key.value in merged:
            merged[key.value] = (key, _united(merged[key.value][1], value, key.value))
        merged.setdefault(key.value, (key, value))
    if "model-index" in merged:
        # An entry of our name is ours even where we have no results any more: they were of another payload.
        title = re.sub(r"\\(.)", r"\1", (ours.block or "").split("\n", 1)[0].removeprefix("# "))
        entries = _model_index(ours.metadata)
        names = {title, *(_entry_name(e) for e in entries)}
        entries += [e for e in _model_index(theirs.metadata) if _entry_name(e) not in names]
        merged["model-index"] = (merged["model-index"][0], SequenceNode(_SEQUENCE, entries, flow_style=False))
        if not entries:
            del merged["model-index"]
    return MappingNode("tag:yaml.org,2002:map", list(merged.values()), flow_style=False)


def _require_same_licence(ours: Node, theirs: Node) -> None:
    """A licence is a promise of people: neither side's may silently become the other's."""
    found = [n.value for n in _scalars(theirs, "license")]
    if any(licence.casefold() != str(ours.value).casefold() for licence in found):
        raise CardError(
            f"the existing card says license: {', '.join(found)}, but the signature's licence is {ours.value}; nothing "
            "was written. Edit the licence in the card, or make the signature with that licence"
        )


def _united(ours: Node, theirs: Node, key: str) -> SequenceNode:
    nodes = _scalars(ours, key)
    known = {n.value for n in nodes}
    replaced = any(n.value.startswith(_BASE_MODEL_TAG) for n in nodes)
    for node in _scalars(theirs, key):
        stale = replaced and node.value.startswith(_BASE_MODEL_TAG)
        if not stale and node.value not in known:
            known.add(node.value)
            nodes.append(node)
    return SequenceNode(_SEQUENCE, nodes, flow_style=False)


def _scalars(node: Node, key: str) -> list[ScalarNode]:
    if node.tag == _NULL:
        return []
    items = node.value if isinstance(node, SequenceNode) else [node]
    words = [item for item in items if isinstance(item, ScalarNode)]
    if len(words) != len(items):
        raise CardError(f"the metadata key {key!r} of the existing card is not a list of words")
    return words


def _model_index(metadata: list[tuple[Node, Node]]) -> list[Node]:
    for key, value in metadata:
        if key.value == "model-index":
            if not isinstance(value, SequenceNode):
                raise CardError("the metadata key 'model-index' of the existing card is not a list")
            return list(value.value)
    return []


def _entry_name(entry: Node) -> str | None:
    pairs = entry.value if isinstance(entry, MappingNode) else []
    return next((str(value.value) for key, value in pairs if key.value == "name"), None)


def _pieces(text: str) -> list[str]:
    """The smallest parts that a person would write or edit.

    They are paragraphs, list items, code blocks, table rows, and a table's heading with the line below it.
    """
    found: list[list[str]] = []
    fence, joins = "", False
    for line in text.split("\n"):
        opening = _FENCE.match(line)
        if fence:
            found[-1].append(line)
            if opening and opening[1].startswith(fence) and line.strip() == opening[1]:
                fence, joins = "", False
            continue
        if not line.strip():
            joins = False
            continue
        row, separator = line.startswith("|"), _SEPARATOR.fullmatch(line)
        if not ((joins and not row and not opening and not _ITEM.match(line)) or (separator and found)):
            found.append([])
        found[-1].append(line)
        fence, joins = opening[1] if opening else "", not row
    return ["\n".join(lines) for lines in found]


def _foreign(text: str, known: Collection[str]) -> str:
    """The pieces of a text that are not known by their digests; table rows under the heading of their table."""
    kept: list[str] = []
    heading = ""
    for piece in _pieces(text):
        if not piece.startswith("|"):
            heading = ""
        elif "\n" in piece:
            heading = piece
        if _digest(piece) not in known:
            kept += [heading, piece] if heading not in ("", piece) else [piece]
            heading = ""
    joined = ""
    for before, piece in zip(["", *kept], kept, strict=False):
        row = before.startswith("|") and piece.startswith("|") and "\n" not in piece
        item = _ITEM.match(before) and _ITEM.match(piece)
        joined += ("\n" if row or item else "\n\n") + piece
    return joined.strip("\n")


def _with_notes(after: str, notes: str) -> str:
    heading = re.search(f"^{NOTES}[ \t]*$", after, re.MULTILINE)
    if not notes or heading is None:
        return _join(after, NOTES, notes) if notes else after
    return _join(after[: heading.end()], notes, after[heading.end() :].strip("\n"))


def _join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _digests(text: str) -> set[str]:
    return {_digest(piece) for piece in _pieces(text)}


def _digest(piece: str) -> str:
    """Eight hex digits; blanks at the ends of lines do not count, since editors remove them."""
    lines = [line.rstrip() for line in piece.split("\n")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]


def _sha256(block: str) -> str:
    return hashlib.sha256(block.encode()).hexdigest()
