"""Mutants by seed and by hypothesis: refused in our own words, or what they say they are (`judge.py`)."""

import base64
import json
from pathlib import Path

import pytest
from corpus import FIXTURES, bases
from hypothesis import given, settings
from hypothesis import strategies as st
from judge import judge
from mutants import KINDS, Mutant, origins
from side import judged
from targets import TARGETS

from rws_hub import jsonio
from rws_hub.errors import CorruptArtifactError
from rws_hub.names import parse_family
from rws_hub.spec import SignatureConfig

ORIGINS = origins(FIXTURES)
FOUND = sorted((Path(__file__).parent / "found").glob("*.json"))


def test_mutants_are_refused_or_are_what_they_say():
    kinds, verdicts = set(), set()
    for seed in range(600):
        case = judged(ORIGINS, seed)  # raises on anything else
        kinds.add(case.kind)
        verdicts.add(case.verdict)
    assert kinds >= {*KINDS, "results", "card"} and verdicts == {"refused", "the same", "another"}


def test_a_mutant_of_a_seed_is_always_the_same():
    assert [judged(ORIGINS, seed) for seed in range(40)] == [judged(ORIGINS, seed) for seed in range(40)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@settings(deadline=None, max_examples=60)
@given(JSON)
def test_any_json_is_refused_where_a_config_should_be(data):
    with pytest.raises(CorruptArtifactError) as caught:
        jsonio.decode(SignatureConfig, jsonio.parse(json.dumps(data), "x"), "x")
    assert len(str(caught.value)) < 1000


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200), st.sampled_from(sorted(bases())), st.booleans(), st.integers(0, 5000))
def test_any_bytes_anywhere_are_refused(data, name, in_config, at):
    origin = bases()[name]
    part = origin.text if in_config else origin.payload
    at %= len(part) + 1
    changed = part[:at] + data + part[at:]
    text, payload = (changed, origin.payload) if in_config else (origin.text, changed)
    assert judge(Mutant(origin, "", text, payload, False)) == "refused" or data.strip() == b"" or in_config


CELLS = st.text(st.sampled_from("ab{}wsk.[]:,/0123<>+-=^_| None flat"), max_size=30)


@settings(deadline=None, max_examples=150)
@given(st.lists(CELLS, max_size=4))
def test_any_table_is_read_or_refused_with_its_line(rows):
    text = "columns: a | b\n" + "\n".join(rows)
    try:
        table = parse_family("t", text)
    except ValueError as error:
        assert str(error).startswith("t") and len(str(error)) < 1000
    else:
        assert table.text == text


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_what_was_found_once_is_not_found_again(file):
    case = json.loads(file.read_text("utf-8"))
    TARGETS[case["parser"]](base64.b64decode(case["input"]))
