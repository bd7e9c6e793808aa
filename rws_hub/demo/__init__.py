"""`rws demo`: the whole story on real, embedded images. Importing this is light; running it is not."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rws_hub.config import is_repo_id
from rws_hub.demo.settings import DemoSettings
from rws_hub.errors import ArtifactError, RWSError

if TYPE_CHECKING:
    from tqdm import tqdm

    from rws_hub.demo.records import SeedStory

__all__ = ["DemoSettings", "run_demo"]

# Import name -> the name to install it by.
_EXTRAS = {"matplotlib": "matplotlib", "plotext": "plotext", "sklearn": "scikit-learn", "timm": "timm"}


def run_demo(
    out: Path,
    *,
    seeds: int = 3,
    push_to: str | None = None,
    as_json: bool = False,
    settings: DemoSettings | None = None,
) -> None:
    """Train small models on scikit-learn's digits, extract a signature, patch, take off, and report.

    Everything that can be refused is refused before the first training.

    Args:
        out: folder to write, which must not exist: `signature/`, `alpha.png`, `clean.safetensors` and
            `user.safetensors` of the first seed.
        seeds: how many times to repeat all of it, for mean and spread.
        push_to: `namespace/name` to publish the signature under afterwards.
        as_json: one JSON object on stdout, and nothing else.
        settings: what to train and measure; the defaults are the demo.

    Raises:
        ArtifactError: `out` exists, or `push_to` is not a Hub id.
        RWSError: an optional package is missing, or `seeds` is below 1.
        huggingface_hub.errors: whatever publishing raises, untouched; everything local is written by then.
    """
    started = time.monotonic()
    _refuse_early(out, seeds, push_to)
    from rws_hub.demo.publish import push_artifact, write_artifact
    from rws_hub.demo.report import Report, print_report, report_data

    settings = settings or DemoSettings()
    with _claimed(out):
        stories = _tell_stories(out, seeds, settings, as_json)
        write_artifact(out, stories, settings)
    report = Report(stories, settings, out, time.monotonic() - started)
    if not as_json:
        from rich.console import Console

        print_report(report, Console(highlight=False))
    # Published last: should that fail, everything that was measured has been told and written.
    url = None if push_to is None else push_artifact(out, push_to)
    if as_json:
        json.dump(report_data(report, url), sys.stdout, indent=2)
        print()
    elif url is not None:
        print(f"Published: {url}")


def _refuse_early(out: Path, seeds: int, push_to: str | None) -> None:
    if missing := [name for module, name in _EXTRAS.items() if importlib.util.find_spec(module) is None]:
        raise RWSError(f"rws demo needs {', '.join(missing)}: pip install 'rws-hub[demo]'")
    if seeds < 1:
        raise RWSError(f"seeds must be at least 1, found {seeds}")
    if push_to is not None and not is_repo_id(push_to):
        raise ArtifactError(f"{push_to!r} is not a Hub id: expected namespace/name")
    if out.exists():
        raise ArtifactError(f"{out} exists already; choose another folder with -o")


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Make the folder now, so that one which cannot be written fails before training; remove it on failure."""
    out.mkdir(parents=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _tell_stories(out: Path, seeds: int, settings: DemoSettings, quiet: bool) -> tuple[SeedStory, ...]:
    from tqdm import tqdm

    from rws_hub.demo.story import MEASURE_STEPS, run_seed
    from rws_hub.demo.training import one_thread

    stories: list[SeedStory] = []
    total = seeds * (settings.epochs + MEASURE_STEPS)
    layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    bar: tqdm[NoReturn] = tqdm(
        total=total, file=sys.stderr, disable=quiet, leave=False, dynamic_ncols=True, bar_format=layout
    )
    with one_thread(), tempfile.TemporaryDirectory() as scratch, bar:
        for seed in range(seeds):
            folder = out if seed == 0 else Path(scratch) / str(seed)
            folder.mkdir(exist_ok=True)
            stories.append(run_seed(settings, seed, folder, _Bar(bar, f"seed {seed + 1}/{seeds}")))
    return tuple(stories)


class _Bar:
    """The progress of one seed on a tqdm bar that spans all seeds."""

    def __init__(self, bar: tqdm[NoReturn], label: str) -> None:
        self._bar = bar
        self._label = label

    def stage(self, name: str) -> None:
        self._bar.set_description_str(f"{self._label}, {name:<30}")

    def step(self) -> None:
        self._bar.update()
