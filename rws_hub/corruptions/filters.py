"""What several corruptions share: smoothing, streaks, zooming and sampling between pixels.

Nothing here sums over images, so a pixel is the same in any batch.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

# Taps of a streak that cannot move any 8-bit value.
_NEGLIGIBLE = 1e-6


def gaussian(images: Floats, sigma: float) -> Floats:
    """Gaussian smoothing of [N, H, W, ...] with the border repeated, cut off at four standard deviations."""
    for axis in (1, 2) if sigma > 0 else ():
        images = ndimage.gaussian_filter1d(images, sigma, axis=axis, mode="nearest", truncate=4.0)
    return images


def streak(images: Singles, radius: int, sigma: float, degrees: Floats) -> Singles:
    """Motion blur of [N, H, W, C], each image along its own angle, in the scale of the input.

    The formula is ImageMagick's, in which the originals were made: half a Gaussian of 2 radius + 1 taps to one side,
    each tap at the nearest pixel, the border repeated. Rounding in between is not the same.
    """
    taps = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    taps = taps[taps > _NEGLIGIBLE]
    height, width = images.shape[1:3]
    reach = len(taps) - 1
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    steps, angles = np.arange(len(taps)), np.radians(degrees)[:, None]
    rights = np.ceil(steps * np.cos(angles) - 0.5).astype(int) + reach
    downs = np.ceil(steps * np.sin(angles) - 0.5).astype(int) + reach
    out, moved = np.zeros_like(images), np.empty_like(images[0])
    for image, target, ys, xs in zip(padded, out, downs.tolist(), rights.tolist(), strict=True):
        for tap, y, x in zip(taps.astype(np.float32), ys, xs, strict=True):
            np.multiply(image[y : y + height, x : x + width], tap, out=moved)
            target += moved
    return out


def zoomed(stack: Singles, zoom: float) -> Singles:
    """The middle of [H, W, ...], enlarged `zoom` times to the same size by linear interpolation."""
    if zoom == 1:
        return stack
    for axis in (0, 1):
        start, weight = _zoom_positions(stack.shape[axis], zoom)
        low = np.take(stack, start, axis=axis)
        high = np.take(stack, np.minimum(start + 1, stack.shape[axis] - 1), axis=axis)
        high -= low
        high *= weight.reshape([-1 if a == axis else 1 for a in range(stack.ndim)])
        low += high
        stack = low
    return stack


def _zoom_positions(length: int, zoom: float) -> tuple[NDArray[np.intp], Singles]:
    """Where each pixel of an enlarged axis comes from: the pixel before, and how far behind it."""
    crop = math.ceil(length / zoom)
    enlarged = round(crop * zoom)
    places = np.arange(length) + (enlarged - length) // 2
    at = places * ((crop - 1) / max(enlarged - 1, 1))
    start = np.minimum(np.floor(at), max(crop - 2, 0))
    return (start + (length - crop) // 2).astype(np.intp), (at - start).astype(np.float32)


def sample(images: Singles, ys: Singles, xs: Singles, border: Literal["mirror", "reflect"]) -> Singles:
    """[N, H, W, C] at the places `ys` and `xs`, both [N, H, W], by linear interpolation.

    Args:
        images: what to sample.
        ys: rows, which may lie outside.
        xs: columns, which may lie outside.
        border: "mirror" mirrors at the middle of the last pixel, "reflect" at its edge.
    """
    count, height, width, channels = images.shape
    top, left = np.floor(ys), np.floor(xs)
    # Spelled out over the channels: numpy is slow where it repeats single values along runs of three.
    down, right = (np.repeat(part, channels).reshape(images.shape) for part in (ys - top, xs - left))
    y0, y1 = (_inside(top + step, height, border) * width for step in (0, 1))
    x0, x1 = (_inside(left + step, width, border) for step in (0, 1))
    flat: Singles = images.reshape(-1, channels)
    first = (np.arange(count) * (height * width))[:, None, None]
    y0 += first
    y1 += first
    upper: Singles = flat.take(y0 + x0, axis=0)
    lower: Singles = flat.take(y1 + x0, axis=0)
    upper += (flat.take(y0 + x1, axis=0) - upper) * right
    lower += (flat.take(y1 + x1, axis=0) - lower) * right
    lower -= upper
    lower *= down
    upper += lower
    return upper


def _inside(places: Singles, length: int, border: Literal["mirror", "reflect"]) -> NDArray[np.intp]:
    """Whole-numbered places, brought into the image."""
    if places.min() >= 0 and places.max() < length:
        return places.astype(np.intp)
    period = 2 * length if border == "reflect" else max(2 * length - 2, 1)
    folded = np.mod(places, np.float32(period)).astype(np.intp)
    return np.minimum(folded, period - (border == "reflect") - folded)
