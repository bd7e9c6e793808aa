"""Pairs of names become rows with fields only where the rows spell exactly those pairs."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub.folding import Names, table_text
from rws_hub.names import parse_family
from rws_hub.pairing import Pair

WHOLE = (0, 1)


def text(pairs, shapes=None):
    pairs = [Pair(a, WHOLE, b, WHOLE) if len(rest) == 0 else Pair(a, rest[0], b, rest[1]) for a, b, *rest in pairs]
    shapes = shapes or {}
    names = Names({p.a: shapes.get(p.a, (4, 4)) for p in pairs}, {p.b: shapes.get(p.b, (4, 4)) for p in pairs})
    return table_text(pairs, names, ("a", "b"), ["why"])


def rows(table):
    return [" | ".join(cell.strip() for cell in line.split("|")) for line in table.splitlines()[3:]]


def test_numbers_become_fields_and_words_become_one():
    pairs = [
        (f"blocks.{i}.fc{j}.{w}", f"h.{i + 1}.d{j - 1}.{w}")
        for i in range(3)
        for j in (1, 2)
        for w in ("weight", "bias")
    ]
    table = text(pairs)
    assert table.splitlines()[:3] == ["# why", "columns: a | b", ""]
    assert rows(table) == ["blocks.{i}.fc{j}.{wb} | h.{i+1}.d{j-1}.{wb}"]


def test_batch_norm_is_one_row_and_a_lone_word_stays():
    words = ("weight", "bias", "running_mean", "running_var")
    assert rows(text([(f"bn.{w}", f"norm.{w}") for w in words])) == ["bn.{bn} | norm.{bn}"]
    assert rows(text([("conv.weight", "c.weight")])) == ["conv.weight | c.weight"]
    assert rows(text([("a.weight", "b.gamma"), ("a.bias", "b.beta")])) == ["a.weight | b.gamma", "a.bias | b.beta"]


def test_row_blocks_are_views():
    pairs = [(f"b.{i}.qkv.weight", f"l.{i}.{r}.weight", (k, 3), WHOLE) for i in range(2) for k, r in enumerate("qkv")]
    assert rows(text(pairs)) == [f"b.{{i}}.qkv.weight[{k}/3] | l.{{i}}.{r}.weight" for k, r in enumerate("qkv")]


def test_shapes_that_differ_are_views():
    shapes = {"cls": (1, 1, 8), "c": (8,), "g": (8,), "grn": (1, 1, 1, 8), "pre": (8, 2, 3, 3), "lin": (8, 18)}
    shapes |= {"pw": (8, 8, 1, 1), "mm": (8, 8)}
    pairs = [("cls", "c"), ("g", "grn"), ("pre", "lin"), ("pw", "mm")]
    assert rows(text(pairs, shapes)) == ["cls | c[None,None]", "g | grn[0,0,0]", "pre[flat] | lin", "pw | mm"]


def test_a_row_is_not_wider_than_its_pairs():
    """The second block of every stage goes elsewhere: no field may reach it."""
    pairs = [
        (f"s.{i}.b.{j}.w", f"t.{i}.first.w" if j == 0 else f"t.{i}.rest.{j}.w") for i in range(2) for j in range(3)
    ]
    assert rows(text(pairs)) == [
        "s.{i}.b.0.w | t.{i}.first.w",
        "s.{i}.b.1.w | t.{i}.rest.1.w",
        "s.{i}.b.2.w | t.{i}.rest.2.w",
    ]


def test_heads_and_the_prefix_of_the_second_model():
    pairs = [
        ("stem.weight", "net.stem.weight"),
        ("top.weight", "net.top.weight"),
        ("head.fc.weight", "classifier.weight"),
    ]
    assert rows(text(pairs)) == [
        "stem.weight | stem.weight",
        "top.weight | top.weight",
        "head: head.fc.weight | ^classifier.weight",
    ]
    assert "net.stem" in text(pairs[:2])  # without a head beside it, it may be part of the backbone


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_map_is_spelled_exactly(data):
    """Random names with numbers, mapped at random: reading the rows on the first model gives the pairs again."""
    stems = st.sampled_from(["x", "y", "block"])
    names = st.builds("{}.{}.{}.{}".format, stems, st.integers(0, 3), stems, st.integers(0, 3))
    words = st.sampled_from(["weight", "bias", "gamma"])
    full = st.builds("{}.{}".format, names, words)
    ours = data.draw(st.lists(full, min_size=1, max_size=12, unique=True))
    theirs = data.draw(st.lists(full, min_size=len(ours), max_size=len(ours), unique=True))
    family = parse_family("t", text(list(zip(ours, theirs, strict=True))))
    read = {
        (name, row.cells["b"].format(fields))
        for name in ours
        for row in family.rows
        if (fields := row.cells["a"].parse(name)) is not None
    }
    assert read == set(zip(ours, theirs, strict=True))
