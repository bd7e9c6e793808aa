"""Blur: defocus, glass, motion, zoom, Gaussian. Formulas of Hendrycks and Dietterich (2019)."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rws_hub.corruptions.constants import Constants
from rws_hub.corruptions.draws import Draws
from rws_hub.corruptions.filters import gaussian, streak, zoomed

Images = NDArray[np.uint8]


def gaussian_blur(images: Images, constants: Constants, draws: Draws) -> Images:
    """Convolution with a Gaussian of standard deviation `sigma`, cut off at 4 sigma, the border repeated."""
    (sigma,) = constants
    return _truncated(gaussian(images / 255.0, sigma))


def defocus_blur(images: Images, constants: Constants, draws: Draws) -> Images:
    """Correlation with a disk of `radius`, smoothed by a Gaussian of `alias`; the image is mirrored at its border."""
    kernel = disk(*constants)
    reach = len(kernel) // 2
    scaled = images / 255.0
    height = images.shape[1]
    tall = np.pad(scaled, ((0, 0), (reach, reach), (0, 0), (0, 0)), mode="reflect")
    out = np.zeros_like(scaled)
    for row in range(reach + 1):
        # The kernel is symmetric: rows above and below the middle share one pass along the width.
        rows = tall[:, row : row + height]
        if row < reach:
            rows = rows + tall[:, 2 * reach - row : 2 * reach - row + height]
        out += ndimage.correlate1d(rows, kernel[row], axis=2, mode="mirror")
    return _truncated(out)


def glass_blur(images: Images, constants: Constants, draws: Draws) -> Images:
    """Smoothing, then every pixel takes the value of a random one near by, `iterations` times, then smoothing again.

    In the published code pixels were to be swapped; it copies, and so does this.
    """
    sigma, reach, iterations = constants[0], int(constants[1]), int(constants[2])
    count, height, width, _ = images.shape
    pixels = (gaussian(images / 255.0, sigma) * 255).astype(np.uint8).reshape(count * height * width, 3)
    steps = draws.integers(-reach, reach, (iterations, height - 2 * reach, width - 2 * reach, 2))
    for step in range(iterations):
        pixels = pixels.take(_sources(steps[:, step], height, width, reach), axis=0)
    return _truncated(gaussian(pixels.reshape(images.shape) / 255.0, sigma))


def motion_blur(images: Images, constants: Constants, draws: Draws) -> Images:
    """A streak of `radius` and `sigma` along an angle from U(-45, 45) degrees; rounded, as ImageMagick's result was."""
    degrees = np.array([one.uniform(-45, 45) for one in draws])
    blurred = streak(images.astype(np.float32), int(constants[0]), constants[1], degrees)
    return np.rint(blurred, out=blurred).astype(np.uint8)


def zoom_blur(images: Images, constants: Constants, draws: Draws) -> Images:
    """The mean of the image and its middle enlarged by every factor in `arange(first, end, step)`."""
    # With the batch behind the pixels, rows and columns are picked in long runs.
    stack = np.ascontiguousarray(images.transpose(1, 2, 0, 3)).astype(np.float32)
    stack /= np.float32(255)
    factors = np.arange(*constants)
    out = np.zeros_like(stack)
    for factor in factors.tolist():
        out += zoomed(stack, factor)
    out += stack
    out /= np.float32(len(factors) + 1)
    return _truncated(out.transpose(2, 0, 1, 3))


@functools.lru_cache(maxsize=32)
def disk(radius: float, alias: float) -> NDArray[np.float64]:
    """The published kernel of `defocus_blur`, in single precision as there, without its border of zeros."""
    half = 8 if radius <= 8 else int(radius)
    places = np.arange(-half, half + 1)
    flat = (places[:, None] ** 2 + places**2 <= radius**2).astype(np.float32)
    flat /= flat.sum()
    taps = np.exp(-(np.arange(-1 if radius <= 8 else -2, 2 if radius <= 8 else 3) ** 2) / (2 * alias**2))
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (1, 0):
        flat = ndimage.correlate1d(flat, taps, axis=axis, mode="mirror")
    inside = np.flatnonzero(flat.max(axis=0) > 1e-12)
    return flat[inside[0] : inside[-1] + 1, inside[0] : inside[-1] + 1].astype(np.float64)


def _sources(steps: NDArray[np.int8], height: int, width: int, reach: int) -> NDArray[np.int32]:
    """Which pixel each pixel of [N, H, W] shows after one round of copies; all counted through.

    The published loop runs from the last pixel to the first: a pixel takes what its source shows at that moment, which
    is the source's new value where the source comes later in the image, and its old one otherwise. That is a forest,
    and every pixel finds its root in a few doublings.
    """
    count, pixels = len(steps), height * width
    rows, columns = np.arange(reach + 1, height - reach + 1), np.arange(reach + 1, width - reach + 1)
    region = (rows[:, None] * width + columns).astype(np.int32)
    copies = np.zeros(pixels, dtype=bool)
    copies[region] = True
    jumps = steps[..., 1] * np.int32(width) + steps[..., 0]
    parent = np.arange(count * pixels, dtype=np.int32).reshape(count, pixels)
    parent[:, region] += jumps
    # Only where sources lie further on can one copy lead to the next; the others show old values.
    onward = np.zeros((count, pixels), dtype=bool)
    onward[:, region] = (jumps > 0) & copies[region + jumps]
    sources, copied = parent.ravel(), onward.ravel()
    moving = np.flatnonzero(copied)
    while len(moving):
        following = sources[moving]
        sources[moving], copied[moving] = sources[following], copied[following]
        moving = moving[copied[moving]]
    return sources


def _truncated(values: NDArray[np.float64] | NDArray[np.float32]) -> Images:
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)
