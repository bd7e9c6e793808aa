"""Float deltas -> codes: rounded to the nearest, and so that every kernel keeps its sum (docs/SPEC.md, section 5).

What a kernel sees is smooth: neighbouring pixels are alike, so an error that sums to zero over a kernel's taps nearly
cancels, and one that does not passes whole. The second matters far more than its share of the squared error
(docs/DECISIONS.md, 2026-11-21).
"""

from __future__ import annotations

import math

import torch

from rws_hub.cells import Shape
from rws_hub.symbols import MAX_CODE

# What is left of a value after rounding, in whole numbers: such sums are the same in any order, on any machine.
_UNIT = 2**16
# A kernel's sum is off by a step, or more, where this much is left over.
_OFF = 3 * _UNIT // 4


def taps(shape: Shape) -> int:
    """How many neighbouring elements are one kernel: the axes behind outputs and inputs; 1 where there are none.

    A first axis of length 1 stands for a batch, not for outputs: such a tensor (a position embedding) has no kernels.
    """
    return math.prod(shape[2:]) if shape[0] > 1 else 1


def quantize(kernels: torch.Tensor, step: float) -> torch.Tensor:
    """Codes, int32 [n, taps], of as many kernels (floats, [n, taps]); `step` in their units, 0 for none but zeros.

    Every value goes to the nearest multiple. Then, where the values of a kernel are together so much larger or smaller
    than their multiples that one more or one less is nearer, those with the most left over take the next one.
    """
    if step == 0.0:
        return torch.zeros_like(kernels, dtype=torch.int32)
    exact = kernels.double() / step
    codes = exact.round().clamp_(-MAX_CODE, MAX_CODE)
    if kernels.shape[1] > 1:
        left = exact.sub_(codes).clamp_(-0.5, 0.5).mul_(_UNIT).round_().to(torch.int32)
        sums = left.sum(1, dtype=torch.int32)
        missing = (sums.abs() + _UNIT - _OFF) // _UNIT
        some = missing.nonzero()[:, 0]
        sign = sums[some].sign()[:, None]
        order = (left[some] * sign).argsort(dim=1, descending=True, stable=True)
        chosen = torch.arange(kernels.shape[1], device="cpu") < missing[some][:, None]
        moved = torch.zeros_like(codes[some]).scatter_(1, order, (chosen * sign).double())
        codes[some] += moved
    return codes.clamp_(-MAX_CODE, MAX_CODE).to(torch.int32)
