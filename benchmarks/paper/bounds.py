"""How few bits a weight could take at a given squared error, if every weight is coded by itself.

Two numbers for one tensor, whose values are taken as drawn from one distribution, in no order:

- `scalar_bits`: empirical entropy-coded scalar quantization. Of all uniform quantizers with a dead zone (one step, one
  place from which a value is rounded up), each reconstructed at the means of its cells, those that keep the error;
  and of their codes the order-0 entropy, as an ideal coder would take that knows this tensor's histogram for nothing.
  No coder of single codes does better with such a quantizer; it is a bound for our kind of format.
- `shannon_bits`: Shannon's lower bound, h(X) - log2(2 pi e D) / 2, or 0, with the differential entropy h estimated from
  spacings (Vasicek 1976). No coder of any kind does better on values without order; real tensors may have order.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# From which share of a step on a value is rounded up: 0.5 is to the nearest.
_ROUND_UP = (0.5, 0.55, 0.6, 0.65, 0.7)
_PARTS_IN = 1e-3

Values = NDArray[np.float64]


def scalar_bits(values: Values, error: float) -> float:
    """Bits for each of `values` [n] at a mean squared error of at most `error`, in their unit squared."""
    spread = float(np.mean(values**2))
    if spread <= error:
        return 0.0
    return min(_bits_from(values, error, up, math.sqrt(spread)) for up in _ROUND_UP)


def shannon_bits(values: Values, error: float) -> float:
    """Bits for each of `values` [n] at a mean squared error of `error`, in their unit squared."""
    return max(0.0, _differential_entropy(values) - math.log2(2 * math.pi * math.e * error) / 2)


def code_bits(decoded: Values) -> float:
    """Order-0 entropy of what a quantizer made of one tensor, [n], in bits for each value."""
    return _entropy(np.unique(decoded, return_counts=True)[1])


def _bits_from(values: Values, error: float, up: float, rms: float) -> float:
    """Entropy at the coarsest step that keeps the error, if values are rounded up from `up` on."""
    low, high = rms * 2**-8, rms * 2**4
    if _quantized(values, low, up)[0] > error:
        raise ValueError(f"a mean squared error of {error:g} is finer than the finest step tried, {low:g}")
    while high / low > 1 + _PARTS_IN:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _quantized(values, middle, up)[0] <= error else (low, middle)
    return _quantized(values, low, up)[1]


def _quantized(values: Values, step: float, up: float) -> tuple[float, float]:
    """Mean squared error around the means of the cells, and order-0 entropy of the codes in bits."""
    codes = np.copysign(np.floor(np.abs(values) / step + (1 - up)), values).astype(np.int64)
    codes -= codes.min()
    counts = np.bincount(codes)
    sums = np.bincount(codes, values)
    filled = counts > 0
    counts, sums = counts[filled], sums[filled]
    error = float(np.mean(values**2) - (sums**2 / counts).sum() / len(values))
    return error, _entropy(counts)


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _differential_entropy(values: Values) -> float:
    """Vasicek's estimate in bits, spacings of about the square root of n."""
    ordered = np.sort(values)
    n = len(ordered)
    m = max(1, round(math.sqrt(n)))
    after = ordered[np.minimum(np.arange(n) + m, n - 1)]
    before = ordered[np.maximum(np.arange(n) - m, 0)]
    gaps = np.maximum(after - before, np.finfo(np.float64).tiny)
    return float(np.mean(np.log2(gaps * n / (2 * m))))
