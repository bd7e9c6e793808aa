"""Layers in execution order, and which of them a signature keeps.

The paper's claim is that robustness sits in the *first* layers a picture passes. "First" is a matter of
execution, not of names or definition: a name table states the order of its family; any other backbone is
traced symbolically, or run once on an example and watched.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.fx
from torch import nn

from rws_hub.errors import ExtractionError
from rws_hub.names import Family, Layout
from rws_hub.resolve import plain_names
from rws_hub.spelling import Piece

# "shallow": the shortest prefix of layers that holds this share of the summed relative differences. Plain
# differences, not squared ones: squares let one restless stem decide alone (docs/DECISIONS.md).
SHALLOW_SHARE = 0.7

LayerRule = Literal["shallow"] | int | Sequence[str]


@dataclass(frozen=True, slots=True)
class Unit:
    """One layer: its label and the canonical names of its tensors."""

    label: str
    names: tuple[str, ...]


def units_of(table: Family | None, body: Layout, executed: Sequence[str] | None) -> tuple[Unit, ...]:
    """The layers of a backbone, in execution order where it is known.

    Args:
        table: name table of the backbone, if there is one.
        body: canonical layout without the head.
        executed: where no table states the order: module names in order of first use, or None if not watched.
    """
    groups: dict[str, list[str]] = {}
    placed = {} if table is None else {n: unit for n in body if (unit := table.unit_of(n))}
    if len(placed) == len(body):
        for name in sorted(body, key=lambda n: placed[n]):
            groups.setdefault(placed[name][1], []).append(name)
        return tuple(Unit(label, tuple(names)) for label, names in groups.items())
    order = {module: i for i, module in enumerate(executed or ())}
    owners = {n: n.rpartition(".")[0] for n in body}
    names_in_order = sorted(body, key=lambda n: order.get(owners[n], len(order)))
    # A layer begins at a module with a matrix or a kernel; norms and other vectors belong to the one before.
    wide = {owners[n] for n, shape in body.items() if sum(d > 1 for d in shape) > 1}
    label = ""
    for name in names_in_order:
        if owners[name] in wide or not label:
            label = owners[name] or name
        groups.setdefault(label, []).append(name)
    return tuple(Unit(label, tuple(names)) for label, names in groups.items())


def states_order(table: Family | None, body: Layout) -> bool:
    """Whether a table says of every tensor of a backbone when it is used."""
    return table is not None and all(table.unit_of(n) for n in body)


def canonical_order(executed: Iterable[str], pieces: Sequence[Piece], prefix: str) -> list[str]:
    """Modules of a model in order of first use (without `prefix`), as the modules of canonical tensors."""
    order = {module: i for i, module in enumerate(executed)}
    plain = {actual: name for name, actual in plain_names({p.model: None for p in pieces}).items()}
    first: dict[str, int] = {}
    for piece in pieces:
        used = order.get(plain[piece.model].removeprefix(prefix).rpartition(".")[0], len(order))
        owner = piece.canonical.rpartition(".")[0]
        first[owner] = min(used, first.get(owner, used))
    return sorted(first, key=lambda owner: first[owner])


def watch(model: nn.Module, example_input: torch.Tensor, prefix: str) -> list[str]:
    """Names (without `prefix`) of the modules that hold tensors, in the order a forward pass first uses them."""
    seen: dict[str, None] = {}
    plain = {actual: p for p, actual in plain_names(n for n, _ in model.named_modules() if n).items()}
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: seen.setdefault(name))
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))
    ]
    was_training = {m: m.training for m in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            model(example_input)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in was_training.items():
            module.training = training
    return [plain.get(n, n).removeprefix(prefix) for n in seen]


def traced(model: nn.Module, prefix: str) -> list[str] | None:
    """The same order from a symbolic trace, without running the model; None if its control flow depends on data."""
    try:
        nodes = list(torch.fx.Tracer().trace(model).nodes)
    except Exception:  # a foreign model's forward may raise anything on symbolic input
        return None
    plain = {actual: p for p, actual in plain_names(n for n, _ in model.named_modules() if n).items()}
    seen: dict[str, None] = {}
    for node in nodes:
        if node.op == "call_module":
            leaf = model.get_submodule(str(node.target))
            seen |= {f"{node.target}.{inner}".removesuffix("."): None for inner, _ in leaf.named_modules()}
        elif node.op == "get_attr":
            seen[str(node.target).rpartition(".")[0]] = None
    return [plain.get(n, n).removeprefix(prefix) for n in seen]


def choose(rule: LayerRule, units: Sequence[Unit], profile: Mapping[str, float], ordered: bool) -> set[str]:
    """The canonical names that a layer rule keeps.

    Args:
        rule: "shallow", the number of first layers, or name patterns (shell style, on canonical names).
        units: the layers, in execution order when `ordered`.
        profile: layer label -> relative difference.
        ordered: whether the execution order is known.

    Raises:
        ExtractionError: a rule that needs the order when it is not known, that is out of range, or that
            matches nothing.
    """
    if isinstance(rule, Sequence) and not isinstance(rule, str):
        return _by_pattern(rule, units)
    if not ordered:
        raise ExtractionError(
            f"layers={rule!r} needs the execution order, which no name table states for this backbone (`unit` lines "
            "for every tensor) and no trace shows. Pass the standard model as a live module with example_input= (it is "
            "run once on it), or name the layers: layers=['features.0.*', ...]"
        )
    if rule == "shallow":
        return _names(units[: _shallow_depth([profile[u.label] for u in units])])
    if type(rule) is not int or not 1 <= rule <= len(units):
        labels = ", ".join(u.label for u in units)
        raise ExtractionError(
            f"layers={rule!r}: expected 'shallow', a number from 1 to {len(units)}, or a list of name patterns. "
            f"The layers are: {labels}"
        )
    return _names(units[:rule])


def _shallow_depth(differences: Sequence[float]) -> int:
    total = sum(differences)
    held = 0.0
    for depth, difference in enumerate(differences, 1):
        held += difference
        if held >= SHALLOW_SHARE * total:
            return depth
    return len(differences)


def _by_pattern(patterns: Sequence[str], units: Sequence[Unit]) -> set[str]:
    names = _names(units)
    chosen: set[str] = set()
    if not patterns:
        raise ExtractionError("layers: the list of name patterns is empty")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ExtractionError(f"layers: {pattern!r} is no name pattern; patterns are text such as 'blocks.0.*'")
        hits = set(fnmatch.filter(names, pattern))
        if not hits:
            raise ExtractionError(
                f"layers: the pattern {pattern!r} matches no tensor of the backbone; its layers are "
                f"{', '.join(u.label for u in units)}"
            )
        chosen |= hits
    return chosen


def _names(units: Iterable[Unit]) -> set[str]:
    return {n for u in units for n in u.names}
