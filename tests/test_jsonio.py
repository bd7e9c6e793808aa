"""Strict JSON: nothing is guessed, and every refusal names its place."""

import json
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub import jsonio
from rws_hub.errors import ArtifactError, CorruptArtifactError


@dataclass(frozen=True, slots=True)
class Inner:
    word: Literal["a", "b"]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outer:
    number: float
    count: int
    flag: bool
    text: str | None
    inner: Inner
    many: tuple[Inner, ...]
    table: dict[str, tuple[int, ...]]


OUTER = Outer(0.5, 3, True, None, Inner("a", (1, 2)), (Inner("b", ()),), {"x.y": (7,)})
DATA = jsonio.to_json(OUTER)


def test_a_dataclass_comes_back_as_it_was():
    assert jsonio.decode(Outer, jsonio.parse(jsonio.pretty(DATA), "f"), "f") == OUTER


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["number"], "1", "f.number: expected float, found '1'"),
        (["number"], True, "f.number: expected float, found True"),
        (["number"], 2**53, "f.number: expected float"),
        (["count"], 1.0, "f.count: expected int, found 1.0"),
        (["count"], True, "f.count: expected int, found True"),
        (["count"], None, "f.count: expected int, found None"),
        (["flag"], 1, "f.flag: expected bool, found 1"),
        (["text"], 5, "f.text: expected str, found 5"),
        (["text"], "\ud800", "half of a surrogate pair"),
        (["inner"], [], "f.inner: expected an object, found []"),
        (["inner", "word"], "c", "f.inner.word: expected one of ['a', 'b'], found 'c'"),
        (["inner", "word"], ["a"], "f.inner.word: expected one of"),
        (["inner", "shape"], "12", "f.inner.shape: expected a list, found '12'"),
        (["inner", "shape", 1], "2", "f.inner.shape[1]: expected int, found '2'"),
        (["inner", "extra"], 1, "f.inner: unknown key 'extra'; known keys are word, shape"),
        (["many"], {}, "f.many: expected a list, found {}"),
        (["many", 0, "word"], "c", "f.many[0].word: expected one of"),
        (["table"], [], "f.table: expected an object"),
        (["table", "x.y", 0], None, "f.table.x.y[0]: expected int, found None"),
        (["surprise"], 1, "f: unknown key 'surprise'"),
    ],
)
def test_a_value_that_does_not_fit_is_named(path, value, message):
    data = json.loads(json.dumps(DATA))
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(CorruptArtifactError) as caught:
        jsonio.decode(Outer, data, "f")
    assert message in str(caught.value)


@pytest.mark.parametrize("path", [["number"], ["text"], ["inner", "word"], ["many", 0, "shape"]])
def test_a_missing_key_is_named(path):
    data = json.loads(json.dumps(DATA))
    place = data
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    with pytest.raises(CorruptArtifactError, match=f"the key '{path[-1]}' is missing"):
        jsonio.decode(Outer, data, "f")


def test_a_whole_number_is_a_float_where_a_float_is_meant():
    value = jsonio.decode(Outer, DATA | {"number": 2}, "f").number
    assert (value, type(value)) == (2.0, float)


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(CorruptArtifactError) as caught:
        jsonio.decode(Outer, DATA | {"count": "x" * 10_000}, "f")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("{} {}", "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ('{"a": 1,}', "not valid JSON"),
        ('{"a": 1, "a": 1}', "the key 'a' occurs twice"),
        ('{"o": {"a": 1, "a": 2}}', "the key 'a' occurs twice"),
        ('{"a": NaN}', "the number NaN is not allowed"),
        ('{"a": Infinity}', "the number Infinity is not allowed"),
        ('{"a": -Infinity}', "the number -Infinity is not allowed"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a":' * 100_000, "not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"\\ud800": 1}', "half of a surrogate pair"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"a": "\xe4"}', "not valid JSON"),
        (b'{"a": "\xed\xa0\x80"}', "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
        ('{"a": 1}'.encode("utf-32-le"), "not valid JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
    ],
)
def test_what_is_not_json_is_refused(text, message):
    with pytest.raises(ArtifactError) as caught:
        jsonio.parse(text, "config.json")
    assert str(caught.value).startswith("config.json: ")
    assert message in str(caught.value)


def test_a_number_too_large_for_a_float_is_refused_when_decoded():
    data = jsonio.parse('{"a": 1e999}', "f")["a"]
    with pytest.raises(CorruptArtifactError, match=r"f\.number: expected a finite number, found inf"):
        jsonio.decode(Outer, DATA | {"number": data}, "f")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values)
def test_pretty_text_and_canonical_bytes_hold_the_same_value(value):
    assert jsonio.parse(jsonio.pretty(value), "f") == value
    assert jsonio.parse(jsonio.canonical(value), "f") == value


def test_short_lists_stay_on_one_line_and_strings_are_left_alone():
    text = jsonio.pretty({"shape": [1, 2], "odd": ["[\n  1,\n  2\n]"], "nested": [[1, 2], {"a": []}]})
    assert '"shape": [1, 2]' in text
    assert '"[\\n  1,\\n  2\\n]"' in text
    assert "[1, 2],\n" in text


def test_canonical_bytes_do_not_depend_on_key_order():
    assert jsonio.canonical({"b": 1, "a": [{"d": 1, "c": "é"}]}) == '{"a":[{"c":"é","d":1}],"b":1}'.encode()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_never_written(number):
    for write in (jsonio.pretty, jsonio.canonical):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write({"a": number})
