"""The codec, to the bit."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub import codec
from rws_hub.codec import MIN_ROW, Packed, check_values, encode, pack_bits, packed_bytes, relative_error, unpack
from rws_hub.codec import unpack_bits as unpack_codes
from rws_hub.errors import CorruptArtifactError
from rws_hub.spec import Codec, TensorFacts

BITS = range(2, 9)
bits_of = st.sampled_from(BITS)


def pack(delta, bits):
    """One delta, given whole."""
    return encode(tuple(delta.shape), [delta], bits).packed


def noise(*shape, scale=1.0, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@st.composite
def matrices(draw):
    rows, columns = draw(st.integers(2, 9)), draw(st.integers(2, 70))
    exponents = st.integers(-20, 12)
    scales = torch.tensor([2.0 ** draw(exponents) for _ in range(rows)])
    delta = noise(rows, columns, seed=draw(st.integers(0, 2**16))) * scales[:, None]
    delta[torch.rand(rows, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) < 0.2] = 0
    return delta


@settings(deadline=None)
@given(bits_of, st.integers(0, 41), st.integers(0, 2**32 - 1))
def test_codes_come_back_from_the_stream(bits, count, seed):
    top = 2 ** (bits - 1) - 1
    codes = torch.from_numpy(np.random.default_rng(seed).integers(-top, top + 1, count).astype(np.int8))
    stream = pack_bits(codes, bits)
    assert stream.dtype == torch.uint8
    assert len(stream) == packed_bytes(count, bits) == math.ceil(count / 8) * bits
    assert torch.equal(unpack_codes(stream, bits, count), codes)
    assert not unpack_codes(stream, bits, math.ceil(count / 8) * 8)[count:].any()


@pytest.mark.parametrize("bits", BITS)
def test_the_stream_is_offset_binary_least_significant_bit_first(bits):
    top = 2 ** (bits - 1) - 1
    codes = [-top, top, 0, 1, -1, top, -top, 0, 1, -1, top]
    padded = [*codes, 0, 0, 0, 0, 0]
    number = sum((code + 2 ** (bits - 1)) << (bits * i) for i, code in enumerate(padded))
    expected = number.to_bytes(2 * bits, "little")
    assert bytes(pack_bits(torch.tensor(codes, dtype=torch.int8), bits).numpy()) == expected


def test_a_stream_written_down_by_hand():
    codes = torch.tensor([-7, -1, 0, 1, 7], dtype=torch.int8)
    assert bytes(pack_bits(codes, 4).numpy()).hex() == "71" + "98" + "8f" + "88"


@settings(deadline=None)
@given(matrices(), bits_of)
def test_unclipped_values_are_within_half_a_step(delta, bits):
    packed = pack(delta, bits)
    decoded = unpack(packed, bits)
    scales = packed.parts["scales"].float()
    steps = scales[:, None].expand(len(scales), delta.numel() // len(scales)).reshape(delta.shape)
    top = 2 ** (bits - 1) - 1
    unclipped = delta.abs() <= top * steps
    assert bool(((decoded - delta).abs() <= steps / 2 * (1 + 1e-6))[unclipped].all())
    assert torch.equal(decoded[delta == 0], torch.zeros(int((delta == 0).sum())))
    assert bool((decoded.abs() <= top * steps).all())


@settings(deadline=None)
@given(matrices(), bits_of)
def test_the_stated_error_is_the_true_one_and_packing_is_deterministic(delta, bits):
    packed = pack(delta, bits)
    decoded = unpack(packed, bits)
    exact, found = delta.double().numpy(), decoded.double().numpy()
    norm = np.sqrt((exact**2).sum())
    expected = np.sqrt(((found - exact) ** 2).sum()) / norm if norm else 0.0
    assert relative_error(delta, decoded) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    again = pack(delta.clone(), bits)
    assert all(torch.equal(again.parts[k], v) for k, v in packed.parts.items())


@settings(deadline=None)
@given(bits_of, st.integers(1, 5), st.integers(0, 999))
def test_row_blocks_of_the_whole_are_the_blocks_packed_alone(bits, rows, seed):
    delta = noise(3 * rows, MIN_ROW + 1, seed=seed)
    whole = unpack(pack(delta, bits), bits)
    for k in range(3):
        block = delta[k * rows : (k + 1) * rows].clone()
        if rows > 1:  # a single row is a vector, kept in half precision
            assert torch.equal(unpack(pack(block, bits), bits), whole[k * rows : (k + 1) * rows])


@pytest.mark.parametrize("bits", BITS)
def test_zero_decodes_to_zero(bits):
    delta = noise(4, 40)
    delta[1] = 0
    packed = pack(delta, bits)
    assert packed.parts["scales"][1] == 0
    assert torch.equal(unpack(packed, bits)[1], torch.zeros(40))
    nothing = unpack(pack(torch.zeros(4, 40), bits), bits)
    assert torch.equal(nothing, torch.zeros(4, 40)) and relative_error(torch.zeros(4, 40), nothing) == 0


@pytest.mark.parametrize(
    ("shape", "encoding", "granularity", "scales"),
    [
        ((), "float16", None, 0),
        ((7,), "float16", None, 0),
        ((1, 1, 48), "float16", None, 0),
        ((5, 1, 1), "float16", None, 0),
        ((4, 31), "codes", "tensor", 1),
        ((4, 32), "codes", "row", 4),
        ((1, 5, 48), "codes", "row", 1),
        ((6, 3, 3, 3), "codes", "tensor", 1),
        ((6, 4, 3, 3), "codes", "row", 6),
        ((40, 2), "codes", "tensor", 1),
    ],
)
def test_how_a_shape_is_stored(shape, encoding, granularity, scales):
    packed = pack(noise(*shape) * 0.01, 4)
    assert (packed.encoding, packed.granularity, packed.shape) == (encoding, granularity, shape)
    assert len(packed.parts.get("scales", ())) == scales
    assert unpack(packed, 4).shape == torch.Size(shape)
    facts = TensorFacts("add", False, packed.encoding, packed.granularity, 0.0, 0.0)
    named = {torch.uint8: "U8", torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
    specs = codec.part_specs(facts, shape, Codec("uniform", 4))
    assert specs == {k: (named[v.dtype], tuple(v.shape)) for k, v in packed.parts.items()}


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
    packed = pack(torch.tensor(vector), 4)
    assert packed.encoding == encoding
    assert relative_error(torch.tensor(vector), unpack(packed, 4)) <= 1e-3


def test_32_bits_keep_every_bit():
    delta = noise(5, 40)
    packed = pack(delta, 32)
    assert packed.encoding == "float32" and torch.equal(unpack(packed, 32), delta)


def test_more_bits_mean_less_error():
    delta = noise(16, 64)
    errors = [relative_error(delta, unpack(pack(delta, b), b)) for b in BITS]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


@pytest.mark.parametrize("bits", BITS)
def test_decoding_is_one_product_of_two_exact_numbers(bits):
    delta = noise(6, 33, scale=1e-3)
    packed = pack(delta, bits)
    codes = unpack_codes(packed.parts["codes"], bits, delta.numel()).numpy().reshape(6, 33)
    scales = packed.parts["scales"].float().numpy()
    assert np.array_equal(unpack(packed, bits).numpy(), codes.astype(np.float32) * scales[:, None])


def test_values_that_no_encoder_writes_are_refused():
    good = pack(noise(3, 35), 4)
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


@pytest.mark.parametrize("block", [8, 64, 1000])
@pytest.mark.parametrize("shape", [(9, 45), (50, 3), (3, 5, 7, 2), (33,)])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_size_of_the_blocks_of_work_decides_nothing(block, shape, bits, monkeypatch):
    delta = noise(*shape)
    whole = pack(delta, bits)
    decoded = unpack(whole, bits)
    error = relative_error(delta, decoded)
    monkeypatch.setattr(codec, "_BLOCK", block)
    blocked = pack(delta, bits)
    assert all(torch.equal(blocked.parts[k], v) for k, v in whole.parts.items())
    assert torch.equal(unpack(blocked, bits), decoded)
    assert relative_error(delta, decoded) == pytest.approx(error, rel=1e-12)


@given(st.integers(2, 40), st.integers(32, 80), st.integers(1, 40), bits_of)
def test_blocks_of_any_number_of_rows_give_the_same(rows, columns, step, bits):
    delta = noise(rows, columns)
    whole = encode((rows, columns), [delta], bits)
    parts = encode((rows, columns), delta.split(step), bits)
    assert all(torch.equal(part, parts.packed.parts[n]) for n, part in whole.packed.parts.items())
    assert parts.relative_error == pytest.approx(whole.relative_error, rel=1e-9)
    assert whole.relative_error == pytest.approx(relative_error(delta, unpack(whole.packed, bits)), rel=1e-6)
