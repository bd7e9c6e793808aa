"""The demo's numbers and figure inside the artifact, and the artifact on the Hub."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from rws_hub import artifact, contents, hub
from rws_hub._version import __version__
from rws_hub.demo.figure import alpha_png
from rws_hub.demo.records import Score, SeedStory, Who
from rws_hub.demo.settings import CORRUPTION, DATASET, SEVERITY, DemoSettings
from rws_hub.results import (
    OWN_CLEAN_MODEL,
    RESULTS_FORMAT,
    RESULTS_FORMAT_VERSION,
    Accuracy,
    Evaluation,
    Results,
)

_FIGURE = "alpha.png"


def write_artifact(out: Path, stories: Sequence[SeedStory], settings: DemoSettings) -> None:
    """Add results, figure and card to the first seed's signature, and the figure beside it."""
    figure = alpha_png(stories, settings.bn_images)
    (out / _FIGURE).write_bytes(figure)
    folder = out / "signature"
    saved = contents.read_contents(folder)
    results = demo_results(stories[0], len(stories), settings)
    contents.write_folder(folder, saved.config, saved.payload, results, {_FIGURE: figure})


def push_artifact(out: Path, repo_id: str) -> str:
    """Publish what `write_artifact` wrote; returns the URL."""
    folder = out / "signature"
    return hub.push(
        repo_id,
        contents.read_contents(folder),
        local_card=artifact.read_card(folder),
        commit_message="Upload robust weight signature",
    )


def demo_results(story: SeedStory, seeds: int, settings: DemoSettings) -> Results:
    """What was measured with the signature of one seed, as `results.json` keeps it."""
    names: dict[Who, str] = {
        "own": OWN_CLEAN_MODEL,
        "user": f"the standard model, trained further on {settings.user_images} other images",
        "stranger": "a model of the same shape from another initialisation",
    }
    return Results(
        format=RESULTS_FORMAT,
        format_version=RESULTS_FORMAT_VERSION,
        payload_sha256=story.payload_sha256,
        command=f"rws demo --seeds {seeds}",
        versions={
            "python": platform.python_version(),
            "rws-hub": __version__,
            **{name: version(name) for name in ("numpy", "scikit-learn", "timm", "torch")},
        },
        evaluations=tuple(_evaluation(story, who, name) for who, name in names.items()),
    )


def _evaluation(story: SeedStory, who: Who, name: str) -> Evaluation:
    target = story.target(who)

    def accuracy(side: Callable[[Score], float]) -> Accuracy:
        return Accuracy(side(target.before), side(target.patched), side(story.robust))

    return Evaluation(
        dataset=DATASET,
        dataset_id=None,
        split="test",
        metric="accuracy",
        corruption=CORRUPTION,
        severity=SEVERITY,
        target=name,
        alpha=1.0,
        images=story.images,
        seed=story.seed,
        clean=accuracy(lambda score: score.clean),
        corrupted=accuracy(lambda score: score.noisy),
    )
