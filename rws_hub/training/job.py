"""What a training is given, and the record that it leaves behind."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rws_hub import jsonio
from rws_hub._version import __version__
from rws_hub.artifact import write_files
from rws_hub.classifier import Preprocessing
from rws_hub.disk import sweep
from rws_hub.training.settings import DataRecord, TrainRecord, TrainSettings
from rws_hub.training.state import BEST_FILE, STATE_FILE, Progress
from rws_hub.training.stream import Part

RECORD_FILE = "train.json"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What to train on, what to choose the epoch by, and how.

    Attributes:
        training, validation: disjoint parts.
        preprocessing: of the pictures.
        settings: see there.
        start_label: what to call the weights that it begins with.
        classes: names, in the order of the labels.
    """

    training: Part
    validation: Part
    preprocessing: Preprocessing
    settings: TrainSettings
    start_label: str
    classes: tuple[str, ...]


def record_of(job: Job, start: str, at: Progress) -> TrainRecord:
    """The record of a training that is at its end."""

    def told(part: Part) -> DataRecord:
        p = part.pictures
        split = p.split if len(part) == len(p) else f"{p.split}, {len(part):,} of {len(p):,} images"
        return DataRecord(p.name, p.dataset_id, split, len(part), p.fingerprint)

    return TrainRecord(
        settings=job.settings,
        start=start,
        start_label=job.start_label,
        data=told(job.training),
        validation=told(job.validation),
        classes=job.classes,
        size=job.preprocessing.view.size,
        mean=job.preprocessing.mean,
        std=job.preprocessing.std,
        epochs=at.done,
        best=at.best,
        versions={
            "python": platform.python_version(),
            "rws-hub": __version__,
            **{name: version(name) for name in ("accelerate", "datasets", "numpy", "torch")},
        },
        seconds=round(at.seconds, 1),
    )


def finish(out: Path, record: TrainRecord) -> None:
    """The record goes last: where it is, a training is complete. What only resuming needs goes."""
    write_files(out, {RECORD_FILE: jsonio.pretty(jsonio.to_json(record)).encode()})
    clear(out)


def clear(out: Path) -> None:
    """Remove what only going on needs from a finished training, and what a kill has left of it."""
    for name in (STATE_FILE, BEST_FILE):
        (out / name).unlink(missing_ok=True)
    sweep(out)
