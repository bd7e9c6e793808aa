"""Matrix deltas -> factors: what a linear layer learned lies along few directions (docs/SPEC.md, section 5).

The singular vectors of a delta are rounded, those of large singular values more finely: a component's two vectors,
each times the square root of its value s, have the step q / 2^e with 2^e the power of two nearest to that root. An
error in any of their elements then weighs the same in the product, and the same as a code rounded with the step q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rws_hub.cells import Shape
from rws_hub.factors import EXACT, MAX_STEP, TOP
from rws_hub.symbols import MIN_STEP

# Beyond this the decomposition takes more time and memory than an extraction should.
_MAX_SIDE, _MAX_ELEMENTS = 1536, 2**24
# A component is one only if its singular value is so much of the largest.
_RELEVANT = 1e-6
# Bits of a component's shift.
_SHIFT_BITS = 8
# What a bit has to save in squared error, over the step's square: 2 ln 2 / 12, the slope of uniform quantization.
_SLOPE = math.log(2) / 6
# Bits of a code that is not zero, beyond saying so: its sign, and what it is.
_MORE_BITS = 1.5


def factorable(shape: Shape) -> bool:
    """Whether a delta of this shape may be stored as factors: the matrix of a linear layer, and not too large."""
    return len(shape) == 2 and 1 < min(shape) <= _MAX_SIDE and math.prod(shape) <= _MAX_ELEMENTS


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Singular vectors times the roots of their values: left [m, r], right [n, r], roots [r], float64, largest first.

    Rows may be a sample; those of the left then stand for `weights[0]` rows each, and those of the right for
    `weights[1]`. `largest` [r] are the largest magnitudes of any row, looked at or not.
    """

    left: torch.Tensor
    right: torch.Tensor
    roots: torch.Tensor
    largest: torch.Tensor
    weights: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """Codes (int8 [r, m + n]), shifts (uint8 [r]) and the step that makes values of their product."""

    codes: torch.Tensor
    shifts: torch.Tensor
    step: float


def decompose(matrix: torch.Tensor) -> Spectrum | None:
    """Of a matrix [m, n]; None if it is zero or not finite."""
    exact = matrix.double()
    tall = exact if len(exact) >= exact.shape[1] else exact.T
    gram = tall.T @ tall
    if not bool(torch.isfinite(gram).all()) or not float(gram.trace()) > 0:
        return None
    squares, vectors = torch.linalg.eigh(gram)
    kept = squares > _RELEVANT**2 * squares[-1]
    roots, vectors = squares[kept].flip(0).sqrt().sqrt(), vectors[:, kept].flip(1)
    long, short = (tall @ vectors) / roots, vectors * roots
    # Which of two opposite vectors is found hangs on the number of threads; which is kept does not.
    signs = short.gather(0, short.abs().argmax(0, keepdim=True)).sign()
    long, short = long * signs, short * signs
    largest = torch.maximum(long.abs().amax(0), short.abs().amax(0))
    return Spectrum(long, short, roots, largest) if tall is exact else Spectrum(short, long, roots, largest)


def sampled(spectrum: Spectrum, elements: int) -> Spectrum:
    """Every so many-th row of both sides, so that there are about so many elements."""
    stride = max(1, -(-(len(spectrum.left) + len(spectrum.right)) * len(spectrum.roots) // elements))
    left, right = spectrum.left[::stride], spectrum.right[::stride]
    weights = (len(spectrum.left) / len(left), len(spectrum.right) / len(right))
    return Spectrum(left.clone(), right.clone(), spectrum.roots, spectrum.largest, weights)


@dataclass(frozen=True, slots=True, eq=False)
class _Rounded:
    """A spectrum as codes, left [m, r] and right [n, r]; of each component the step, and whether it is worth its bits.

    `missed` is the squared error of a component that is kept.
    """

    left: torch.Tensor
    right: torch.Tensor
    fine: torch.Tensor
    missed: torch.Tensor
    worth: torch.Tensor


def cost(spectrum: Spectrum, step: float) -> tuple[float, float] | None:
    """Squared error and bits of a delta as factors; None where nothing would be left of it, or too much to be exact.

    Of a sample the error is told as if those of the components did not meet, which they hardly do in large matrices.
    """
    found = _rounded(spectrum, step)
    some, finest = found.worth, float(found.fine.min())
    codes = spectrum.largest * found.fine.reciprocal() + 0.5
    reach = float((codes * (found.fine / finest))[codes >= 1].square().sum())
    if reach > EXACT or not MIN_STEP < finest**2 < MAX_STEP or not bool(some.any()):
        return None
    counts = torch.zeros(2 * TOP + 1, dtype=torch.float64, device="cpu")
    for side, weight in zip((found.left, found.right), spectrum.weights, strict=True):
        counts += weight * torch.bincount((side[:, some] + TOP).long().reshape(-1), minlength=2 * TOP + 1)
    if spectrum.weights == (1.0, 1.0):
        left, right = (side[:, some] * found.fine[some] for side in (found.left, found.right))
        missed = (left @ right.T - spectrum.left @ spectrum.right.T).square().sum()
    else:
        missed = torch.where(some, found.missed, spectrum.roots.square().square()).sum()
    return float(missed), _SHIFT_BITS * int(some.sum()) + entropy(counts)


def entropy(counts: torch.Tensor) -> float:
    """Bits of all symbols that were counted, in an order-0 code."""
    found = counts[counts > 0].double()
    return float(-(found * (found / found.sum()).log2()).sum())


def pays(factors: tuple[float, float], codes: tuple[float, float], elements: float) -> bool:
    """Whether factors take fewer bits than codes of the same error; both are given as squared error and bits.

    Codes get finer by a bit for half the error. Which squared error is worth which bits is not asked: what coarse codes
    lose first is what a layer as a whole does along its few large directions, and answers hang on that.
    """
    if not factors[0] or not codes[0]:
        return factors < codes
    return factors[1] < codes[1] + elements / 2 * math.log2(codes[0] / factors[0])


def factor(matrix: torch.Tensor, step: float) -> Factors:
    """The factors of a delta [m, n] that has a spectrum, and a `cost` with this step."""
    spectrum = decompose(matrix)
    assert spectrum is not None
    found = _rounded(spectrum, step)
    some = found.worth
    if not bool(some.any()):  # a sample can think better of a component than all rows do
        some = (found.left != 0).any(0) & (found.right != 0).any(0)
    fine = found.fine[some]
    shifts = 2 * (fine / fine.min()).log2()
    codes = torch.cat([found.left, found.right])[:, some].T.to(torch.int8).contiguous()
    return Factors(codes, shifts.to(torch.uint8), float(fine.min()) ** 2)


def _rounded(spectrum: Spectrum, step: float) -> _Rounded:
    """Codes for a step over powers of two that are near to the roots, as far as codes can hold it.

    A component is worth its bits if it saves more squared error than they have to: what is left are few, as quick to
    multiply.
    """
    wanted, possible = spectrum.roots.log2().round(), (TOP * step / spectrum.largest).log2().floor()
    fine = step / torch.exp2(torch.minimum(wanted, possible))
    sides, missed, filled = [], torch.zeros_like(fine), torch.zeros_like(fine)
    for exact, weight in zip((spectrum.left, spectrum.right), spectrum.weights, strict=True):
        codes = (exact * fine.reciprocal()).round()
        missed += weight * (codes * fine - exact).square().sum(0)
        filled += weight * (codes != 0).sum(0)
        sides.append(codes)
    total = spectrum.weights[0] * len(spectrum.left) + spectrum.weights[1] * len(spectrum.right)
    squares, share = spectrum.roots.square(), filled / total
    # Zeros and others; xlogy makes nothing of what is not there.
    told = -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)) / math.log(2)
    bits = total * told + _MORE_BITS * filled + _SHIFT_BITS
    missed = squares * missed
    left, right = sides
    return _Rounded(left, right, fine, missed, squares.square() - missed > _SLOPE * step**2 * bits)
