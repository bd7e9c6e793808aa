"""The short spelling of a config: one for every config, and nothing else is read."""

import itertools
import json
import time

import pytest
from builders import tiny_resnet, tiny_signature, tiny_vit
from forge import config_data, old_signature, sealed, small_signature
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rws_hub import jsonio
from rws_hub.compact import MAX_AXES, MAX_DIMENSION, MAX_NAMES, check_spelling, compact, expand, fold, in_order, unfold
from rws_hub.config import parse_config
from rws_hub.errors import CorruptArtifactError

# Few words, so that names have much in common; numbers of all kinds among them.
WORDS = ["a", "B", "bn1", "weight", "_", "0", "1", "2", "3", "9", "10", "11", "01", "99999", "100000"]
names_of = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(".".join)
tables = st.dictionaries(names_of, st.sampled_from([[], [64], [64, 3]]), max_size=25)
# As regular as a real backbone: every choice of some words at each place.
grids = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True), min_size=1, max_size=3).map(
    lambda places: {".".join(words): [1] for words in itertools.product(*places)}
)


@given(tables | grids)
def test_a_table_comes_back(table):
    folded = fold(table)
    assert unfold(folded, "") == table and len(folded) <= len(table)
    backwards = dict(reversed(table.items()))
    assert list(fold(backwards).items()) == list(folded.items())


@given(grids)
def test_what_is_regular_takes_one_line(table):
    assert len(fold(table)) == 1


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        ("a", "a"),
        ("a.0 a.1", "a.{0,1}"),
        ("a.0 a.1 a.2", "a.{0..2}"),
        ("a.9 a.10 a.11", "a.{9..11}"),
        ("a.0 a.1 a.2 a.4", "a.{0,1,2,4}"),
        ("a.0 a.1 a.2 a.x", "a.{0,1,2,x}"),
        ("a.00 a.01 a.02", "a.{00,01,02}"),
        ("a.b a", "a a.b"),
        ("a.b.w a.c.w a.b.v", "a.b.{v,w} a.c.w"),
        ("l.1.w l.0.w l.0.b l.1.b", "l.{0,1}.{b,w}"),
        ("l.1.n1 l.0.n1 l.0.n2 l.1.n2 l.0.c l.1.c", "l.{0,1}.{c,n1,n2}"),
        (" ".join(f"b.{i}.w" for i in range(12)), "b.{0..11}.w"),
    ],
)
def test_patterns_written_down_by_hand(names, patterns):
    assert list(fold({name: [3] for name in names.split()})) == patterns.split()


def test_only_names_that_share_a_value_share_a_line():
    assert fold({"a.0": [1], "a.1": [2], "a.2": [1]}) == {"a.{0,2}": [1], "a.1": [2]}


def test_numbers_are_in_the_order_of_numbers():
    names = ["b.10.w", "b.9.w", "a", "b.9", "b.x", "b.01", "2", "b.9.w.x"]
    assert in_order(names) == ["2", "a", "b.9", "b.9.w", "b.9.w.x", "b.10.w", "b.01", "b.x"]


def respelled(folded):
    """Every other spelling of a table that takes one choice of one line apart, or turns it round."""
    for pattern, value in folded.items():
        words = pattern.split(".") if ".." not in pattern else None
        for name in unfold({pattern: value}, ""):
            if name != pattern:
                rest = {n: v for n, v in unfold({pattern: value}, "").items() if n != name}
                others = {k: v for k, v in folded.items() if k != pattern}
                yield others | {name: value} | fold(rest)
        for i, word in enumerate(words or []):
            if word.startswith("{"):
                turned = "{" + ",".join(reversed(word[1:-1].split(","))) + "}"
                yield {
                    ".".join([*words[:i], turned, *words[i + 1 :]]) if k == pattern else k: v for k, v in folded.items()
                }


def config(layout, head, tensors=()):
    kinds = ("op", "projected", "encoding", "granularity", "relative_error", "relative_norm")
    facts = {n: dict(zip(kinds, (*kind, 0.5, 0.25), strict=True)) for n, kind in tensors}
    return {"backbone": {"library": "x", "layout": layout, "head": head}, "tensors": facts}


KINDS = [("add", False, "symbols", None), ("add", True, "symbols", None), ("multiply", False, "float16", None)]
facts_of = st.lists(st.tuples(names_of, st.sampled_from(KINDS)), max_size=12, unique_by=lambda pair: pair[0])


@given(tables | grids, tables, facts_of)
def test_a_config_comes_back(layout, head, tensors):
    data = config(layout, head, tensors)
    short = compact(data)
    again = expand(json.loads(json.dumps(short)), "")
    assert again == data and list(again["tensors"]) == in_order(data["tensors"])
    assert compact(again) == short
    check_spelling(short, again, "")
    turned = {**short, "backbone": {**short["backbone"], "layout": dict(reversed(short["backbone"]["layout"].items()))}}
    check_spelling(turned, expand(turned, ""), "")  # as in any JSON object


@given(tables | grids, st.sampled_from(["layout", "head"]))
@settings(deadline=None)
def test_another_spelling_of_the_names_is_refused(table, key):
    others = list(respelled(fold(table)))
    assume(others)
    for other in others:
        data = config({}, {})
        data["backbone"][key] = table
        short = compact(data)
        short["backbone"][key] = other
        assert expand(short, "") == data
        with pytest.raises(
            CorruptArtifactError, match=rf"here: the names of backbone\.{key} are not folded as the format"
        ):
            check_spelling(short, data, "here")


@pytest.mark.parametrize(
    "change",
    [
        lambda groups: groups[::-1],
        lambda groups: [{**groups[0], "tensors": {n: p}} for n, p in groups[0]["tensors"].items()] + groups[1:],
        lambda groups: [*groups, {**groups[0], "tensors": {}}],
    ],
    ids=["order", "taken apart", "empty"],
)
def test_tensors_grouped_in_another_way_are_refused(change):
    data = config({}, {}, [("a", KINDS[0]), ("b", KINDS[0]), ("c", KINDS[2])])
    short = compact(data)
    short["tensors"] = change(short["tensors"])
    assert expand(short, "") == data
    with pytest.raises(CorruptArtifactError, match="here: tensors are not grouped as the format demands"):
        check_spelling(short, data, "here")


@pytest.mark.parametrize("twice", [{"a.{b,c}": [1], "a.b": [1]}, {"{1,2}": [1], "{0..3}": [2]}, {"{a,b,a}": [1]}])
def test_a_name_occurs_once(twice):
    with pytest.raises(CorruptArtifactError, match=r"here: \S+ occurs twice"):
        unfold(twice, "here")


@pytest.mark.parametrize(
    "pattern",
    [
        "", ".", "a.", ".a", "a..b", "{a}", "{}", "{a,}", "{,a}", "{a,b", "a,b}", "a{1,2}", "{1,2}a", "{a,b}{c,d}",
        "{1..}", "{..1}", "{2..1}", "{1..2..3}", "{1..2,4}", "{a..c}", "{-1..1}", "{0..123456}", "{ a,b}", "{a, b}",
        "{{a,b},c}", "a b", "ä", "a-b", "../a", "a/b", "a\n", "\0", "*", "x" * 257, "a." * 128 + "aa",
        "{a,x" + "x" * 256 + "}",
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(CorruptArtifactError, match=r"here: .* cannot be a tensor name, nor a pattern of such"):
        unfold({pattern: [1]}, "here")


@pytest.mark.parametrize(
    "table",
    [
        {"{0..99999}": [1]},
        {".".join(["{0..99999}"] * 40): [1]},
        {".".join(["{0,1}"] * 120): [1]},
        {f"a{i}.{{0..9999}}": [1] for i in range(7)},
        {".".join(["x" * 12] * 19 + ["{0..8191}"]): [1]},
        {"{" + ",".join(map(str, range(200_000))) + "}": [1]},
    ],
    ids=["one range", "ranges", "choices", "many lines", "long names", "many words"],
)
def test_a_short_text_stands_for_no_endless_table(table):
    start = time.perf_counter()
    with pytest.raises(
        CorruptArtifactError, match=f"here: more than {MAX_NAMES:,} names, or than 1,048,576 characters"
    ):
        unfold(table, "here")
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "shape",
    [[1] * (MAX_AXES + 1), [1] * 100_000, [MAX_DIMENSION + 1], [-(10**4000)]],
    ids=["17", "many", "one", "long"],
)
def test_a_pattern_repeats_no_endless_shape(shape):
    assert len(unfold({"{0..9}": [1] * MAX_AXES, "a": [MAX_DIMENSION]}, "")) == 11
    with pytest.raises(CorruptArtifactError, match=r"here: \{0\.\.65535\} has an impossible shape"):
        unfold({"{0..65535}": shape}, "here")


@pytest.mark.parametrize(
    "names",
    [["a" * 250 + str(i) for i in range(4500)], ["a." * 100 + str(i) for i in range(6000)], range(MAX_NAMES + 1)],
)
def test_no_more_tensors_are_looked_at_than_a_layout_can_hold(names):
    group = {"op": "add", "projected": False, "encoding": "symbols", "granularity": None}
    with pytest.raises(CorruptArtifactError, match="here: tensors: more than 65,536 names, or than 1,048,576 charact"):
        expand({"tensors": [group | {"tensors": {str(n): [0.0, 0.0] for n in names}}]}, "here")


def test_as_many_names_as_are_allowed_are_read_and_folded_in_no_time():
    start = time.perf_counter()
    table = unfold({f"b{i}.{{0..{MAX_NAMES // 4 - 1}}}": [1] for i in range(4)}, "")
    assert len(table) == MAX_NAMES and len(fold(table)) == 1
    assert time.perf_counter() - start < 5
    with pytest.raises(CorruptArtifactError, match="more than 65,536 names"):
        unfold({"{0..65535}": [1], "a": [1]}, "")


SIGNATURES = [small_signature(), small_signature(8), tiny_signature("resnet"), tiny_signature("vit")]


@pytest.mark.parametrize("signature", SIGNATURES, ids=repr)
def test_a_real_config_is_spelled_in_few_lines_and_one_way(signature):
    short, whole = config_data(signature), jsonio.to_json(signature.config)
    assert expand(short, "") == whole and compact(whole) == short
    layout, folded = whole["backbone"]["layout"], short["backbone"]["layout"]
    assert len(folded) < len(layout) and unfold(folded, "") == layout
    for i, other in enumerate(respelled(folded)):
        if i < 20:
            data = {**short, "backbone": {**short["backbone"], "layout": other}}
            with pytest.raises(CorruptArtifactError, match=r"names of backbone\.layout are not folded as the format"):
                parse_config(sealed(data))


def test_a_backbone_takes_a_part_of_what_its_names_take():
    for model in (tiny_resnet(layers=[2, 2, 2, 2]), tiny_vit(depth=12)):
        layout = {n: list(t.shape) for n, t in model.state_dict().items()}
        assert len(json.dumps(fold(layout))) < 0.4 * len(json.dumps(layout))


def test_older_formats_are_spelled_out():
    assert config_data(old_signature()) == jsonio.to_json(old_signature().config)
