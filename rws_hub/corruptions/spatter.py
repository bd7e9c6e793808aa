"""Spatter: drops of water or mud on the lens. Formulas of Hendrycks and Dietterich (2019).

Water drops get a bright and a dark rim from the distance to their edges. Edges, distances and equalisation follow
OpenCV's definitions, in which the originals were made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rws_hub.corruptions.constants import Constants
from rws_hub.corruptions.draws import Draws
from rws_hub.corruptions.filters import gaussian

Images = NDArray[np.uint8]
Singles = NDArray[np.float32]

_WATER = np.array((175, 238, 238), dtype=np.float32) / np.float32(255)
_MUD = np.array((63, 42, 20), dtype=np.float32) / np.float32(255)
_WEAK, _STRONG = 50, 150  # thresholds of an edge
_FURTHEST = 20
_PLACES = np.arange(_FURTHEST + 1)
_LONG, _SHORT = np.maximum(_PLACES[:, None], _PLACES), np.minimum(_PLACES[:, None], _PLACES)
# The distance of a pixel so many rows and columns away, by steps to neighbours (1), across corners (1.4) and those of a
# knight (2.1969).
_STEPS = np.where(
    _LONG >= 2 * _SHORT,
    _LONG - 2 * _SHORT + 2.1969 * _SHORT,
    2.1969 * (_LONG - _SHORT) + 1.4 * (2 * _SHORT - _LONG),
).astype(np.float32)
_RIM = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float32)


def spatter(images: Images, constants: Constants, draws: Draws) -> Images:
    """Smoothed noise above a threshold is liquid: pale water is added (severities 1 to 3), or mud covers (4, 5)."""
    mean, deviation, sigma, threshold, strength, mud = constants
    noise = draws.normal(images.shape[1:3]).astype(np.float64) * deviation + mean
    liquid = gaussian(noise, sigma)
    scaled = images.astype(np.float32) / np.float32(255)
    if mud:
        cover = gaussian((liquid > threshold).astype(np.float64), strength)
        cover[cover < 0.8] = 0
        shade = cover.astype(np.float32)[..., None]
        scaled = scaled * (1 - shade) + shade * _MUD
    else:
        drops = np.where(liquid < threshold, 0, np.clip(liquid, 0, 1) * 255).astype(np.uint8)
        shine = drops * _rims(drops)
        brightest = shine.max(axis=(1, 2), keepdims=True)
        # Where no drop fell there is nothing to add.
        scaled += (shine / np.where(brightest > 0, brightest, 1) * np.float32(strength))[..., None] * _WATER
    return (np.clip(scaled, 0, 1, out=scaled) * 255).astype(np.uint8)


def _rims(drops: Images) -> Singles:
    """How strongly a drop shines at each pixel, [N, H, W]."""
    # A little more than nothing, so that a mean of whole numbers is not cut to the number below.
    smooth = np.floor(_mean3(distances(edges(drops))) + np.float32(1e-4)).astype(np.uint8)
    levels = equalised(smooth).astype(np.float32)
    relief = ndimage.correlate(levels, _RIM[None], mode="mirror")
    return np.rint(_mean3(np.clip(relief, 0, 255)))


def edges(pictures: Images) -> NDArray[np.bool_]:
    """Canny's edges of [N, H, W]: Sobel gradients, ridges across their direction, strong ones and what touches them."""
    whole = pictures.astype(np.int16)
    padded = np.pad(whole, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    columns = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    by_x, by_y = rows[:, :, 2:] - rows[:, :, :-2], columns[:, 2:] - columns[:, :-2]
    size = np.abs(by_x) + np.abs(by_y)
    around = np.pad(size, ((0, 0), (1, 1), (1, 1)))
    height, width = pictures.shape[1:]

    def beside(down: int, right: int) -> NDArray[np.int16]:
        return around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    steep, flat = np.abs(by_y) > 2.414213562373095 * np.abs(by_x), np.abs(by_y) < 0.4142135623730951 * np.abs(by_x)
    level = (size > beside(0, -1)) & (size >= beside(0, 1))
    upright = (size > beside(-1, 0)) & (size >= beside(1, 0))
    falling = (size > beside(-1, -1)) & (size > beside(1, 1))
    rising = (size > beside(-1, 1)) & (size > beside(1, -1))
    slanted = np.where((by_x < 0) == (by_y < 0), falling, rising)
    ridge = np.where(flat, level, np.where(steep, upright, slanted)) & (size > _WEAK)
    labels, count = ndimage.label(ridge, structure=np.pad(np.ones((1, 3, 3)), ((1, 1), (0, 0), (0, 0))))
    kept = np.zeros(count + 1, dtype=bool)
    kept[labels[ridge & (size > _STRONG)]] = True
    found: NDArray[np.bool_] = kept[labels]
    return found


def distances(marked: NDArray[np.bool_]) -> Singles:
    """Distance of every pixel of [N, H, W] to the nearest marked one of its image, in OpenCV's steps, up to 20.

    Of every row only the nearest marked pixel matters, so one pass along the rows and one over pairs of rows do.
    """
    height, width = marked.shape[1:]
    across = np.where(marked, 0, _FURTHEST).astype(np.int16)
    places = np.arange(width, dtype=np.int16)
    ahead = np.minimum.accumulate(across - places, axis=2) + places
    behind = np.minimum.accumulate((across + places)[:, :, ::-1], axis=2)[:, :, ::-1] - places
    nearest = np.minimum(np.minimum(ahead, behind), _FURTHEST).astype(np.intp)
    best: Singles = nearest.astype(np.float32)
    for rows in range(1, min(_FURTHEST, height)):
        if rows >= best.max():
            break
        far = _STEPS[rows].take(nearest)
        np.minimum(best[:, rows:], far[:, :-rows], out=best[:, rows:])
        np.minimum(best[:, :-rows], far[:, rows:], out=best[:, :-rows])
    return best


def equalised(pictures: Images) -> Images:
    """Every picture with its histogram made even, as OpenCV's `equalizeHist`; one of a single level stays."""
    count, pixels = len(pictures), pictures[0].size
    flat = pictures.reshape(count, pixels)
    bins = flat + 256 * np.arange(count)[:, None]
    histogram = np.bincount(bins.ravel(), minlength=256 * count).reshape(count, 256)
    first = histogram[np.arange(count), flat.min(axis=1)][:, None]
    above = np.cumsum(histogram, axis=1) - first
    levels = np.rint(above * (np.float32(255) / np.maximum(pixels - first, 1).astype(np.float32)))
    levels = np.where(first == pixels, np.arange(256), levels).astype(np.uint8)
    even: Images = levels.ravel()[bins].reshape(pictures.shape)
    return even


def _mean3(pictures: Singles) -> Singles:
    for axis in (1, 2):
        pictures = ndimage.uniform_filter1d(pictures, 3, axis=axis, mode="mirror")
    return pictures
