"""`rws eval`: what it refuses, in which words, and whose signatures it takes."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from keys import key_pair
from patterns import CLASSES
from test_cli import Run, rws
from test_eval_command import ANYHOW, ONE, measured, root, signature
from test_train_command import failed_quietly

__all__ = ["root", "rws"]  # fixtures


def test_a_stranger_is_refused_unless_told(rws: Run, root: Path, tmp_path: Path) -> None:
    asked = ("eval", root / "stranger", root / "tints", "--signature", root / "fog", *ONE, "-o", tmp_path / "out")
    assert "a stranger to the model that the signature was made from" in failed_quietly(rws(*asked))
    assert rws(*asked, *ANYHOW)[0] == 0
    found = json.loads((tmp_path / "out" / "measured.json").read_bytes())
    assert "--verify architecture" in found["command"]


@pytest.mark.parametrize("wrong", ["model", "robust"])
def test_classes_in_another_order(wrong: str, rws: Run, root: Path, tmp_path: Path) -> None:
    models = {name: Path(shutil.copytree(root / name, tmp_path / name)) for name in ("model", "robust")}
    for name, folder in models.items():
        config = json.loads((folder / "config.json").read_bytes())
        config["label_names"] = list(CLASSES[::-1] if name == wrong else CLASSES)
        (folder / "config.json").write_text(json.dumps(config))
    words = ("--robust", models["robust"], *ONE, "-o", tmp_path / "out")
    message = failed_quietly(rws("eval", models["model"], root / "tints", *words))
    assert f"{wrong} has the data set's classes in another order (number 0 is 'grey' there and 'red' here)" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--corruption", "frog"), "no corruption is called 'frog'; did you mean 'fog'?"),
        (("--controls", "raw"), "the plain difference of fog needs the robust model that it was made from"),
        (("--bn-images", "61"), "asks for 61 unlabelled images, there are 60"),
        (("--bn-images", "5", "--bn-split", "test[39:]"), "tints: test[39:] and test share images; batch norm must"),
        (("--bn-images", "5", "--bn-split", "spare"), "Unknown split"),
        (("--signature", "nowhere"), "nowhere"),
        (("--robust", "nowhere"), "'nowhere': no such file or folder"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], message: str, rws: Run, root: Path, tmp_path: Path) -> None:
    fog = () if "--signature" in words else ("--signature", root / "fog")
    ran = rws("eval", root / "model", root / "tints", "-o", tmp_path / "out", *fog, *words)
    assert message in failed_quietly(ran) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [("--alpha", "1"), ("--controls", "noise"), ("--public-key", "fog.pub"), ("--lock", "rws.lock")]
)
def test_words_for_signatures_that_are_not_there(words: tuple[str, ...], rws: Run, root: Path, tmp_path: Path) -> None:
    message = failed_quietly(rws("eval", root / "model", root / "tints", "-o", tmp_path / "out", *words))
    assert message.endswith(f"{words[0]} is about signatures, and there is none: name one with --signature")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--severity", "6"),
        ("--severity", "0,1"),
        ("--bn-images", "-1"),
        ("--controls", "signal"),
        ("--alpha", "1,x"),
        ("--seed", "-1"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], rws: Run, root: Path, tmp_path: Path) -> None:
    code, out, err = rws("eval", root / "model", root / "tints", "-o", tmp_path / "out", *words)
    assert code == 2 and out == "" and f"argument {words[0]}" in err


def test_without_accelerate(rws: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    for module in [m for m in sys.modules if m.startswith("rws_hub.evaluation.")]:
        monkeypatch.delitem(sys.modules, module)
    message = failed_quietly(rws("eval", root / "model", root / "tints", "-o", tmp_path / "out"))
    assert message == "error: measuring needs accelerate: pip install 'rws-hub[eval]'"


def test_only_what_is_signed_and_pinned(rws: Run, root: Path, tmp_path: Path) -> None:
    (private, public), hers = key_pair(tmp_path), key_pair(tmp_path, "mallory")[1]
    for name, seed in (("fog", 1), ("snow", 2)):
        signature(name, seed).save_pretrained(tmp_path / name, sign=private if name == "fog" else None)
    lock = tmp_path / "rws.lock"
    assert rws("lock", tmp_path / "fog", "-o", lock)[0] == 0
    fog, snow = (("--signature", tmp_path / name) for name in ("fog", "snow"))
    for words, said in (
        ((*fog, *snow, "--public-key", public), f"{tmp_path / 'snow'} is not signed"),
        ((*fog, "--public-key", hers), "it names another key"),
        ((*fog, *snow, "--lock", lock), "snow"),
    ):
        message = failed_quietly(rws("eval", root / "model", root / "tints", "-o", tmp_path / "out", *words))
        assert said in message and not (tmp_path / "out").exists()
    found = measured(rws, root, tmp_path / "out", *fog, "--public-key", public, "--lock", lock, *ONE)
    plain = measured(rws, root, tmp_path / "out", *fog, *ONE)
    assert found == plain, "no number depends on it, and a key lies on one machine"
