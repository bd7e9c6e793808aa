"""How coarse: the steps that an error or a number of bits asks for."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub import rate
from rws_hub.rate import Grid, Sampler, Target, choose, relative_step
from rws_hub.rounding import quantize, taps
from rws_hub.symbols import MAX_CODE, MAX_STEP, MIN_STEP, pack, top

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


def matrix(kind="heavy", scale=1.0, seed=0):
    """No kernels, and no linear layer's either, which could become factors."""
    return values(kind, scale, seed).reshape(-1, 50, 1)


def kernels(kind="heavy", scale=1.0, seed=0):
    return values(kind, scale, seed)[:18_000].reshape(100, 20, 3, 3)


def sample(*tensors, block=10**9):
    sampler = Sampler(1)
    for tensor in tensors:
        sampler.add("x", tuple(tensor.shape), tensor.split(block))
    return sampler.sample()


def codes_of(delta, grid):
    step = grid.step(tuple(delta.shape))
    return quantize(delta.reshape(-1, taps(delta.shape)), step).reshape(delta.shape), step


def error(grid, *deltas):
    """The relative error of all together, by other means than the code's."""
    missed = total = 0.0
    for delta in deltas:
        codes, step = codes_of(delta, grid)
        missed += np.linalg.norm(codes.double().numpy() * step - delta.double().numpy()) ** 2
        total += np.linalg.norm(delta.double().numpy()) ** 2
    return math.sqrt(missed / total)


def bits_taken(grid, *deltas):
    """Bits of one code, those that stand aside counted."""
    packed = [pack(codes_of(d, grid)[0], grid.width) for d in deltas]
    streams = torch.cat([stream for stream, _ in packed])
    symbols = streams if grid.width == 8 else torch.cat([streams & 15, streams >> 4])
    aside, count = sum(len(e) for _, e in packed), sum(d.numel() for d in deltas)
    shares = torch.unique(symbols, return_counts=True)[1].double() / len(symbols)
    return float(-(shares * shares.log2()).sum()) + 16 * aside / count


layouts = pytest.mark.parametrize("layout", [matrix, kernels])


@kinds
@layouts
@pytest.mark.parametrize("wanted", [0.01, 0.1, 0.35, 0.7])
@pytest.mark.parametrize("scale", [1e-4, 1e6])
def test_the_error_that_was_asked_for_is_met(kind, layout, wanted, scale):
    delta = layout(kind, scale)
    found = error(choose(sample(delta), Target("error", wanted)), delta)
    assert 0.98 * wanted < found <= wanted * (1 + 1e-6)


@kinds
@layouts
@pytest.mark.parametrize("wanted", [0.2, 1.0, 2.5, 6.0])
def test_the_bits_that_were_asked_for_are_met(kind, layout, wanted):
    delta = layout(kind)
    grid = choose(sample(delta), Target("bits", wanted))
    if kind == "sparse" and wanted > 1:  # more than all codes have to tell: as fine as they reach
        assert grid.step(delta.shape) == pytest.approx(float(delta.abs().max()) / MAX_CODE, rel=0.002)
    else:
        assert 0.95 * wanted < bits_taken(grid, delta) <= wanted + 0.01


@kinds
@given(st.lists(st.floats(0.001, 0.9), min_size=2, max_size=4), st.lists(st.floats(0.1, 8), min_size=2, max_size=4))
@settings(deadline=None, max_examples=10)
def test_more_error_is_coarser_and_more_bits_are_finer(kind, errors, bits):
    found = sample(values(kind)[:2000].reshape(-1, 50))
    steps = [choose(found, Target("error", e)).base for e in sorted(errors)]
    assert steps == sorted(steps)
    steps = [choose(found, Target("bits", b)).base for b in sorted(bits)]
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize("target", [Target("error", 0.3), Target("bits", 1.5)])
def test_a_target_speaks_of_all_tensors_together(target):
    small, large, pixels = matrix(seed=1)[:6], matrix("normal", 3.0, seed=2), kernels("laplace", 2.0)
    grid = choose(sample(small, large, pixels), target)
    found = (error if target.kind == "error" else bits_taken)(grid, small, large, pixels)
    assert found == pytest.approx(target.value, rel=0.02)


def test_a_tensor_of_sixteen_times_the_elements_has_twice_the_step():
    shapes = [(10, 20), (160, 20), (20, 160), (10, 20, 4, 4)]
    assert [relative_step(s) / relative_step((10, 20)) for s in shapes] == pytest.approx([1, 2, 2, 2])
    tensors = [matrix("normal", seed=i)[:rows] for i, rows in enumerate((10, 160))]
    grid = choose(sample(*tensors), Target("error", 0.1))
    small, large = (codes_of(t, grid)[1] for t in tensors)
    assert large / small == pytest.approx(2)


@pytest.mark.parametrize("layout", [matrix, kernels])
def test_of_a_large_tensor_a_part_is_enough(layout, monkeypatch):
    monkeypatch.setattr(rate, "_SAMPLE", 2**11)
    delta = layout("laplace")
    taken = sample(delta)
    (part,) = taken.parts
    assert part.values.numel() <= delta.numel() / 8
    assert part.values.numel() * part.weight == pytest.approx(delta.numel())
    assert taken.largest == pytest.approx(float(delta.abs().max()) / relative_step(delta.shape))
    assert error(choose(taken, Target("error", 0.3)), delta) == pytest.approx(0.3, rel=0.05)


def test_rows_are_not_looked_at_in_one_place_only(monkeypatch):
    period = 10
    monkeypatch.setattr(rate, "_SAMPLE", N // period)
    delta = torch.zeros(N // period, period)
    delta[:, 0] = 1  # as a matrix of which the first column alone has moved
    (part,) = sample(delta).parts
    assert 0.5 / period < float(part.values.mean()) * part.relative < 2 / period


@given(st.integers(2, 300), st.integers(2, 12), st.integers(1, 9), st.integers(1, 50), st.integers(1, 90))
@settings(deadline=None)
def test_blocks_of_any_size_give_the_same_sample_of_whole_kernels(rows, columns, length, limit, block):
    count = rows * columns
    delta = torch.arange(1, count + 1).float().reshape(rows, columns, 1).expand(-1, -1, length).contiguous()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(rate, "_SAMPLE", limit)
        (whole,), (parts,) = (sample(delta, block=b).parts for b in (rows, block))
    assert torch.equal(whole.values, parts.values)
    assert (
        (whole.weight, whole.relative)
        == (parts.weight, parts.relative)
        == (
            count / len(whole.values),
            pytest.approx((count * length) ** 0.25),
        )
    )
    kept = (whole.values * whole.relative).round()
    assert bool((kept == kept[:, :1]).all()) and len(kept[:, 0].unique()) == len(kept)
    assert whole.values.numel() >= min(count * length, limit) / 2


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50), any_target)
def test_whatever_the_values_the_step_and_its_codes_can_be_stored(numbers, target):
    delta = torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, 2)
    grid = choose(sample(delta), target)
    codes, step = codes_of(delta, grid)
    assert step == float(np.float32(step)) and grid.width in (4, 8)
    assert step == 0 if not delta.any() else MIN_STEP <= step <= MAX_STEP
    assert codes.dtype == torch.int32 and int(codes.abs().max()) <= MAX_CODE
    decoded = codes.float() * step
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
    delta = torch.tensor(numbers)[:, None].expand(-1, 2)
    found = choose(sample(delta), target).step(tuple(delta.shape))
    assert found == step if step is not None else found == 0 or MIN_STEP <= found <= MAX_STEP


def test_no_tensor_and_no_value_that_was_looked_at(monkeypatch):
    assert choose(sample(), Target("error", 0.3)) == Grid(0.0, 4)
    monkeypatch.setattr(rate, "_SAMPLE", 2)
    delta = torch.zeros(500, 2)
    delta.view(-1)[next(i for i in range(1000) if i not in rate._places(1000, 500))] = -2
    taken = sample(delta)
    assert not taken.parts[0].values.any() and taken.largest == pytest.approx(2 / 1000**0.25)
    assert codes_of(delta, choose(taken, Target("error", 0.3)))[0].unique().tolist() == [-1, 0]


@kinds
def test_symbols_are_wider_where_many_codes_would_stand_aside(kind):
    delta = matrix(kind)
    grids = [choose(sample(delta), Target("error", e)) for e in (0.001, 0.005, 0.02, 0.1, 0.3, 0.6)]
    for grid in grids:
        beyond = float((codes_of(delta, grid)[0].abs() > top(4)).float().mean())
        assert grid.width == (4 if beyond <= 0.01 else 8)
    assert (grids[0].width, grids[-1].width) == (8, 4)


def test_of_many_tensors_less_of_each_is_looked_at(monkeypatch):
    monkeypatch.setattr("rws_hub.rate._SAMPLES", 4000)
    delta = values().reshape(-1)[:10_000]
    few, many = Sampler(1), Sampler(40)
    for sampler, often in ((few, 1), (many, 40)):
        for _ in range(often):
            sampler.add("x", (10_000, 1), [delta])
    assert sum(p.values.numel() for p in few.sample().parts) >= 4000
    taken = many.sample().parts
    assert len(taken) == 40 and all(p.values.numel() == 100 and p.weight == 100 for p in taken)
    assert many.sample().largest == few.sample().largest
