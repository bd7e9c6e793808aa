"""Measure every variant under every condition, on accelerate; what is known already is not measured again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from rws_hub._version import __version__
from rws_hub.classifier import Preprocessing, logits
from rws_hub.corruptions import corrupt
from rws_hub.errors import EvaluationError
from rws_hub.evaluation.cells import CLEAN, Cell, Condition, Store
from rws_hub.evaluation.statistics import Right
from rws_hub.evaluation.variants import Variant
from rws_hub.pictures import Pictures, Pixels

_BATCH = 250
# Images that are corrupted once and then shown to every variant; what a kill can cost is one of these.
_CHUNK_BYTES = 2**28

Table = dict[tuple[str, Condition], Right]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What is to be measured.

    Attributes:
        variants: names differ.
        conditions: without repetition.
        data: labelled images.
        preprocessing: of the pictures.
        unlabelled: images for re-estimating batch norm, labels unused; not the ones that are measured.
        seed: of the corruptions.
        precision: "bf16" computes under autocast.
    """

    variants: tuple[Variant, ...]
    conditions: tuple[Condition, ...]
    data: Pictures
    preprocessing: Preprocessing
    unlabelled: Pictures | None
    seed: int
    precision: str = "fp32"


def measure(grid: Grid, folder: Path, *, progress: bool) -> Table:
    """Which answers were right, [images], for every variant and condition.

    Several processes (`accelerate launch`) share the batches; every one of them gets the whole table.

    Args:
        grid: see there.
        folder: where cells are kept; another run with the same folder goes on where this one stopped.
        progress: show a bar on stderr.

    Raises:
        EvaluationError: two variants of one name, or no images to re-estimate batch norm on.
    """
    names = [v.name for v in grid.variants]
    if len(set(names)) < len(names):
        raise EvaluationError(f"two variants are called {max(names, key=names.count)!r}")
    wanted = max(v.norm_images for v in grid.variants)
    if wanted and (grid.unlabelled is None or len(grid.unlabelled) < wanted):
        found = 0 if grid.unlabelled is None else len(grid.unlabelled)
        raise EvaluationError(f"re-estimating batch norm asks for {wanted} unlabelled images, there are {found}")
    runner = _Runner(grid, Store(folder), Accelerator(mixed_precision="no"))  # `Grid.precision` decides
    return runner.table(progress)


class _Runner:
    def __init__(self, grid: Grid, store: Store, accelerator: Accelerator) -> None:
        self._grid, self._store, self._accelerator = grid, store, accelerator
        side = grid.preprocessing.view.size
        self._chunk = max(_BATCH, _CHUNK_BYTES // (3 * side * side) // _BATCH * _BATCH)
        self._versions = f"torch {version('torch')}, numpy {np.__version__}, rws-hub {__version__}, {grid.precision}"

    def table(self, progress: bool) -> Table:
        grid, main = self._grid, self._accelerator.is_main_process
        spans = [(b, min(b + self._chunk, len(grid.data))) for b in range(0, len(grid.data), self._chunk)]
        found: dict[tuple[str, Condition], list[Right]] = {}
        total = len(spans) * len(grid.conditions) * len(grid.variants)
        bar: tqdm[NoReturn] = tqdm(
            total=total,
            desc="measuring",
            unit="cell",
            disable=not (progress and main),
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 30.0,  # a log is read line by line
        )
        with bar:
            for condition in grid.conditions:
                for span in spans:
                    pixels: Pixels | None = None
                    for variant in grid.variants:
                        bar.set_postfix_str(f"{variant.name}, {condition}", refresh=False)
                        cell = self._cell(variant, condition, span)
                        right = self._known(cell)
                        if right is None:
                            if pixels is None:
                                pixels = self._pixels(grid.data, np.arange(*span), condition)
                            right = self._answers(variant, condition, pixels, grid.data.labels[slice(*span)])
                            if main:
                                self._store.put(cell, right)
                        found.setdefault((variant.name, condition), []).append(right)
                        bar.update()
        return {key: np.concatenate(parts) for key, parts in found.items()}

    def _cell(self, variant: Variant, condition: Condition, span: tuple[int, int]) -> Cell:
        grid = self._grid
        spare = grid.unlabelled.fingerprint if variant.norm_images and grid.unlabelled is not None else ""
        return Cell(
            weights=variant.weights,
            variant=variant.facts + spare,
            images=f"{grid.data.fingerprint} {grid.data.split}",
            begin=span[0],
            end=span[1],
            condition=condition,
            seed=grid.seed,
            preprocessing=str(grid.preprocessing),
            versions=self._versions,
        )

    def _known(self, cell: Cell) -> Right | None:
        """From the store, if every process sees it there: they share one disk or none does."""
        found = self._store.get(cell)
        if self._accelerator.num_processes == 1:
            return found
        seen = torch.tensor(float(found is not None), device=self._accelerator.device)
        everywhere = float(self._accelerator.reduce(seen, "sum")) == self._accelerator.num_processes
        return found if everywhere else None

    def _pixels(
        self, data: Pictures, numbers: np.ndarray[tuple[int], np.dtype[np.int64]], condition: Condition
    ) -> Pixels:
        pixels = data.pixels(numbers, self._grid.preprocessing.view)
        if condition.corruption == CLEAN:
            return pixels
        return corrupt(pixels, condition.corruption, condition.severity, seed=self._grid.seed, indices=numbers)

    def _answers(self, variant: Variant, condition: Condition, pixels: Pixels, labels: np.ndarray) -> Right:
        """Each process answers whole batches, so that no answer hangs on how many processes there are."""
        world, rank = self._accelerator.num_processes, self._accelerator.process_index
        right = torch.zeros(len(pixels), device=self._accelerator.device)
        variant.model.to(self._accelerator.device)
        with variant.applied(condition, lambda c: self._spare(variant.norm_images, c)) as model, torch.inference_mode():
            for begin in range(rank * _BATCH, len(pixels), world * _BATCH):
                part = slice(begin, begin + _BATCH)
                answers = self._logits(model, self._tensor(pixels[part])).argmax(1).cpu().numpy()
                right[part] = torch.from_numpy((answers == labels[part]).astype(np.float32)).to(right)
        found: Right = (self._accelerator.reduce(right, "sum") > 0).cpu().numpy()
        return found

    def _spare(self, count: int, condition: Condition) -> Iterator[Tensor]:
        """Unlabelled images under a condition, in equal batches; the same on every process."""
        data = self._grid.unlabelled
        assert data is not None
        numbers = np.random.default_rng(self._grid.seed).permutation(len(data))[:count]
        for part in np.array_split(numbers, max(1, round(count / _BATCH))):
            yield self._tensor(self._pixels(data, part, condition))

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        bf16 = self._grid.precision == "bf16"
        with torch.autocast(self._accelerator.device.type, dtype=torch.bfloat16, enabled=bf16):
            return logits(model, images)

    def _tensor(self, pixels: Pixels) -> Tensor:
        return self._grid.preprocessing.tensor(torch.from_numpy(pixels), self._accelerator.device)


def conditions(corruptions: Sequence[str], severities: Sequence[int]) -> tuple[Condition, ...]:
    """Clean images first, then every corruption at every severity.

    Raises:
        CorruptionError: an unknown name (the nearest is told) or severity.
    """
    tiny = np.zeros((1, 32, 32, 3), np.uint8)
    for name in corruptions:
        for severity in severities:
            corrupt(tiny, name, severity, seed=0)  # refuses what is not
    return (Condition(CLEAN, 0), *(Condition(c, s) for c in corruptions for s in severities))
