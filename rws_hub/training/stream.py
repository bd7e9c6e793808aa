"""Which images a step sees, and how: decided by (seed, epoch, position) alone, whoever asks and in whatever order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rws_hub.corruptions import corrupt
from rws_hub.errors import DataError
from rws_hub.pictures import Pictures, Pixels, View
from rws_hub.training.settings import TrainSettings

Batch = tuple[Tensor, Tensor]  # uint8 [n, size, size, 3] and int64 [n]

# An image may be moved by this share of its side.
_MARGIN = 8
# What a random generator is for; no two draw the same numbers.
_ORDER, _CROPS, _SPLIT = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some of the images of a data set, by their numbers in it, int64 [N]."""

    pictures: Pictures
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)


def split_off(pictures: Pictures, share: float, seed: int) -> tuple[Part, Part]:
    """Two disjoint parts, the second with `share` of the images; which ones is decided by the seed."""
    order = np.random.default_rng([seed, _SPLIT]).permutation(len(pictures))
    kept = len(pictures) - max(1, round(share * len(pictures)))
    return Part(pictures, np.sort(order[:kept])), Part(pictures, np.sort(order[kept:]))


def whole(pictures: Pictures) -> Part:
    """All images of a data set."""
    return Part(pictures, np.arange(len(pictures)))


class Epoch(Dataset[Batch]):
    """One pass over a part in random order, moved, mirrored and corrupted as the settings say.

    Asked for a list of positions, it answers with the whole batch.
    """

    def __init__(self, part: Part, settings: TrainSettings, view: View, epoch: int) -> None:
        self._part, self._settings, self._view, self._epoch = part, settings, view, epoch
        self._order = np.random.default_rng([settings.seed, _ORDER, epoch]).permutation(part.numbers)
        draws = np.random.default_rng([settings.seed, _CROPS, epoch])
        margin = view.size // _MARGIN
        self._offsets = draws.integers(0, 2 * margin + 1, size=(len(part), 2))
        self._mirror = draws.random(len(part)) < 0.5
        self._margin = margin

    def __len__(self) -> int:
        return len(self._order)

    def __getitems__(self, positions: list[int]) -> Batch:
        at = np.asarray(positions)
        numbers = self._order[at]
        pixels = self._part.pictures.pixels(numbers, self._view)
        if self._settings.augment:
            pixels = self._moved(pixels, at)
        wrong = self._corrupted(at)
        if wrong.any():
            name, severity = self._settings.corruption, self._settings.severity
            assert name is not None and severity is not None
            seed = (self._settings.seed, self._epoch)
            pixels[wrong] = corrupt(pixels[wrong], name, severity, seed=seed, indices=numbers[wrong])
        return torch.from_numpy(pixels), torch.from_numpy(self._part.pictures.labels[numbers])

    def _corrupted(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which positions are corrupted: with "from-clean" every other one, so half of every batch."""
        if self._settings.recipe == "from-clean":
            return np.asarray(positions % 2 == 1)
        return np.full(len(positions), self._settings.recipe == "two-branch")

    def _moved(self, pixels: Pixels, positions: NDArray[np.int64]) -> Pixels:
        margin, size = self._margin, self._view.size
        framed = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
        rows = self._offsets[positions, 0, None] + np.arange(size)
        columns = self._offsets[positions, 1, None] + np.arange(size)
        columns = np.where(self._mirror[positions, None], columns[:, ::-1], columns)
        image = np.arange(len(pixels))[:, None, None]
        moved: Pixels = framed[image, rows[:, :, None], columns[:, None, :]]
        return moved


def batches(epoch: Epoch, positions: list[list[int]], workers: int) -> Iterator[Batch]:
    """Those batches of an epoch, in this order."""
    loader = DataLoader(epoch, batch_sampler=positions, num_workers=workers, collate_fn=_as_it_is)
    return _plainly(iter(loader))  # which draws a random number: here, not when the first batch is asked for


def _plainly(loader: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from loader
    except DataError as error:  # a worker puts its whole traceback before what it has to say
        raise DataError(str(error).strip().rpartition("DataError: ")[2]) from error


def _as_it_is(batch: Any) -> Any:
    return batch  # of an epoch, which answers with whole batches
