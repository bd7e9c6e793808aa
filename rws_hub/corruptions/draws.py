"""Random numbers of an image: they depend on the seed, the corruption, the severity and the image's index alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def generator(seed: tuple[int, ...], name: str, severity: int, index: int) -> np.random.Generator:
    """The generator of one image; the same on every machine."""
    # The length comes first, so that no two seeds are the same words; the name's CRC outlives any reordering of names.
    return np.random.default_rng((len(seed), *seed, zlib.crc32(name.encode()), severity, index))


@dataclass(frozen=True, slots=True)
class Draws:
    """The generators of a batch, one per image; each starts anew whenever it is asked for.

    Attributes:
        seed: what the user chose.
        name: the corruption.
        severity: 1 to 5.
        indices: the identity of each image.
    """

    seed: tuple[int, ...]
    name: str
    severity: int
    indices: tuple[int, ...]

    def __iter__(self) -> Iterator[np.random.Generator]:
        return (generator(self.seed, self.name, self.severity, index) for index in self.indices)

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Standard normal numbers, [images, *shape]."""
        out = np.empty((len(self.indices), *shape), dtype=np.float32)
        for row, one in zip(out, self, strict=True):
            one.standard_normal(dtype=np.float32, out=row)
        return out

    def uniform(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Numbers in [0, 1), [images, *shape]."""
        out = np.empty((len(self.indices), *shape))
        for row, one in zip(out, self, strict=True):
            one.random(out=row)
        return out

    def words(self, shape: tuple[int, ...]) -> NDArray[np.uint32]:
        """Uniform 32-bit words, [images, *shape]."""
        out = np.empty((len(self.indices), *shape), dtype=np.uint32)
        for row, one in zip(out, self, strict=True):
            row[...] = one.integers(0, 1 << 32, size=shape, dtype=np.uint32)
        return out

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """Small integers in [low, high), [images, *shape]."""
        return np.stack([one.integers(low, high, size=shape, dtype=np.int8) for one in self])
