"""How coarse: the quantization step for a wanted error or a wanted number of bits (docs/SPEC.md, section 5).

One step serves all tensors of a signature. For a given number of bits that is where the squared error of all deltas
together is least (reverse water-filling), and it is what kept most robustness where it was measured
(docs/DECISIONS.md). Rates are order-0 entropies, which zstd comes close to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rws_hub.spec import WIDTHS
from rws_hub.symbols import MAX_CODE, MAX_STEP, MIN_STEP, top

# A value is rounded up from here on, not from 0.5: fewer bits for the little error that it adds.
ROUND_UP = 0.6
# Elements of one tensor, and of all of them, that are looked at.
_SAMPLE, _SAMPLES = 2**16, 2**22
# Share of codes that may stand aside before symbols become wider.
_RARE = 0.01
# Steps that are tried lie between these multiples of the root mean square.
_FINEST, _COARSEST = 2.0**-12, 2.0**4


@dataclass(frozen=True, slots=True)
class Target:
    """What the step is chosen for: a relative error of the codes, unitless, or bits for each of them."""

    kind: Literal["error", "bits"]
    value: float


@dataclass(frozen=True, slots=True)
class Grid:
    """A quantizer: `step` in the units of the weights (a float32 value), symbols of `width` bits."""

    step: float
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Magnitudes out of all tensors, float64 [n], and how many elements each of them stands for, [n].

    `largest` is the largest magnitude of all elements, looked at or not.
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    largest: float


class Sampler:
    """Takes one element out of every so many of each tensor, block by block."""

    def __init__(self, tensors: int) -> None:
        """For so many tensors: of many, less of each is looked at, so that all of it fits into memory."""
        self._each = min(_SAMPLE, _SAMPLES // max(1, tensors))
        self._values: list[NDArray[np.float64]] = []
        self._weights: list[NDArray[np.float64]] = []
        self._largest = 0.0

    def add(self, count: int, blocks: Iterable[torch.Tensor]) -> None:
        """One tensor of `count` elements."""
        places, passed = _places(count, self._each), 0
        taken = []
        for block in blocks:
            flat = block.reshape(-1).abs().double().numpy()
            first, last = np.searchsorted(places, [passed, passed + len(flat)])
            taken.append(flat[places[first:last] - passed])
            passed += len(flat)
            self._largest = max(self._largest, float(flat.max()))
        values = np.concatenate(taken)
        self._values.append(values)
        self._weights.append(np.full(len(values), count / len(values)))

    def sample(self) -> Sample:
        """All of it."""
        nothing = np.empty(0)
        values, weights = (np.concatenate([nothing, *parts]) for parts in (self._values, self._weights))
        return Sample(values, weights, self._largest)


def _places(count: int, most: int) -> NDArray[np.int64]:
    """Which elements are looked at: a random one of every run; every k-th could be the same place of every kernel."""
    stride = max(1, count // most)
    starts = np.arange(0, count, stride)
    # Raw words, whose stream numpy keeps; the last run can be shorter.
    drawn = np.random.PCG64(count).random_raw(len(starts)) % np.minimum(stride, count - starts).astype(np.uint64)
    return starts + drawn.astype(np.int64)


def choose(sample: Sample, target: Target) -> Grid:
    """The coarsest grid within the wanted error, or the finest within the wanted bits, as far as codes reach."""
    total = float(sample.weights @ sample.values**2)
    if not total > 0 or not math.isfinite(total):
        # Nothing to quantize, or what was not looked at only; what is wrong with it is said elsewhere.
        found = sample.largest if math.isfinite(sample.largest) else 0.0
        return Grid(_step(found), WIDTHS[0])
    rms = math.sqrt(total / sample.weights.sum())

    def misses(step: float) -> bool:
        """Whether a step is too coarse for the error, or coarse enough for the bits: both happen from some step on."""
        codes = _codes(sample.values, step)
        if target.kind == "error":
            return float(sample.weights @ (codes * step - sample.values) ** 2) > target.value**2 * total
        return _rate(codes, sample.weights) <= target.value

    # No code has to be clamped at the finest one.
    finest = max(rms * _FINEST, sample.largest / MAX_CODE)
    below, above = _threshold(misses, finest, max(rms * _COARSEST, 2 * finest))
    step = _step(below if target.kind == "error" else above)
    return Grid(step, _width(_codes(sample.values, step), sample.weights))


def _step(wanted: float) -> float:
    """The step as a payload can hold it: 0, or a binary32 whose products with codes are normal and finite."""
    return float(np.float32(min(max(wanted, MIN_STEP), MAX_STEP))) if wanted > 0 else 0.0


def quantize(values: torch.Tensor, step: float) -> torch.Tensor:
    """Codes, int32, of the shape of `values` (float32)."""
    if step == 0.0:
        return torch.zeros_like(values, dtype=torch.int32)
    magnitude = values.abs().double().div_(step).add_(1 - ROUND_UP).floor_().clamp_(max=MAX_CODE)
    return torch.copysign(magnitude, values).to(torch.int32)


def _codes(magnitudes: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    return np.floor(magnitudes / step + (1 - ROUND_UP))


def _width(codes: NDArray[np.float64], weights: NDArray[np.float64]) -> int:
    """Bits of a symbol: 4, unless too many codes would stand aside."""
    return WIDTHS[0] if float(weights[codes > top(WIDTHS[0])].sum() / weights.sum()) <= _RARE else WIDTHS[1]


def _rate(codes: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Bits of one code: the entropy of its symbol, sign and all, and 16 more where it stands aside."""
    largest = top(_width(codes, weights))
    counts = np.bincount(np.minimum(codes, largest + 1).astype(np.int64), weights, largest + 2)
    shares = counts / counts.sum()
    zero, aside = shares[0], shares[-1]
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum() + (1 - zero - aside) + 16 * aside)


def _threshold(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Where a condition that is false below and true above begins: two numbers one part in a thousand apart."""
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high
