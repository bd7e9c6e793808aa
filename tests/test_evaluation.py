"""A grid of variants and conditions: what is counted, and that nothing is measured twice."""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bits import bits
from builders import perturbed, tiny_resnet, tiny_signature
from patterns import SIZE, parquet
from torch import nn

from rws_hub import CorruptionError, patch, reestimate_batchnorm
from rws_hub.classifier import Preprocessing, with_head
from rws_hub.corruptions import corrupt
from rws_hub.evaluation import runner
from rws_hub.evaluation.cells import Cell, Condition, Store
from rws_hub.evaluation.runner import Grid, conditions, measure
from rws_hub.evaluation.study import Study, plan
from rws_hub.pictures import Pictures, View, open_pictures

PREPROCESSING = Preprocessing(View(SIZE, SIZE), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
OTHER = Preprocessing(View(SIZE, SIZE), (0.4, 0.5, 0.5), (0.25, 0.25, 0.25))
CLEAN, NOISE, FOG = Condition("clean", 0), Condition("gaussian_noise", 4), Condition("fog", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 training and 40 test images."""
    return parquet(tmp_path_factory.mktemp("evaluation") / "tints", {"train": 60, "test": 40})


@pytest.fixture(scope="module")
def data(folder: Path) -> Pictures:
    return open_pictures(folder, "test")


@pytest.fixture(scope="module")
def spare(folder: Path) -> Pictures:
    return open_pictures(folder, "train")


def standard() -> nn.Module:
    """The clean model of `tiny_signature`, with a head for the four classes."""
    return with_head(tiny_resnet(), 4, 0)


def study(**given: Any) -> Study:
    model = standard()
    told = {"robust": None, "signatures": (tiny_signature(),), "alphas": (1.0,), "controls": (), "norm_images": 0}
    return Study(**({"model": model} | told | given))


def grid(asked: Study, data: Pictures, spare: Pictures | None = None, *wanted: Condition, **given: Any) -> Grid:
    told = {"unlabelled": spare, "seed": 0, "precision": "fp32"} | given
    return plan(asked, data, wanted or (CLEAN, NOISE), PREPROCESSING, **told).grid


def shown(data: Pictures, condition: Condition, seed: int = 0) -> torch.Tensor:
    pixels = data.pixels(range(len(data)), PREPROCESSING.view)
    if condition != CLEAN:
        pixels = corrupt(pixels, condition.corruption, condition.severity, seed=seed)
    return PREPROCESSING.tensor(torch.from_numpy(pixels), torch.device("cpu"))


def count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The variant and condition of every cell that is measured from now on."""
    done: list[str] = []
    real = runner._Runner._answers

    def answers(self: Any, variant: Any, condition: Condition, *rest: Any) -> Any:
        done.append(f"{variant.name}, {condition}")
        return real(self, variant, condition, *rest)

    monkeypatch.setattr(runner._Runner, "_answers", answers)
    return done


# --- what is measured


def test_answers_are_those_of_the_model(data: Pictures, spare: Pictures, tmp_path: Path) -> None:
    asked = study(robust=perturbed(standard(), 0.2, 1), alphas=(0.5, 1.0), norm_images=50)
    before = bits(asked.model)
    table = measure(grid(asked, data, spare, CLEAN, NOISE, FOG, seed=3), tmp_path, progress=False)
    assert bits(asked.model) == before
    (fog,) = asked.signatures
    chosen = np.random.default_rng(3).permutation(len(spare))[:50]
    for condition in (CLEAN, NOISE, FOG):
        images = shown(data, condition, seed=3)
        pixels = spare.pixels(chosen, PREPROCESSING.view)
        if condition != CLEAN:
            pixels = corrupt(pixels, condition.corruption, condition.severity, seed=3, indices=chosen)
        unlabelled = [PREPROCESSING.tensor(torch.from_numpy(pixels), torch.device("cpu"))]
        with torch.inference_mode():
            expected = {"unpatched": asked.model(images), "robust": asked.robust(images)}  # type: ignore[misc]
        for alpha in (0.5, 1.0):
            with patch(asked.model, fog, alpha=alpha), torch.inference_mode():
                expected[f"fog at {alpha:g}"] = asked.model(images)
        with patch(asked.model, fog, alpha=1.0), reestimate_batchnorm(asked.model, unlabelled), torch.no_grad():
            expected["fog at 1, batch norm of 50 images"] = asked.model(images)
        with reestimate_batchnorm(asked.model, unlabelled), torch.no_grad():
            expected["batch norm of 50 images"] = asked.model(images)
        assert {n for n, _ in table} == set(expected)
        for name, logits in expected.items():
            assert np.array_equal(table[name, condition], logits.argmax(1).numpy() == data.labels), (name, condition)


def test_parts_and_batches_change_nothing(data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = grid(study(), data)
    whole = measure(asked, tmp_path / "whole", progress=False)
    monkeypatch.setattr(runner, "_BATCH", 8)
    monkeypatch.setattr(runner, "_CHUNK_BYTES", 3 * SIZE * SIZE * 16)
    parts = measure(asked, tmp_path / "parts", progress=False)
    assert len(list((tmp_path / "parts").iterdir())) == 3 * len(list((tmp_path / "whole").iterdir())) == 12
    assert all(np.array_equal(parts[key], whole[key]) for key in whole)


def test_bf16(data: Pictures, tmp_path: Path) -> None:
    asked = grid(study(signatures=()), data, None, CLEAN, precision="bf16")
    found = measure(asked, tmp_path, progress=False)["unpatched", CLEAN]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = asked.variants[0].model(shown(data, CLEAN)).argmax(1).numpy() == data.labels
    assert np.array_equal(found, expected)


def test_nothing_is_measured_twice(data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = count(monkeypatch)
    first = measure(grid(study(), data), tmp_path, progress=False)
    assert done == ["unpatched, clean", "fog at 1, clean", "unpatched, gaussian_noise 4", "fog at 1, gaussian_noise 4"]
    again = measure(grid(study(), data), tmp_path, progress=False)
    assert len(done) == 4 and all(np.array_equal(again[key], first[key]) for key in first)
    measure(grid(study(alphas=(0.5, 1.0)), data, None, CLEAN, NOISE, FOG), tmp_path, progress=False)
    assert done[4:] == [
        "fog at 0.5, clean",
        "fog at 0.5, gaussian_noise 4",
        "unpatched, fog 2",
        "fog at 0.5, fog 2",
        "fog at 1, fog 2",
    ]


def test_whatever_decides_an_answer_is_measured_anew(
    folder: Path, data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = study(signatures=())
    measure(grid(plain, data), tmp_path, progress=False)
    done = count(monkeypatch)
    for changed in (
        grid(dataclasses.replace(plain, model=perturbed(plain.model, 0.01, 0)), data),
        grid(plain, open_pictures(folder, "test[:30]")),
        grid(plain, data, seed=1),
        grid(plain, data, precision="bf16"),
        plan(plain, data, (CLEAN, NOISE), OTHER, unlabelled=None, seed=0, precision="fp32").grid,
    ):
        done.clear()
        measure(changed, tmp_path, progress=False)
        assert done == ["unpatched, clean", "unpatched, gaussian_noise 4"]
    done.clear()
    measure(grid(plain, data), tmp_path, progress=False)
    assert not done


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"right": "AA=="}', b"\xff"])
def test_a_damaged_cell_is_measured_anew(damage: bytes, data: Pictures, tmp_path: Path) -> None:
    asked = grid(study(signatures=()), data, None, CLEAN)
    first = measure(asked, tmp_path, progress=False)["unpatched", CLEAN]
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert np.array_equal(measure(asked, tmp_path, progress=False)["unpatched", CLEAN], first)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("images", [1, 7, 8, 9, 250])
def test_a_cell_keeps_every_answer(images: int, tmp_path: Path) -> None:
    right = np.random.default_rng(images).random(images) < 0.5
    cell = Cell("w", "v", "i", 10, 10 + images, NOISE, 0, "p", "v")
    store = Store(tmp_path / "of" / "cells")
    assert list((tmp_path / "of").iterdir()) == [tmp_path / "of" / "cells"]  # at once, so that nobody else makes it
    assert store.get(cell) is None
    store.put(cell, right)
    found = store.get(cell)
    assert found is not None and found.dtype == np.bool_ and np.array_equal(found, right)
    told = json.loads((tmp_path / "of" / "cells" / f"{cell.key}.json").read_bytes())
    assert told["correct"] == right.sum() and told["cell"]["condition"] == {
        "corruption": "gaussian_noise",
        "severity": 4,
    }
    assert store.get(dataclasses.replace(cell, seed=1)) is None


@pytest.mark.parametrize("terminal", [True, False])
def test_a_log_gets_few_lines(
    terminal: bool,
    data: Pictures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = Store.put

    def slowly(self: Store, *given: Any) -> None:
        time.sleep(0.12)
        real(self, *given)

    monkeypatch.setattr(Store, "put", slowly)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    measure(grid(study(), data), tmp_path, progress=True)
    bars = capsys.readouterr().err.count("measuring:")
    assert bars >= 4 if terminal else bars == 2  # the first and the last


# --- what is compared


def test_names_of_variants(data: Pictures, spare: Pictures) -> None:
    fog, more, snow = tiny_signature(), tiny_signature(seed=2), tiny_signature(corruption="snow", seed=3)
    robust = perturbed(standard(), 0.01, 1)
    asked = study(robust=robust, controls=("noise", "raw"))
    assert [v.name for v in grid(asked, data).variants] == [
        "unpatched",
        "fog at 1",
        "noise of the norm of fog at 1",
        "plain difference of fog at 1",
        "robust",
    ]
    asked = study(signatures=(fog, snow), robust=robust, controls=("noise",), norm_images=8)
    assert [v.name for v in grid(asked, data, spare).variants] == [
        "unpatched",
        "fog at 1",
        "fog at 1, batch norm of 8 images",
        "noise of the norm of fog at 1",
        "snow at 1",
        "snow at 1, batch norm of 8 images",
        "noise of the norm of snow at 1",
        "all 2 at 1 each",
        "all 2 at 0.5 each",
        "robust",
        "batch norm of 8 images",
    ]
    names = [v.name for v in grid(study(signatures=(fog, more)), data).variants]
    assert names[1:3] == ["fog #1 at 1", "fog #2 at 1"]
    # 0.5 is asked for, and is also the half of 1
    names = [v.name for v in grid(study(signatures=(fog, snow), alphas=(0.5, 1.0)), data).variants]
    assert len(names) == len(set(names)) and names[-3:] == [
        "all 2 at 0.5 each",
        "all 2 at 0.25 each",
        "all 2 at 1 each",
    ]


@pytest.mark.parametrize(("alphas", "main"), [((0.5, 1.0, 2.0), "1"), ((0.5, 2.0), "0.5")])
def test_controls_are_at_the_recommended_strength(
    alphas: tuple[float, ...], main: str, data: Pictures, spare: Pictures
) -> None:
    names = [v.name for v in grid(study(alphas=alphas, controls=("noise",), norm_images=8), data, spare).variants]
    assert names[-3:] == [
        f"fog at {main}, batch norm of 8 images",
        f"noise of the norm of fog at {main}",
        "batch norm of 8 images",
    ]


def test_conditions() -> None:
    found = conditions(("fog", "snow"), (1, 5))
    assert [str(c) for c in found] == ["clean", "fog 1", "fog 5", "snow 1", "snow 5"] and found[0] == CLEAN
    assert conditions((), (5,)) == (CLEAN,)
    with pytest.raises(CorruptionError, match="'frogg'; did you mean 'fog'"):
        conditions(("fog", "frogg"), (1,))
    with pytest.raises(CorruptionError, match="from 1 to 5, found 6"):
        conditions(("fog",), (5, 6))
