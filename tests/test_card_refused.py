"""Cards that are not written: a fact is missing, or does not belong to this signature."""

import dataclasses

import jinja2
import pytest
from test_card import make_config, make_results

from rws_hub import card as card_module
from rws_hub.card import render_card
from rws_hub.errors import CardError, CorruptArtifactError


def test_a_missing_fact_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        card_module._template().environment.from_string("{{ config.license }}{{ forgotten }}").render(
            config=make_config()
        )


def test_results_of_another_signature_are_refused():
    with pytest.raises(CorruptArtifactError, match="another signature"):
        render_card(make_config(), make_results(payload_sha256="e" * 64))


def test_a_config_that_was_changed_is_refused():
    with pytest.raises(CorruptArtifactError, match="digest"):
        render_card(dataclasses.replace(make_config(), recommended_alpha=2.0))


@pytest.mark.parametrize("bad", ["no-namespace", 'a/b")', "a/../b", ""])
def test_bad_repo_id(bad):
    with pytest.raises(CardError, match="Hub id"):
        render_card(make_config(), None, bad)


@pytest.mark.parametrize("bad", ["../x.png", "/x.png", "https://x.org/a.png", "figures/a b.png", "a.png)", "a.svg"])
def test_bad_figure(bad):
    with pytest.raises(CardError, match="figure"):
        render_card(make_config(), None, None, (bad,))
