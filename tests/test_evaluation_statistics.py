"""Accuracies with their intervals, gains and mCE, against direct computation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rws_hub import EvaluationError
from rws_hub.evaluation.statistics import gain, mean_corruption_error, top1


def answers(count: int, *chances: float, seed: int = 0) -> list[NDArray[np.bool_]]:
    """One row for each chance of being right; rows of the same images, so they go together."""
    luck = np.random.default_rng(seed).random(count)
    return [luck < chance for chance in chances]


def directly(values: NDArray[np.float64], seed: int = 1, resamples: int = 4000) -> tuple[float, float]:
    """The interval by drawing images with replacement, one resample after the other."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.parametrize("chances", [(0.8,), (0.5, 0.3), (0.9, 0.5, 0.1)])
def test_interval_of_an_accuracy(chances: tuple[float, ...]) -> None:
    rows = answers(400, *chances)
    found = top1(rows)
    values = np.mean(rows, axis=0)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(directly(values), abs=0.008)
    assert top1(rows) == found


def test_more_images_tell_more() -> None:
    few, many = (top1(answers(n, 0.7)) for n in (100, 10_000))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.2)
    normal = 2 * 1.96 * np.sqrt(many.mean * (1 - many.mean) / 10_000)
    assert many.high - many.low == pytest.approx(normal, rel=0.1)


def test_no_doubt() -> None:
    found = top1([np.ones(50, np.bool_)])
    assert (found.mean, found.low, found.high) == (1, 1, 1)


def test_a_gain_is_paired() -> None:
    before, after = answers(500, 0.5, 0.6)
    found = gain([before], [after])
    differences = after.astype(float) - before
    assert found.mean == pytest.approx(differences.mean()) and found.low > 0
    assert (found.low, found.high) == pytest.approx(directly(differences), abs=0.008)
    (stranger,) = answers(500, 0.6, seed=9)
    alone = gain([before], [stranger])
    assert found.high - found.low < 0.7 * (alone.high - alone.low)


def test_mean_corruption_error() -> None:
    errors = {"fog": [0.1, 0.3], "snow": [0.6]}
    reference = {"fog": [0.2, 0.6], "snow": [0.5], "frost": [0.9]}
    assert mean_corruption_error(errors, reference) == pytest.approx((0.4 / 0.8 + 0.6 / 0.5) / 2)
    assert mean_corruption_error(reference, reference) == 1


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"snow": [0.5]}, "the reference has 0 severities of fog where 2 were measured"),
        ({"fog": [0.5]}, "the reference has 1 severities of fog where 2 were measured"),
        ({"fog": [0.0, 0.0]}, "or no error at all there"),
    ],
)
def test_a_reference_that_does_not_do(reference: dict[str, list[float]], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        mean_corruption_error({"fog": [0.1, 0.3]}, reference)


def test_a_reference_for_nothing() -> None:
    with pytest.raises(EvaluationError, match="a reference is for corruptions, and none is measured: leave it out"):
        mean_corruption_error({}, {"fog": [0.5]})
