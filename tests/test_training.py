"""A training from its start to a finished folder, which is a model: repeatable to the last bit."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import timm
import torch
import transformers
from accelerate.state import AcceleratorState, GradientState
from bits import bits
from builders import seeded, tiny_resnet
from patterns import CLASSES, SIZE, TINY, parquet, timm_folder
from safetensors.torch import load_file
from torch import nn

from rws_hub import DataError
from rws_hub.backbones import load_model, open_model
from rws_hub.classifier import logits, preprocessing_of, with_head
from rws_hub.pictures import Pictures, View, open_pictures
from rws_hub.training import loop, train
from rws_hub.training.settings import TrainRecord, TrainSettings
from rws_hub.training.state import digest

STANDARD = TrainSettings("standard", epochs=3, lr=0.1)
ROBUST = TrainSettings("from-clean", "gaussian_noise", 3, epochs=2, lr=0.02, seed=1)
FILES = {"config.json", "model.safetensors", "train.json"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data`: Parquet files of 320 training images (two steps an epoch) and 60 others; `start`: a model of timm."""
    root = tmp_path_factory.mktemp("training")
    parquet(root / "data", {"train": 320, "test": 60})
    timm_folder(root / "start", classes=10)
    return root


@pytest.fixture(scope="module")
def data(root: Path) -> Pictures:
    return open_pictures(root / "data", "train")


@pytest.fixture(scope="module")
def standard(root: Path, data: Pictures) -> TrainRecord:
    """The record of a standard model, trained in `root / "standard"`."""
    return train(root / "start", data, STANDARD, root / "standard")


@pytest.fixture(scope="module")
def robust(root: Path, data: Pictures, standard: TrainRecord) -> TrainRecord:
    """The record of its robust twin in `root / "robust"`."""
    return train(root / "standard", data, ROBUST, root / "robust")


def timeless(record: TrainRecord) -> TrainRecord:
    return dataclasses.replace(record, seconds=0.0)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def top1(model: nn.Module, pictures: Pictures) -> float:
    preprocessing = preprocessing_of(model)
    pixels = torch.from_numpy(pictures.pixels(range(len(pictures)), preprocessing.view))
    with torch.inference_mode():
        answers = logits(model, preprocessing.tensor(pixels, torch.device("cpu"))).argmax(1)
    return float((answers == torch.from_numpy(pictures.labels)).float().mean())


# --- what comes out


def test_the_folder_and_the_record(root: Path, data: Pictures, standard: TrainRecord) -> None:
    assert {p.name for p in (root / "standard").iterdir()} == FILES
    told = json.loads((root / "standard" / "train.json").read_bytes())
    assert told["settings"]["epochs"] == 3 and "corruption" not in told["settings"]
    assert standard.start == digest(open_with_head(root / "start"))
    assert standard.start_label == "start"
    assert (standard.data.images, standard.validation.images) == (288, 32)
    assert standard.data.split == "train, 288 of 320 images" and standard.validation.split == "train, 32 of 320 images"
    assert standard.data.fingerprint == standard.validation.fingerprint == data.fingerprint
    assert (standard.classes, standard.size, standard.mean, standard.std) == (
        CLASSES,
        SIZE,
        (0.5, 0.4, 0.3),
        (0.2, 0.25, 0.3),
    )
    assert [e.epoch for e in standard.epochs] == [0, 1, 2] and all(e.corrupted is None for e in standard.epochs)
    assert standard.epochs[-1].loss < standard.epochs[0].loss
    assert standard.epochs[standard.best].clean == max(e.clean for e in standard.epochs)
    assert {"python", "torch", "accelerate", "datasets", "numpy", "rws-hub"} == set(standard.versions)


def open_with_head(folder: Path) -> nn.Module:
    return with_head(open_model(folder).model, len(CLASSES), 0)


def test_it_learns(root: Path, standard: TrainRecord, robust: TrainRecord) -> None:
    test = open_pictures(root / "data", "test")
    assert top1(open_with_head(root / "start"), test) < 0.5
    assert standard.epochs[standard.best].clean > 0.7 and top1(load_model(root / "standard"), test) > 0.7
    best = robust.epochs[robust.best]
    assert best.clean > 0.7 and best.corrupted is not None and best.corrupted > 0.7
    assert robust.start == digest(load_model(root / "standard"))


def test_the_same_again_to_the_last_bit(root: Path, data: Pictures, robust: TrainRecord, tmp_path: Path) -> None:
    torch.rand(7)  # whatever the state of the caller's generator
    state = torch.get_rng_state()
    again = train(root / "standard", data, ROBUST, tmp_path / "again", workers=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert timeless(again) == timeless(robust)
    assert weights(tmp_path / "again") == weights(root / "robust")
    other = train(root / "standard", data, dataclasses.replace(ROBUST, seed=2, epochs=1), tmp_path / "other")
    assert other.epochs[0] != robust.epochs[0]


def test_what_accelerate_is_configured_to_changes_nothing(
    root: Path, data: Pictures, standard: TrainRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with fresh_accelerate():
        train(root / "start", data, STANDARD, tmp_path / "out")
    assert weights(tmp_path / "out") == weights(root / "standard")


class fresh_accelerate:  # noqa: N801 - a context manager
    """As in a new process: accelerate keeps what it read from the environment."""

    def __enter__(self) -> None:
        AcceleratorState._reset_state(True)
        GradientState._reset_state()

    __exit__ = lambda self, *error: self.__enter__()  # noqa: E731


def test_validation_images_of_their_own(root: Path, data: Pictures, tmp_path: Path) -> None:
    held_out = open_pictures(root / "data", "test")
    settings = dataclasses.replace(STANDARD, epochs=1)
    record = train(tiny_resnet(num_classes=4), data, settings, tmp_path / "out", validation=held_out, size=SIZE)
    assert (record.data.images, record.validation.images) == (320, 60)
    assert (record.data.split, record.validation.split) == ("train", "test")
    assert record.start_label == "a live ResNet" and record.validation.fingerprint == held_out.fingerprint
    other = parquet(tmp_path / "other", {"train": 30}, labels=datasets.ClassLabel(num_classes=4))
    with pytest.raises(DataError, match="4 classes that are not the 4 of data"):
        train(tiny_resnet(), data, settings, tmp_path / "x", validation=open_pictures(other, "train"))
    with pytest.raises(DataError, match=r"data: train and train\[300:\] share images; the epoch has to be chosen by"):
        shared = open_pictures(root / "data", "train[300:]")
        train(tiny_resnet(num_classes=4), data, settings, tmp_path / "x", validation=shared, size=SIZE)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_log_gets_few_lines(
    terminal: bool,
    data: Pictures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Slowly(loop.Epoch):
        def __getitems__(self, positions: list[int]) -> Any:
            time.sleep(0.12)
            return super().__getitems__(positions)

    monkeypatch.setattr(loop, "Epoch", Slowly)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    settings = dataclasses.replace(STANDARD, epochs=1, batch_size=32)
    train(tiny_resnet(num_classes=4), data, settings, tmp_path / "out", size=SIZE, progress=True)
    bars = capsys.readouterr().err.count("training:")
    assert bars >= 9 if terminal else bars == 3  # the first, the end of the epoch, the last


def test_bf16_and_adamw_and_two_branches(root: Path, data: Pictures, standard: TrainRecord, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        ROBUST, recipe="two-branch", optimizer="adamw", precision="bf16", lr=0.003, augment=False, epochs=1
    )
    record = train(root / "standard", data, settings, tmp_path / "out")
    assert record.settings == settings and record.epochs[0].loss > 0
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found["conv1.weight"].dtype == torch.float32


# --- the folder as a model


def test_a_model_of_timm(root: Path, standard: TrainRecord) -> None:
    model = load_model(root / "standard")
    saved = load_file(root / "standard" / "model.safetensors")
    assert {n: t.shape for n, t in model.state_dict().items()} == {n: t.shape for n, t in saved.items()}
    assert all(torch.equal(t, saved[n]) for n, t in model.state_dict().items())
    config = json.loads((root / "standard" / "config.json").read_bytes())
    assert (
        config["model_args"].items() >= TINY.items()
        and config["num_classes"] == 4
        and config["label_names"] == list(CLASSES)
    )
    assert preprocessing_of(model).view == View(SIZE, SIZE) and preprocessing_of(model).mean == (0.5, 0.4, 0.3)


def test_from_scratch_by_name(data: Pictures, tmp_path: Path) -> None:
    settings = dataclasses.replace(STANDARD, epochs=1, lr=0.001)
    record = train("timm/test_resnet", data, settings, tmp_path / "out", scratch=True, size=SIZE)
    assert record.start_label == "timm/test_resnet with random weights of seed 0"
    model = load_model(tmp_path / "out")
    assert digest(model) != record.start and preprocessing_of(model).view.size == SIZE
    expected = seeded(lambda: timm.create_model("test_resnet", pretrained=False), 0)
    assert model.get_parameter("conv1.0.weight").shape == expected.get_parameter("conv1.0.weight").shape


def test_a_model_of_transformers(data: Pictures, tmp_path: Path) -> None:
    """With a parameter that has no part in the answer, and dropout."""
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8, mlp_ratio=2,
        hidden_dropout_prob=0.1, num_labels=3,
    )  # fmt: skip
    seeded(lambda: transformers.Dinov2ForImageClassification(config), 0).save_pretrained(tmp_path / "start")
    processor = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "start" / "preprocessor_config.json").write_text(json.dumps(processor))
    settings = dataclasses.replace(STANDARD, optimizer="adamw", lr=0.002, epochs=2)
    record = train(tmp_path / "start", data, settings, tmp_path / "out")
    assert record.epochs[1].loss < record.epochs[0].loss and record.mean == (0.5, 0.5, 0.5)
    opened = open_model(tmp_path / "out")
    assert opened.model.config.id2label == dict(enumerate(CLASSES))  # type: ignore[union-attr, operator]
    found = preprocessing_of(opened.model, opened.processor)
    assert found.view == View(SIZE, SIZE) and found.std == (0.25, 0.25, 0.25)
    again = train(tmp_path / "start", data, settings, tmp_path / "again")
    assert bits(load_model(tmp_path / "again")) == bits(opened.model) and timeless(again) == timeless(record)
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES | {"preprocessor_config.json"}


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    """What these trainings leave in accelerate's state is gone for other tests."""
    yield
    fresh_accelerate().__enter__()
