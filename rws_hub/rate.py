"""How coarse: the quantization steps for a wanted error or a wanted number of bits (docs/SPEC.md, section 5).

Every tensor's step is one base step, times the fourth root of how many elements the tensor has. Equal steps would be
where the squared error of all deltas together is least, but then a small layer loses far more of what it does than a
large one; steps by the square root would give all tensors the same error, and spend too many bits on the small ones.
What lies between kept most of what patched models answer, byte for byte (docs/DECISIONS.md, 2026-11-21). Rates are
order-0 entropies, which zstd comes close to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rws_hub import factoring
from rws_hub.cells import Shape
from rws_hub.rounding import quantize, taps
from rws_hub.spec import DEFAULT_ERROR, DEFAULT_MATRIX_ERROR, WIDTHS
from rws_hub.symbols import MAX_CODE, MAX_STEP, MIN_STEP, top

# Elements of one tensor, and of all of them, that are looked at.
_SAMPLE, _SAMPLES = 2**16, 2**22
# Share of codes that may stand aside before symbols become wider.
_RARE = 0.01
# Base steps that are tried lie between these multiples of the root mean square.
_FINEST, _COARSEST = 2.0**-12, 2.0**4


@dataclass(frozen=True, slots=True)
class Target:
    """What the steps are chosen for: a relative error of the codes, unitless, or bits for each of them.

    The default is an error, too, which hangs on how much of the delta is in linear layers.
    """

    kind: Literal["error", "bits", "default"]
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Grid:
    """The quantizers of all tensors: their base step, in the units of the weights, and symbols of `width` bits.

    `factored` are the tensors that are stored as factors.
    """

    base: float
    width: int
    factored: frozenset[str] = frozenset()

    def step(self, shape: Shape) -> float:
        """Of a tensor of this shape, as a payload can hold it: 0, or a float32 with normal, finite multiples."""
        wanted = self.base * relative_step(shape)
        return float(np.float32(min(max(wanted, MIN_STEP), MAX_STEP))) if wanted > 0 else 0.0


def relative_step(shape: Shape) -> float:
    """Step of a tensor over the base step, unitless."""
    return math.sqrt(math.sqrt(math.prod(shape)))  # rounded alike everywhere, as powers are not


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Kernels out of one tensor: values over its relative step, float64 [n, taps], each standing for `weight`.

    `matrix` is that of a linear layer; `spectrum` is a sample of its, where it may be stored as factors.
    """

    name: str
    values: torch.Tensor
    weight: float
    relative: float
    matrix: bool
    spectrum: factoring.Spectrum | None


@dataclass(frozen=True, slots=True)
class Sample:
    """Of all tensors; `largest` is the largest magnitude over its relative step, looked at or not."""

    parts: tuple[Part, ...]
    largest: float


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    """What one base step makes of all tensors: squared error; codes by magnitude, and bits of factors."""

    missed: float
    counts: NDArray[np.float64]
    factored: Mapping[str, float]

    @property
    def bits(self) -> float:
        """Of all of them."""
        return _bits(self.counts) + sum(self.factored.values())


class Sampler:
    """Takes one kernel out of every so many of each tensor, block by block."""

    def __init__(self, tensors: int) -> None:
        """For so many tensors: of many, less of each is looked at, so that all of it fits into memory."""
        self._each = min(_SAMPLE, _SAMPLES // max(1, tensors))
        self._parts: list[Part] = []
        self._largest = 0.0

    def add(self, name: str, shape: Shape, blocks: Iterable[torch.Tensor]) -> None:
        """One tensor that arrives as float32 blocks of whole rows."""
        spectrum = None
        if factoring.factorable(shape):
            blocks = [torch.cat([block.reshape(-1, shape[1]) for block in blocks])]
            if (whole := factoring.decompose(blocks[0])) is not None:
                spectrum = factoring.sampled(whole, self._each)
        length, relative = taps(shape), relative_step(shape)
        kernels = math.prod(shape) // length
        places, passed = _places(kernels, max(1, math.prod(shape) // self._each)), 0
        taken = []
        for block in blocks:
            found = block.reshape(-1, length)
            first, last = np.searchsorted(places, [passed, passed + len(found)])
            taken.append(found[torch.from_numpy(places[first:last] - passed)].double() / relative)
            passed += len(found)
            self._largest = max(self._largest, float(found.abs().max()) / relative)
        self._parts.append(Part(name, torch.cat(taken), kernels / len(places), relative, len(shape) == 2, spectrum))

    def sample(self) -> Sample:
        """All of it."""
        return Sample(tuple(self._parts), self._largest)


def _places(count: int, stride: int) -> NDArray[np.int64]:
    """Which kernels are looked at: a random one of every run; every k-th could be the same row of every matrix."""
    starts = np.arange(0, count, stride)
    # Raw words, whose stream numpy keeps; the last run can be shorter.
    drawn = np.random.PCG64(count).random_raw(len(starts)) % np.minimum(stride, count - starts).astype(np.uint64)
    return starts + drawn.astype(np.int64)


def choose(sample: Sample, target: Target) -> Grid:
    """The coarsest grid within the wanted error, or the finest within the wanted bits, as far as codes reach.

    With factors, where these pay, or with codes alone: what takes fewer bits for the error, or errs less with them.
    """
    energy = sum(_energy(p) for p in sample.parts)
    spread = sum(p.weight * _square(p.values) for p in sample.parts)
    if not spread > 0 or not math.isfinite(energy):
        # Nothing to quantize, or what was not looked at only; what is wrong with it is said elsewhere.
        return Grid(sample.largest if math.isfinite(sample.largest) else 0.0, WIDTHS[0])
    count = sum(p.weight * p.values.numel() for p in sample.parts)
    most = target.value**2 * energy
    if target.kind == "default":
        most = sum(_energy(p) * (DEFAULT_MATRIX_ERROR if p.matrix else DEFAULT_ERROR) ** 2 for p in sample.parts)
    rms = math.sqrt(spread / count)
    # No code has to be clamped at the finest one.
    finest = max(rms * _FINEST, sample.largest / MAX_CODE)
    found: list[tuple[float, Grid]] = []
    for factors in (False, True) if any(p.spectrum for p in sample.parts) else (False,):

        def misses(base: float, factors: bool = factors) -> bool:
            """Whether a step is too coarse for the error, or coarse enough for the bits."""
            taken = _take(sample, base, factors)
            return taken.bits <= target.value * count if target.kind == "bits" else taken.missed > most

        below, above = _threshold(misses, finest, max(rms * _COARSEST, 2 * finest))
        base = above if target.kind == "bits" else below
        taken = _take(sample, base, factors)
        worse = taken.missed if target.kind == "bits" else taken.bits
        # Factors end where their codes do: there finer steps need not err less, and no step may be fine enough.
        if not factors or target.kind == "bits" or taken.missed <= most:
            found.append((worse, Grid(base, _width(taken.counts), frozenset(taken.factored))))
    return min(found, key=lambda f: f[0])[1]


def _energy(part: Part) -> float:
    return part.weight * part.relative**2 * _square(part.values)


def _square(values: torch.Tensor) -> float:
    flat = values.reshape(-1)
    return float(flat @ flat)


def _take(sample: Sample, base: float, factors: bool) -> _Taken:
    """Every tensor as codes, or, if there are to be any, as factors where these pay."""
    missed, counts, factored = 0.0, np.zeros(MAX_CODE + 1), {}
    for part in sample.parts:
        codes, step = quantize(part.values, base), base * part.relative
        own = part.weight * torch.bincount(codes.abs().reshape(-1), minlength=MAX_CODE + 1).numpy()
        square = part.weight * part.relative**2 * _square(codes * base - part.values)
        cost = factoring.cost(part.spectrum, step) if factors and part.spectrum else None
        if cost is not None and factoring.pays(cost, (square, _bits(own)), own.sum()):
            square, factored[part.name] = cost
        else:
            counts += own
        missed += square
    return _Taken(missed, counts, factored)


def _width(counts: NDArray[np.float64]) -> int:
    """Bits of a symbol: 4, unless too many codes would stand aside."""
    return WIDTHS[0] if counts[top(WIDTHS[0]) + 1 :].sum() <= _RARE * counts.sum() else WIDTHS[1]


def _bits(counts: NDArray[np.float64]) -> float:
    """Bits of codes: the entropy of their symbols, sign and all, and 16 more where one stands aside."""
    if not (total := counts.sum()):
        return 0.0
    largest = top(_width(counts))
    shares = np.append(counts[: largest + 1], counts[largest + 1 :].sum()) / total
    zero, aside = shares[0], shares[-1]
    shares = shares[shares > 0]
    return float(total * (-(shares * np.log2(shares)).sum() + (1 - zero - aside) + 16 * aside))


def _threshold(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Where a condition that is false below and true above begins: two numbers one part in a thousand apart."""
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high
