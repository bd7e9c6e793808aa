"""Folding names: few lines, and exactly the given names."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub.report import fold_names, fold_pairs

_GROUP = re.compile(r"\{([^{}]+)\}")


def unfold(line):
    """Every name that a folded line stands for."""
    choices = []
    for group in _GROUP.findall(line):
        first, _, last = group.partition("..")
        choices.append([str(n) for n in range(int(first), int(last) + 1)] if last else group.split(","))
    template = _GROUP.sub("\0", line)
    for values in itertools.product(*choices):
        filled = iter(values)
        yield re.sub("\0", lambda _, filled=filled: next(filled), template)


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        ([], []),
        (["a.weight"], ["a.weight"]),
        (["a.0", "a.1"], ["a.{0,1}"]),
        (["a.0", "a.1", "a.2"], ["a.{0..2}"]),
        (["a.10", "a.9", "a.11"], ["a.{9..11}"]),
        (["a.0", "a.2", "a.3"], ["a.{0,2,3}"]),
        (["a.0.x.1", "a.1.x.1", "a.0.x.0", "a.1.x.0"], ["a.{0,1}.x.{0,1}"]),
        (["a.0.x", "b.0.x", "a.1.x"], ["a.{0,1}.x", "b.0.x"]),
        (["l1.0", "l1.1", "l1.2", "l2.0", "l2.1"], ["l1.{0..2}", "l2.{0,1}"]),
        (["l1.0", "l2.1"], ["l1.0", "l2.1"]),
        (["a.1", "a.1"], ["a.1"]),
        (["a.01", "a.1", "a.001"], ["a.01", "a.1", "a.001"]),
        (["a#.1", "a#.2", "#"], ["a#.{1,2}", "#"]),
    ],
)
def test_names_fold(names, lines):
    assert fold_names(names) == lines


@pytest.mark.parametrize(
    ("pairs", "lines"),
    [
        (
            [(f"layer{s + 1}.{b}", f"stages.{s}.layers.{b}") for s in range(2) for b in range(3)],
            [("layer{1,2}.{0..2}", "stages.{0,1}.layers.{0..2}")],
        ),
        ([("a", "b.0"), ("a", "b.1")], [("a", "b.0"), ("a", "b.1")]),
        ([("a.0", "b.0"), ("a.0", "b.1"), ("a.1", "b.0")], [("a.0", "b.0"), ("a.0", "b.1"), ("a.1", "b.0")]),
        ([("a.1", "x"), ("a.2", "x")], [("a.{1,2}", "x")]),
        (
            [(f"qkv[{r}:{r + 4}]", f"{n}.weight") for r, n in ((0, "q"), (4, "k"), (8, "v"))],
            [("qkv[0:4]", "q.weight"), ("qkv[4:8]", "k.weight"), ("qkv[8:12]", "v.weight")],
        ),
    ],
)
def test_pairs_fold_together(pairs, lines):
    assert fold_pairs(pairs) == lines


part = st.sampled_from(["a", "b.", ".", "#", "layer", "0", "1", "2", "10", "07"])


@settings(deadline=None)
@given(st.lists(st.lists(part, min_size=1, max_size=5).map("".join), max_size=20))
def test_folded_lines_stand_for_exactly_the_given_names(names):
    unfolded = [name for line in fold_names(names) for name in unfold(line)]
    assert sorted(unfolded) == sorted(set(names))


def test_a_large_model_is_a_few_lines():
    names = [f"blocks.{i}.{n}.weight" for i in range(24) for n in ("attn.qkv", "mlp.fc1")]
    assert fold_names(names) == ["blocks.{0..23}.attn.qkv.weight", "blocks.{0..23}.mlp.fc1.weight"]
