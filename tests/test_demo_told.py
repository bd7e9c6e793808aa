"""What the demo says of its numbers: each sentence follows from them, at any width."""

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_demo import seed_story, text_of, told

from rws_hub.demo import DemoSettings
from rws_hub.demo.figure import alpha_png, alpha_text
from rws_hub.demo.findings import findings
from rws_hub.demo.records import Score, Who
from rws_hub.demo.report import Report, print_report, report_data


def printed(report: Report, **console: Any) -> str:
    file = console.pop("file", io.StringIO())
    print_report(report, Console(file=file, highlight=False, **console))
    return str(file.getvalue()) if isinstance(file, io.StringIO) else ""


@pytest.mark.parametrize("who", ["own", "user", "stranger"])
@pytest.mark.parametrize("after", [0.6, 0.5])
def test_says_where_patching_does_not_help(who: Who, after: float) -> None:
    told_so = [f for f in findings([seed_story(**{who: told(who, noisy=(0.6, after))})], 64) if "not help" in f]
    assert len(told_so) == 1
    name = {"own": "its own clean model", "user": "the user's model", "stranger": "the stranger"}[who]
    assert f"On {name} the patch {'lowers' if after < 0.6 else 'leaves'} noisy accuracy" in told_so[0]


def test_a_stranger_that_gains_as_much_as_kin() -> None:
    text = text_of(seed_story(stranger=told("stranger", noisy=(0.6, 0.9))))
    assert "100% of what the user's model gains, though the two share no ancestor" in text
    text = text_of(seed_story(user=told("user", noisy=(0.6, 0.6))))
    assert "That is more than the user's model gained." in text and "for kin" not in text


@pytest.mark.parametrize(
    ("rival", "says"),
    [
        (Score(0.99, 0.95), "(5.0 above the patch) and 99.0% clean (1.0 above it): it is the better choice there"),
        (Score(0.9, 0.8), "(10.0 below the patch) and 90.0% clean (8.0 below it): the patch is the better choice"),
        (Score(0.9, 0.95), ": better on noisy images, worse on clean ones"),
        (Score(0.99, 0.8), ": worse on noisy images, better on clean ones"),
        (
            Score(0.98, 0.9),
            "(the same as the patch) and 98.0% clean (the same as it): as good on noisy images, as good",
        ),
    ],
)
def test_the_rival(rival: Score, says: str) -> None:
    told_of = next(f for f in findings([seed_story(user=told("user", batchnorm=rival))], 16) if "batch-norm" in f)
    assert "16 unlabelled" in told_of
    assert says in told_of.split("; ")[1]


def test_two_branch_cost() -> None:
    assert "It costs 4.0 points of clean accuracy." in text_of()
    free = told("user", two_branch=Score(0.99, 0.95))
    assert "It costs no clean accuracy." in text_of(seed_story(user=free))


def test_a_patch_that_left_traces_is_told() -> None:
    report = Report((seed_story(own=told("own", restored=False)),), DemoSettings(), Path("out"), 1.0)
    text = printed(report, width=80)
    assert "did NOT restore 1 of 3 models" in text and re.search(r"clean model +kin.* NO", text)
    assert report_data(report, None)["restored"] is False


def test_a_larger_artifact_is_not_called_smaller() -> None:
    large = dataclasses.replace(seed_story(), sizes=dataclasses.replace(seed_story().sizes, checkpoint=5000))
    assert "2.0 times the size of the checkpoint" in text_of(large)


def test_seeds_that_disagree() -> None:
    second = seed_story(user=told("user", noisy=(0.6, 0.5), kin=False, similarity=0.2), seed=1)
    text = text_of(seed_story(), second)
    assert "from 60.0 to 70.0% (+10.0 points, in 1 of 2 seeds)" in text
    shown = printed(Report((seed_story(), second), DemoSettings(), Path("out"), 1.0), width=80)
    assert "70.0±28.3" in shown and re.search(r"user's model +kin, a stranger +0.20 to 1.00", shown)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_report_keeps_to_the_width(width: int) -> None:
    report = Report((seed_story(), seed_story(seed=1)), DemoSettings(), Path("out"), 61.4)
    text = printed(report, width=width, force_terminal=False)
    assert "\x1b" not in text and "Total time: 61 s" in text
    tables = text[: text.index("Measured:")].splitlines()
    assert max(map(len, tables)) <= width


def test_report_survives_an_old_code_page() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="cp1252")
    print_report(Report((seed_story(),), DemoSettings(), Path("out"), 1.0), Console(file=file, width=80))
    file.flush()
    assert b"Total time" in raw.getvalue()


def test_plots() -> None:
    text = alpha_text((seed_story(), seed_story(seed=1)), 80)
    assert "x" in text and "o" in text and "gaussian_noise, severity 5" in text
    assert max(map(len, text.splitlines())) <= 80
    assert alpha_png((seed_story(),), 64).startswith(b"\x89PNG")
