"""Artifacts of format 3 made to mislead: frames, what stands aside, steps and pooled vectors, all sealed again."""

import math
import time
import tracemalloc

import pytest
import safetensors.torch
import torch
from forge import config_data, join, load, put, sealed, split, vouched, with_header

from rws_hub import RobustWeightSignature
from rws_hub.config import parse_config
from rws_hub.errors import ArtifactError, CorruptArtifactError
from rws_hub.frames import compress, decompress, zstd
from rws_hub.payload import write_payload
from rws_hub.pools import symbol_bytes
from rws_hub.spec import ALWAYS_EXPANDED, CONFIG_FILE


def everything():
    """A signature with all five tensors in its payload: codes of an odd number of elements, some beyond 4 bits."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"conv.weight": (7, 5, 3, 3), "norm.weight": (6,), "norm.bias": (3,), "gate.weight": (3, 5)}
    standard = {n: torch.zeros(s) for n, s in shapes.items()}
    robust = {n: torch.randn(s, generator=generator) * (1e-9 if "bias" in n else 0.01) for n, s in shapes.items()}
    robust["conv.weight"][3, 2, 1] = torch.tensor([0.2, -0.3, 0.01])
    return RobustWeightSignature.extract(
        standard=standard, robust=robust, corruption="fog", license="mit", layers=["*"], error=0.2
    )


SMALL = everything()
DATA, PAYLOAD = config_data(SMALL), SMALL.payload
PARTS = safetensors.torch.load(PAYLOAD)
SYMBOLS = symbol_bytes(SMALL.config)
STREAM = decompress(PARTS["frame"].numpy().tobytes(), SYMBOLS, "")


def made(**changes):
    """Config and payload with other tensors in it (None: without); the config counts what is there."""
    parts = {n: t for n, t in (PARTS | changes).items() if t is not None}
    codec = DATA["codec"] | {"frame": len(parts["frame"]), "escapes": len(parts.get("escapes", ()))}
    payload = bytes(write_payload(parts))
    return vouched(DATA | {"codec": codec}, payload), payload


def promised(path, value, payload=PAYLOAD):
    """A payload, and a config that promises something else."""
    return vouched(put(DATA, path, value), payload), payload


def framed(data):
    return {"frame": torch.frombuffer(bytearray(data), dtype=torch.uint8)}


def symbols(change):
    stream = bytearray(STREAM)
    change(stream)
    return framed(compress([stream], len(stream)))


def stray(stream):
    stream[-1] ^= 0x30


def one_more_aside(stream):
    at = next(i for i, byte in enumerate(stream) if byte & 15 != 15)
    stream[at] |= 15


def numbers(label, value, at=0):
    """One number of a tensor changed."""
    part = PARTS[label].clone()
    part[at] = value
    return {label: part}


def i16(*values):
    return torch.tensor(values, dtype=torch.int16)


FRAME = PARTS["frame"].numpy().tobytes()
ASIDE = PARTS["escapes"].tolist()
LYING = FRAME[:4] + bytes([0xA0]) + SYMBOLS.to_bytes(4, "little")  # a header by hand: only the size, in four bytes
BOMB = compress([bytes(2**20)] * 256, 2**28)

CASES = {
    "a frame of a byte more": (made(**framed(compress([STREAM, b"\0"], SYMBOLS + 1))), f"state {SYMBOLS + 1:,} bytes"),
    "a frame of a byte less": (made(**framed(compress([STREAM[1:]], SYMBOLS - 1))), f"need {SYMBOLS:,} bytes"),
    "half a frame": (made(**framed(FRAME[: len(FRAME) // 2])), "cut off, or something follows"),
    "a frame and more": (made(**framed(FRAME + b"\0")), "cut off, or something follows"),
    "two frames": (made(**framed(FRAME + FRAME)), "cut off, or something follows"),
    "a frame that states no size": (
        made(**framed(zstd.compress(STREAM, options={zstd.CompressionParameter.content_size_flag: 0}))),
        "state no size",
    ),
    "a frame to be skipped": (made(**framed(b"\x50\x2a\x4d\x18" + bytes(4) + FRAME)), "do not begin as a zstd frame"),
    "no frame": (made(**framed(b"\x1f\x8b" + bytes(40))), "do not begin as a zstd frame"),
    "a bomb": (made(**framed(BOMB)), "state 268,435,456 bytes"),
    "a bomb that states what is needed": (made(**framed(LYING + BOMB[9:])), "the compressed codes are "),
    "stray bits": (made(**symbols(stray)), "gate.weight: the symbols end with stray bits"),
    "a symbol without its escape": (made(**symbols(one_more_aside)), "do not belong together"),
    "no escapes": (made(escapes=None), "do not belong together"),
    "an escape less": (made(escapes=i16(*ASIDE[:-1])), "do not belong together"),
    "an escape more": (made(escapes=i16(*ASIDE, 99)), "1 codes stand aside that no symbol asks for"),
    "an escape that is a symbol": (made(**numbers("escapes", -7)), "do not belong together"),
    "an escape beyond all codes": (made(**numbers("escapes", -(2**15))), "do not belong together"),
    "escapes that the config does not count": (promised("codec.escapes", 0), "unexpected tensor escapes"),
    "a frame that the config does not count": (promised("codec.frame", len(FRAME) - 1), "frame must be U8 ["),
    "symbols of 8 bits": (promised("codec.bits", 8), f"state {SYMBOLS:,} bytes"),
    "a step that is NaN": (made(**numbers("steps", math.nan)), "conv.weight: the step is nan"),
    "an infinite step": (made(**numbers("steps", math.inf, 1)), "gate.weight: the step is inf"),
    "a negative step": (made(**numbers("steps", -0.5)), "conv.weight: the step is -0.5, which no encoder writes"),
    "minus zero": (made(**numbers("steps", -0.0)), "conv.weight: the step is -0.0, which no encoder writes"),
    "a subnormal step": (made(**numbers("steps", 1e-40)), "which no encoder writes"),
    "a step whose products overflow": (made(**numbers("steps", 1e38)), "which no encoder writes"),
    "a step too many": (made(steps=torch.ones(3)), "steps must be F32 [2], found F32 [3]"),
    "steps of another dtype": (made(steps=PARTS["steps"].half()), "steps must be F32 [2], found F16 [2]"),
    "a half that is NaN": (made(**numbers("halves", math.nan, 2)), "norm.weight.values holds a value that is not fin"),
    "an infinite half": (made(**numbers("halves", -math.inf, 5)), "norm.weight.values holds a value that is not fin"),
    "a single that is NaN": (made(**numbers("singles", math.nan)), "norm.bias.values holds a value that is not finite"),
    "an infinite single": (made(**numbers("singles", math.inf)), "norm.bias.values holds a value that is not finite"),
    "a half less": (made(halves=PARTS["halves"][1:]), "halves must be F16 [6], found F16 [5]"),
    "no halves": (made(halves=None, more=PARTS["halves"]), "the tensor halves is missing"),
    "a tensor of an old format": (made(**{"conv.weight.codes": PARTS["frame"]}), "unexpected tensor conv.weight.codes"),
    "a tensor twice": (
        (lambda p: (vouched(DATA, p), p))(
            with_header(PAYLOAD, lambda h: str(h).replace("'", '"')[:-1] + ', "steps": {}}')
        ),
        "the key 'steps' occurs twice",
    ),
    "tensors in another order": (
        (lambda p: (vouched(DATA, p), p))(with_header(PAYLOAD, lambda h: dict(reversed(h.items())))),
        "not spelled or ordered as the format demands",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_artifact_is_refused(case):
    (text, payload), message = CASES[case]
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError) as caught:
            load(text, payload)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert type(caught.value) is CorruptArtifactError
    assert message in str(caught.value)


def test_the_forge_itself_changes_nothing():
    assert sorted(PARTS) == ["escapes", "frame", "halves", "singles", "steps"] and DATA["codec"]["bits"] == 4
    text, payload = made()
    assert payload == PAYLOAD and parse_config(text) == SMALL.config
    again = join(*split(PAYLOAD))
    assert load(vouched(DATA, again), again).names == SMALL.names
    text, payload = made(**framed(zstd.compress(STREAM)))  # by another encoder
    assert torch.equal(load(text, payload).delta("conv.weight"), SMALL.delta("conv.weight"))


def test_every_changed_character_of_the_config_is_found():
    text = SMALL.config.to_text()
    for position, character in enumerate(text):
        if not character.isascii() or not character.isalnum():
            continue
        other = {"9": "8", "z": "y", "Z": "Y"}.get(character) or chr(ord(character) + 1)
        try:
            read = parse_config(text[:position] + other + text[position + 1 :])
        except ArtifactError as error:
            assert CONFIG_FILE in str(error)
        else:
            assert read == SMALL.config, text[max(0, position - 30) : position + 30]


@pytest.mark.parametrize("shape", [[2**20, 2**20], [2**40, 1], [ALWAYS_EXPANDED, 2]])
@pytest.mark.parametrize("name", ["conv.weight", "norm.weight"])
def test_what_a_small_file_only_claims_takes_neither_memory_nor_time(name, shape):
    text = sealed(put(DATA, f"backbone/layout/{name}", shape))
    times = []

    def refused():
        start = time.perf_counter()
        message = "cannot stand for|payload.bytes is|the compressed codes state"
        with pytest.raises(CorruptArtifactError, match=message):
            load(text, PAYLOAD)
        times.append(time.perf_counter() - start)

    for _ in range(3):
        refused()
    assert min(times) < 0.05
    tracemalloc.start()
    try:
        refused()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_as_many_names_as_a_config_may_hold_take_no_time():
    text = sealed(put(DATA, "backbone/layout/b.{0..16000}.{a,b}.{v,w}", [1]))
    start = time.perf_counter()
    assert len(parse_config(text).backbone.layout) > 64_000
    assert time.perf_counter() - start < 10
