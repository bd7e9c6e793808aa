"""Whatever is written into a config, a card stays one: hostile text breaks no line, no block and no front matter."""

import dataclasses
import re

import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from test_card import make_config, make_results, with_backbone

from rws_hub.card import render_card
from rws_hub.errors import CardError
from rws_hub.results import Accuracy
from rws_hub.spec import UnitProfile


def test_a_value_cannot_close_the_block():
    marker = "<!-- rws-hub:end -->"
    card = render_card(make_config(description=marker))
    assert card.count(marker) == 1
    with pytest.raises(CardError, match="mark the generated part"):
        render_card(with_backbone(make_config(), repo_id=None, architecture=marker))


def _structure(card: str) -> list[str]:
    """What kinds of markdown elements a card has, in order, and the number of cells of each row."""
    body = card.split("\n---\n", 1)[1]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    inline = [c.type for t in tokens for c in t.children or () if c.type not in ("text", "softbreak", "text_special")]
    return [t.type for t in tokens] + inline


HOSTILE = st.text("|`\n\r\t\\*_[]<>()#-=+~$!&:{}%\"'.1a \u202e\x00\u2028é", min_size=1)
HOSTILE_LINE = HOSTILE.map(lambda s: "x" + "".join(c for c in s if c.isprintable()))


@settings(deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE_LINE, HOSTILE_LINE)
def test_hostile_text_breaks_nothing(description, architecture, unit, target, dataset):
    def card(description: str, architecture: str, unit: str, target: str, dataset: str) -> str:
        config = make_config(description=description)
        profile = (UnitProfile(unit, 1, 0.5, True), *config.extraction.profile[1:])
        config = dataclasses.replace(config, extraction=dataclasses.replace(config.extraction, profile=profile))
        config = with_backbone(config, architecture=architecture, repo_id=None, revision=None)
        results = make_results({"target": target, "dataset": dataset, "corrupted": Accuracy(0.5, 0.4, 0.3)})
        return render_card(config, results)

    hostile = card("a" + description, "a" + architecture, "a" + unit, target, dataset)
    assert _structure(hostile) == _structure(card("a", "a", "a", "x", "x"))
    assert set(ModelCard(hostile).data.to_dict()) == set(ModelCard(card("a", "a", "a", "x", "x")).data.to_dict())
    snippet = re.search(r"```python\n(.*?)\n```", hostile, re.DOTALL)[1]
    compile(snippet, "<card>", "exec")


@settings(deadline=None)
@given(HOSTILE)
def test_a_description_is_at_most_one_paragraph(description):
    empty = not any(c.isprintable() and not c.isspace() for c in description)
    expected = render_card(make_config(description="" if empty else "a"))
    assert _structure(render_card(make_config(description=description))) == _structure(expected)


@pytest.mark.parametrize(
    "description",
    [
        "1. x",
        "12) x",
        "- x",
        "+ x",
        "* x",
        "# x",
        "> x",
        "---",
        "===",
        "~~~",
        "```\nx",
        "    x",
        "[a]: b",
        "a|b\n-|-\n1|2",
    ],
)
def test_a_description_begins_nothing_else(description):
    expected = _structure(render_card(make_config(description="a")))
    assert _structure(render_card(make_config(description=description))) == expected
