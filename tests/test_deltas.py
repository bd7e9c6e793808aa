"""What signatures add to a tensor: the same whatever run of elements is asked for, and against plain torch."""

import dataclasses

import pytest
import torch
from bits import bits_of
from builders import tiny_resnet, tiny_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub.cells import Slice
from rws_hub.deltas import Delta, Scratch, can_overflow, moving, overflows, patch_block, total, write
from rws_hub.errors import PatchStateError
from rws_hub.spelling import Piece

CPU = torch.device("cpu")
NAME = "conv1.weight"
SHAPE = (64, 3, 7, 7)
COUNT = 9408
SIGNATURES = [tiny_signature(seed=1, bits=4), tiny_signature(seed=2, bits=8), tiny_signature(seed=3, bits=32)]


def whole(signature, alpha, name=NAME, shape=SHAPE):
    return Delta(name, shape, signature, (Piece(name, None, name, None),), alpha)


def summed(on, start, count):
    found = total(on, start, count, Scratch(count, CPU))
    return torch.zeros(count) if found is None else found.clone()


def test_the_signatures_of_the_tests_hold_the_tensor():
    assert all(s.config.shape(NAME) == SHAPE for s in SIGNATURES)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_run_of_elements_is_that_of_the_whole(data):
    alphas = data.draw(st.lists(st.sampled_from([-1.5, 0.3, 1.0, 2.0]), min_size=1, max_size=3))
    on = moving([whole(s, a) for s, a in zip(SIGNATURES, alphas, strict=False)])
    start = data.draw(st.integers(0, COUNT - 1))
    count = data.draw(st.integers(1, min(5000, COUNT - start)))
    every = summed(on, 0, COUNT)
    assert bits_of(summed(on, start, count)) == bits_of(every[start : start + count])
    assert not every[every == 0].signbit().any()


@pytest.mark.parametrize("alpha", [-0.7, 1.0, 0.1])
def test_the_sum_is_that_of_the_decoded_deltas(alpha):
    on = moving([whole(s, alpha) for s in SIGNATURES])
    exact = sum((s.delta(NAME).double() * alpha for s in SIGNATURES), torch.zeros(SHAPE, dtype=torch.float64))
    found = summed(on, 0, exact.numel()).double()
    assert torch.allclose(found, exact.reshape(-1), rtol=0, atol=4e-7 * float(exact.abs().max()))
    alone = summed([whole(SIGNATURES[0], 1.0)], 0, exact.numel())
    assert torch.equal(alone, SIGNATURES[0].delta(NAME).reshape(-1))


def test_what_has_no_strength_is_left_out_and_order_is_that_of_the_digests():
    on = [whole(s, a) for s, a in zip(SIGNATURES, (1.0, 0.0, -1.0), strict=True)]
    assert {id(d) for d in moving(on)} == {id(on[0]), id(on[2])}
    assert moving(on) == moving(reversed(on))
    assert [d.order for d in moving(on)] == sorted(d.order for d in moving(on))


@pytest.mark.parametrize(
    ("part", "model_part", "shape"),
    [
        (None, None, (64, 147)),  # other axes, the same elements
        (Slice(0, 16, 40), Slice(0, 8, 32), SHAPE),
        (Slice(0, 16, 40), None, (24, 3, 7, 7)),
        (None, Slice(0, 1, 65), (70, 3, 7, 7)),
        (Slice(1, 1, 3), Slice(1, 5, 7), (64, 8, 7, 7)),  # many short runs
        (Slice(1, 1, 3), None, (64, 2, 7, 7)),
    ],
    ids=str,
)
def test_parts_go_where_they_belong(part, model_part, shape):
    signature = SIGNATURES[0]
    delta = Delta("w", shape, signature, (Piece(NAME, part, "w", model_part),), 1.0)
    expected, source = torch.zeros(shape), signature.delta(NAME)
    home = expected if model_part is None else expected.narrow(model_part.axis, model_part.start, _length(model_part))
    taken = source if part is None else source.narrow(part.axis, part.start, _length(part))
    home += taken.reshape(home.shape)
    count = expected.numel()
    assert torch.equal(summed([delta], 0, count), expected.reshape(-1))
    pieces = [summed([delta], at, min(1000, count - at)) for at in range(0, count, 1000)]
    assert torch.equal(torch.cat(pieces), expected.reshape(-1))
    assert delta.covers == (home.shape == expected.shape)


def _length(part):
    return part.stop - part.start


def test_two_pieces_in_one_place_are_summed():
    signature = SIGNATURES[1]
    piece = Piece(NAME, None, "w", None)
    delta = Delta("w", SHAPE, signature, (piece, dataclasses.replace(piece)), 1.0)
    assert torch.equal(summed([delta], 0, COUNT), 2 * signature.delta(NAME).reshape(-1)) and not delta.covers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("op", ["add", "multiply"])
def test_writing_computes_in_single_precision_and_rounds_once(dtype, op):
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(999, generator=generator).to(dtype)
    scratch = Scratch(999, CPU)
    change = scratch.total.copy_(torch.randn(999, generator=generator))
    wide = clean.double() if dtype == torch.float64 else clean.float()
    expected = wide + change if op == "add" else wide * change.double().exp().float()
    for out in (torch.empty_like(clean), clean):
        write(clean, change, op, out, scratch)
        assert bits_of(out) == bits_of(expected.to(dtype))


def test_an_overflow_is_told_from_what_was_not_finite_before():
    clean = torch.tensor([1.0, torch.inf, torch.nan, 65504.0]).half()
    assert not overflows(clean, clean)
    after = clean.clone()
    after[3] = torch.inf
    assert overflows(clean, after)
    large = torch.full((9,), 3e38)
    assert not overflows(large, large)  # their sum is not finite, and they are


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@settings(deadline=None, max_examples=40)
@given(exponent=st.floats(-3, 38), which=st.lists(st.sampled_from(SIGNATURES), min_size=1, max_size=3, unique_by=id))
def test_what_is_said_not_to_overflow_does_not(dtype, exponent, which):
    on = moving([whole(s, 10**exponent) for s in which])
    largest = torch.full((COUNT,), torch.finfo(dtype).max, dtype=dtype)
    for clean in (largest, -largest):
        out, scratch = torch.empty_like(clean), Scratch(COUNT, CPU)
        write(clean, total(on, 0, COUNT, scratch), "add", out, scratch)
        assert can_overflow(on, dtype) or not overflows(clean, out)


def test_what_a_real_strength_adds_is_not_looked_at():
    assert not can_overflow([whole(s, 1.0) for s in SIGNATURES], torch.float16)
    assert can_overflow([whole(SIGNATURES[0], 1e36)], torch.float32)
    factor = Delta("bn1.running_var", (64,), SIGNATURES[0], (Piece("bn1.running_var", None, "v", None),), 1e-9)
    assert can_overflow([factor], torch.float32)


def test_no_element_is_larger_than_the_reach_of_its_delta():
    for signature in SIGNATURES:
        for name in signature.names:
            exact = signature.delta(name)
            delta = whole(signature, -2.0, name, tuple(exact.shape))
            assert 2 * float(exact.abs().max()) <= delta.reach * (1 + 1e-6)


def test_a_block_that_overflows_is_refused_by_name():
    signature = SIGNATURES[0]
    delta = whole(signature, 1e30)
    clean = dict(tiny_resnet().half().named_parameters())[NAME].detach().reshape(-1).clone()
    with pytest.raises(PatchStateError, match=rf"{NAME}: .*=1e\+30 overflows torch.float16. Nothing was changed"):
        patch_block(clean, 0, [delta], Scratch(clean.numel(), CPU))
