"""A training that was killed, interrupted or out of room goes on to the same bits, and a finished one is left alone."""

import dataclasses
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_training import FILES, ROBUST, STANDARD, data, one_process, robust, root, standard, timeless, weights

from rws_hub import TrainingError, artifact
from rws_hub.pictures import Pictures, open_pictures
from rws_hub.training import loop, train
from rws_hub.training.settings import TrainRecord

__all__ = ["data", "one_process", "robust", "root", "standard"]  # fixtures


def test_a_finished_folder_is_left_as_it_is(
    root: Path, data: Pictures, standard: TrainRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.stat().st_mtime_ns for p in (root / "standard").iterdir()}
    monkeypatch.delattr(loop, "_Trainer")
    assert train(root / "start", data, STANDARD, root / "standard") == standard
    assert {p: p.stat().st_mtime_ns for p in (root / "standard").iterdir()} == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 4}, "finished training with epochs '3', not '4'; choose another folder"),
        ({"lr": 0.2}, "finished training with lr '0.1', not '0.2'"),
        ({"recipe": "two-branch", "corruption": "fog", "severity": 2}, "with recipe 'standard', not 'two-branch'"),
    ],
)
def test_a_finished_folder_of_another_training(
    changed: dict[str, Any], message: str, root: Path, data: Pictures, standard: TrainRecord
) -> None:
    with pytest.raises(TrainingError, match=message):
        train(root / "start", data, dataclasses.replace(STANDARD, **changed), root / "standard")


def test_a_finished_folder_of_other_images_or_weights(root: Path, data: Pictures, standard: TrainRecord) -> None:
    with pytest.raises(TrainingError, match="finished training with images"):
        train(root / "start", open_pictures(root / "data", "train[:300]"), STANDARD, root / "standard")
    with pytest.raises(TrainingError, match="finished training with validation"):
        held_out = open_pictures(root / "data", "test")
        train(root / "start", data, STANDARD, root / "standard", validation=held_out)
    with pytest.raises(TrainingError, match="finished training with start"):
        train(root / "start", data, STANDARD, root / "standard", scratch=True)


_KILLED = """
import os, sys, time
from rws_hub import artifact
from rws_hub.training import loop
from test_training import ROBUST, open_pictures, train

count, real = 0, os.fsync
def fsync(file):  # of the state in the middle of the second epoch: half of it is on disk when the kill comes
    global count
    count += 1
    if count == 5:
        print("now", flush=True)
        time.sleep(600)
    real(file)
os.fsync = fsync
loop._SAVE_SECONDS = 0.0
root, out = sys.argv[1:]
train(root + "/standard", open_pictures(root + "/data", "train"), ROBUST, out)
"""


@pytest.fixture(scope="module")
def killed(root: Path, standard: TrainRecord) -> Path:
    """The folder that a process left which was killed while it replaced the state of its training."""
    command = [sys.executable, "-c", _KILLED, str(root), str(root / "killed")]
    paths = os.pathsep.join(map(str, [Path(__file__).parent, Path(__file__).parent.parent]))
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths}) as process:
        assert process.stdout is not None and process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    return root / "killed"


def test_killed(root: Path, data: Pictures, robust: TrainRecord, killed: Path, tmp_path: Path) -> None:
    left = {p.name for p in killed.iterdir()}
    assert left >= {"state.safetensors", "best.safetensors"} and "train.json" not in left
    assert any(name.startswith(".state.safetensors.") for name in left)  # what was being written
    with pytest.raises(TrainingError, match=r"unfinished training with seed '1'; now it is '2'\. Go on with the same"):
        train(root / "standard", data, dataclasses.replace(ROBUST, seed=2), killed)
    with pytest.raises(TrainingError, match="unfinished training with start"):
        train(root / "standard", data, ROBUST, killed, scratch=True)
    record = train(root / "standard", data, ROBUST, killed)
    assert timeless(record) == timeless(robust)
    assert weights(killed) == weights(root / "robust")
    assert {p.name for p in killed.iterdir()} == FILES


def test_interrupted_after_every_step(
    root: Path, data: Pictures, standard: TrainRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone on with from each state that there can be, of an optimizer with more of it."""

    class Interrupted(Exception):
        pass

    monkeypatch.setattr(loop, "_SAVE_SECONDS", 0.0)
    settings = dataclasses.replace(ROBUST, optimizer="adamw", lr=0.002)
    whole = train(root / "standard", data, settings, tmp_path / "whole")
    save, stops, found = loop.state.save, 0, None

    def once(*arguments: Any) -> None:
        save(*arguments)
        raise Interrupted

    while found is None:
        with monkeypatch.context() as stopping:
            stopping.setattr(loop.state, "save", once)
            try:
                found = train(root / "standard", data, settings, tmp_path / "out")
            except Interrupted:
                stops += 1
    assert stops == 6 and timeless(found) == timeless(whole)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_the_disk_is_full(
    root: Path, data: Pictures, robust: TrainRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SAVE_SECONDS", 0.0)
    real, out = artifact.write, tmp_path / "out"
    stops, record = 0, None
    while record is None:  # each run may write one file more, of whatever kind comes next
        written: list[Path] = []

        def write(file: Path, content: Any) -> None:
            if len(written) == min(stops, 1):  # noqa: B023
                file.write_bytes(bytes(content)[:100])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
            written.append(file)  # noqa: B023
            real(file, content)

        before = {f.name: f.read_bytes() for f in out.iterdir()} if out.exists() else {}
        with monkeypatch.context() as full:
            full.setattr(artifact, "write", write)
            try:
                record = train(root / "standard", data, ROBUST, out)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                stops += 1
        kept = {f.name: f.read_bytes() for f in out.iterdir()} if out.exists() else {}
        replaced = {f.name for f in written}
        assert record is not None or all(kept[n] == b for n, b in before.items() if n not in replaced)
        assert not list(tmp_path.rglob(".*"))
    assert stops > 6 and timeless(record) == timeless(robust)
    assert weights(out) == weights(root / "robust")


def test_killed_while_it_wrote_the_first_file(root: Path, data: Pictures, robust: TrainRecord, tmp_path: Path) -> None:
    (tmp_path / "out" / ".best.safetensors.rws-0123abcd").mkdir(parents=True)
    assert timeless(train(root / "standard", data, ROBUST, tmp_path / "out")) == timeless(robust)
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES


def test_killed_when_it_had_done_all_but_tidy_up(
    root: Path, data: Pictures, standard: TrainRecord, tmp_path: Path
) -> None:
    out = shutil.copytree(root / "standard", tmp_path / "out")
    for name in ("state.safetensors", "best.safetensors"):
        (out / name).write_bytes(b"left")
    assert train(root / "start", data, STANDARD, out) == standard
    assert {p.name for p in out.iterdir()} == FILES


def test_nothing_is_pickled(root: Path, killed: Path, standard: TrainRecord) -> None:
    files = [f for f in root.rglob("*") if f.is_file() and "data" not in f.relative_to(root).parts]
    assert {f.suffix for f in files} <= {".json", ".safetensors"}
    assert not any(re.match(rb"\x80[\x02-\x05]|PK\x03\x04", f.read_bytes()[:4]) for f in files)
