"""scikit-learn's 1,797 scanned digits: three disjoint splits, and the noise of the common-corruption benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional

from rws_hub.demo.settings import SEVERITY, DemoSettings

Pixels = NDArray[np.uint8]

# Standard deviation of gaussian_noise at severities 1 to 5 in ImageNet-C, for pixels from 0 to 1.
_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
_BRIGHTEST = 16  # the digits are scanned in 17 shades


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Pictures (N, side, side) and what they show (N)."""

    pixels: Pixels
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Images:
        return Images(self.pixels[chosen], self.labels[chosen])


@dataclass(frozen=True, slots=True)
class Splits:
    """Disjoint sets with all ten digits alike: for the base models, for the user, for testing."""

    base: Images
    user: Images
    test: Images


def load_splits(settings: DemoSettings, seed: int) -> Splits:
    """The digits, upsampled and split; another seed is another split."""
    digits = load_digits()
    small = torch.from_numpy(digits.images)[:, None].float() / _BRIGHTEST
    large = functional.interpolate(small, size=(settings.side, settings.side), mode="bilinear", align_corners=False)
    everything = Images((large[:, 0] * 255).round().to(torch.uint8).numpy(), digits.target.astype(np.int64))

    def split(rows: NDArray[np.int64], take: int, leave: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        taken, left = train_test_split(
            rows, train_size=take, test_size=leave, random_state=seed, stratify=everything.labels[rows]
        )
        return taken, left

    wanted = settings.base_images + settings.user_images + settings.test_images
    rows = np.arange(len(everything))
    if wanted < len(everything):
        rows, _ = split(rows, wanted, len(everything) - wanted)
    rest, test = split(rows, settings.base_images + settings.user_images, settings.test_images)
    base, user = split(rest, settings.base_images, settings.user_images)
    return Splits(everything[base], everything[user], everything[test])


def add_noise(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """gaussian_noise at the demo's severity, clipped and stored in bytes as the benchmark does."""
    noisy = pixels.astype(np.float32) / 255 + _NOISE[SEVERITY - 1] * rng.standard_normal(pixels.shape, dtype=np.float32)
    return (np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def shift(pixels: Pixels, most: int, rng: np.random.Generator) -> Pixels:
    """Each picture moved by up to `most` pixels each way, black outside."""
    count, height, width = pixels.shape
    padded = np.pad(pixels, ((0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    down, right = rng.integers(0, 2 * most + 1, (2, count))
    return np.ascontiguousarray(windows[np.arange(count), down, right])


def to_tensor(pixels: Pixels) -> torch.Tensor:
    """What the models take: (N, 1, side, side), from -1 to 1."""
    return torch.from_numpy(pixels)[:, None].float().div_(255).sub_(0.5).div_(0.5)
