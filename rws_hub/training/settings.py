"""What a training is: its settings, and what it leaves behind in `train.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from rws_hub.corruptions import corrupt
from rws_hub.errors import TrainingError

# "standard": clean images. "from-clean": half of every batch is corrupted, meant to start at the standard model.
# "two-branch": every image is corrupted, meant to start at the pretrained model, as in the paper.
Recipe = Literal["standard", "from-clean", "two-branch"]
Optimizer = Literal["sgd", "adamw"]
Precision = Literal["fp32", "bf16"]

# Images that one forward pass of one process sees. A step of 128 images is two of them on one process, or one on each
# of two processes: batch norm sees the same images, and the sums are the same.
MICRO_BATCH = 64


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Everything that decides what comes out, besides the data and the weights to start from.

    Attributes:
        recipe: see `Recipe`.
        corruption: a name of `rws_hub.corruptions`; None for the standard recipe, and only there.
        severity: 1 to 5, likewise.
        epochs: passes over the training images.
        batch_size: images a step, over all processes together.
        lr: peak learning rate; it rises linearly over `warmup`, then falls to 0 along a cosine.
        optimizer: "sgd" (Nesterov momentum 0.9) or "adamw".
        weight_decay: of the optimizer.
        warmup: share of the steps in which the learning rate rises.
        augment: random crop out of a frame of one eighth of the side, and random mirror.
        precision: "bf16" computes under autocast; weights are kept in float32.
        val_share: share of the training split that is set aside to choose the epoch, if there is no split for it.
        seed: of every random draw.
    """

    recipe: Recipe
    corruption: str | None = None
    severity: int | None = None
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.01
    optimizer: Optimizer = "sgd"
    weight_decay: float = 5e-4
    warmup: float = 0.1
    augment: bool = True
    precision: Precision = "fp32"
    val_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, words in {"recipe": Recipe, "optimizer": Optimizer, "precision": Precision}.items():
            if (word := getattr(self, name)) not in get_args(words):
                raise TrainingError(f"{name} cannot be {word!r}; it is one of {', '.join(get_args(words))}")
        if (self.recipe == "standard") != (self.corruption is None) or (self.corruption is None) != (
            self.severity is None
        ):
            raise TrainingError(
                f"recipe {self.recipe!r} with corruption {self.corruption!r} at severity {self.severity}: the standard "
                "recipe has no corruption, the others have one and its severity"
            )
        if self.corruption is not None and self.severity is not None:
            corrupt(np.zeros((1, 32, 32, 3), np.uint8), self.corruption, self.severity, seed=0)  # refuses what is not
        for name, wrong in {
            "epochs": self.epochs < 1,
            "batch_size": self.batch_size < 2,
            "lr": not (math.isfinite(self.lr) and self.lr > 0),
            "weight_decay": not (math.isfinite(self.weight_decay) and self.weight_decay >= 0),
            "warmup": not 0 <= self.warmup < 1,
            "val_share": not 0 < self.val_share < 1,
            "seed": self.seed < 0,
        }.items():
            if wrong:
                raise TrainingError(f"{name} cannot be {getattr(self, name)}")

    def learning_rate(self, step: int, steps: int) -> float:
        """The rate of one step out of `steps`, counted from 0."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@dataclass(frozen=True, slots=True)
class DataRecord:
    """Which images: name, Hub id, split, how many, and what tells them from others (`Pictures.fingerprint`)."""

    name: str
    dataset_id: str | None
    split: str
    images: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch: mean loss (nats), and top-1 on the validation images, fractions from 0 to 1."""

    epoch: int
    loss: float
    clean: float
    corrupted: float | None

    def score(self, recipe: Recipe) -> float:
        """What the best epoch is best in: clean, corrupted, or their mean, by recipe."""
        if self.corrupted is None:
            return self.clean
        return self.corrupted if recipe == "two-branch" else (self.clean + self.corrupted) / 2


@dataclass(frozen=True, slots=True)
class TrainRecord:
    """`train.json`: all that is needed to tell what a checkpoint is, and to make it again.

    Attributes:
        settings: as given.
        start: sha256 of the weights that it began with, and what they were called.
        data: the images it was trained on, those set aside not counted.
        validation: the images that chose the epoch.
        classes: names, in the order of the labels.
        size, mean, std: of the pictures.
        epochs: one record each.
        best: number of the epoch whose weights were kept.
        versions: package or platform -> version.
        seconds: of training, over all runs.
    """

    settings: TrainSettings
    start: str
    start_label: str
    data: DataRecord
    validation: DataRecord
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs: tuple[EpochRecord, ...]
    best: int
    versions: dict[str, str]
    seconds: float
