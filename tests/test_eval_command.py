"""`rws eval`: tables that fit, measured.json, results.json for the card, and going on after a kill."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import perturbed, tiny_resnet
from datasets import Dataset
from patterns import parquet, timm_folder
from published import saved
from test_cli import Run, rws
from test_train_command import failed_quietly

from rws_hub import RobustWeightSignature
from rws_hub.disk import is_scratch
from rws_hub.evaluation.cells import Store
from rws_hub.results import parse_results

__all__ = ["rws"]  # a fixture
ONE = ("--corruption", "gaussian_noise", "--severity", "4")
ANYHOW = ("--verify", "architecture")


def signature(corruption: str, seed: int) -> RobustWeightSignature:
    standard = tiny_resnet(num_classes=4)
    robust, facts = perturbed(standard, 0.01, seed), {"severity": 5, "license": "mit"}
    return RobustWeightSignature.extract(standard=standard, robust=robust, corruption=corruption, **facts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tints`, `model` and its `robust` twin, a signature in `fog` and one in `snow`, a `stranger` and a `kin`."""
    root = tmp_path_factory.mktemp("eval-command")
    parquet(root / "tints", {"train": 60, "test": 40})
    timm_folder(root / "model")
    timm_folder(root / "stranger", tiny_resnet(9, num_classes=4))
    timm_folder(root / "robust", perturbed(tiny_resnet(num_classes=4), 0.01, 1))
    timm_folder(root / "kin", perturbed(tiny_resnet(num_classes=4), 0.001, 7))
    saved(root / "fog", signature("fog", 1))
    saved(root / "snow", signature("snow", 2))
    return root


def measured(rws: Run, root: Path, out: Path, *words: object, model: str | Path = "model") -> dict[str, Any]:
    code, told, err = rws("eval", root / model, root / "tints", "--json", "-o", out, *words)
    assert code == 0, err
    found: dict[str, Any] = json.loads(told)
    assert found.pop("out") == str(out) and found == json.loads((out / "measured.json").read_bytes())
    return found


def test_one_corruption(rws: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ("--signature", root / "fog", "--robust", root / "robust", *ONE)
    code, out, _ = rws("eval", root / "model", root / "tints", "-o", tmp_path, *words)
    lines = out.splitlines()
    assert code == 0 and max(map(len, lines[:-2])) <= 80
    assert lines[0] == "tints, test: 40 images. Top-1 in percent [95 % interval]"
    assert re.fullmatch(r" +model +clean +gaussian_noise 4 *", lines[2])
    found = json.loads((tmp_path / "measured.json").read_bytes())
    assert [v["name"] for v in found["variants"]] == ["unpatched", "fog at 1", "robust"]
    for number, variant in enumerate(found["variants"], 1):
        told = [variant["clean"], variant["corrupted"][0]]
        cells = " +".join(rf"{100 * e['mean']:.1f} \[{100 * e['low']:.1f}, {100 * e['high']:.1f}\]" for e in told)
        assert re.search(rf"^{number} +{variant['name']} +{cells} *$", out, re.M)
    assert lines[-2:] == [
        f"{tmp_path}: measured.json, results.json",
        f"rws card takes them over: rws card SIGNATURE --results {tmp_path / 'results.json'}",
    ]


def test_many_corruptions_and_models(rws: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["--signature", root / "fog", "--signature", root / "snow", "--robust", root / "robust"]
    words += ["--controls", "noise", "--bn-images", 16, "--corruption", "fog,gaussian_noise", "--severity", "5,1"]
    code, out, _ = rws("eval", root / "model", root / "tints", "-o", tmp_path, *words)
    assert code == 0 and max(map(len, out.splitlines()[:-1])) <= 80
    found = json.loads((tmp_path / "measured.json").read_bytes())
    assert len(found["variants"]) == 11 and "results.json" not in out and not (tmp_path / "results.json").exists()
    assert re.search(r" +model +clean +corrupted, mean", out)
    conditions = ["fog 1", "fog 5", "gaussian_noise 1", "gaussian_noise 5"]
    for place, condition in enumerate(conditions):  # in two blocks, by the numbers of the models
        rows = re.findall(rf"^{condition} +([\d. ]+)$", out, re.M)
        told = [f"{100 * v['corrupted'][place]['mean']:.1f}" for v in found["variants"]]
        assert len(rows) == 2 and " ".join(rows).split() == told
    assert found["command"] == (
        "rws eval model tints --split test --corruption fog,gaussian_noise --severity 1,5 "
        "--controls noise --bn-images 16 --bn-split train --robust robust --seed 0 --signature fog --signature snow"
    )


def test_measured(rws: Run, root: Path, tmp_path: Path) -> None:
    words = ("--signature", root / "fog", "--alpha", "0.5,1", "--corruption", "fog,snow", "--severity", "2,3")
    found = measured(rws, root, tmp_path, *words)
    assert (found["dataset"], found["split"], found["images"], found["seed"]) == ("tints", "test", 40, 0)
    assert [v["name"] for v in found["variants"]] == ["unpatched", "fog at 0.5", "fog at 1"]
    plain, _, patched = found["variants"]
    each = [c["mean"] for c in patched["corrupted"]]
    assert [(c["corruption"], c["severity"]) for c in patched["corrupted"]] == [
        (c, s) for c in ("fog", "snow") for s in (2, 3)
    ]
    assert patched["mean"]["mean"] == pytest.approx(sum(each) / 4)
    assert patched["errors"] == {"fog": [1 - each[0], 1 - each[1]], "snow": [1 - each[2], 1 - each[3]]}
    assert patched["gain"]["mean"] == pytest.approx(patched["mean"]["mean"] - plain["mean"]["mean"])
    assert plain["gain"] == {"mean": 0, "low": 0, "high": 0} and plain["mce"] is None
    assert str(root) not in (tmp_path / "measured.json").read_text()
    assert found["interval"] == "95 %, percentiles of 2000 bootstrap resamples of the images"


def test_clean_alone(rws: Run, root: Path, tmp_path: Path) -> None:
    (only,) = measured(rws, root, tmp_path, "--corruption", "none")["variants"]
    assert only["corrupted"] == [] and only["mean"] is None
    code, out, _ = rws("eval", root / "model", root / "tints", "-o", tmp_path, "--corruption", "none")
    assert code == 0 and "corrupted" not in out


def test_groups_of_corruptions(rws: Run, root: Path, tmp_path: Path) -> None:
    from rws_hub.corruptions import STANDARD

    found = measured(rws, root, tmp_path, "--split", "test[:5]", "--corruption", "spatter,standard,fog")
    assert [c["corruption"] for c in found["variants"][0]["corrupted"]] == ["spatter", *STANDARD]


def test_relative_to_a_reference(rws: Run, root: Path, tmp_path: Path) -> None:
    words = ("--corruption", "fog,snow", "--severity", "2,3")
    reference = measured(rws, root, tmp_path / "a", *words, model="stranger")
    words = ("--signature", root / "fog", *words, "--reference", tmp_path / "a" / "measured.json")
    found = measured(rws, root, tmp_path / "b", *words)
    assert found["reference"] == reference["command"] and "--reference measured.json" in found["command"]
    for variant in found["variants"]:
        theirs = reference["variants"][0]["errors"]
        ratios = [sum(variant["errors"][c]) / sum(theirs[c]) for c in ("fog", "snow")]
        assert variant["mce"] == pytest.approx(sum(ratios) / 2)
    code, out, _ = rws("eval", root / "model", root / "tints", "-o", tmp_path / "b", *words)
    assert code == 0 and re.search(r"corrupted, mean +mCE", out)
    few = ("--corruption", "frost", "--reference", tmp_path / "a" / "measured.json", "-o", tmp_path / "c")
    assert "the reference has 0 severities of frost" in failed_quietly(
        rws("eval", root / "model", root / "tints", *few)
    )
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "null.json").write_text("null")
    for file, message in [
        ("x.json", "x.json is no measured.json of rws eval"),
        ("null.json", "null.json is no measured.json of rws eval"),
        ("y.json", "No such file"),
    ]:
        words = ("--reference", tmp_path / file, "-o", tmp_path / "c")
        assert message in failed_quietly(rws("eval", root / "model", root / "tints", *words))
    others = ("--corruption", "fog", "--severity", "2", "--reference", tmp_path / "a" / "measured.json")
    for changed, told in [
        (("--seed", 1), "seed 0, here it is 1"),
        (("--size", 48), "preprocessing {'view': {'size': 32"),
    ]:
        message = failed_quietly(rws("eval", root / "model", root / "tints", *others, *changed, "-o", tmp_path / "c"))
        assert f"measured.json was measured with {told}" in message
    assert not (tmp_path / "c").exists()


def test_the_card_takes_the_results(rws: Run, root: Path, tmp_path: Path) -> None:
    words = ("--signature", root / "fog", "--robust", root / "robust", "--alpha", "0.5,1", *ONE)
    found = measured(rws, root, tmp_path / "out", *words)["variants"]
    results = parse_results((tmp_path / "out" / "results.json").read_bytes(), "results.json")
    assert [(e.target, e.alpha, e.corruption, e.severity) for e in results.evaluations] == [
        ("standard", 0.5, "gaussian_noise", 4),
        ("standard", 1.0, "gaussian_noise", 4),
    ]
    last = results.evaluations[1].corrupted
    assert [last.unpatched, last.patched, last.robust] == [found[i]["corrupted"][0]["mean"] for i in (0, 2, 3)]
    folder = saved(tmp_path / "fog", signature("fog", 1))
    code, _, err = rws("card", folder, "--results", tmp_path / "out" / "results.json")
    assert code == 0, err
    assert "tints" in (folder / "README.md").read_text() and (folder / "results.json").exists()


@pytest.mark.parametrize(
    ("model", "words", "target"),
    [
        ("model", (), "standard"),
        ("model", ("--target", "standard"), "standard"),
        ("stranger", ANYHOW, "stranger"),
        ("stranger", (*ANYHOW, "--target", "another start"), "another start"),
        ("kin", (), "kin"),
    ],
)
def test_whose_numbers_come_on_the_card(
    model: str, words: tuple[str, ...], target: str, rws: Run, root: Path, tmp_path: Path
) -> None:
    measured(rws, root, tmp_path, "--signature", root / "fog", *ONE, *words, model=model)
    (found,) = parse_results((tmp_path / "results.json").read_bytes(), "results.json").evaluations
    assert found.target == target


def test_a_card_says_whose_numbers_they_are(rws: Run, root: Path, tmp_path: Path) -> None:
    timm_folder(tmp_path / "standard", tiny_resnet(9, num_classes=4))
    for model, words in ((root / "kin", ("--target", "standard")), (tmp_path / "standard", ANYHOW)):
        ran = rws("eval", model, root / "tints", "--signature", root / "fog", *ONE, "-o", tmp_path / "out", *words)
        message = f"the very model that the signature was made from, and {model.name} is not: say with --target what"
        assert message in failed_quietly(ran) and not (tmp_path / "out").exists()
    words = ("--signature", root / "fog", *ONE, "-o", tmp_path / "out", "--target", "somebody/else")
    message = failed_quietly(rws("eval", root / "model", root / "tints", *words))
    assert "leave out --target somebody/else" in message and not (tmp_path / "out").exists()
    both = ("--signature", root / "fog", "--signature", root / "snow", "--corruption", "none", "-o", tmp_path / "out")
    assert rws("eval", tmp_path / "standard", root / "tints", *both, *ANYHOW)[0] == 0  # these come on no card


@pytest.mark.parametrize("robust", ["robust", "kin", None])
def test_the_robust_model_on_the_card_is_the_very_source(
    robust: str | None, rws: Run, root: Path, tmp_path: Path
) -> None:
    words = () if robust is None else ("--robust", root / robust)
    rows = measured(rws, root, tmp_path, "--signature", root / "fog", *ONE, *words)["variants"]
    (found,) = parse_results((tmp_path / "results.json").read_bytes(), "results.json").evaluations
    assert (rows[-1]["name"] == "robust") == (robust is not None)
    expected = (rows[-1]["clean"]["mean"], rows[-1]["mean"]["mean"]) if robust == "robust" else (None, None)
    assert (found.clean.robust, found.corrupted.robust) == expected


def test_results_of_an_earlier_run_do_not_stay(rws: Run, root: Path, tmp_path: Path) -> None:
    measured(rws, root, tmp_path, "--signature", root / "fog", *ONE)
    assert (tmp_path / "results.json").exists()
    measured(rws, root, tmp_path, *ONE)
    assert {p.name for p in tmp_path.iterdir()} == {"cells", "measured.json"}


def test_batch_norm_on_images_without_labels(rws: Run, root: Path, tmp_path: Path) -> None:
    table = Dataset.from_parquet(str(parquet(tmp_path / "wild", {"wild": 30}) / "data" / "wild-00000-of-00001.parquet"))
    shutil.copytree(root / "tints", tmp_path / "tints")
    wild = table.map(lambda row: {"label": -1})
    wild.to_parquet(tmp_path / "tints" / "data" / "wild-00000-of-00001.parquet")
    names = []
    for split in ("wild", "test[:20]"):
        words = ("--bn-images", "8", "--bn-split", split, "--split", "test[20:]", *ONE)
        names.append(
            [v["name"] for v in measured(rws, tmp_path, tmp_path / split, *words, model=root / "model")["variants"]]
        )
    assert names == [["unpatched", "batch norm of 8 images"]] * 2


_KILLED = """
import os, sys, time
from rws_hub import cli

count, real = 0, os.fsync
def fsync(file):
    global count
    count += 1
    if count == 5:
        print("now", flush=True)
        time.sleep(600)
    real(file)
os.fsync = fsync
cli.main(sys.argv[1:])
"""


def test_killed(rws: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--signature", str(root / "fog"), "--corruption", "fog,snow", "--severity", "2")
    command = ["eval", str(root / "model"), str(root / "tints"), "--json", "-o", str(tmp_path / "out"), *words]
    with subprocess.Popen([sys.executable, "-c", _KILLED, *command], stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    cells = tmp_path / "out" / "cells"
    assert any(map(is_scratch, cells.iterdir()))
    before = {f: f.stat().st_mtime_ns for f in cells.glob("*.json")}
    assert len(before) == 4 and not (tmp_path / "out" / "measured.json").exists()
    done = []
    put = Store.put
    monkeypatch.setattr(Store, "put", lambda self, cell, right: (done.append(cell.condition), put(self, cell, right)))
    found = measured(rws, root, tmp_path / "out", *words)
    assert [str(c) for c in done] == ["snow 2", "snow 2"]
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert not any(map(is_scratch, cells.iterdir()))
    assert measured(rws, root, tmp_path / "anew", *words)["variants"] == found["variants"]
