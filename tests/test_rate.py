"""How coarse: the step that an error or a number of bits asks for, and what becomes of values on it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub import rate
from rws_hub.rate import ROUND_UP, Grid, Sampler, Target, choose, quantize
from rws_hub.symbols import MAX_CODE, MAX_STEP, MIN_STEP, pack, symbols_of, top

N = 20_000
SHAPES = {
    "normal": lambda g: g.standard_normal(N),
    "laplace": lambda g: g.laplace(size=N),
    "heavy": lambda g: g.standard_t(3, N),
    "mixture": lambda g: g.standard_normal(N) * np.where(g.random(N) < 0.1, 10, 1),
    "sparse": lambda g: g.standard_normal(N) * (g.random(N) < 0.05),
}
kinds = pytest.mark.parametrize("kind", SHAPES)
any_target = st.builds(Target, st.just("error"), st.floats(0.001, 0.9)) | st.builds(
    Target, st.just("bits"), st.floats(0.1, 8)
)


def values(kind="heavy", scale=1.0, seed=0):
    return torch.from_numpy(SHAPES[kind](np.random.default_rng(seed)) * scale).float()


def sample(*tensors, block=10**9):
    sampler = Sampler(1)
    for tensor in tensors:
        sampler.add(tensor.numel(), tensor.split(block))
    return sampler.sample()


def error(delta, step):
    """The relative error, by other means than the code's."""
    exact = delta.double().numpy()
    return np.linalg.norm(quantize(delta, step).numpy() * step - exact) / np.linalg.norm(exact)


def bits_taken(delta, grid):
    """Bits of one code, those that stand aside counted."""
    stream, escapes = pack(quantize(delta, grid.step), grid.width)
    shares = torch.unique(symbols_of(stream, grid.width), return_counts=True)[1].double() / delta.numel()
    return float(-(shares * shares.log2()).sum()) + 16 * len(escapes) / delta.numel()


@kinds
@pytest.mark.parametrize("wanted", [0.01, 0.1, 0.35, 0.7])
@pytest.mark.parametrize("scale", [1e-4, 1e6])
def test_the_error_that_was_asked_for_is_met(kind, wanted, scale):
    delta = values(kind, scale)
    found = error(delta, choose(sample(delta), Target("error", wanted)).step)
    assert 0.98 * wanted < found <= wanted * (1 + 1e-6)


@kinds
@pytest.mark.parametrize("wanted", [0.2, 1.0, 2.5, 6.0])
def test_the_bits_that_were_asked_for_are_met(kind, wanted):
    delta = values(kind)
    grid = choose(sample(delta), Target("bits", wanted))
    if kind == "sparse" and wanted > 1:  # more than all codes have to tell: as fine as they reach
        assert grid.step == pytest.approx(float(delta.abs().max()) / MAX_CODE, rel=0.002)
    else:
        assert 0.95 * wanted < bits_taken(delta, grid) <= wanted + 0.01


@kinds
@given(st.lists(st.floats(0.001, 0.9), min_size=2, max_size=4), st.lists(st.floats(0.1, 8), min_size=2, max_size=4))
@settings(deadline=None, max_examples=10)
def test_more_error_is_coarser_and_more_bits_are_finer(kind, errors, bits):
    found = sample(values(kind)[:2000])
    steps = [choose(found, Target("error", e)).step for e in sorted(errors)]
    assert steps == sorted(steps)
    steps = [choose(found, Target("bits", b)).step for b in sorted(bits)]
    assert steps == sorted(steps, reverse=True)


def test_one_step_serves_all_tensors_and_weighs_them_by_their_elements():
    small, large = values(seed=1)[:300], values("normal", 3.0, seed=2)
    step = choose(sample(small, large), Target("error", 0.3)).step
    assert error(torch.cat([small, large]), step) == pytest.approx(0.3, rel=0.02)
    assert step == choose(sample(torch.cat([small, large])), Target("error", 0.3)).step


def test_of_a_large_tensor_a_part_is_enough(monkeypatch):
    monkeypatch.setattr(rate, "_SAMPLE", 2**11)
    delta = values("laplace")
    taken = sample(delta)
    assert len(taken.values) < N / 8 and taken.weights.sum() == pytest.approx(N)
    assert taken.largest == float(delta.abs().max())
    assert error(delta, choose(taken, Target("error", 0.3)).step) == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("period", [9, 16])
def test_kernels_are_not_looked_at_in_one_place_only(period, monkeypatch):
    monkeypatch.setattr(rate, "_SAMPLE", N // period)
    delta = torch.zeros(N)
    delta[::period] = 1  # as a kernel of which the first element alone has moved
    assert 0.5 / period < sample(delta).values.mean() < 2 / period


@given(st.integers(1, 3000), st.integers(1, 50), st.integers(1, 700))
@settings(deadline=None)
def test_blocks_of_any_size_give_the_same_sample(count, limit, block):
    delta = torch.arange(1, count + 1).float()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(rate, "_SAMPLE", limit)
        whole, parts = sample(delta), sample(delta, block=block)
    assert np.array_equal(whole.values, parts.values) and np.array_equal(whole.weights, parts.weights)
    assert whole.largest == parts.largest == count
    assert len(np.unique(whole.values)) == len(whole.values) >= min(count, limit)
    assert whole.weights.sum() == pytest.approx(count)


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50), any_target)
def test_whatever_the_values_the_step_and_its_codes_can_be_stored(numbers, target):
    delta = torch.tensor(numbers, dtype=torch.float32)
    grid = choose(sample(delta), target)
    assert grid.step == float(np.float32(grid.step)) and grid.width in (4, 8)
    assert grid.step == 0 if not delta.any() else MIN_STEP <= grid.step <= MAX_STEP
    codes = quantize(delta, grid.step)
    assert codes.dtype == torch.int32 and int(codes.abs().max()) <= MAX_CODE
    decoded = codes.float() * grid.step
    assert decoded.isfinite().all() and bool(((decoded == 0) | (decoded.abs() >= MIN_STEP)).all())
    assert bool((decoded * delta.sign() >= 0).all())


@pytest.mark.parametrize("target", [Target("error", 0.35), Target("bits", 2.0)])
@pytest.mark.parametrize(
    ("numbers", "step"),
    [
        ([0.0, 0.0], 0.0),
        ([-0.0], 0.0),
        ([1e-40, -1e-45], MIN_STEP),
        ([1e38, -3e38], None),
        ([math.nan, 1.0], None),
        ([math.inf, 1.0], None),
        ([1.0] * 9 + [math.inf], None),
    ],
)
def test_odd_values_are_no_reason_to_fail(numbers, step, target):
    found = choose(sample(torch.tensor(numbers)), target).step
    assert found == step if step is not None else found == 0 or MIN_STEP <= found <= MAX_STEP


def test_no_tensor_and_no_value_that_was_looked_at(monkeypatch):
    assert choose(sample(), Target("error", 0.3)) == Grid(0.0, 4)
    monkeypatch.setattr(rate, "_SAMPLE", 1)
    delta = torch.zeros(1000)
    delta[next(i for i in range(1000) if i not in rate._places(1000, 2**16))] = -2
    taken = sample(delta)
    assert not taken.values.any() and taken.largest == 2
    assert quantize(delta, choose(taken, Target("error", 0.3)).step).unique().tolist() == [-1, 0]


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1), st.floats(2.0**-3, 2.0**9, width=32))
def test_a_value_is_rounded_up_late_and_never_further_than_that(numbers, step):
    delta = torch.tensor(numbers, dtype=torch.float32)
    codes = quantize(delta, step)
    inside = delta.abs() <= MAX_CODE * step
    off = codes.double() * step - delta.double()
    assert bool((off.abs()[inside] <= ROUND_UP * step * (1 + 1e-9)).all())
    outwards = (off * delta.sign())[inside]  # away from zero
    assert bool((outwards <= (1 - ROUND_UP) * step * (1 + 1e-9)).all())
    assert torch.equal(quantize(-delta, step), -codes)
    assert torch.equal(quantize(codes.float() * step, step), codes)
    assert not codes[delta == 0].any()


@pytest.mark.parametrize(
    ("value", "code"), [(0.59, 0), (0.61, 1), (-0.59, 0), (-0.61, -1), (6.5, 6), (-6.7, -7), (1e9, MAX_CODE)]
)
def test_codes_written_down_by_hand(value, code):
    assert quantize(torch.tensor([2 * value]), 2.0).tolist() == [code]
    assert quantize(torch.tensor([value]), 0.0).tolist() == [0]


@kinds
def test_symbols_are_wider_where_many_codes_would_stand_aside(kind):
    delta = values(kind)
    grids = [choose(sample(delta), Target("error", e)) for e in (0.001, 0.005, 0.02, 0.1, 0.3, 0.6)]
    for grid in grids:
        beyond = float((quantize(delta, grid.step).abs() > top(4)).float().mean())
        assert grid.width == (4 if beyond <= 0.01 else 8)
    assert (grids[0].width, grids[-1].width) == (8, 4)
