"""The rivals of the paper's bench are what their authors say, in the bytes they would take; the bounds are bounds."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "benchmarks" / "paper"))

import bounds
import rivals


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(exact: torch.Tensor, decoded: torch.Tensor) -> float:
    return float((decoded - exact).norm() / exact.norm())


def test_signs_keep_sign_and_mean_magnitude_at_one_bit_a_weight():
    deltas = {"a": normal(64, 128), "b": 0.01 * normal(32, 16, 3, 3, seed=1)}
    stored = rivals.signs(deltas)
    for name, delta in deltas.items():
        assert stored.decoded[name].sign().eq(delta.sign()).all()
        assert torch.allclose(stored.decoded[name].abs(), delta.abs().mean().expand_as(delta))
    assert stored.nbytes == (64 * 128 + 32 * 16 * 9) // 8 + 2 * 4


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_absmax_is_off_by_half_a_step_of_its_group_at_most(bits):
    delta = normal(6, 50)
    decoded = rivals.absmax({"a": delta}, bits, 64).decoded["a"]
    for start in range(0, 300, 64):
        part = slice(start, start + 64)
        step = delta.reshape(-1)[part].abs().max() / (2 ** (bits - 1) - 1)
        assert float((decoded - delta).reshape(-1)[part].abs().max()) <= 0.502 * float(step)  # scales are float16


def test_absmax_takes_its_bits_and_two_bytes_a_group_unless_zstd_does_better():
    even = torch.linspace(-1, 1, 4096)[torch.randperm(4096, generator=torch.Generator().manual_seed(0))]
    assert rivals.absmax({"a": even.reshape(64, 64)}, 3, 64).nbytes <= 4096 * 3 // 8 + 2 * 64
    assert rivals.absmax({"a": even.reshape(64, 64)}, 3, 64).nbytes >= 4096 * math.log2(7) / 8
    peaked = normal(64, 64) ** 5
    assert rivals.absmax({"a": peaked}, 4, None).nbytes < 4096 * 4 // 8 / 2


def test_absmax_of_nothing_is_nothing():
    assert rivals.absmax({"a": torch.zeros(4, 4)}, 4, 64).decoded["a"].eq(0).all()


def test_a_matrix_of_low_rank_comes_back_and_others_as_near_as_that_rank_allows():
    low = normal(40, 2) @ normal(2, 30, seed=1)
    full = normal(40, 30, seed=2)
    found = rivals.low_rank({"low": low, "full": full.reshape(40, 10, 3, 1)}, (2, 4, 40))
    assert error(low, found[2].decoded["low"]) < 1e-3
    values = torch.linalg.svdvals(full)
    assert error(full, found[4].decoded["full"].reshape(40, 30)) == pytest.approx(
        float(values[4:].norm() / values.norm()), rel=1e-2
    )
    assert found[4].nbytes == 2 * 2 * 4 * (40 + 30)
    assert found[40].nbytes == 2 * 2 * 40 * 30, "factors that are larger than the matrix are not kept"
    assert error(full, found[40].decoded["full"].reshape(40, 30)) < 1e-3


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_packed_codes_can_be_told_apart_again(bits):
    codes = np.random.default_rng(0).integers(0, 2**bits, 1001).astype(np.uint8)
    data = rivals.packed(codes, bits)
    assert len(data) == -(-1001 * bits // 8)
    read = np.unpackbits(np.frombuffer(data, np.uint8))[: 1001 * bits].reshape(-1, bits)
    assert (read @ (2 ** np.arange(bits)[::-1]) == codes).all()


def test_shannon_is_below_the_best_scalar_quantizer_and_exact_for_what_is_known():
    values = np.random.default_rng(0).normal(size=200_000)
    for squared in (0.4, 0.1, 0.01):
        exact = 0.5 * math.log2(1 / squared)
        assert bounds.shannon_bits(values, squared) == pytest.approx(exact, abs=0.02)
        assert exact < bounds.scalar_bits(values, squared) < exact + 0.26


def test_scalar_bits_approach_a_quarter_bit_above_shannon_at_fine_steps_and_nothing_at_coarse_ones():
    values = np.random.default_rng(0).laplace(size=200_000)
    space = 0.5 * math.log2(2 * math.pi * math.e / 12)
    gap = bounds.scalar_bits(values, 1e-3) - bounds.shannon_bits(values, 1e-3)
    assert gap == pytest.approx(space, abs=0.03)
    assert bounds.scalar_bits(values, 3.0) == 0.0


def test_code_bits_are_the_entropy_of_what_was_decoded():
    decoded = np.repeat([0.0, 0.25, -0.25], [500, 250, 250])
    assert bounds.code_bits(decoded) == pytest.approx(1.5)
    assert bounds.code_bits(np.zeros(10)) == 0.0


def test_an_error_finer_than_any_step_is_refused():
    with pytest.raises(ValueError, match="finer than the finest step"):
        bounds.scalar_bits(np.random.default_rng(0).normal(size=1000), 1e-12)
