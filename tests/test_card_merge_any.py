"""Merging any text that people could have written into a card, any number of times."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from test_card import REPO, make_config, make_results
from test_card_merge import END, NEW, OLD, body, edited, front, merged

from rws_hub.card import render_card
from rws_hub.card_merge import NOTES


def _paragraph(number: int) -> st.SearchStrategy[str]:
    """A paragraph that no other one equals, in one of the shapes that people write."""
    word = f"word{number}"
    shapes = ["{}", "- {}", "> {}", "### {}", "| {} | b |", "1. {}", "    {}", "{}\nsecond line", "```\n{}\n\nx\n```"]
    shapes += [
        "| h | i |\n|---|---|\n| {} | b |",
        "<b>{}</b>",
        "* * *\n{}",
        "---\n{}",
        "{}\n===",
        "````\n```\n{}\n````",
    ]
    return st.sampled_from(shapes).map(lambda shape: shape.format(word))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_paragraph_is_ever_lost(data):
    paragraphs = [data.draw(_paragraph(i)) for i in range(data.draw(st.integers(1, 6)))]
    text = body(data.draw(st.sampled_from([OLD, NEW, "---\n---\n"])))
    for paragraph in paragraphs:
        # Anywhere: above the block, inside it (inside its code too), below it.
        gaps = [m.start() for m in re.finditer("\n\n", text)]
        position = data.draw(st.sampled_from([0, *gaps, len(text)]))
        text = f"{text[:position]}\n\n{paragraph}\n\n{text[position:]}"
    metadata = data.draw(st.sampled_from(["---\nmine: 1\n---\n", "Text.\n", OLD.removesuffix(body(OLD))]))
    existing = metadata + text
    result = merged(NEW, existing.replace("\n", "\r\n") if data.draw(st.booleans()) else existing)
    result = result.replace("\r\n", "\n")
    for line in "\n".join(paragraphs).split("\n"):  # one paragraph may stand in the middle of another
        assert line in result
    assert ("mine" in metadata) == ("mine" in front(result))
    assert ("Text." in metadata) == ("\nText.\n" in result)


def test_repeated_merging_of_many_cards():
    """A card's life: written, edited, republished with other numbers, edited again."""
    card, texts = NEW, []
    for i in range(4):
        texts.append(f"Round {i}.")
        card = edited(card, "## Limits\n", f"## Limits\n\n{texts[-1]}\n")
        new = render_card(make_config(recommended_alpha=1 + i / 10), make_results({"images": 100 + i}), REPO)
        card = merged(new, card)
    assert all(card.count(text) == 1 for text in texts)
    assert card.count(NOTES) == 1
    assert len(card.split(END)[1].split("\n\n")) == 2 + len(texts)
