"""How coarse a signature is: by bits, by an error, or by what it may take on disk."""

import math
import re

import pytest
import torch
from builders import perturbed, tiny_resnet

from rws_hub import ExtractionError, RobustWeightSignature
from rws_hub.making import Wanted, wanted_rate
from rws_hub.rate import Target
from rws_hub.spec import DEFAULT_ERROR, DEFAULT_MATRIX_ERROR

GENERATOR = torch.Generator().manual_seed(0)


def _heavy(shape):
    return torch.randn(shape, generator=GENERATOR) * torch.randn(shape, generator=GENERATOR)


STANDARD = {
    "a.weight": torch.randn(64, 40, 3, 3, generator=GENERATOR),
    "b.weight": torch.randn(60, 125, generator=GENERATOR),
    "b.bias": torch.randn(60, generator=GENERATOR),
    "c.weight": torch.randn(2, 60, generator=GENERATOR),
}
ROBUST = {n: t + _heavy(t.shape) * 0.01 for n, t in STANDARD.items()}


def made(**options):
    base = {"standard": STANDARD, "robust": ROBUST, "corruption": "fog", "license": "mit", "layers": ["a.*", "b.*"]}
    return RobustWeightSignature.extract(**{**base, **options})


def bits_of(signature):
    """What one coded weight takes."""
    coded = sum(signature.elements(n) for n, f in signature.config.tensors.items() if f.encoding == "symbols")
    return (8 * signature.config.codec.frame + 16 * signature.config.codec.escapes) / coded


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ((None, None, None), Wanted(Target("default"), None)),
        ((3, None, None), Wanted(Target("bits", 3.0), None)),
        ((0.1, None, None), Wanted(Target("bits", 0.1), None)),
        ((32, None, None), Wanted(None, None)),
        ((None, 0.2, None), Wanted(Target("error", 0.2), None)),
        ((None, None, 5000), Wanted(Target("default"), 5000)),
    ],
)
def test_what_was_asked_for(asked, wanted):
    assert wanted_rate(*asked) == wanted


ONE = "bits, error and max_bytes all say how coarse the weights are stored; pass one of them"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 2, "error": 0.1}, ONE),
        ({"bits": 32, "max_bytes": 10**6}, ONE),
        ({"error": 0.1, "max_bytes": 10**6}, ONE),
        ({"bits": 2, "error": 0.1, "max_bytes": 10**6}, ONE),
        ({"bits": 0}, "bits=0: expected a number from 0.1 to 8, or 32 for plain float32"),
        ({"bits": 8.5}, "bits=8.5: expected a number from 0.1 to 8"),
        ({"bits": math.nan}, "bits=nan: expected a number"),
        ({"bits": "2"}, "bits='2': expected a number"),
        ({"error": 0}, "error=0: expected a number from 0.001 to 0.9"),
        ({"error": 0.95}, "error=0.95: expected a number from 0.001 to 0.9"),
        ({"error": 32}, "error=32: expected a number from 0.001 to 0.9"),
        ({"error": math.nan}, "error=nan: expected a number"),
        ({"error": True}, "error=True: expected a number"),
        ({"error": "0.1"}, "error='0.1': expected a number"),
        ({"max_bytes": 0}, "max_bytes=0: expected a whole number of bytes"),
        ({"max_bytes": -5}, "max_bytes=-5: expected a whole number of bytes"),
        ({"max_bytes": 1e5}, "max_bytes=100000.0: expected a whole number of bytes"),
        ({"max_bytes": True}, "max_bytes=True: expected a whole number of bytes"),
        ({"max_bytes": "5 KB"}, "max_bytes='5 KB': expected a whole number of bytes"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for(options, message):
    with pytest.raises(ExtractionError, match=f"^{re.escape(message)}"):
        made(**options)


@pytest.mark.parametrize("error", [None, 0.01, 0.1, 0.35, 0.8])
def test_an_error_is_met(error):
    wanted = error
    if error is None:
        deltas = {n: float((ROBUST[n] - STANDARD[n]).double().square().sum()) for n in ("a.weight", "b.weight")}
        squares = DEFAULT_ERROR**2 * deltas["a.weight"] + DEFAULT_MATRIX_ERROR**2 * deltas["b.weight"]
        wanted = math.sqrt(squares / sum(deltas.values()))
    assert made(error=error).config.relative_error == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("bits", [0.3, 1, 2.5, 4, 6])
def test_bits_are_met(bits):
    assert bits_of(made(bits=bits)) == pytest.approx(bits, abs=0.15)


def test_whatever_is_written_is_of_the_format_that_has_its_sketch():
    versions = {bits: made(bits=bits).config.format_version for bits in (None, 2, 32)}
    assert versions == {None: 4, 2: 4, 32: 4}


SMALLEST, LARGEST = made(bits=0.1).nbytes, made(bits=8).nbytes
SIZES = [SMALLEST + round((LARGEST - SMALLEST) * share) for share in (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.9)]


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_met(size):
    signature = made(max_bytes=size)
    assert 0.97 * size < signature.nbytes <= size


def test_more_room_is_less_error():
    errors = [made(max_bytes=size).config.relative_error for size in SIZES]
    assert errors == sorted(errors, reverse=True)


def test_of_more_room_than_it_needs_a_signature_takes_a_part():
    signature = made(max_bytes=10**9)
    assert signature.nbytes == LARGEST and signature == made(bits=8)


def needed_for(most):
    """What a refusal says is needed."""
    with pytest.raises(
        ExtractionError, match=r"^max_bytes=[\d,]+ cannot be met: [\d,]+ bytes are needed\. Keep fewer"
    ) as e:
        made(max_bytes=most)
    return int(re.search(r"met: ([\d,]+) bytes", str(e.value))[1].replace(",", ""))


def test_a_size_that_cannot_be_met_is_named_with_the_least_that_can():
    needed = needed_for(1)
    assert needed < SMALLEST
    assert needed_for(needed // 2) == needed_for(needed - 1) == needed
    assert made(max_bytes=needed).nbytes <= needed


def test_vectors_cannot_be_made_smaller():
    size = made(layers=["b.bias"]).nbytes
    assert made(layers=["b.bias"], max_bytes=size).nbytes == size
    with pytest.raises(ExtractionError, match=f"cannot be met: {size:,} bytes are needed"):
        made(layers=["b.bias"], max_bytes=size - 1)


def test_a_size_is_met_by_a_real_layout_too():
    standard = tiny_resnet()
    options = {"standard": standard, "robust": perturbed(standard, 0.01, 1), "layers": "shallow"}
    most = made(**options).nbytes * 2
    signature = made(**options, max_bytes=most)
    assert 0.97 * most < signature.nbytes <= most
    assert signature.payload == made(**options, max_bytes=most).payload


def test_progress_is_shown_and_changes_nothing(capfd):
    expected = made(max_bytes=SIZES[2])
    assert capfd.readouterr().err == ""
    assert made(max_bytes=SIZES[2], progress=True) == expected
    assert "extracting" in capfd.readouterr().err
