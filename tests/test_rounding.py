"""Values to codes: to the nearest, and kernels keep their sums."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub.rounding import quantize, taps
from rws_hub.symbols import MAX_CODE

steps = st.floats(2.0**-3, 2.0**9, width=32)
numbers = st.floats(-1e4, 1e4, width=32)


def alone(values, step):
    """Codes of values that are no kernels."""
    return quantize(values.reshape(-1, 1), step).reshape(values.shape)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "count"),
    [((4, 3), 1), ((4, 3, 1, 1), 1), ((4, 3, 3, 3), 9), ((4, 1, 7, 7), 49), ((4, 3, 5), 5), ((1, 197, 768), 1)],
)
def test_what_is_a_kernel(shape, count):
    assert taps(shape) == count


@given(st.lists(numbers, min_size=1), steps)
def test_what_is_no_kernel_goes_to_the_nearest_multiple(values, step):
    delta = torch.tensor(values, dtype=torch.float32)
    codes = alone(delta, step)
    inside = delta.abs() <= MAX_CODE * step
    off = codes.double() * step - delta.double()
    assert bool((off.abs()[inside] <= step / 2 * (1 + 1e-9)).all())
    assert torch.equal(alone(-delta, step), -codes)
    assert torch.equal(alone(codes.float() * step, step), codes)
    assert not codes[delta == 0].any()


@pytest.mark.parametrize(
    ("value", "code"), [(0.49, 0), (0.51, 1), (-0.49, 0), (-0.51, -1), (6.4, 6), (-6.6, -7), (1e9, MAX_CODE)]
)
def test_codes_written_down_by_hand(value, code):
    assert alone(torch.tensor([2 * value]), 2.0).tolist() == [code]
    assert alone(torch.tensor([value]), 0.0).tolist() == [0]


@pytest.mark.parametrize(
    ("kernel", "codes"),
    [
        ([0.4, 0.3, 0.0], [0, 0, 0]),  # 0.7 is missing: not yet a step
        ([0.4, 0.4, 0.0], [1, 0, 0]),  # 0.8 is; of equals the first
        ([0.3, 0.4, 0.3], [0, 1, 0]),
        ([-0.3, -0.4, -0.3], [0, -1, 0]),
        ([0.4, 0.4, -0.4], [0, 0, 0]),
        ([1.6, 1.6, 0.0], [1, 2, 0]),  # too much by 0.8
        ([0.45] * 9, [1, 1, 1, 1, 0, 0, 0, 0, 0]),  # 4.05 are missing
        ([1e9, 0.0, 0.0], [MAX_CODE, 0, 0]),  # what a code cannot reach is not made good elsewhere
        ([MAX_CODE + 0.4, MAX_CODE + 0.4, 0.0], [MAX_CODE, MAX_CODE, 0]),
    ],
)
def test_a_kernel_keeps_its_sum(kernel, codes):
    values = torch.tensor([kernel], dtype=torch.float64)
    assert quantize(values, 1.0).tolist() == [codes]
    assert quantize(0.25 * values, 0.25).tolist() == [codes]
    assert quantize(torch.cat([values, -values]), 1.0).tolist() == [codes, [-c for c in codes]]


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(2, 60), st.floats(0.01, 20), st.integers(0, 99))
def test_sums_are_off_by_less_than_a_step_and_values_by_no_more(kernels, length, step, seed):
    values = noise(kernels, length, seed=seed)
    codes = quantize(values, step)
    off = values.double() / step - codes
    assert codes.dtype == torch.int32 and codes.shape == values.shape
    assert float(off.sum(1).abs().max()) <= 0.75 + length * 2**-16
    assert float(off.abs().max()) <= 1
    assert not bool((codes * values < 0).any())  # nothing changes its sign


def test_most_of_the_error_of_a_sum_is_gone_and_little_is_added_elsewhere():
    values = noise(5000, 9)
    off, plain = values - quantize(values, 2.0) * 2.0, values - alone(values, 2.0) * 2.0
    assert off.sum(1).square().mean() < 0.25 * plain.sum(1).square().mean()
    assert off.square().mean() < 1.2 * plain.square().mean()


@pytest.mark.parametrize("length", [1, 9])
def test_every_kernel_is_on_its_own(length):
    values = noise(300, length)
    whole = quantize(values, 0.7)
    assert torch.equal(torch.cat([quantize(part, 0.7) for part in values.split(7)]), whole)
    order = torch.from_numpy(np.random.default_rng(0).permutation(300))
    assert torch.equal(quantize(values[order], 0.7), whole[order])
