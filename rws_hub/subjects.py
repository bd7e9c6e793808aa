"""Models that are to be judged: what would be on every tensor, and its clean values, live or in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from rws_hub import bounds, clean, shards
from rws_hub.anchors import Place, after, path_of, tensor_of
from rws_hub.codec import is_wide
from rws_hub.deltas import Delta
from rws_hub.kinship import Agreement, marked
from rws_hub.names import Layout
from rws_hub.plan import PatchPlan
from rws_hub.signature import RobustWeightSignature
from rws_hub.sources import Weights

# Elements of a file that are read at a time.
_BLOCK = 2**18


class Live:
    """Tensors of a live model.

    Attributes:
        layout: their shapes.
        touched: what would be on each of them, by the model's names.
        sizes: the squared norms of their clean values, and of all that these are measured against.
    """

    def __init__(self, on: Sequence[Place], off: Sequence[Place]) -> None:
        """`on` is what would be put on the model, `off` what would be taken off."""
        named = {(m, a): d.name for m, a, d in (*off, *on)}
        self._homes = {name: home for home, name in named.items()}
        self._tensors = [tensor_of(*home) for home in named]
        self.touched = {named[home]: list(deltas.values()) for home, deltas in after(on, off).items()}
        self._layers = {name: clean.layer_of(home) for name, home in self._homes.items()}
        self.sizes = clean.sizes([*named, *(h for layer in self._layers.values() for h in layer)])
        self.layout: Layout = {n: tuple(t.shape) for n, t in zip(self._homes, self._tensors, strict=True)}
        self._kept: tuple[str, torch.Tensor] | None = None

    @property
    def scattered(self) -> bool:
        """Whether values are spread over processes."""
        return any(shards.is_sharded(t) for t in self._tensors)

    def near(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows of clean values, up to a rounding (`clean.rows_near`)."""
        return clean.rows_near(self._homes[name], start, stop)

    def exact(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows of clean values, bit for bit."""
        if self._kept is None or self._kept[0] != name:
            self._kept = (name, clean.whole(self._homes[name], name))
        found = self._kept[1]
        return found[start:stop] if found.ndim else found

    def square(self, name: str, *, exact: bool = False) -> float:
        """The squared norm of what a tensor is measured against (`bounds.changes`), estimated or `exact`."""
        found = clean.sizes(self._layers[name], exact=True) if exact else self.sizes
        return sum(found[home] for home in self._layers[name])

    def summed(self, found: Agreement) -> Agreement:
        """Over all processes."""
        spread = [t for t in self._tensors if shards.is_sharded(t)][:1]
        if not spread:
            return found
        agreeing, compared = shards.summed(spread * 2, [found.agreeing, found.compared])
        broken = found.broken
        if shards.agree(spread, bool(broken)) and not broken:
            broken = "a tensor that another process holds a part of"
        return Agreement(round(agreeing), round(compared), broken)


class Stored:
    """The same of a checkpoint or a state dict, whose values are taken for clean ones."""

    scattered = False

    def __init__(
        self,
        weights: Weights,
        plan: PatchPlan,
        signatures: Sequence[RobustWeightSignature],
        alphas: Sequence[float],
    ) -> None:
        self._weights, self.layout = weights, weights.layout
        self.exact = weights.rows
        self.touched: dict[str, list[Delta]] = {}
        for signature, alpha, planned in zip(signatures, alphas, plan.signatures, strict=True):
            for b in planned.bindings:
                delta = Delta(b.model, weights.layout[b.model], signature, b.pieces, alpha)
                self.touched.setdefault(b.model, []).append(delta)

    def near(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows of values as a sketch wants them (`kinship.marked`)."""
        return marked(self._weights.rows(name, start, stop))

    def square(self, name: str, *, exact: bool = True) -> float:
        """The squared norm of what a tensor is measured against (`bounds.changes`); of a file always exact."""
        layer = [name]
        if not is_wide(self.layout[name]):
            layer = [n for n in self.layout if path_of(n) == path_of(name)]
        return sum(self._own_square(n) for n in layer)

    def _own_square(self, name: str) -> float:
        shape = self.layout[name]
        if name.endswith("running_var"):
            return float(self._weights.rows(name, 0, shape[0]).sum())
        rows = shape[0] if shape else 1
        step = max(1, _BLOCK // max(1, math.prod(shape[1:])))
        blocks = (self._weights.rows(name, at, min(rows, at + step)) for at in range(0, rows, step))
        return sum(float(bounds.exact_square_of(block)) for block in blocks)

    def summed(self, found: Agreement) -> Agreement:
        """All of it is here."""
        return found
