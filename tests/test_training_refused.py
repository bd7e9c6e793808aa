"""Trainings that are refused, in words, before anything is lost."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from patterns import CLASSES, SIZE, timm_folder
from test_training import ROBUST, STANDARD, data, one_process, root
from torch import nn

from rws_hub import DataError, TrainingError, disk
from rws_hub.pictures import Pictures
from rws_hub.training import train

__all__ = ["data", "one_process", "root"]  # fixtures


def test_two_trainings_in_one_folder(
    root: Path, data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rws_hub.training._PATIENCE", 0.0)
    (tmp_path / "out").mkdir()
    with (
        disk.locked(tmp_path / "out", 0.0),  # as the other one does
        pytest.raises(TrainingError, match=r"another training is going on in .*; wait for its end, or choose another"),
    ):
        train(root / "start", data, STANDARD, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_with_something_else(root: Path, data: Pictures, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="exists and holds something else; choose another folder"):
        train(root / "start", data, STANDARD, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("place", ["file", "file/out", "file/a/b"])
def test_a_folder_that_cannot_be(place: str, root: Path, data: Pictures, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainingError, match=f"{place} is a file, or lies in one; choose another folder"):
        train("no model is looked for yet", data, STANDARD, tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_twin_needs_a_model_that_answers(root: Path, data: Pictures, tmp_path: Path) -> None:
    message = "start has no head for the 4 classes of data, .* train the standard model first"
    with pytest.raises(TrainingError, match=message):
        train(root / "start", data, ROBUST, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_classes_in_another_order(data: Pictures, tmp_path: Path) -> None:
    settings = dataclasses.replace(STANDARD, epochs=1)
    config = timm_folder(tmp_path / "start") / "config.json"
    told = json.loads(config.read_bytes())
    config.write_text(json.dumps(told | {"label_names": [CLASSES[0], *CLASSES[:0:-1]]}))
    with pytest.raises(DataError, match=r"start has .* in another order \(number 1 is 'grey' there and 'green' here\)"):
        train(tmp_path / "start", data, settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    record = train(tmp_path / "start", data, settings, tmp_path / "out", scratch=True)  # nothing is kept of its answers
    assert record.classes == CLASSES


def test_a_state_that_is_no_state(root: Path, data: Pictures, tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"not at all")
    with pytest.raises(TrainingError, match=r"state\.safetensors cannot be read .*delete the folder to begin anew"):
        train(root / "start", data, STANDARD, tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 512}, "288 training images are less than one batch of 512"),
        ({"batch_size": 100}, "batch_size cannot be 100 on 1 process: take at most 64, or a multiple of 64"),
    ],
)
def test_batches_that_cannot_be(
    changed: dict[str, Any], message: str, root: Path, data: Pictures, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=message):
        train(root / "start", data, dataclasses.replace(STANDARD, **changed), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_accelerate(root: Path, data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.delitem(sys.modules, "rws_hub.training.loop")
    with pytest.raises(TrainingError, match=r"training needs accelerate: pip install 'rws-hub\[train\]'"):
        train(root / "start", data, STANDARD, tmp_path / "out")


def test_a_head_that_cannot_be_exchanged(data: Pictures, tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 5, 32), nn.Flatten())  # of neither library
    with pytest.raises(DataError, match="a live Sequential tells 5 classes apart, the data set has 4"):
        train(plain, data, STANDARD, tmp_path / "out", size=SIZE)
