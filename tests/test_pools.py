"""All deltas in a few tensors, and back."""

import dataclasses
import math

import pytest
import torch
from forge import pool, small_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub.codec import Packed, unpack
from rws_hub.errors import CorruptArtifactError
from rws_hub.pools import specs, split, symbol_bytes
from rws_hub.spec import WIDTHS, Codec, TensorFacts
from rws_hub.symbols import MAX_CODE, MAX_STEP, MIN_STEP, pack, scan

CONFIG = small_signature().config
DTYPES = {torch.uint8: "U8", torch.int16: "I16", torch.float16: "F16", torch.float32: "F32"}
STEPS = [0.0, MIN_STEP, 0.5, MAX_STEP]


def coded(codes, width, step=0.5):
    """Some codes of any shape as a delta."""
    stream, escapes = pack(codes, width)
    places, squares = scan("", stream, width, codes.numel())
    parts = {"symbols": stream, "escapes": escapes, "places": places, "squares": squares}
    return Packed(tuple(codes.shape), "symbols", None, {**parts, "step": f32(step)})


def plain(values, encoding="float16"):
    return Packed(tuple(values.shape), encoding, None, {"values": values.to(getattr(torch, encoding))})


def f32(*values):
    return torch.tensor(values, dtype=torch.float32)


def config_of(tensors, width, parts):
    """A config that promises these deltas and no more."""
    facts = {n: TensorFacts("add", False, p.encoding, None, 0.0, 0.0) for n, p in tensors.items()}
    backbone = dataclasses.replace(CONFIG.backbone, layout={n: p.shape for n, p in tensors.items()})
    codec = Codec("entropy", width, len(parts["frame"]), len(parts.get("escapes", ())))
    return dataclasses.replace(CONFIG, backbone=backbone, tensors=facts, codec=codec)


@st.composite
def deltas(draw, width):
    shape = st.lists(st.integers(1, 5), max_size=4).map(tuple)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    tensors = {}
    for name in draw(st.lists(st.sampled_from("a a.b b.0 b.2 b.10 B z".split()), unique=True, min_size=1)):
        own = draw(shape)
        if draw(st.booleans()):
            limit = draw(st.sampled_from([0, 3, 9, 130, MAX_CODE]))
            codes = torch.randint(-limit, limit + 1, own, generator=generator)
            tensors[name] = coded(codes, width, draw(st.sampled_from(STEPS)))
        else:
            values = torch.randn(own, generator=generator)
            tensors[name] = plain(values, draw(st.sampled_from(["float16", "float32"])))
    return tensors


@pytest.mark.parametrize("width", WIDTHS)
@settings(deadline=None)
@given(data=st.data())
def test_deltas_come_back(width, data):
    tensors = data.draw(deltas(width))
    parts = pool(tensors, width)
    config = config_of(tensors, width, parts)
    assert specs(config) == {label: (DTYPES[t.dtype], tuple(t.shape)) for label, t in parts.items()}
    assert all(t.numel() for t in parts.values())
    assert symbol_bytes(config) == sum(len(p.parts.get("symbols", ())) for p in tensors.values())
    found = split(parts, config)
    assert list(found) == list(tensors)
    for name, packed in found.items():
        own = tensors[name]
        assert (packed.shape, packed.encoding, packed.granularity) == (own.shape, own.encoding, None)
        assert packed.parts.keys() == own.parts.keys()
        assert all(torch.equal(part, own.parts[suffix]) for suffix, part in packed.parts.items())
        assert torch.equal(unpack(packed, width), unpack(own, width))


@settings(deadline=None)
@given(deltas(4), st.randoms(use_true_random=False))
def test_the_order_in_which_deltas_are_given_decides_nothing(tensors, rng):
    names = list(tensors)
    rng.shuffle(names)
    parts, again = pool(tensors, 4), pool({n: tensors[n] for n in names}, 4)
    assert parts.keys() == again.keys() and all(torch.equal(parts[k], again[k]) for k in parts)


def test_what_lies_where():
    tensors = {
        "b": coded(torch.tensor([[9, 0, -1]]), 4, 2.0),
        "a": coded(torch.tensor([[1], [-200]]), 4, 0.0),
        "v": plain(f32(0.5, -0.25)),
        "u": plain(f32(3.0)),
        "w": plain(f32(0.1), "float32"),
    }
    parts = pool(tensors, 4)
    assert sorted(parts) == ["escapes", "frame", "halves", "singles", "steps"]
    assert parts["escapes"].tolist() == [-200, 9] and parts["steps"].tolist() == [0.0, 2.0]
    assert parts["halves"].tolist() == [3.0, 0.5, -0.25] and torch.equal(parts["singles"], f32(0.1))


GOOD = {"x": coded(torch.tensor([[1, -9, 2], [30, 0, 7], [0, 0, 1]]), 4), "v": plain(f32(1.0))}
PARTS = pool(GOOD, 4)
i16 = torch.int16
DAMAGES = {
    "an escape less": ({"escapes": torch.tensor([-9], dtype=i16)}, "x: its codes and those that stand aside do not"),
    "no escapes": ({"escapes": torch.empty(0, dtype=i16)}, "x: its codes and those that stand aside do not belong"),
    "an escape more": ({"escapes": torch.tensor([-9, 30, 8], dtype=i16)}, "1 codes stand aside that no symbol asks"),
    "one that is a symbol": ({"escapes": torch.tensor([-9, 7], dtype=i16)}, "x: its codes and those that stand aside"),
    "one that is zero": ({"escapes": torch.tensor([0, 30], dtype=i16)}, "x: its codes and those that stand aside do"),
    "one too large": ({"escapes": torch.tensor([-9, -(2**15)], dtype=i16)}, "x: its codes and those that stand aside"),
    "a negative step": ({"steps": f32(-1.0)}, "x: the step is -1.0, which no encoder writes"),
    "minus zero": ({"steps": f32(-0.0)}, "x: the step is -0.0, which no encoder writes"),
    "a step that is NaN": ({"steps": f32(math.nan)}, "x: the step is nan, which no encoder writes"),
    "an infinite step": ({"steps": f32(math.inf)}, "x: the step is inf, which no encoder writes"),
    "a subnormal step": ({"steps": f32(MIN_STEP / 2)}, "which no encoder writes"),
    "a step too large": ({"steps": f32(MAX_STEP * 2)}, "which no encoder writes"),
    "stray bits": (
        {"frame": pool({"x": coded(torch.tensor([1, -9, 2, 30, 0, 7, 0, 0, 1, 2]), 4)}, 4)["frame"]},
        "x: the symbols end with stray bits",
    ),
    "codes of another shape": ({"frame": pool({"x": coded(torch.tensor([1, -9]), 4)}, 4)["frame"]}, "need 5 bytes"),
    "no frame": ({"frame": torch.zeros(9, dtype=torch.uint8)}, "the compressed codes do not begin"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_no_encoder_writes_is_refused(case):
    changes, message = DAMAGES[case]
    with pytest.raises(CorruptArtifactError) as caught:
        split(PARTS | changes, config_of(GOOD, 4, PARTS))
    assert message in str(caught.value)


def test_what_is_handed_out_is_no_view_of_the_vectors():
    found = split(PARTS, config_of(GOOD, 4, PARTS))
    found["v"].parts["values"].zero_()
    assert PARTS["halves"].tolist() == [1.0]


@pytest.mark.parametrize("codes", [[[1, -2], [0, 3]], [[1, -20], [0, 3]]], ids=["no escapes", "escapes"])
def test_neither_the_default_device_nor_the_default_dtype_matters(codes):
    tensors = {"x": coded(torch.tensor(codes), 4), "w": plain(f32(0.1, 0.2), "float32")}
    parts = pool(tensors, 4)
    config = config_of(tensors, 4, parts)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            again, found = pool(tensors, 4), split(parts, config)
    finally:
        torch.set_default_dtype(torch.float32)
    assert parts.keys() == again.keys() and all(torch.equal(parts[k], again[k]) for k in parts)
    assert all(torch.equal(unpack(found[n], 4), unpack(tensors[n], 4)) for n in tensors)
