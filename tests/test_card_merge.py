"""Merging keeps every word a person wrote, whatever state the old card is in."""

import hashlib
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from test_card import FOG, REPO, make_config, make_results, with_backbone

from rws_hub.card import render_card
from rws_hub.card_merge import NOTES, merge_card
from rws_hub.errors import CardError

NEW = render_card(make_config(), make_results({}), REPO)
OLD = render_card(make_config(recommended_alpha=0.5, relative_error=0.2), make_results({}, FOG))
BEGIN, END = re.search("<!-- rws-hub:begin .* -->", NEW)[0], "<!-- rws-hub:end -->"


def front(card: str) -> dict:
    return yaml.safe_load(re.split(r"---\r?\n", card)[1])


def body(card: str) -> str:
    return re.split(r"---\r?\n", card, maxsplit=2)[2]


def edited(card: str, old: str, new: str) -> str:
    assert card.count(old) == 1
    return card.replace(old, new)


def merged(new: str, existing: str) -> str:
    """The merge, after checking what holds for every merge."""
    result = merge_card(new, existing)
    assert merge_card(new, result) == result
    ModelCard(result)
    generated = new.split("-->\n", 1)[1].split(END)[0]
    assert generated in result.replace("\r\n", "\n")
    assert result.count(END) == 1
    return result


def test_with_itself_or_with_nothing():
    assert merged(NEW, NEW) == NEW
    assert merged(NEW, "") == NEW
    assert merged(NEW, "---\n---\n") == NEW


def test_an_untouched_old_card_is_replaced():
    old_front = front(OLD)
    assert old_front != front(NEW)
    assert merged(NEW, OLD) == NEW


def test_text_around_the_block_stays_where_it_is():
    old = edited(OLD, "\n<!-- rws-hub:begin", "\nMine, above.\n\n\n    code\n\n<!-- rws-hub:begin")
    old += "\nMine,\nbelow.\n\n## More\n\n- a\n"
    result = body(merged(NEW, old))
    assert result.startswith("\nMine, above.\n\n\n    code\n\n" + BEGIN)
    assert result.endswith(END + "\n\nMine,\nbelow.\n\n## More\n\n- a\n")


def test_a_card_without_markers_keeps_all_its_text():
    human = "# My model\n\nText with --- dashes.\n\n---\n\n| a |\n|---|\n| 1 |\n"
    assert body(merged(NEW, human)) == "\n" + human + "\n" + body(NEW)[1:]
    assert body(merged(NEW, "---\nlicense: Apache-2.0\n---\n" + human)) == "\n" + human + "\n" + body(NEW)[1:]


def test_foreign_metadata_stays_word_for_word():
    old = edited(
        OLD,
        "library_name: rws-hub\n",
        "language: no\nthumbnail: 'a: b'\ndate: 2024-01-02\nversion: 1.10\nwidget:\n- src: a.png\n  text: |\n    two\n"
        "    lines\nlibrary_name: mine\nempty:\n",
    )
    result = merged(NEW, old)
    for line in (
        "language: no",
        "thumbnail: 'a: b'",
        "date: 2024-01-02",
        "version: 1.10",
        "    two\n    lines",
        "empty:",
    ):
        assert f"\n{line}\n" in result
    assert front(result)["library_name"] == "rws-hub"
    assert list(front(result))[: len(front(NEW))] == list(front(NEW))


def test_lists_are_united():
    old = edited(OLD, "- rws\n", "- rws\n- my-tag\n- 2024\n- base_model:adapter:old/base\n")
    old = edited(old, "metrics:\n- accuracy\n", "metrics: f1\n")
    old = edited(old, "datasets:\n", "datasets:\n- me/mine\n")
    result = front(merged(NEW, old))
    assert result["tags"] == [*front(NEW)["tags"], "my-tag", 2024]
    assert result["metrics"] == ["accuracy", "f1"]
    assert result["datasets"] == ["uoft-cs/cifar10", "me/mine"]


def test_base_model_tags_stay_where_we_know_no_base():
    new = render_card(with_backbone(make_config(), repo_id=None, revision=None))
    result = front(merged(new, OLD))
    assert "base_model:adapter:timm/resnet18.a1_in1k" in result["tags"]
    assert result["base_model"] == "timm/resnet18.a1_in1k"


def test_model_index_entries_of_other_names_stay():
    entry = "- name: by hand\n  results:\n  - task: {type: x}\n    dataset: {type: a, name: b}\n    metrics: []\n"
    entry += "    note: kept\n"
    old = edited(OLD, "model-index:\n", "model-index:\n" + entry)
    result = merged(NEW, old)
    assert [e["name"] for e in front(result)["model-index"]] == ["gaussian_noise robustness for resnet18", "by hand"]
    assert front(result)["model-index"][0] == front(NEW)["model-index"][0]
    assert front(result)["model-index"][1]["results"][0]["note"] == "kept"


def test_numbers_of_another_payload_do_not_survive_in_the_model_index():
    unmeasured = render_card(make_config(), None, REPO)
    assert "model-index" not in front(merged(unmeasured, OLD))
    odd = with_backbone(make_config(), architecture="a*b_", repo_id=None, revision=None)
    assert "model-index" not in front(merged(render_card(odd), render_card(odd, make_results({}))))


def test_only_what_a_person_wrote_inside_the_block_is_kept():
    old = edited(OLD, "## Usage\n", "My paragraph,\nof two lines.\n\n## Usage\n")
    old = edited(old, "- It was made for one corruption and may lower the accuracy on others.\n", "- My limit.\n")
    old = edited(old, "| `layer2.0` |", "| `mine` | 1 | 2 | | no |\n| `layer2.0` |")
    old = edited(old, "alpha=0.5):\n    outputs = model(images)", "alpha=0.5):\n    outputs = model(my_images)")
    after = merged(NEW, old).split(END)[1]
    assert after.startswith(f"\n\n{NOTES}\n\nMy paragraph,\nof two lines.\n\n```python\n")
    assert "my_images" in after and after.endswith("\n\n- My limit.\n")
    heading = "| layer | parameters | relative difference | | in the signature |\n|:---|---:|---:|:---|:---|\n"
    assert heading + "| `mine` | 1 | 2 | | no |\n\n" in after
    assert len(after.strip().splitlines()) == 20


@pytest.mark.parametrize(
    "written",
    [
        "```x``` begins this line.",
        "~~~\n```\nx\n~~~",
        "````\n```\n\nx\n````",
        "```\n```python\n\nx\n```",
        "- a\n  more\n- b",
        "1. a\n2. b",
        "| h |\n|---|\n| 1 |\n| 2 |",
        "Text\nof lines.\n\n    code\n\n> quote",
        "### A heading\n\n---",
    ],
)
def test_what_a_person_wrote_is_kept_as_it_was_written(written):
    old = edited(OLD, "## Usage\n", f"{written}\n\n## Usage\n")
    assert merged(NEW, old).split(END)[1] == f"\n\n{NOTES}\n\n{written}\n"


def test_a_block_whose_digest_holds_was_not_edited():
    text = "# Title\n\nOf a version that listed no pieces."
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert merged(NEW, f"<!-- rws-hub:begin sha256={digest} -->\n{text}\n{END}\n") == NEW


def test_a_generated_sentence_that_was_edited_is_kept_whole():
    old = edited(OLD, "it leaves no trace.", "it leaves no trace. In our hands it did.")
    after = merged(NEW, old).split(END)[1]
    assert after.startswith(f"\n\n{NOTES}\n\nA robust weight signature: ")
    assert after.endswith("In our hands it did.\n")


def test_blanks_at_line_ends_are_no_edit():
    assert merged(NEW, OLD.replace(".\n", ".  \n")) == NEW


def test_deleting_generated_text_keeps_nothing():
    head, rest = OLD.split("## Layers", 1)
    assert merged(NEW, head + "## Provenance" + rest.split("## Provenance", 1)[1]) == NEW


def test_without_the_list_of_pieces_all_that_differs_is_kept():
    old = re.sub("<!-- rws-hub:pieces .* -->", "", OLD)
    after = merged(NEW, old).split(END)[1]
    assert "patching does not help on fog" in after and "## Usage" not in after


def test_notes_gather_in_one_section():
    first = merged(NEW, edited(OLD, "## Usage\n", "One.\n\n## Usage\n")) + "\n## Mine\n\nThree.\n"
    second = merged(NEW, edited(first, "## Usage\n", "Two.\n\nOne.\n\n## Usage\n"))
    assert second.split(END)[1] == f"\n\n{NOTES}\n\nTwo.\n\nOne.\n\n## Mine\n\nThree.\n"


def test_a_note_that_was_deleted_does_not_come_back():
    first = merged(NEW, edited(OLD, "## Usage\n", "One.\n\n## Usage\n"))
    assert merged(NEW, edited(first, f"\n{NOTES}\n\nOne.\n", "")) == NEW


def test_text_of_two_cards():
    remote = merged(NEW, "Hello.\n\n- a\n" + body(OLD) + "\nBye.\n\nRemote.\n")
    local = "---\nmine: 1\n---\nHello.\n\nAlso.\n" + body(OLD) + "\nBye.\n\nLater.\n"
    result = body(merged(remote, local))
    assert result.startswith("\nHello.\n\nAlso.\n\n- a\n\n" + BEGIN)
    assert result.endswith(END + "\n\nBye.\n\nLater.\n\nRemote.\n")


def test_line_ends_of_the_old_card_stay():
    old = edited(OLD, "## Usage\n", "My paragraph.\n\n## Usage\n").replace("\n", "\r\n")
    result = merged(NEW, old)
    assert "\n" not in result.replace("\r\n", "")
    assert result.replace("\r\n", "\n") == merged(NEW, old.replace("\r\n", "\n"))
    assert merged(NEW, OLD.replace("\n", "\r\n")) == NEW.replace("\n", "\r\n")


def test_a_byte_order_mark_is_no_text():
    assert merged(NEW, "\ufeff" + OLD) == NEW


@pytest.mark.parametrize(
    ("existing", "message"),
    [
        ("---\na: [\n---\nText", "not valid YAML"),
        ("---\n- a\n---\nText", "not a YAML mapping"),
        ("---\nwords\n---\nText", "not a YAML mapping"),
        ("---\na: 1\na: 2\n---\n", "'a' twice"),
        ("---\na: !x 1\n---\n", "not valid YAML"),
        ("---\na: 2024-13-41\n---\n", "not valid YAML"),
        ("---\na: \x00\n---\n", "not valid YAML"),
        ("---\n? [a]\n: 1\n---\n", "not valid YAML"),
        ("---\n" + "[" * 10_000 + "\n---\n", "nested more than 50 times"),
        ("---\nlicense: mit\n\n# Text\n", "never closed"),
        ("---\ntags: {a: b}\n---\n", "'tags' of the existing card"),
        ("---\nmodel-index: 1\n---\n", "'model-index' of the existing card"),
        (f"Text\n{END}\n", "0 begin and 1 end"),
        (f"{BEGIN}\nText\n", "1 begin and 0 end"),
        (f"{END}\n{BEGIN}\n", "expected one"),
        (body(NEW) + body(NEW), "2 begin and 2 end"),
    ],
)
def test_what_cannot_be_read_is_not_overwritten(existing, message):
    with pytest.raises(CardError, match=message):
        merge_card(NEW, existing)


def test_new_must_be_a_card():
    with pytest.raises(CardError, match="no generated block"):
        merge_card("Text", OLD)


def test_another_licence_is_refused_and_another_pipeline_stays():
    with pytest.raises(CardError, match=r"license: gpl-3\.0, but the signature's licence is apache-2\.0; nothing was"):
        merge_card(NEW, edited(OLD, "license: apache-2.0\n", "license: gpl-3.0\n"))
    pipeline = "pipeline_tag: image-classification\n", "pipeline_tag: image-feature-extraction\n"
    assert pipeline[1] in merged(NEW, edited(OLD, *pipeline))
