"""What was measured so far: one small file for each cell, so that no finished work is ever done again.

A cell is one model variant on some images under one condition. What it holds is which answers were right, one bit
an image: means, differences and intervals are made from that, and nothing else has to be kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rws_hub import jsonio
from rws_hub.artifact import write_files
from rws_hub.disk import sweep
from rws_hub.evaluation.statistics import Right

CLEAN = "clean"


@dataclass(frozen=True, slots=True, order=True)
class Condition:
    """Images as they are (`corruption` "clean", severity 0), or corrupted."""

    corruption: str
    severity: int

    def __str__(self) -> str:
        return CLEAN if self.corruption == CLEAN else f"{self.corruption} {self.severity}"


@dataclass(frozen=True, slots=True)
class Cell:
    """Everything that decides the answers.

    Attributes:
        weights: sha256 of the model's weights, as they were before any patch.
        variant: what was done to the model, in words that hold digests and strengths.
        images: fingerprint and split of the data set.
        begin, end: which images of it.
        condition: and how they were corrupted.
        seed: of the corruption.
        preprocessing: of the pictures.
        versions: of what computes.
    """

    weights: str
    variant: str
    images: str
    begin: int
    end: int
    condition: Condition
    seed: int
    preprocessing: str
    versions: str

    @property
    def key(self) -> str:
        """A name for its file."""
        return hashlib.sha256(jsonio.canonical(asdict(self))).hexdigest()[:40]


class Store:
    """The cells of a folder. Safe for several processes: a file is written whole, and two write the same."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)  # so that two processes do not both make it, whole
        sweep(folder)

    def get(self, cell: Cell) -> Right | None:
        """Which answers were right, or None if that was not measured yet, or its file is damaged."""
        try:
            found = json.loads((self._folder / f"{cell.key}.json").read_bytes())
            packed = np.frombuffer(base64.b64decode(found["right"]), np.uint8)
            right = np.unpackbits(packed, count=cell.end - cell.begin).astype(np.bool_)
            return right if right.sum() == found["correct"] else None
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def put(self, cell: Cell, right: Right) -> None:
        """Keep what was measured."""
        packed = base64.b64encode(np.packbits(right).tobytes()).decode()
        text = jsonio.pretty({"cell": asdict(cell), "correct": int(right.sum()), "right": packed})
        write_files(self._folder, {f"{cell.key}.json": text.encode()})
