"""Relatives and strangers of the models of benchmarks/paper, each trained once and kept.

From each backbone's standard model on CIFAR-10, 10,000 images an epoch: trained further on the same and on other
images, at the usual learning rate and at rates that destroy it; and strangers, trained from other random weights.

    python benchmarks/trust/relatives.py --data DATA --zoo WORK --work FOLDER
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "paper"))

import torch
from setting import BACKBONES, FITS, SETTINGS
from torch import nn
from zoo import SIZE, Zoo

from rws_hub.training import train
from rws_hub.training.settings import TrainSettings

SPLIT = "train[:10000]"
STANDARD = 0


@dataclass(frozen=True, slots=True)
class Relative:
    """One training.

    Attributes:
        kind: "further" from the standard model, or "scratch" from other random weights.
        dataset: what it is trained on.
        faster: its peak learning rate, in terms of the usual one.
        epochs: of 10,000 images.
        seed: of its order, and of random weights.
    """

    kind: str
    dataset: str
    faster: float
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.kind}-{self.dataset}-{self.faster:g}x-{self.epochs}-{self.seed}"


RELATIVES = (
    Relative("scratch", "cifar10", 1, 2, 101),
    Relative("further", "cifar10", 1, 1, 11),
    Relative("further", "cifar100", 1, 1, 12),
    Relative("further", "cifar10", 5, 1, 13),
    Relative("further", "cifar10", 10, 1, 14),
    Relative("further", "cifar100", 5, 1, 15),
    Relative("further", "cifar100", 10, 1, 16),
    Relative("scratch", "cifar100", 1, 2, 102),
    Relative("further", "cifar10", 10, 3, 17),
    Relative("further", "cifar10", 20, 2, 19),
    Relative("further", "cifar100", 2, 3, 18),
)


def folder_of(zoo: Zoo, work: Path, relative: Relative) -> Path | None:
    """The trained model; it is trained now, if it was not yet. None if the training ends in no finite numbers."""
    out = work / zoo.backbone / relative.name
    if (out / "train.json").exists() or (out / "diverged").exists():
        return None if (out / "diverged").exists() else out
    fit, fresh = FITS[zoo.backbone], relative.kind == "scratch"
    start: Path | nn.Module
    if fresh:
        start = zoo._build(relative.seed)
    else:
        start = zoo._start(zoo.standard("cifar10", STANDARD), "cifar10")
    settings = TrainSettings(
        "standard",
        epochs=relative.epochs,
        batch_size=fit.batch_size,
        lr=(fit.pretrain_lr if fresh else fit.finetune_lr) * relative.faster,
        optimizer=fit.optimizer,
        weight_decay=fit.weight_decay,
        seed=relative.seed,
        precision=zoo._precision,
    )
    print(f"training {zoo.backbone} {relative.name}", flush=True)
    pictures = zoo.pictures(relative.dataset, SPLIT)
    try:
        train(start, pictures, settings, out, scratch=fresh and isinstance(start, Path), size=SIZE)
    except ValueError as error:  # a loss that is not finite cannot be written down
        print(f"{zoo.backbone} {relative.name}: {error}", flush=True)
        (out / "diverged").touch()
        return None
    return out


def main() -> None:
    """Train all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10 and cifar100")
    parser.add_argument("--zoo", type=Path, required=True, help="what benchmarks/paper has trained")
    parser.add_argument("--work", type=Path, required=True, help="where these are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for relative in RELATIVES:
        for backbone in BACKBONES:
            zoo = Zoo(SETTINGS["small"][backbone], backbone, arguments.data, arguments.zoo)
            folder_of(zoo, arguments.work, relative)


if __name__ == "__main__":
    main()
