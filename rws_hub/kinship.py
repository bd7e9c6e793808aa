"""A 256-byte sketch of a model's clean weights, from which the kinship of another model is estimated.

A signature works on models grown from the ancestor it was made from, and not on strangers of the same shape. The
sketch is the signs of 2048 clean weights. Training moves few weights past zero, and the signs of strangers agree as
often as coins do, so that some thousand signs tell the two apart; the places are drawn from the shapes alone, so that
a look at any model takes a millisecond. docs/SPEC.md, section 8, also of the count-sketch of older artifacts.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from rws_hub.cells import Shape
from rws_hub.codec import is_wide
from rws_hub.names import Layout
from rws_hub.spec import Sketch

# Returns rows [start, stop) of axis 0 of a tensor, by its canonical name; NaN where a value cannot be told, and
# infinity where it is there and not finite (`marked`).
Rows = Callable[[str, int, int], torch.Tensor]

# Places come in runs of neighbours, which lie in a row or two.
RUN, RUNS = 32, 64
# With fewer places that could be compared, nothing is said: two strangers would agree too often by chance.
MIN_COMPARED = 128

_BYTES = RUN * RUNS // 8
_SEED = 0


@dataclass(frozen=True, slots=True)
class Run:
    """The elements of a tensor from `start` on, `RUN` of them, in row-major order."""

    name: str
    shape: Shape
    start: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """At how many places two models were compared, and at how many of these the signs of their weights are equal.

    Attributes:
        agreeing, compared: these numbers.
        broken: a tensor most of whose places are not finite; empty if there is none.
    """

    agreeing: int
    compared: int
    broken: str = ""

    @property
    def similarity(self) -> float | None:
        """Estimated cosine of the weights, -1 to 1; None where too little could be compared.

        Of jointly normal weights with correlation r, a share of 1/2 + asin(r)/pi has equal signs.
        """
        if self.compared < MIN_COMPARED:
            return None
        return math.sin(math.pi / 2 * (2 * self.agreeing / self.compared - 1))


def sketch(layout: Layout, rows: Rows) -> Sketch:
    """Sketch the tensors of `layout` (canonical names) that have more than one axis longer than 1."""
    bits = np.packbits(_values(layout, rows) > 0, bitorder="little")
    return Sketch("signs-2048-v1", base64.b64encode(bits.tobytes().ljust(_BYTES, b"\0")).decode())


def agreement(stated: Sketch, layout: Layout, rows: Rows) -> Agreement:
    """Compare a model with a sketch of signs; `layout` is that of the tensors which it is of."""
    values = _values(layout, rows)
    bits = np.unpackbits(np.frombuffer(base64.b64decode(stated.values), np.uint8), bitorder="little")
    known = (values != 0) & np.isfinite(values)
    same = (values > 0) == bits[: len(values)].astype(bool)
    return Agreement(int((same & known).sum()), int(known.sum()), _broken(layout, values))


def broken(layout: Layout, rows: Rows) -> str:
    """The first tensor that a sketch would be of and most of whose places are not finite; empty if there is none."""
    return _broken(layout, _values(layout, rows))


def marked(values: torch.Tensor) -> torch.Tensor:
    """Weights with infinity for whatever is not finite, in float64."""
    return values.double().nan_to_num(nan=math.inf, posinf=math.inf, neginf=math.inf)


def _broken(layout: Layout, values: np.ndarray) -> str:
    if not np.isinf(values).any():
        return ""
    wrong, told = Counter[str](), Counter[str]()
    for run, found in zip(runs(layout), values.reshape(-1, RUN), strict=True):
        wrong[run.name] += int(np.isinf(found).sum())
        told[run.name] += int((~np.isnan(found)).sum())
    return next((name for name, count in wrong.items() if 2 * count > told[name]), "")


def runs(layout: Layout) -> tuple[Run, ...]:
    """Which elements a sketch is of: up to `RUNS` runs, spread evenly over all that the wide tensors offer."""
    return _runs(tuple(sorted((n, s) for n, s in layout.items() if is_wide(s))))


@lru_cache(maxsize=16)
def _runs(wide: tuple[tuple[str, Shape], ...]) -> tuple[Run, ...]:
    counts = [math.prod(shape) // RUN for _, shape in wide]
    total = sum(counts)
    draws = np.random.PCG64(_SEED).random_raw(RUNS).tolist()
    found: list[Run] = []
    at, passed = 0, 0  # the tensor that has the run looked for, and the runs before it
    for j, draw in enumerate(draws):
        low, high = j * total // RUNS, (j + 1) * total // RUNS
        if low == high:
            continue
        chosen = low + (draw * (high - low) >> 64)
        while chosen >= passed + counts[at]:
            passed += counts[at]
            at += 1
        found.append(Run(*wide[at], (chosen - passed) * RUN))
    return tuple(found)


def _values(layout: Layout, rows: Rows) -> np.ndarray:
    """The weights that a sketch is of, float64 [up to 2048]."""
    found: list[torch.Tensor] = []
    for run in runs(layout):
        length = math.prod(run.shape[1:])
        first, last = run.start // length, -(-(run.start + RUN) // length)
        found.append(rows(run.name, first, last).reshape(-1)[run.start - first * length :][:RUN])
    return torch.cat(found).to("cpu", torch.float64).numpy() if found else np.empty(0)


def count_similarity(stated: Sketch, layout: Layout, rows: Rows) -> float | None:
    """What `countsketch-256-v1` of formats 1 to 3 says of another model: an estimated cosine, 0 if either is empty.

    None where there is nothing that it would be of.
    """
    if not any(is_wide(shape) for shape in layout.values()):
        return None
    x = np.frombuffer(base64.b64decode(stated.values), np.int8).astype(np.float64)
    y = count_sketch(layout, rows).astype(np.float64)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else 0.0


def count_sketch(layout: Layout, rows: Rows) -> np.ndarray:
    """The int8 levels of that sketch; it is not written any more, for it reads up to 2^18 elements of every tensor."""
    total = np.zeros(_BYTES)
    for name, shape in sorted(layout.items()):
        if not is_wide(shape):
            continue
        needed = min(shape[0], -(-(2**18) // math.prod(shape[1:])))
        flat = rows(name, 0, needed).reshape(-1)[: 2**18].to("cpu", torch.float64).numpy()
        norm = float(np.linalg.norm(flat))
        if norm and math.isfinite(norm):
            total += _bucket_sums(name, flat) * (math.sqrt(flat.size) / norm)
    largest = float(np.abs(total).max())
    return np.round(total * (127 / largest)).astype(np.int8) if largest else np.zeros(_BYTES, np.int8)


def _bucket_sums(name: str, flat: np.ndarray) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(flat.size)
    buckets = (raw & np.uint64(_BYTES - 1)).astype(np.int64)
    signs = 1.0 - 2.0 * ((raw >> np.uint64(8)) & np.uint64(1)).astype(np.float64)
    return np.bincount(buckets, weights=flat * signs, minlength=_BYTES)
