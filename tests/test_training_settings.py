"""What a training can be, in words, and its learning rate."""

import itertools
import math
from typing import Any

import pytest

from rws_hub import CorruptionError, TrainingError
from rws_hub.training.settings import EpochRecord, TrainSettings


def settings(**given: Any) -> TrainSettings:
    """Of the standard recipe, unless a corruption is given."""
    return TrainSettings(**({"recipe": "from-clean" if "corruption" in given else "standard"} | given))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"recipe": "robust"}, TrainingError, "recipe cannot be 'robust'; it is one of standard, from-clean, two-bra"),
        ({"optimizer": "adam"}, TrainingError, "optimizer cannot be 'adam'; it is one of sgd, adamw"),
        ({"precision": "fp16"}, TrainingError, "precision cannot be 'fp16'; it is one of fp32, bf16"),
        ({"recipe": "two-branch"}, TrainingError, "the standard recipe has no corruption, the others have one"),
        (
            {"recipe": "standard", "corruption": "fog", "severity": 3},
            TrainingError,
            "standard recipe has no corruption",
        ),
        ({"corruption": "fog"}, TrainingError, "'from-clean' with corruption 'fog' at severity None"),
        ({"severity": 3}, TrainingError, "recipe 'standard' with corruption None at severity 3"),
        ({"corruption": "fogg", "severity": 3}, CorruptionError, "no corruption is called 'fogg'; did you mean 'fog'"),
        ({"corruption": "fog", "severity": 0}, CorruptionError, "whole number from 1 to 5, found 0"),
        ({"corruption": "fog", "severity": 6}, CorruptionError, "whole number from 1 to 5, found 6"),
        ({"epochs": 0}, TrainingError, "epochs cannot be 0"),
        ({"batch_size": 1}, TrainingError, "batch_size cannot be 1"),
        ({"lr": 0.0}, TrainingError, "lr cannot be 0"),
        ({"lr": math.nan}, TrainingError, "lr cannot be nan"),
        ({"weight_decay": -1e-4}, TrainingError, "weight_decay cannot be -0.0001"),
        ({"warmup": 1.0}, TrainingError, "warmup cannot be 1.0"),
        ({"val_share": 0.0}, TrainingError, "val_share cannot be 0.0"),
        ({"seed": -1}, TrainingError, "seed cannot be -1"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        settings(**given)


def test_the_learning_rate_rises_and_falls() -> None:
    found = [settings(lr=0.2, warmup=0.1).learning_rate(step, 100) for step in range(100)]
    assert found[:10] == pytest.approx([0.02 * k for k in range(1, 11)])
    assert found[10] == 0.2 == max(found) and found[55] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(found[10:])) and 0 < found[-1] < 0.0002


def test_the_learning_rate_of_short_trainings() -> None:
    assert settings(lr=0.2).learning_rate(0, 1) == 0.2
    assert [settings(lr=0.2, warmup=0.0).learning_rate(s, 2) for s in (0, 1)] == [0.2, 0.2]
    assert all(0 < settings(lr=0.2).learning_rate(s, n) < 0.2 + 1e-12 for n in range(1, 30) for s in range(n))


def test_what_the_best_epoch_is_best_in() -> None:
    found = EpochRecord(0, 1.0, clean=0.75, corrupted=0.25)
    assert found.score("from-clean") == 0.5 and found.score("two-branch") == 0.25
    assert EpochRecord(0, 1.0, clean=0.75, corrupted=None).score("standard") == 0.75
