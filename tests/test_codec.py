"""The codec, to the bit: what is written now, and what formats 1 and 2 hold."""

import dataclasses
import math

import numpy as np
import old
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub import codec
from rws_hub.codec import Packed, check_values, encode_plain, encode_wide, is_wide, packed_bytes, relative_error, unpack
from rws_hub.codec import unpack_bits as unpack_codes
from rws_hub.errors import CorruptArtifactError
from rws_hub.rate import Grid
from rws_hub.rounding import quantize
from rws_hub.spec import Codec, TensorFacts

BITS = range(2, 9)
bits_of = st.sampled_from(BITS)
grids = st.builds(Grid, st.floats(2.0**-20, 2.0**8, width=32), st.sampled_from([4, 8]))


def wide(delta, grid):
    """One delta, given whole."""
    return encode_wide(tuple(delta.shape), [delta], grid)


def plain(delta, half=True):
    return encode_plain(tuple(delta.shape), [delta], half)


def noise(*shape, scale=1.0, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def same(a, b):
    return a.parts.keys() == b.parts.keys() and all(torch.equal(part, b.parts[n]) for n, part in a.parts.items())


def true_error(delta, decoded):
    exact, found = delta.double().numpy(), decoded.double().numpy()
    norm = np.sqrt((exact**2).sum())
    return np.sqrt(((found - exact) ** 2).sum()) / norm if norm else 0.0


@st.composite
def matrices(draw):
    rows, columns = draw(st.integers(2, 9)), draw(st.integers(2, 70))
    exponents = st.integers(-20, 12)
    scales = torch.tensor([2.0 ** draw(exponents) for _ in range(rows)])
    delta = noise(rows, columns, seed=draw(st.integers(0, 2**16))) * scales[:, None]
    delta[torch.rand(rows, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) < 0.2] = 0
    return delta


@settings(deadline=None)
@given(matrices(), grids)
def test_a_decoded_value_is_one_product_of_two_exact_numbers(delta, grid):
    packed = wide(delta, grid).packed
    step = grid.step(delta.shape)
    codes = quantize(delta.reshape(-1, 1), step).reshape(delta.shape).numpy()
    expected = codes.astype(np.float32) * np.float32(step)
    assert expected.dtype == np.float32
    assert unpack(packed, grid.width).numpy().tobytes() == (expected + np.float32(0)).tobytes()  # and never -0.0
    assert packed.parts["step"].tolist() == [step]


@settings(deadline=None)
@given(matrices(), grids)
def test_values_are_within_a_step_and_the_stated_error_and_norm_are_true(delta, grid):
    encoded = wide(delta, grid)
    decoded = unpack(encoded.packed, grid.width)
    step = grid.step(delta.shape)
    inside = delta.abs() < 32_767 * step
    assert bool(((decoded - delta).abs() <= step / 2 * (1 + 1e-6))[inside].all())
    assert not decoded[delta == 0].any()
    expected = true_error(delta, decoded)
    assert relative_error(delta, decoded) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert encoded.relative_error == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert encoded.norm == pytest.approx(float(delta.double().norm()), rel=1e-9)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(2, 80), st.integers(1, 40), st.sampled_from([7, 64, 10**6]), grids)
def test_the_blocks_in_which_a_delta_arrives_or_is_worked_on_decide_nothing(rows, columns, step, block, grid):
    delta = noise(rows, columns)
    whole = wide(delta, grid)
    assert same(whole.packed, wide(delta.clone(), grid).packed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(codec, "_BLOCK", block)
        parts = encode_wide((rows, columns), delta.split(step), grid)
        decoded = unpack(parts.packed, grid.width)
        assert relative_error(delta, decoded) == pytest.approx(whole.relative_error, rel=1e-5, abs=1e-7)
    assert same(whole.packed, parts.packed)
    assert torch.equal(decoded, unpack(whole.packed, grid.width))
    assert parts.relative_error == pytest.approx(whole.relative_error, rel=1e-9)


@pytest.mark.parametrize("width", [4, 8])
def test_nothing_is_zero(width):
    encoded = wide(torch.zeros(4, 40), Grid(0.0, width))
    assert torch.equal(unpack(encoded.packed, width), torch.zeros(4, 40))
    assert (encoded.relative_error, encoded.norm) == (0.0, 0.0)
    assert not unpack(wide(noise(4, 40), Grid(0.0, width)).packed, width).any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), False),
        ((7,), False),
        ((1, 1, 48), False),
        ((5, 1, 1), False),
        ((2, 2), True),
        ((1, 5, 48), True),
        ((6, 3, 3, 3), True),
        ((6, 1, 3, 1), True),
    ],
)
def test_what_is_quantized(shape, expected):
    assert is_wide(shape) is expected


@pytest.mark.parametrize(
    ("vector", "encoding"),
    [
        ([0.5, -0.25], "float16"),
        ([0.0, 0.0], "float16"),
        ([1e5, 1.0], "float32"),  # overflows half precision
        ([1e-7, 2e-7], "float32"),  # half precision is too coarse down there
        ([0.1, 0.3], "float16"),
    ],
)
def test_vectors_keep_half_precision_where_it_is_enough(vector, encoding):
    encoded = plain(torch.tensor(vector))
    assert encoded.packed.encoding == encoding
    decoded = unpack(encoded.packed, 4)
    assert decoded.dtype == torch.float32
    assert encoded.relative_error == pytest.approx(true_error(torch.tensor(vector), decoded), rel=1e-6)
    assert encoded.relative_error <= 1e-3
    if encoding == "float32":
        assert torch.equal(decoded, torch.tensor(vector))


@pytest.mark.parametrize("shape", [(), (3,), (5, 40)])
def test_32_bits_keep_every_bit(shape):
    delta = noise(*shape)
    encoded = plain(delta, half=False)
    assert encoded.packed.encoding == "float32" and torch.equal(unpack(encoded.packed, 32), delta)
    assert encoded.relative_error == 0


# Formats 1 and 2.


@settings(deadline=None)
@given(bits_of, st.integers(1, 41), st.integers(0, 2**32 - 1))
def test_codes_come_back_from_the_stream(bits, count, seed):
    top = 2 ** (bits - 1) - 1
    codes = torch.from_numpy(np.random.default_rng(seed).integers(-top, top + 1, count).astype(np.int8))
    stream = old.pack_bits(codes, bits)
    assert len(stream) == packed_bytes(count, bits) == math.ceil(count / 8) * bits
    assert torch.equal(unpack_codes(stream, bits, count), codes)
    assert not unpack_codes(stream, bits, math.ceil(count / 8) * 8)[count:].any()


def test_a_stream_written_down_by_hand():
    stream = torch.tensor(list(bytes.fromhex("71988f88")), dtype=torch.uint8)
    assert unpack_codes(stream, 4, 5).tolist() == [-7, -1, 0, 1, 7]


@settings(deadline=None)
@given(matrices(), bits_of)
def test_a_value_of_an_old_format_is_one_product_of_two_exact_numbers(delta, bits):
    packed = old.pack(delta, bits)
    decoded = unpack(packed, bits)
    codes = unpack_codes(packed.parts["codes"], bits, delta.numel()).numpy().astype(np.float32)
    scales = packed.parts["scales"].float().numpy()
    expected = codes.reshape(len(scales), -1) * scales[:, None]
    assert np.array_equal(decoded.numpy(), expected.reshape(delta.shape))
    assert torch.equal(decoded[delta == 0], torch.zeros(int((delta == 0).sum())))


@pytest.mark.parametrize(
    ("shape", "granularity", "scales"),
    [
        ((7,), None, 0),
        ((4, 31), "tensor", 1),
        ((4, 32), "row", 4),
        ((1, 5, 48), "row", 1),
        ((6, 3, 3, 3), "tensor", 1),
        ((6, 4, 3, 3), "row", 6),
    ],
)
@pytest.mark.parametrize("bits", [3, 4])
def test_what_an_old_payload_must_hold(shape, granularity, scales, bits):
    packed = old.pack(noise(*shape) * 0.01, bits)
    assert packed.granularity == granularity and len(packed.parts.get("scales", ())) == scales
    assert unpack(packed, bits).shape == torch.Size(shape)
    facts = TensorFacts("add", False, packed.encoding, packed.granularity, 0.0, 0.0)
    named = {torch.uint8: "U8", torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
    specs = codec.part_specs(facts, shape, Codec("uniform", bits))
    assert specs == {k: (named[v.dtype], tuple(v.shape)) for k, v in packed.parts.items()}


@pytest.mark.parametrize("bits", BITS)
def test_row_blocks_of_the_whole_are_the_blocks_packed_alone(bits):
    delta = noise(6, old.MIN_ROW + 1)
    whole = unpack(old.pack(delta, bits), bits)
    for k in (0, 2, 4):
        assert torch.equal(unpack(old.pack(delta[k : k + 2].clone(), bits), bits), whole[k : k + 2])


def test_values_that_no_encoder_writes_are_refused():
    good = old.pack(noise(3, 35), 4)
    check_values("w", good, 4)
    lowest, padding = good.parts["codes"].clone(), good.parts["codes"].clone()
    lowest[0] &= 0xF0  # the code -8
    padding[-1] ^= 0x10  # 105 codes: the last 7 of the stream are padding
    for parts, message in (
        ({"scales": torch.tensor([1.0, math.nan, 1.0]).bfloat16()}, "w.scales holds a value that is not finite"),
        ({"scales": torch.tensor([1.0, math.inf, 1.0]).bfloat16()}, "w.scales holds a value that is not finite"),
        ({"scales": torch.tensor([1.0, -1.0, 1.0]).bfloat16()}, "w.scales holds a negative scale"),
        ({"codes": lowest}, "w.codes holds a code outside its 4-bit range"),
        ({"codes": padding}, "w.codes holds a code outside its 4-bit range"),
    ):
        with pytest.raises(CorruptArtifactError) as caught:
            check_values("w", dataclasses.replace(good, parts=good.parts | parts), 4)
        assert str(caught.value).startswith(message)
    for value in (math.nan, math.inf, -math.inf):
        vector = Packed((2,), "float16", None, {"values": torch.tensor([0.0, value]).half()})
        with pytest.raises(CorruptArtifactError, match=r"w\.values holds a value that is not finite"):
            check_values("w", vector, 4)
