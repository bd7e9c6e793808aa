"""Rows, means and what they are relative to: what is told of a grid that was measured."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluation import CLEAN, FOG, NOISE, OTHER, data, folder, grid, study

from rws_hub import EvaluationError
from rws_hub.evaluation import report
from rws_hub.evaluation.cells import Condition
from rws_hub.evaluation.runner import measure
from rws_hub.evaluation.study import plan
from rws_hub.pictures import Pictures, open_pictures

__all__ = ["data", "folder"]  # fixtures


def test_rows(data: Pictures, tmp_path: Path) -> None:
    asked = grid(study(), data, None, CLEAN, NOISE, FOG)
    table = measure(asked, tmp_path, progress=False)
    plain, patched = report.rows(asked, table, {"gaussian_noise": [0.5], "fog": [0.4]})
    assert (plain.name, patched.name) == ("unpatched", "fog at 1")
    wrong = [1 - table["fog at 1", c].mean() for c in (NOISE, FOG)]
    assert patched.clean.mean == table["fog at 1", CLEAN].mean() and set(patched.corrupted) == {NOISE, FOG}
    assert patched.mean is not None and patched.mean.mean == pytest.approx(1 - np.mean(wrong))
    assert patched.mce == pytest.approx((wrong[0] / 0.5 + wrong[1] / 0.4) / 2)
    with pytest.raises(EvaluationError, match="0 severities of fog"):
        report.rows(asked, table, {"gaussian_noise": [0.5]})
    (only,) = report.rows(grid(study(signatures=()), data, None, CLEAN), table, None)
    assert only.mean is None and only.mce is None and only.corrupted == {}


def test_a_reference_is_of_the_same_images_and_conditions(folder: Path, data: Pictures, tmp_path: Path) -> None:
    plain, weak = study(signatures=()), Condition("fog", 5)
    first = grid(plain, data, None, CLEAN, NOISE, FOG, weak)
    found = report.rows(first, measure(first, tmp_path, progress=False), None)
    told = json.loads(json.dumps(report.measured(first, found, "a command", None)))
    assert told["reference"] is None and told["interval"].startswith("95 %")
    wrong = {c: 1 - e.mean for c, e in found[0].corrupted.items()}
    second = grid(study(), data, None, CLEAN, weak, NOISE)  # what is asked for here, whatever else is there
    errors = report.reference_errors(told, second, "it")
    assert errors == {"gaussian_noise": [wrong[NOISE]], "fog": [wrong[weak]]}
    assert report.measured(second, (), "", told)["reference"] == "a command"
    for other, message in [
        (
            grid(plain, open_pictures(folder, "test[:30]")),
            r"it was measured with split 'test', here it is 'test\[:30\]'",
        ),
        (grid(plain, open_pictures(folder, "train")), "split 'test', here it is 'train'"),
        (grid(plain, dataclasses.replace(data, labels=data.labels[:39])), "images 40, here it is 39"),
        (grid(plain, dataclasses.replace(data, fingerprint="f")), f"fingerprint '{data.fingerprint}', here it is 'f'"),
        (grid(plain, data, seed=3), "seed 0, here it is 3; measure it with the same images and seed"),
        (
            plan(plain, data, (CLEAN, NOISE), OTHER, unlabelled=None, seed=0, precision="fp32").grid,
            r"preprocessing \{.*0.5, 0.5, 0.5.*, here it is \{.*0.4, 0.5, 0.5.*\}; measure",
        ),
        (grid(plain, data, None, CLEAN, Condition("fog", 3)), "0 severities of fog where 1 were measured"),
        (grid(plain, data, None, CLEAN, FOG, Condition("fog", 3)), "1 severities of fog where 2 were measured"),
        (grid(plain, data, None, CLEAN), "a reference is for corruptions, and none is measured"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            report.reference_errors(told, other, "it")


@pytest.mark.parametrize("wrong", [{}, {"variants": 3}, {"variants": []}, {"variants": [{"name": "unpatched"}]}])
def test_what_is_no_reference(wrong: dict[str, Any], data: Pictures) -> None:
    with pytest.raises(EvaluationError, match=r"^it is no measured\.json of rws eval$"):
        report.reference_errors(wrong, grid(study(), data), "it")
