"""Matrices to factors: how few bits, how exact, and where it pays."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub import RobustWeightSignature, factoring, patch
from rws_hub.codec import encode_factors, encode_wide, unpack
from rws_hub.factoring import cost, decompose, entropy, factor, factorable, pays, sampled
from rws_hub.factors import EXACT, TOP
from rws_hub.rate import Grid, Sampler, Target, choose


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def low_rank(m, n, rank=6, rest=0.02, seed=0):
    """What training does to a linear layer: much along few directions, a little along all."""
    sizes = 2.0 ** -torch.arange(rank)
    return (noise(m, rank, seed=seed) * sizes) @ noise(rank, n, seed=seed + 1) + rest * noise(m, n, seed=seed + 2)


def decoded(factors, m):
    """The delta that factors stand for, in float64."""
    codes, scales = factors.codes.double(), torch.exp2(factors.shifts.double())
    return (codes[:, :m].T * scales) @ codes[:, m:] * factors.step


def off(exact, found):
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 6), True),
        ((2, 2), True),
        ((1536, 8192), True),
        ((8192, 1536), True),
        ((1537, 1537), False),  # takes too long
        ((2, 2**24), False),
        ((1, 6), False),
        ((6, 1), False),
        ((6,), False),
        ((8, 6, 1, 1), False),  # measured for linear layers only
        ((8, 6, 3, 3), False),
    ],
)
def test_linear_layers_can_be_factors(shape, expected):
    assert factorable(shape) == expected


@settings(deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 2**16), st.floats(1e-12, 1e12))
def test_a_spectrum_is_the_matrix_taken_apart(m, n, seed, scale):
    matrix = noise(m, n, seed=seed).double() * scale
    found = decompose(matrix)
    assert off(matrix, found.left @ found.right.T) < 1e-5
    assert torch.equal(found.roots, found.roots.sort(descending=True).values)
    values = torch.linalg.svdvals(matrix)[: len(found.roots)]
    assert torch.allclose(found.roots.square(), values, rtol=1e-4, atol=1e-4 * float(values[0]))
    for side in (found.left, found.right):  # both take half of a component
        assert torch.allclose(side.norm(dim=0), found.roots, rtol=1e-3, atol=1e-3 * float(found.roots[0]))


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_what_has_no_spectrum(bad):
    assert decompose(torch.full((3, 4), bad)) is None


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 2**16), st.floats(0.01, 3))
def test_what_it_costs_is_what_it_takes(m, n, seed, coarse):
    delta = low_rank(m, n, seed=seed)
    spectrum, step = decompose(delta), coarse * float(delta.square().mean().sqrt())
    told = cost(spectrum, step)
    if told is None:
        return
    found = factor(delta, step)
    missed = float((decoded(found, m) - delta.double()).square().sum())
    assert told[0] == pytest.approx(missed, rel=1e-6, abs=1e-9)
    counts = torch.bincount(found.codes.reshape(-1).int() + TOP)
    assert told[1] == pytest.approx(entropy(counts) + 8 * len(found.shifts))
    assert int(found.codes.int().abs().max()) <= TOP and found.shifts.dtype == torch.uint8
    assert bool((found.codes[:, :m] != 0).any(1).all() and (found.codes[:, m:] != 0).any(1).all())
    sizes = found.codes[:, :m].int().abs().amax(1) * found.codes[:, m:].int().abs().amax(1)
    assert float((sizes.double() * torch.exp2(found.shifts.double())).sum()) <= EXACT
    assert int(found.shifts.min()) == 0


def test_entropy_is_that_of_shannon():
    assert entropy(torch.tensor([4, 4, 0])) == 8.0
    assert entropy(torch.tensor([7.0])) == 0.0
    assert entropy(torch.tensor([1, 2, 1])) == pytest.approx(6.0)


def test_a_sample_of_rows_tells_nearly_as_much():
    delta, elements = low_rank(400, 300, rest=0.1), 60_000
    whole = decompose(delta)
    some = sampled(whole, elements)
    assert len(some.left) * len(some.roots) + len(some.right) * len(some.roots) <= 1.1 * elements
    for step in (0.3, 0.6):
        (missed, bits), (exact, taken) = cost(some, step), cost(whole, step)
        assert math.sqrt(missed / exact) == pytest.approx(1, abs=0.1) and bits == pytest.approx(taken, rel=0.1)


def test_components_that_no_code_could_hold_are_rounded_more_coarsely():
    delta = low_rank(60, 50)
    spectrum = decompose(delta)
    steps = [0.5 / 2**i for i in range(20)]
    steps = steps[: [cost(spectrum, step) is None for step in steps].index(True)]
    assert 6 < len(steps) < 15  # with finer ones sums would not be exact
    assert cost(sampled(spectrum, 500), steps[-1] / 2) is None  # whichever rows are looked at
    found = [factor(delta, step) for step in steps]
    codes = [int(f.codes.int().abs().max()) for f in found]
    assert codes == sorted(codes) and codes[0] < TOP // 2 < codes[-1] <= TOP
    errors = [off(delta, decoded(f, 60)) for f in found]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.05 and errors[-1] < 0.02


def test_of_a_small_matrix_all_is_looked_at():
    whole = decompose(low_rank(30, 20))
    assert sampled(whole, 2**16).weights == (1.0, 1.0)


def test_it_pays_where_the_same_error_takes_fewer_bits():
    assert pays((1.0, 900), (1.0, 1000), 500) and not pays((1.0, 1000), (1.0, 900), 500)
    # Codes would need half a bit more each, 250 together, for half the squared error.
    assert pays((0.5, 1249), (1.0, 1000), 500) and not pays((0.5, 1251), (1.0, 1000), 500)
    assert pays((0.0, 5), (1.0, 1), 500) and not pays((1.0, 1), (0.0, 5), 500)


def grid_of(delta, error):
    sampler = Sampler(1)
    sampler.add("w", tuple(delta.shape), [delta])
    return choose(sampler.sample(), Target("error", error))


def bits_taken(delta, grid):
    """Bits of one weight, as factors or codes."""
    if grid.factored:
        found = factor(delta, grid.step(tuple(delta.shape)))
        return (entropy(torch.bincount(found.codes.reshape(-1).int() + TOP)) + 8 * len(found.shifts)) / delta.numel()
    codes = encode_wide(tuple(delta.shape), [delta], grid).packed
    values = unpack(codes, grid.width) / codes.parts["step"]
    return entropy(torch.unique(values, return_counts=True)[1]) / delta.numel()


@pytest.mark.parametrize("error", [0.1, 0.3, 0.5, 0.8])
def test_a_trained_layer_takes_half_of_what_its_codes_would(error, monkeypatch):
    delta = low_rank(192, 128, rest=0.1)
    found = grid_of(delta, error)
    assert found.factored == {"w"}
    encoded = encode_factors("w", (192, 128), delta.split(50), found)
    assert encoded.relative_error <= error * 1.01
    assert encoded.norm == pytest.approx(float(delta.double().norm()))
    monkeypatch.setattr(factoring, "pays", lambda *_: False)
    assert bits_taken(delta, found) < 0.6 * bits_taken(delta, grid_of(delta, error))


@pytest.mark.parametrize("error", [0.001, 0.005, 0.02, 0.05])
@pytest.mark.parametrize("rest", [0.0, 0.02, 0.2])
def test_where_codes_of_factors_end_the_error_is_met_all_the_same(error, rest, monkeypatch):
    delta = low_rank(96, 64, rest=rest)
    found = grid_of(delta, error)
    encode = encode_factors if found.factored else lambda _, *others: encode_wide(*others)
    assert encode("w", (96, 64), [delta], found).relative_error <= error * 1.01
    taken = bits_taken(delta, found)
    monkeypatch.setattr(factoring, "pays", lambda *_: False)
    assert taken <= 1.05 * bits_taken(delta, grid_of(delta, error))


def test_the_sign_of_a_pair_of_vectors_is_no_accident():
    for m, n in ((30, 20), (20, 30)):
        found = decompose(low_rank(m, n))
        short = found.right if m > n else found.left
        assert bool((short.gather(0, short.abs().argmax(0, keepdim=True)) > 0).all())


@pytest.mark.parametrize("error", [0.02, 0.1, 0.5, 0.85])
def test_noise_is_no_product(error):
    delta = noise(128, 128)
    assert not grid_of(delta, error).factored


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e20, 1e30, 1e37])
@pytest.mark.parametrize("error", [0.02, 0.5])
def test_deltas_of_any_size_can_be_stored(scale, error):
    delta = low_rank(40, 30) * scale
    found = grid_of(delta, error)
    encode = encode_factors if found.factored else lambda _, *rest: encode_wide(*rest)
    encoded = encode("w", (40, 30), [delta], found)
    assert encoded.relative_error < 1 and unpack(encoded.packed, found.width).isfinite().all()


def linear(seed=0, rank=4):
    """A model of two linear layers, and its robust twin."""
    standard = {"a.weight": noise(64, 48, seed=seed), "a.bias": noise(64, seed=seed + 1)}
    robust = {"a.weight": standard["a.weight"] + 0.05 * low_rank(64, 48, rank), "a.bias": standard["a.bias"] * 1.01}
    return standard, robust


def test_a_signature_of_factors_patches_as_it_says():
    standard, robust = linear()
    signature = RobustWeightSignature.extract(
        standard=standard, robust=robust, corruption="fog", license="mit", layers=["*"], error=0.3
    )
    facts = signature.config.tensors["a.weight"]
    assert facts.encoding == "factors" and signature.config.format_version == 5
    assert facts.rank == len(signature.tensors["a.weight"].parts["shifts"])
    exact = robust["a.weight"] - standard["a.weight"]
    assert facts.relative_error == pytest.approx(off(exact, signature.delta("a.weight")), rel=1e-2)
    model = torch.nn.Sequential(torch.nn.Linear(48, 64))
    model = torch.nn.ModuleDict({"a": model[0]})
    model.load_state_dict(standard)
    with patch(model, signature, alpha=0.5):
        found = model["a"].weight.detach().clone()
    step = float(signature.tensors["a.weight"].parts["step"])
    products = (signature.delta("a.weight") / step).round()
    scaled = torch.tensor(step * 0.5, dtype=torch.float64).float()
    assert torch.equal(found, standard["a.weight"] + products * scaled)
    assert torch.equal(model["a"].weight.detach(), standard["a.weight"])


def test_grids_without_factors_are_what_they_were():
    assert Grid(1.0, 4) == Grid(1.0, 4, frozenset())
