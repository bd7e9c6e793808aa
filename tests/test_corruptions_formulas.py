"""Every corruption at every severity equals its published formula, computed plainly from the same random numbers."""

import numpy as np
import plain_corruptions as plain
import pytest
from photographs import photographs
from scipy.stats import poisson

from rws_hub.corruptions import CORRUPTIONS, corrupt, corruption_table
from rws_hub.corruptions.draws import generator

SEED = 7
# Nothing is rounded here: where whole levels are cut off or integers looked up, every pixel must be the same.
EXACT = {"impulse_noise", "pixelate", "jpeg_compression"}
# A sum taken in another order may fall on the other side of a whole level; that is common where results are whole by
# themselves: in flat parts under a kernel in single precision, and where a saturation times 1.5 or 2 is a whole level.
SHARE = {"defocus_blur": 0.85, "saturate": 0.85} | dict.fromkeys(EXACT, 1)
COMPARED = [name for name in CORRUPTIONS if name != "shot_noise"]  # which is held by its distribution


def compare(name: str, severity: int, images: np.ndarray) -> None:
    found = corrupt(images, name, severity, seed=SEED)
    constants = corruption_table(min(images.shape[1:3]))[name][severity - 1]
    for number, (image, pixels) in enumerate(zip(images, found, strict=True)):
        expected = getattr(plain, name)(image, constants, generator((SEED,), name, severity, number))
        off = np.abs(expected - pixels.astype(float))
        assert (off == 0).mean() >= SHARE.get(name, 0.985)
        if name in ("glass_blur", "elastic_transform", "spatter", "snow"):
            # One level before a copy, a threshold or an equalisation can be more behind it; hardly any pixel may be.
            assert (off > 2).mean() < 0.002
        else:
            assert off.max() <= 1


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("name", COMPARED)
def test_at_32_pixels(name: str, severity: int) -> None:
    compare(name, severity, photographs(2, 32, 32))


@pytest.mark.parametrize("name", COMPARED)
def test_at_64_pixels(name: str) -> None:
    compare(name, 4 if name == "glass_blur" else 3, photographs(1, 64, 64))


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "zoom_blur", "snow", "frost", "contrast", "pixelate"])
def test_at_224_pixels(name: str) -> None:
    compare(name, 2, photographs(1, 224, 224))


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("shape", [(8, 11), (40, 26)])
def test_not_square(name: str, shape: tuple[int, int]) -> None:
    compare(name, 5, photographs(1, *shape))


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("side", [32, 64, 224])
def test_shot_noise_is_poisson(side: int, severity: int) -> None:
    (photons,) = corruption_table(side)["shot_noise"][severity - 1]
    for level in (1, 60, 200, 255):
        found = corrupt(
            np.full((224 * 224 // side**2 + 1, side, side, 3), level, np.uint8), "shot_noise", severity, seed=1
        )
        counts = np.arange(int(photons) + 1)
        values = (np.minimum(counts / photons, 1) * 255).astype(np.uint8)
        mass = poisson.pmf(counts, level / 255 * photons)
        mass[-1] += 1 - mass.sum()
        expected = np.bincount(values, mass, 256).cumsum()
        seen = np.bincount(found.ravel(), minlength=256).cumsum() / found.size
        # Kolmogorov's bound at one in ten million.
        assert np.abs(seen - expected).max() < 2.9 / np.sqrt(found.size)


@pytest.mark.parametrize("severity", range(1, 6))
def test_noise_has_the_published_strength(severity: int) -> None:
    grey = np.full((200, 32, 32, 3), 128, np.uint8)
    table = corruption_table(32)

    def off(name: str) -> np.ndarray:
        return corrupt(grey, name, severity, seed=3).astype(float) - 128

    for name, scale in (("gaussian_noise", 255), ("speckle_noise", 128)):
        expected = table[name][severity - 1][0] * scale
        assert off(name).std() == pytest.approx(np.hypot(expected, 12**-0.5), rel=0.01)
        assert off(name).mean() == pytest.approx(-0.5, abs=0.15)  # cut off, not rounded
    amount = table["impulse_noise"][severity - 1][0]
    hit = off("impulse_noise")
    assert (hit < 0).mean() == pytest.approx(amount / 2, rel=0.03)
    assert (hit > 0).mean() == pytest.approx(amount / 2, rel=0.03)
