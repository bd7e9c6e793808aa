"""Codes as symbols, to the bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub import symbols
from rws_hub.errors import CorruptArtifactError
from rws_hub.spec import WIDTHS, stream_bytes
from rws_hub.symbols import MAX_CODE, MAX_STEP, MIN_STEP, pack, read, scan, top

widths = pytest.mark.parametrize("width", WIDTHS)
# Mostly what a real delta has, now and then anything.
codes_of = st.lists(st.integers(-9, 9) | st.integers(-130, 130) | st.integers(-MAX_CODE, MAX_CODE), min_size=1)


@widths
@settings(deadline=None)
@given(codes=codes_of, dtype=st.sampled_from([torch.int16, torch.int32]))
def test_codes_come_back(width, codes, dtype):
    stream, escapes = pack(torch.tensor(codes, dtype=dtype), width)
    assert (stream.dtype, escapes.dtype) == (torch.uint8, torch.int16)
    assert len(stream) == stream_bytes(len(codes), width) == math.ceil(len(codes) * width / 8)
    assert escapes.tolist() == [c for c in codes if abs(c) > top(width)]
    places, squares = scan("w", stream, width, len(codes))
    assert places.tolist() == [i for i, c in enumerate(codes) if abs(c) > top(width)]
    assert int(squares) == sum(c * c for c in codes if abs(c) <= top(width))
    found = torch.empty(len(codes))
    read(stream, width, 0, found, torch.empty(len(codes), dtype=torch.uint8))
    found[places] = escapes.float()
    assert found.tolist() == codes
    assert not found[found == 0].signbit().any()  # -0.0 would be another value


@widths
@settings(deadline=None)
@given(codes=st.lists(st.integers(-7, 7), min_size=1), data=st.data())
def test_any_run_of_elements_is_read_alone(width, codes, data):
    stream, _ = pack(torch.tensor(codes), width)
    start = data.draw(st.integers(0, len(codes) - 1))
    stop = data.draw(st.integers(start + 1, len(codes)))
    found = torch.full((stop - start,), torch.nan)
    read(stream, width, start, found, torch.empty(64 + len(codes), dtype=torch.uint8))
    assert found.tolist() == codes[start:stop]


@pytest.mark.parametrize(
    ("codes", "width", "stream", "escapes"),
    [
        ([0], 4, "77", []),
        ([-7, -1, 0, 1, 7], 4, "80e677", []),  # the last two and code 0 in the high bits
        ([-7, -1, 0, 1], 4, "7086", []),
        ([8, -8, 1, -300], 4, "8fff", [8, -8, -300]),
        ([-127, -1, 0, 1, 127], 8, "007e7f80fe", []),
        ([128, 0, -128, MAX_CODE, -MAX_CODE], 8, "ff7fffffff", [128, -128, MAX_CODE, -MAX_CODE]),
    ],
)
def test_streams_written_down_by_hand(codes, width, stream, escapes):
    packed, aside = pack(torch.tensor(codes), width)
    assert (bytes(packed.numpy()).hex(), aside.tolist()) == (stream, escapes)


@widths
def test_the_shape_of_the_codes_decides_nothing(width):
    codes = torch.randint(-20, 21, (3, 5, 7), generator=torch.Generator().manual_seed(0))
    for other in (codes.reshape(-1), codes.reshape(21, 5), codes.permute(2, 1, 0).contiguous().permute(2, 1, 0)):
        for one, same in zip(pack(other, width), pack(codes, width), strict=True):
            assert torch.equal(one, same)


@widths
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 64, 65])
def test_the_size_of_the_blocks_of_work_decides_nothing(width, count, monkeypatch):
    codes = torch.randint(-200, 201, (count,), generator=torch.Generator().manual_seed(count))
    whole = pack(codes, width)
    for block in (1, 3, 8):
        monkeypatch.setattr(symbols, "_BLOCK", block)
        assert all(torch.equal(a, b) for a, b in zip(pack(codes, width), whole, strict=True))


@pytest.mark.parametrize("stray", [s for s in range(16) if s != top(4)])
def test_bits_behind_the_last_element_are_those_of_code_0(stray):
    stream = pack(torch.tensor([1, 2, 3]), 4)[0]
    stream[-1] = stray << 4 | int(stream[-1]) & 15
    with pytest.raises(CorruptArtifactError, match="w: the symbols end with stray bits"):
        scan("w", stream, 4, 3)
    assert scan("w", stream, 4, 4)[0].tolist() == [3] * (stray == 15)  # of four elements they are the last one


@pytest.mark.parametrize("step", [MIN_STEP, MAX_STEP])
def test_no_product_of_code_and_step_is_subnormal_or_infinite(step):
    products = np.float32(step) * np.array([1, MAX_CODE], np.float32)
    assert products.dtype == np.float32 and np.isfinite(products).all()
    assert (products >= np.finfo(np.float32).tiny).all()
