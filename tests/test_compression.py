"""What entropy coding is for: near the entropy of the codes, and far below plain integers of the same error."""

from functools import cache

import numpy as np
import pytest
import torch
from builders import seeded
from forge import pool
from sklearn.datasets import load_digits
from torch import nn

from rws_hub import RobustWeightSignature
from rws_hub.codec import encode_wide, relative_error, unpack
from rws_hub.rate import Sampler, Target, choose

GROUP = 64


@cache
def trained(noise):
    """A small classifier of digits, trained with noise on them from the same start and in the same order."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(images).float() / 16, torch.from_numpy(labels)
    model = seeded(
        lambda: nn.Sequential(nn.Linear(64, 384), nn.ReLU(), nn.Linear(384, 192), nn.ReLU(), nn.Linear(192, 10)), 0
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            seen = x[batch] + noise * torch.randn(len(batch), 64, generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(seen), y[batch]).backward()
            optimizer.step()
    return {n: t.detach() for n, t in model.state_dict().items()}


def signature_of_digits(**options):
    return RobustWeightSignature.extract(
        standard=trained(0.0), robust=trained(0.6), corruption="noise", license="mit", layers=["0.*", "2.*"], **options
    )


@cache
def delta(kind):
    """One wide delta whose elements are a multiple of a group."""
    if kind == "digits":
        exact = signature_of_digits(bits=32)
        return torch.cat([exact.delta(n).reshape(-1, GROUP) for n in ("0.weight", "2.weight")])
    rng = np.random.default_rng(0)
    values = {
        "student": lambda: rng.standard_t(4, 150_016),
        "mixture": lambda: rng.standard_normal(150_016) * np.where(rng.random(150_016) < 0.1, 5, 1),
    }[kind]()
    return torch.from_numpy(values).float().reshape(-1, GROUP) * 1e-3


def coded(delta, error):
    """Relative error, bits of a weight (frame and what stands aside), and the codes."""
    sampler = Sampler(1)
    delta = delta[..., None]  # no linear layer's, which could become factors
    sampler.add("w", tuple(delta.shape), [delta])
    grid = choose(sampler.sample(), Target("error", error))
    encoded = encode_wide(tuple(delta.shape), [delta], grid)
    parts = pool({"w": encoded.packed}, grid.width)
    stored = sum(part.numel() * part.element_size() for part in parts.values())
    codes = (unpack(encoded.packed, grid.width) / encoded.packed.parts["step"]).round()
    return encoded.relative_error, 8 * stored / delta.numel(), codes


def entropy(codes):
    shares = torch.unique(codes, return_counts=True)[1].double() / codes.numel()
    return float(-(shares * shares.log2()).sum())


def absmax(delta, bits):
    """Relative error and bits of a weight of integers of equal length, a bfloat16 scale for every 64 of them."""
    groups, top = delta.reshape(-1, GROUP), 2 ** (bits - 1) - 1
    scales = (groups.abs().amax(dim=1, keepdim=True) / top).bfloat16().float()
    decoded = (groups / scales).round().clamp(-top, top) * scales
    return relative_error(groups, decoded), bits + 16 / GROUP


KINDS = ["student", "mixture", "digits"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [0.35, 0.1, 0.02])
def test_a_weight_takes_little_more_than_the_entropy_of_its_code(kind, error):
    found, bits, codes = coded(delta(kind), error)
    assert found == pytest.approx(error, rel=0.05)
    assert entropy(codes) - 0.05 < bits < entropy(codes) + 0.15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bits", "share"), [(2, 0.75), (3, 0.75), (4, 0.85)])
def test_of_the_same_error_it_takes_at_least_a_quarter_less_than_short_plain_integers(kind, bits, share):
    error, plain = absmax(delta(kind), bits)
    found, ours, _ = coded(delta(kind), error)
    assert found <= error * 1.01
    assert ours < share * plain


@pytest.mark.parametrize("error", [0.5, 0.35, 0.1])
def test_a_whole_signature_of_trained_weights_too(error):
    signature = signature_of_digits(error=error)
    again = signature_of_digits(error=error)
    assert (again.payload, again.config.to_text()) == (signature.payload, signature.config.to_text())
    # Two matrices are few: where one of them changes from factors to codes, the error jumps.
    assert 0.9 * error < signature.config.relative_error <= 1.01 * error
    taken = 0.0
    for name in ("0.weight", "2.weight"):
        parts, found = signature.tensors[name].parts, signature.delta(name)
        codes = found / parts["step"]
        assert torch.equal(codes.round() * parts["step"], found)
        codes = parts.get("factors", codes.round())
        taken += codes.numel() * entropy(codes)
    assert signature.config.coded_bits < taken / signature.config.coded + 0.15
