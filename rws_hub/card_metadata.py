"""The metadata of a card, which anyone may have written: YAML nodes, or a reason why not."""

from __future__ import annotations

from collections import Counter

import yaml
from yaml.nodes import MappingNode, Node

from rws_hub.errors import CardError

# PyYAML needs seconds for so many characters, and far more for what is nested deeply.
_MAX_METADATA, _MAX_DEPTH = 2**18, 50
# What PyYAML raises for a value that its tag cannot have: `!!bool maybe` is a KeyError, and so on.
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, ArithmeticError, AttributeError, TypeError)


def read_metadata(text: str, what: str) -> list[tuple[Node, Node]]:
    """The keys and values of what stands between the dashes.

    Raises:
        CardError: no YAML, no mapping, a key twice, an alias, or more than can be read in seconds.
    """
    try:
        _refuse_bombs(text, what)
        yaml.safe_load(text)  # finds what composing alone does not: unknown tags, impossible values
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except CardError:
        raise
    except _NOT_YAML as error:
        why = "".join(c for c in " ".join(str(error).split()) if c.isprintable())
        raise CardError(f"the metadata of {what} is not valid YAML: {why[:300]}") from error
    if root is None:
        return []
    if not isinstance(root, MappingNode):
        raise CardError(f"the metadata of {what} is not a YAML mapping")
    pairs: list[tuple[Node, Node]] = root.value
    keys = [str(key.value) for key, _ in pairs]
    if twice := [k for k, count in Counter(keys).items() if count > 1]:
        raise CardError(f"the metadata of {what} has the key {twice[0][:60]!r} twice")
    return pairs


def _refuse_bombs(text: str, what: str) -> None:
    """Aliases: a few lines of them, merged into each other, are more than any memory holds. What takes for ever."""
    if len(text) > _MAX_METADATA:
        raise CardError(f"the metadata of {what} has {len(text):,} characters; at most {_MAX_METADATA:,} are read")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise CardError(f"the metadata of {what} is nested more than {_MAX_DEPTH} times")
        if isinstance(event, yaml.AliasEvent):
            raise CardError(f"the metadata of {what} uses an alias (*name); write out what it stands for")
