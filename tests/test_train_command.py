"""`rws train`: from words to a folder that every other command takes, and what is told in the terminal."""

import json
import re
from pathlib import Path

import pytest
from patterns import parquet, timm_folder
from test_cli import Run, failed, rws

from rws_hub.backbones import load_model
from rws_hub.pictures import open_pictures
from rws_hub.training import train
from rws_hub.training.settings import TrainSettings

__all__ = ["rws"]  # a fixture


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tints`, 160 training and 40 test images, and `start`, a model of timm."""
    root = tmp_path_factory.mktemp("train-command")
    parquet(root / "tints", {"train": 160, "test": 40})
    timm_folder(root / "start", classes=10)
    return root


def test_a_standard_model_and_its_twin(rws: Run, root: Path) -> None:
    words = ("--epochs", 1, "--lr", 0.1)
    code, out, err = rws("train", root / "start", root / "tints", "-o", root / "clean", *words)
    first, second = out.splitlines()
    assert code == 0 and first.startswith(
        f"{root / 'clean'}: trained from start on 144 images of tints, all clean, in "
    )
    assert second.startswith("epoch 1 of 1 was the best on 16 validation images: ") and second.endswith("% clean")
    assert "training" in err  # the bar
    words = ("--corruption", "fog", "--severity", 5, "--epochs", 1)
    code, out, _ = rws("train", root / "clean", root / "tints", "-o", root / "foggy", *words)
    assert code == 0 and "half of them with fog at severity 5, in " in out and out.endswith("% corrupted\n")
    code, again, _ = rws("train", root / "clean", root / "tints", "-o", root / "foggy", *words)
    assert code == 0 and again == out  # it was finished
    assert load_model(root / "foggy").get_parameter("fc.weight").shape[0] == 4


def test_json_and_every_option(rws: Run, root: Path, tmp_path: Path) -> None:
    options = {
        "corruption": "snow",
        "severity": 2,
        "recipe": "two-branch",
        "epochs": 1,
        "batch-size": 32,
        "lr": 0.001,
        "optimizer": "adamw",
        "weight-decay": 0.1,
        "precision": "bf16",
        "seed": 5,
    }
    words = [w for name, value in options.items() for w in (f"--{name}", value)]
    more = ["--no-augment", "--split", "train[:100]", "--val-split", "test", "--size", 48, "--workers", 1, "--scratch"]
    columns = ["--image-column", "image", "--label-column", "label"]
    code, out, err = rws(
        "train", root / "start", root / "tints", "--json", "-o", tmp_path / "out", *words, *more, *columns
    )
    found = json.loads(out)
    assert code == 0 and "training" not in err and found.pop("out") == str(tmp_path / "out")
    assert found == json.loads((tmp_path / "out" / "train.json").read_bytes())
    assert found["settings"].items() >= {n.replace("-", "_"): v for n, v in options.items()}.items()
    assert found["settings"]["augment"] is False and found["size"] == 48
    assert (found["data"]["images"], found["validation"]["images"]) == (100, 40)
    assert found["start_label"] == "start with random weights of seed 5"


def test_the_defaults_are_those_of_the_library(rws: Run, root: Path, tmp_path: Path) -> None:
    words = ("train", root / "start", root / "tints", "--json", "-o", tmp_path / "out", "--epochs", 1)
    assert rws(*words)[0] == 0
    settings = TrainSettings("standard", epochs=1)
    train(root / "start", open_pictures(root / "tints", "train"), settings, tmp_path / "out")  # the very same


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--corruption", "fog"), "say how strong fog is to be: --severity 1 to 5"),
        (("--corruption", "frog"), "no corruption is called 'frog'; did you mean 'fog'?"),
        (("--corruption", "frog", "--severity", 3), "no corruption is called 'frog'; did you mean 'fog'?"),
        (("--severity", 3), "recipe 'standard' with corruption None at severity 3"),
        (("--recipe", "two-branch"), "the others have one and its severity"),
        (("--label-column", "lable"), "--label-column 'lable' is no column of it"),
        (("--split", "tests"), "Unknown split"),
        (("--val-split", "train[150:]"), "tints: train and train[150:] share images; the epoch has to be chosen by"),
        (("--corruption", "fog", "--severity", 3), "start has no head for the 4 classes of tints, and from-clean goes"),
        (("--batch-size", 100), "batch_size cannot be 100 on 1 process: take at most 64, or a multiple of 64"),
        (("--lr", -1), "lr cannot be -1"),
    ],
)
def test_what_is_refused(words: tuple[object, ...], message: str, rws: Run, root: Path, tmp_path: Path) -> None:
    assert message in failed_quietly(rws("train", root / "start", root / "tints", "-o", tmp_path / "out", *words))
    assert not (tmp_path / "out").exists()


def failed_quietly(ran: tuple[int, str, str]) -> str:
    """The message, on whatever line: `datasets` shows bars of its own."""
    code, out, err = ran
    return failed((code, out, err[err.index("error: ") :]))


def test_nothing_to_start_from_or_to_train_on(rws: Run, root: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    assert "nowhere: no such folder" in failed_quietly(rws("train", root / "start", "nowhere", *out))
    assert "'nothing': no such file or folder" in failed_quietly(rws("train", "nothing", root / "tints", *out))
    assert "holds something else" in failed_quietly(rws("train", root / "start", root / "tints", "-o", root))
    file = root / "start" / "config.json"
    assert "is a file, or lies in one" in failed_quietly(rws("train", root / "start", root / "tints", "-o", file / "x"))


@pytest.mark.parametrize(
    "words",
    [
        ("--severity", 6),
        ("--severity", 0),
        ("--epochs", 0),
        ("--epochs", 1.5),
        ("--workers", -1),
        ("--size", 0),
        ("--seed", "x"),
        ("--recipe", "robust"),
        ("--lr", "nan"),
    ],
)
def test_wrong_usage(words: tuple[object, ...], rws: Run, root: Path, tmp_path: Path) -> None:
    code, out, err = rws("train", root / "start", root / "tints", "-o", tmp_path / "out", *words)
    assert code == 2 and out == "" and f"argument {words[0]}" in err


def test_the_commands_of_the_readme(rws: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    (block,) = re.findall(r"<!-- command: train -->\n```bash\n(.*?)```", page, re.S)
    install, *lines = block.splitlines()
    assert install == "pip install 'rws-hub[eval]'" and len(lines) == 5
    monkeypatch.chdir(tmp_path)
    for line in lines:
        words = line.replace("timm/resnet18.a1_in1k", str(root / "start")).replace(
            "uoft-cs/cifar10", str(root / "tints")
        )
        short = ["--epochs", "1"] if words.startswith("rws train") else []
        code, _, err = rws(*words.split()[1:], *short)
        assert code == 0, f"{line}: {err}"
    assert "tints" in (tmp_path / "fog" / "README.md").read_text("utf-8")


def test_help_fits_the_terminal(rws: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("train", "eval"):
        code, out, _ = rws(command, "--help")
        assert code == 0 and max(map(len, out.splitlines())) <= 80
