"""Numbers from which images were answered rightly: top-1, intervals by bootstrap, mean corruption error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rws_hub.errors import EvaluationError

Right = NDArray[np.bool_]  # [images]

_RESAMPLES = 2000
INTERVAL = f"95 %, percentiles of {_RESAMPLES} bootstrap resamples of the images"
# Of a resampling table, so that memory stays small whatever the number of images.
_BLOCK = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over images, and the 95 % interval of its bootstrap (percentiles; images are drawn anew with replacement).

    Attributes:
        mean, low, high: fractions from 0 to 1, or differences of such.
    """

    mean: float
    low: float
    high: float


def top1(rows: Sequence[Right], seed: int = 0) -> Estimate:
    """Accuracy, averaged over several conditions of the same images.

    Args:
        rows: one or more conditions, each [images], of the same images in the same order.
        seed: of the resampling.
    """
    return _bootstrap(np.mean(np.stack(rows), axis=0, dtype=np.float64), seed)


def gain(before: Sequence[Right], after: Sequence[Right], seed: int = 0) -> Estimate:
    """The difference of two accuracies on the same images, averaged over conditions; paired, so tighter than either."""
    difference = np.stack(after).astype(np.float64) - np.stack(before)
    return _bootstrap(difference.mean(axis=0), seed)


def _bootstrap(values: NDArray[np.float64], seed: int) -> Estimate:
    rng = np.random.default_rng(seed)
    count = len(values)
    # Images with one and the same value are exchangeable: how often each value is drawn is all that matters.
    levels, sizes = np.unique(values, return_counts=True)
    drawn = [rng.multinomial(count, sizes / count, size=_BLOCK) @ levels / count for _ in range(_RESAMPLES // _BLOCK)]
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))


def mean_corruption_error(errors: Mapping[str, Sequence[float]], reference: Mapping[str, Sequence[float]]) -> float:
    """The mCE of Hendrycks and Dietterich (ICLR 2019, arXiv 1903.12261); 1 is as good as the reference.

    It is the mean, over corruptions, of the error summed over severities, divided by that of a reference model.

    Args:
        errors: corruption -> top-1 error at each severity, fractions.
        reference: likewise, of the reference.

    Raises:
        EvaluationError: there is no corruption, or the reference lacks one or a severity, or makes no error there.
    """
    if not errors:
        raise EvaluationError("a reference is for corruptions, and none is measured: leave it out")
    ratios = []
    for corruption, found in errors.items():
        theirs = reference.get(corruption, ())
        if len(theirs) != len(found) or not sum(theirs) > 0:
            raise EvaluationError(
                f"the reference has {len(theirs)} severities of {corruption} where {len(found)} were measured, or no "
                "error at all there; measure the reference with the same corruptions and severities"
            )
        ratios.append(sum(found) / sum(theirs))
    return float(np.mean(ratios))
