"""Grids that cannot be measured as asked."""

import dataclasses
from pathlib import Path

import pytest
from builders import perturbed, tiny_resnet, tiny_signature, tiny_vit
from test_evaluation import data, folder, grid, spare, standard, study

from rws_hub import DataError, EvaluationError, IncompatibleModelError
from rws_hub.evaluation.runner import measure
from rws_hub.pictures import Pictures

__all__ = ["data", "folder", "spare"]  # fixtures


def test_what_is_refused(data: Pictures, spare: Pictures, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the model tells 10 classes apart, the data set has 4 \(red, green, blue, "):
        grid(study(model=tiny_resnet()), data)
    with pytest.raises(DataError, match="the robust model tells 10 classes apart, the data set has 4"):
        grid(study(robust=tiny_resnet()), data)
    with pytest.raises(IncompatibleModelError):
        grid(study(signatures=(tiny_signature("vit"),)), data)
    with pytest.raises(EvaluationError, match="the same signature is named twice"):
        grid(study(signatures=(tiny_signature(), tiny_signature())), data)
    model, fog, snow = standard(), tiny_signature(), tiny_signature(corruption="snow", seed=3)
    for robust, signatures, wrong in (
        (None, (fog,), "fog"),
        (model, (fog,), "fog"),
        (perturbed(model, 0.01, 2), (fog,), "fog"),
        (perturbed(model, 0.01, 1), (fog, snow), "snow"),
    ):
        with pytest.raises(EvaluationError, match=f"plain difference of {wrong} needs the robust model that it was"):
            grid(study(robust=robust, signatures=signatures, controls=("raw",)), data)
    with pytest.raises(EvaluationError, match=r"VisionTransformer\) has no batch norm that could be re-estimated"):
        grid(study(model=tiny_vit(num_classes=4), signatures=(), norm_images=8), data, spare)
    with pytest.raises(EvaluationError, match="asks for 61 unlabelled images, there are 60"):
        measure(grid(study(norm_images=61), data, spare), tmp_path / "x", progress=False)
    with pytest.raises(EvaluationError, match="asks for 8 unlabelled images, there are 0"):
        measure(grid(study(norm_images=8), data), tmp_path / "x", progress=False)
    twice = grid(study(), data)
    twice = dataclasses.replace(twice, variants=(*twice.variants, twice.variants[1]))
    with pytest.raises(EvaluationError, match="two variants are called 'fog at 1'"):
        measure(twice, tmp_path / "x", progress=False)
    assert not (tmp_path / "x").exists()
