"""Products of factors, to the bit, wherever and however they are computed; the oracle counts in Python's integers."""

import contextlib
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub import RobustWeightSignature, codec, factors
from rws_hub.codec import Packed
from rws_hub.errors import CorruptArtifactError
from rws_hub.factors import EXACT, MAX_STEP, TOP, parts, read, squares
from rws_hub.symbols import MIN_STEP


def made(left, right, shifts):
    """What a reader makes of codes, [r][m] and [r][n], and shifts."""
    stream = [code + TOP for pair in zip(left, right, strict=True) for side in pair for code in side]
    return parts("w", torch.tensor(stream, dtype=torch.uint8), torch.tensor(shifts, dtype=torch.uint8), len(left[0]))


def reach(left, right, shifts):
    components = zip(left, right, shifts, strict=True)
    return sum(2**s * max(map(abs, a)) * max(map(abs, b)) for a, b, s in components)


def product(left, right, shifts):
    """All codes, row by row, as integers of Python."""
    rows = range(len(left[0]))
    components = list(zip(left, right, shifts, strict=True))
    return [sum(2**s * a[i] * b[j] for a, b, s in components) for i in rows for j in range(len(right[0]))]


@st.composite
def triples(draw):
    """Any factors that may be: small ones, and such as reach far."""
    rows, columns = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    most = draw(st.sampled_from([1, 3, TOP]))
    side = [
        st.lists(st.integers(-most, most), min_size=n, max_size=n).filter(lambda codes: any(codes))
        for n in (rows, columns)
    ]
    found = ([], [], [])
    for _ in range(draw(st.integers(1, min(rows, columns)))):
        grown = [[*old, new] for old, new in zip(found, (draw(side[0]), draw(side[1]), 0), strict=True)]
        room = EXACT - reach(*found)
        size = max(map(abs, grown[0][-1])) * max(map(abs, grown[1][-1]))
        if size <= room:
            grown[2][-1] = draw(st.integers(0, min(24, (room // size).bit_length() - 1)))
            found = tuple(grown)
    return found


def codes(made, start, count):
    """A run of codes, read into memory that held something else; never -0.0."""
    out = torch.full((count,), torch.nan)
    read(made["left"], made["right"], start, out)
    assert not out[out == 0].signbit().any()
    return out.tolist()


@settings(deadline=None)
@given(triples(), st.data())
def test_any_run_of_any_product_is_that_of_whole_numbers(triple, data):
    expected, found = product(*triple), made(*triple)
    assert codes(found, 0, len(expected)) == expected
    start = data.draw(st.integers(0, len(expected) - 1))
    stop = data.draw(st.integers(start + 1, len(expected)))
    assert codes(found, start, stop - start) == expected[start:stop]
    assert float(found["largest"]) == reach(*triple) >= max(map(abs, expected))
    exact = sum(code**2 for code in expected)
    assert squares(found["left"], found["right"], found["shifts"]) == pytest.approx(exact, rel=1e-6, abs=0)


@settings(deadline=None)
@given(triples(), st.floats(-1e6, 1e6, width=32).filter(bool), st.floats(MIN_STEP, MAX_STEP, width=32), st.data())
def test_a_value_is_one_product_of_its_code_and_of_step_times_strength(triple, alpha, step, data):
    expected = product(*triple)
    packed = Packed((len(expected),), "factors", None, made(*triple) | {"step": torch.tensor([step])})
    start = data.draw(st.integers(0, len(expected) - 1))
    out = torch.empty(len(expected) - start)
    codec.read(packed, 4, start, out, alpha, torch.empty(0, dtype=torch.uint8))
    with np.errstate(over="ignore", invalid="ignore"):
        factor = np.float32(step * alpha)
        values = np.array(expected[start:], np.float32) * factor
    assert out.numpy().tobytes() == values.tobytes() or np.isinf(factor)


@pytest.mark.parametrize("step", [MIN_STEP, MAX_STEP])
def test_no_value_overflows_or_is_subnormal(step):
    found = made([[1, -1]], [[1, 0]], [24]) | {"step": torch.tensor([step])}
    values = codec.unpack(Packed((2, 2), "factors", None, found), 4)
    assert values.tolist() == [[EXACT * step, 0.0], [-EXACT * step, 0.0]] and math.isfinite(EXACT * step)
    assert np.float32(step) >= np.finfo(np.float32).tiny
    assert codec.largest(Packed((2, 2), "factors", None, found), 4) == EXACT * step


def large():
    """Factors of a product that no path of a matrix product is too small for, some of whose sums come near 2^24."""
    generator = torch.Generator().manual_seed(1)
    rank, rows, columns = 64, 257, 390
    left = torch.randint(-TOP, TOP + 1, (rank, rows), generator=generator)
    right = torch.randint(-TOP, TOP + 1, (rank, columns), generator=generator)
    left[:, 0], right[:, 0] = TOP, TOP
    shifts = torch.tensor([8, 7, 6, 6, *([3, 2, 1] * 20)])
    exact = ((left * 2 ** shifts[:, None]).T @ right).reshape(-1)
    assert EXACT * 0.6 < int(exact[0]) <= EXACT
    stream = (torch.cat([left, right], 1) + TOP).to(torch.uint8).reshape(-1)
    return stream, shifts.to(torch.uint8), rows, exact


@contextlib.contextmanager
def setting(change, back):
    """A global of torch set to something else."""
    change()
    try:
        yield
    finally:
        back()


def number_type(dtype):
    return setting(lambda: torch.set_default_dtype(dtype), lambda: torch.set_default_dtype(torch.float32))


def precision(name):
    before = torch.get_float32_matmul_precision()
    return setting(lambda: torch.set_float32_matmul_precision(name), lambda: torch.set_float32_matmul_precision(before))


def threads(count):
    before = torch.get_num_threads()
    return setting(lambda: torch.set_num_threads(count), lambda: torch.set_num_threads(before))


SURROUNDINGS = {
    "four threads": lambda: threads(4),
    "medium precision": lambda: precision("medium"),
    "high precision": lambda: precision("high"),
    "without oneDNN": lambda: setting(
        lambda: torch._C._set_mkldnn_enabled(False), lambda: torch._C._set_mkldnn_enabled(True)
    ),
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "float64 by default": lambda: number_type(torch.float64),
    "float16 by default": lambda: number_type(torch.float16),
    "bfloat16 by default": lambda: number_type(torch.bfloat16),
    "the meta device": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
    "deterministic algorithms": lambda: setting(
        lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False)
    ),
    "no subnormal numbers": lambda: setting(
        lambda: torch.set_flush_denormal(True), lambda: torch.set_flush_denormal(False)
    ),
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_what_is_set_around_it_changes_no_bit(name):
    stream, shifts, rows, exact = large()
    out = torch.full((len(exact),), torch.nan)
    plain = parts("w", stream, shifts, rows)
    with SURROUNDINGS[name]():
        found = parts("w", stream, shifts, rows)
        told = squares(found["left"], found["right"], found["shifts"])
        largest = float(found["largest"])
        read(found["left"], found["right"], 0, out)
        for start in range(0, len(exact), 1013):  # within a row, over its end, over many
            part = out.new_full((min(len(exact) - start, 1 + start % 1500),), torch.nan)
            read(plain["left"], plain["right"], start, part)
            assert torch.equal(part, exact[start : start + len(part)].float())
    assert torch.equal(out.long(), exact) and out.dtype == torch.float32 and not out.requires_grad
    assert (largest, told) == (float(plain["largest"]), squares(plain["left"], plain["right"], plain["shifts"]))
    assert torch.equal(found["left"], plain["left"]) and torch.equal(found["right"], plain["right"])
    again = torch.empty(len(exact))
    read(found["left"], found["right"], 0, again)  # what was made in there is as good outside
    assert torch.equal(again, out)


def test_where_only_deterministic_algorithms_are_allowed_a_gpu_is_asked_for_no_product(monkeypatch):
    stream, shifts, rows, exact = large()
    found, product, devices = parts("w", stream, shifts, rows), torch.mm, []

    def mm(left, right, out):
        devices.append(out.device.type)
        return product(left, right, out=out)

    monkeypatch.setattr(torch, "mm", mm)
    for name, device in (("deterministic algorithms", "cpu"), ("gradients", "meta")):
        with SURROUNDINGS[name]():
            read(found["left"], found["right"], 0, torch.empty(len(exact), device="meta"))
        assert set(devices) == {device}
        devices.clear()


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_signature_read_there_is_the_same(name):
    folder = Path(__file__).parent / "fixtures" / "v5" / "vit"
    plain = RobustWeightSignature.from_pretrained(folder)
    with SURROUNDINGS[name]():
        found = RobustWeightSignature.from_pretrained(folder)
        deltas = {n: found.delta(n) for n in found.names}
        norms = {n: codec.norm_of(found.tensors[n], 4) for n in found.names}
    for n, delta in deltas.items():
        assert delta.numpy().tobytes() == plain.delta(n).numpy().tobytes()
        assert norms[n] == codec.norm_of(plain.tensors[n], 4)


@settings(deadline=None)
@given(st.integers(1, 4000), st.integers(2, 40), st.integers(1, 126), st.integers(0, 16))
def test_what_is_left_when_components_cancel_each_other_is_told(rows, columns, code, shift):
    ones = [1] * columns
    left = [[code] * rows, [-code] * rows, [0] * (rows - 1) + [1]]
    found = made(left[: min(rows, 2) or 1], [ones] * min(rows, 2), [shift] * min(rows, 2))
    assert squares(found["left"], found["right"], found["shifts"]) == (
        0 if rows > 1 else columns * (code << shift) ** 2
    )
    if rows > 2 and columns > 2:
        found = made(left, [ones] * 3, [shift, shift, 0])
        assert squares(found["left"], found["right"], found["shifts"]) == columns


def test_a_run_of_a_long_row_takes_no_more_work_than_it_has_elements():
    right = torch.ones(1, 2**24)
    out, start = torch.empty(4), time.perf_counter()
    for at in range(0, 2**25 - 4, 2**25 // 1000):
        read(torch.ones(2, 1), right, at, out)
    assert out.tolist() == [1.0] * 4
    assert time.perf_counter() - start < 1


def test_sums_reach_two_to_the_24_and_no_further():
    limit = made([[1, 0], [1, -1]], [[1, -1], [1, 1]], [23, 23])
    assert codes(limit, 0, 4) == [EXACT, 0, -(2**23), -(2**23)]
    assert codes(made([[-1]], [[1]], [24]), 0, 1) == [-EXACT]
    with pytest.raises(CorruptArtifactError, match=r"w: the product of its factors could reach 16,777,217; at most 16"):
        made([[1, 0], [1, -1], [1, 1]], [[1, -1], [1, 1], [1, 1]], [23, 23, 0])
    with pytest.raises(CorruptArtifactError, match="could reach 33,032,192; at most"):
        made([[TOP]], [[-TOP]], [11])


@pytest.mark.parametrize(
    ("left", "right", "shift", "message"),
    [
        ([128, 1], [1, 1], 0, "w: a factor holds a code outside of"),
        ([1, 1], [1, 128], 0, "w: a factor holds a code outside of"),
        ([0, 0], [1, 1], 0, "w: a component is zero"),
        ([1, 1], [0, 0], 0, "w: a component is zero"),
        ([1, 1], [1, 1], 25, "w: a component is zero, or shifted by more than 24 bits"),
        ([1, 1], [1, 1], 255, "w: a component is zero, or shifted by more than 24 bits"),
    ],
)
def test_what_no_encoder_writes_is_refused(left, right, shift, message):
    made([[1, 1], [1, 1]], [[1, 1], [1, 1]], [0, 0])
    for i in range(2):
        triple = [[[1, 1], [1, 1]], [[1, 1], [1, 1]], [0, 0]]
        for whole, own in zip(triple, (left, right, shift), strict=True):
            whole[i] = own
        with pytest.raises(CorruptArtifactError, match=message):
            made(*triple)


def test_a_norm_is_the_same_in_either_precision(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    stream = torch.randint(0, 2 * TOP + 1, (6 * (50 + 40),), generator=generator).to(torch.uint8)
    found = parts("w", stream, torch.tensor([0, 1, 2, 3, 4, 5], dtype=torch.uint8), 50)
    exact = float((found["left"].double() @ found["right"].double()).square().sum())
    for limit in (factors.EXACT, 1):
        monkeypatch.setattr(factors, "EXACT", limit)
        assert squares(found["left"], found["right"], found["shifts"]) == exact
