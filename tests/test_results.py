import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_card import FOG, LATER, make_config, make_results

from rws_hub.errors import CorruptArtifactError, FormatVersionError
from rws_hub.results import MAX_RESULTS_BYTES, Accuracy, parse_results


def changed(path: str, value: object) -> str:
    """The text of good results with the value at `path` replaced (or added)."""
    data = json.loads(make_results().to_text())
    *parents, last = path.split(".")
    inner = data
    for key in parents:
        inner = inner[int(key) if key.isdigit() else key]
    inner[last] = value
    return json.dumps(data)


def test_round_trip():
    results = make_results({}, FOG, LATER)
    assert parse_results(results.to_text()) == results
    assert parse_results(results.to_text().encode()) == results
    assert results.to_text() == parse_results(results.to_text()).to_text()


@settings(deadline=None)
@given(st.tuples(*[st.floats(0, 1)] * 4), st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 10**9))
def test_numbers_survive(accuracies, alpha, images):
    clean, corrupted = Accuracy(*accuracies[:2], None), Accuracy(*accuracies[2:], accuracies[0])
    results = make_results({"clean": clean, "corrupted": corrupted, "alpha": alpha, "images": images})
    assert parse_results(results.to_text()) == results


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "rws", "holds no results"),
        ("format_version", 0, "positive integer"),
        ("format_version", True, "positive integer"),
        ("payload_sha256", "D" * 64, "sha256"),
        ("payload_sha256", "d" * 63, "sha256"),
        ("command", "", "command"),
        ("command", "a\nb", "command"),
        ("command", "a\u202eb", "command"),
        ("versions", {"torch": 2}, r"versions\.torch"),
        ("versions", {"": "2"}, "versions"),
        ("versions", {"torch": "2\n"}, "versions.torch"),
        ("evaluations", [], "empty"),
        ("evaluations", {}, "list"),
        ("unknown", 1, "unknown key 'unknown'"),
        ("evaluations.0.note", "x", "unknown key 'note'"),
        ("evaluations.0.dataset", " ", r"evaluations\[0\]\.dataset"),
        ("evaluations.0.dataset_id", "cifar10", "Hub id"),
        ("evaluations.0.dataset_id", "../x", "Hub id"),
        ("evaluations.0.split", "te\tst", "split"),
        ("evaluations.0.metric", "f1", "accuracy"),
        ("evaluations.0.corruption", "fog noise", "one plain word"),
        ("evaluations.0.severity", 0, "1 to 5"),
        ("evaluations.0.severity", 6, "1 to 5"),
        ("evaluations.0.severity", 2.0, "int"),
        ("evaluations.0.target", "x" * 3000, "target"),
        ("evaluations.0.alpha", "1", "float"),
        ("evaluations.0.images", 0, "at least 1"),
        ("evaluations.0.images", 1.5, "int"),
        ("evaluations.0.seed", None, "int"),
        ("evaluations.0.clean.unpatched", -0.01, r"clean\.unpatched must be a fraction"),
        ("evaluations.0.clean.patched", 94.1, r"clean\.patched must be a fraction"),
        ("evaluations.0.corrupted.robust", 1.0000001, r"corrupted\.robust must be a fraction"),
        ("evaluations.0.corrupted.patched", None, "float"),
        ("evaluations.0.corrupted.patched", True, "float"),
    ],
)
def test_refused(path, value, message):
    with pytest.raises(CorruptArtifactError, match=message) as caught:
        parse_results(changed(path, value), "some/results.json")
    assert str(caught.value).startswith("some/results.json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(number):
    text = make_results().to_text().replace("0.9307", number)
    with pytest.raises(CorruptArtifactError):
        parse_results(text)


def test_missing_key():
    text = make_results().to_text().replace('"seed": 0,', "")
    with pytest.raises(CorruptArtifactError, match="'seed' is missing"):
        parse_results(text)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\xff", "1"])
def test_not_results(text):
    with pytest.raises(CorruptArtifactError):
        parse_results(text)


def test_newer_format():
    with pytest.raises(FormatVersionError, match="pip install -U rws-hub"):
        parse_results(changed("format_version", 2))


def test_too_long():
    with pytest.raises(CorruptArtifactError, match="allowed"):
        parse_results(" " * (MAX_RESULTS_BYTES + 1))


def test_one_setting_has_one_result():
    with pytest.raises(CorruptArtifactError, match=r"evaluations\[0\] and \[2\]"):
        make_results({}, FOG, {"clean": Accuracy(0.5, 0.5, None)}).check()
    make_results({}, {"seed": 1}, {"alpha": 0.5}).check()


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.5, 1.5])
def test_what_could_not_be_read_is_not_written(value):
    with pytest.raises(CorruptArtifactError):
        make_results({"clean": Accuracy(0.5, value, None)}).to_text()


def test_non_finite_alpha_is_not_written():
    with pytest.raises(CorruptArtifactError, match="finite"):
        make_results({"alpha": math.nan}).to_text()


def test_belongs_to_one_payload():
    make_results().require_for(make_config())
    with pytest.raises(CorruptArtifactError, match="another signature"):
        dataclasses.replace(make_results(), payload_sha256="e" * 64).require_for(make_config())
    with pytest.raises(CorruptArtifactError, match="fraction"):
        make_results({"clean": Accuracy(2.0, 0.5, None)}).require_for(make_config())
