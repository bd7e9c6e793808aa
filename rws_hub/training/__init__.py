"""`rws train`: a standard model, or its robust twin, from a pretrained start. Importing this is light."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rws_hub.disk import is_scratch, locked, present
from rws_hub.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn

    from rws_hub.pictures import Pictures
    from rws_hub.training.job import Job
    from rws_hub.training.settings import TrainRecord, TrainSettings

__all__ = ["train"]

# A folder with one of these is that of a training.
_OURS = ("train.json", "state.safetensors", "best.safetensors")
# Seconds until the processes that prepared images for a killed training have seen that it is no more.
_PATIENCE = 10.0


def train(
    start: str | Path | nn.Module,
    data: Pictures,
    settings: TrainSettings,
    out: str | Path,
    *,
    validation: Pictures | None = None,
    scratch: bool = False,
    size: int | None = None,
    workers: int = 0,
    progress: bool = False,
) -> TrainRecord:
    """Train one model and leave it in a folder: weights, `config.json` where a library built it, and `train.json`.

    A killed training goes on where it was when it is called again with the same arguments, and ends in the same
    weights. Several processes (`accelerate launch`) share the work of one step.

    Args:
        start: a model reference (`backbones.checkpoint`), or a live module, which is left as it is. A head for
            another number of classes is replaced by a fresh one; "from-clean" goes on from a finished classifier and
            refuses such a head.
        data: the training images.
        settings: see there.
        out: folder to write; one that holds an unfinished training of the same kind is gone on with, a finished
            one is left as it is.
        validation: the images that choose the epoch; None sets some of `data` aside. Never the test images.
        scratch: begin with seeded random weights of that architecture.
        size: side of the pictures in pixels; None is what the model states.
        workers: processes that prepare images, for each training process.
        progress: show a bar on stderr.

    Returns:
        The record, as it is in `train.json`.

    Raises:
        TrainingError: settings that cannot be, too few images, or `out` holds something else.
        DataError: the validation images have other classes or are training images too; the model has the same
            classes in another order, or others and no head that could be exchanged.
        CheckpointError: `start` cannot be loaded.
    """
    from rws_hub.backbones import open_model
    from rws_hub.classifier import preprocessing_of, require_classes, require_order, stated_classes, with_head
    from rws_hub.pictures import refuse_overlap
    from rws_hub.training.export import export
    from rws_hub.training.job import Job, clear, finish
    from rws_hub.training.state import digest
    from rws_hub.training.stream import split_off, whole

    try:
        from rws_hub.training.loop import begin, run
    except ModuleNotFoundError as error:
        if error.name != "accelerate":
            raise
        raise TrainingError("training needs accelerate: pip install 'rws-hub[train]'") from error

    out = Path(out)
    _require_folder(out)
    if validation is not None:
        _same_classes(data, validation)
        refuse_overlap(data, validation, "the epoch has to be chosen by images that were not trained on")
    config: dict[str, Any] | None = None
    processor: dict[str, Any] | None = None
    if isinstance(start, (str, Path)):
        opened = open_model(start, seed=settings.seed if scratch else None)
        model, config, processor, label = opened.model, opened.config, opened.processor, opened.label
    else:
        model, label = start, f"a live {type(start).__name__}"
    fitted = with_head(model, len(data.classes), settings.seed)
    if settings.recipe == "from-clean" and digest(fitted) != digest(model):
        raise TrainingError(
            f"{label} has no head for the {len(data.classes)} classes of {data.name}, and from-clean goes on from a "
            "model that answers clean images already: train the standard model first"
        )
    model = fitted
    if not scratch:  # whose answers have no meaning yet
        require_order(stated_classes(config), data.classes, label)
    preprocessing = preprocessing_of(model, processor, size)
    require_classes(model, preprocessing.view, data.classes, label)
    if validation is None:
        parts = split_off(data, settings.val_share, settings.seed)
    else:
        parts = (whole(data), whole(validation))
    job = Job(*parts, preprocessing, settings, label, data.classes)
    accelerator = begin()
    with _alone(out, accelerator.is_main_process) as main:
        if (finished := _finished(out, job, model)) is not None:
            if main:
                clear(out)
            return finished
        record = run(job, model, out, workers=workers, progress=progress)
        if main:
            export(model, out, classes=data.classes, preprocessing=preprocessing, config=config)
            finish(out, record)
        accelerator.wait_for_everyone()
    return record


@contextmanager
def _alone(out: Path, main: bool) -> Iterator[bool]:
    """Whether this is the main process of the training, which keeps every other training out of its folder."""
    if not main:
        yield False
        return
    with ExitStack() as until:
        try:
            until.enter_context(present(out))
        except OSError as error:
            raise TrainingError(f"{out} cannot be made ({error.strerror}); choose another folder") from error
        if until.enter_context(locked(out, _PATIENCE)) is False:
            raise TrainingError(f"another training is going on in {out}; wait for its end, or choose another folder")
        yield True


def _require_folder(out: Path) -> None:
    """Refuse, before anything is computed, what could not be written at the end."""
    strange = out.is_dir() and not all(map(is_scratch, out.iterdir()))
    if strange and not any((out / name).exists() for name in _OURS):
        raise TrainingError(f"{out} exists and holds something else; choose another folder")
    if not next(p for p in (out, *out.absolute().parents) if p.exists()).is_dir():
        raise TrainingError(f"{out} is a file, or lies in one; choose another folder")


def _same_classes(data: Pictures, validation: Pictures) -> None:
    from rws_hub.errors import DataError

    if validation.classes != data.classes:
        raise DataError(
            f"{validation.name} ({validation.split}) has {len(validation.classes)} classes that are not the "
            f"{len(data.classes)} of {data.name} ({data.split}); the validation images have to be of the same kind"
        )


def _finished(out: Path, job: Job, model: nn.Module) -> TrainRecord | None:
    """The record of a training that is done already."""
    from rws_hub import jsonio
    from rws_hub.training.job import RECORD_FILE
    from rws_hub.training.settings import TrainRecord
    from rws_hub.training.state import digest, flat

    file = out / RECORD_FILE
    if not file.exists():
        return None
    record = jsonio.decode(TrainRecord, jsonio.parse(file.read_bytes(), str(file)), str(file))
    then = {
        **flat(record.settings),
        "start": record.start,
        "images": record.data.fingerprint,
        "validation": record.validation.fingerprint,
        "size": str(record.size),
    }
    now = {
        **flat(job.settings),
        "start": digest(model),
        "images": job.training.pictures.fingerprint,
        "validation": job.validation.pictures.fingerprint,
        "size": str(job.preprocessing.view.size),
    }
    if different := [k for k in now if now[k] != then[k]]:
        key = different[0]
        raise TrainingError(
            f"{out} holds a finished training with {key} {then[key]!r}, not {now[key]!r}; choose another folder"
        )
    return record
