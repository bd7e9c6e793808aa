"""Weather: snow, frost, fog, brightness. Formulas of Hendrycks and Dietterich (2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rws_hub.corruptions.colour import to_hsv, to_rgb
from rws_hub.corruptions.constants import LARGEST_32, LARGEST_64, Constants
from rws_hub.corruptions.draws import Draws
from rws_hub.corruptions.filters import streak, zoomed
from rws_hub.corruptions.frost import TEXTURES, texture

Images = NDArray[np.uint8]

_GREY = (0.299, 0.587, 0.114)


def snow(images: Images, constants: Constants, draws: Draws) -> Images:
    """Whitened towards `1.5 grey + 0.5`, plus thresholded noise, enlarged and blown along U(-135, -45) degrees.

    The flakes are added twice, the second time turned by half a circle. Of the streaks see `filters.streak`.
    """
    mean, deviation, zoom, threshold, radius, sigma, weight = constants
    count, height, width, _ = images.shape
    flakes = np.empty((height, width, count), dtype=np.float32)
    degrees = np.empty(count)
    for at, one in enumerate(draws):
        flakes[..., at] = one.standard_normal((height, width), dtype=np.float32)
        degrees[at] = one.uniform(-135, -45)
    flakes *= np.float32(deviation)
    flakes += np.float32(mean)
    layer = zoomed(flakes, zoom).transpose(2, 0, 1)
    layer = np.where(layer < threshold, 0, np.minimum(layer, 1))
    # The published layer went through an 8-bit picture, before and after the streaks.
    drops = np.floor(layer * np.float32(255))[..., None]
    drops = np.rint(streak(drops, int(radius), sigma, degrees)) / np.float32(255)
    scaled = images.astype(np.float32) / np.float32(255)
    # Spelled out, since a product of matrices may add in an order that depends on their shape.
    grey = sum(np.float32(share) * scaled[..., part, None] for part, share in enumerate(_GREY))
    scaled = weight * scaled + (1 - weight) * np.maximum(scaled, grey * 1.5 + 0.5)
    scaled += drops + drops[:, ::-1, ::-1]
    snowy: Images = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return snowy


def frost(images: Images, constants: Constants, draws: Draws) -> Images:
    """`a x + b frost`, where frost is a random piece of one of five textures, which are made here (see `frost`).

    As published, the textures are scaled by 0.2 for 32 pixels and by 0.3 for 64.
    """
    _, height, width, _ = images.shape
    side = min(height, width)
    scale = 0.2 if side <= LARGEST_32 else 0.3 if side <= LARGEST_64 else 1.0
    sheets = [texture(number, scale, height, width) for number in range(TEXTURES)]
    pieces = np.empty(images.shape, dtype=np.float32)
    for piece, one in zip(pieces, draws, strict=True):
        sheet = sheets[one.integers(TEXTURES)]
        top, left = (one.integers(sheet.shape[axis] - images.shape[axis + 1] + 1) for axis in (0, 1))
        piece[...] = sheet[top : top + height, left : left + width]
    pieces *= np.float32(constants[1])
    pieces += images * np.float32(constants[0])
    return np.clip(pieces, 0, 255, out=pieces).astype(np.uint8)


def fog(images: Images, constants: Constants, draws: Draws) -> Images:
    """`(x + amount plasma) max / (max + amount)`, with a plasma fractal whose wobble decays by `decay` per level."""
    amount, decay = constants
    _, height, width, _ = images.shape
    scaled = images / 255.0
    brightest = scaled.max(axis=(1, 2, 3), keepdims=True)
    scaled += amount * plasma(draws, max(height, width), decay)[:, :height, :width, None]
    scaled *= brightest
    scaled /= brightest + amount
    return (np.clip(scaled, 0, 1, out=scaled) * 255).astype(np.uint8)


def brightness(images: Images, constants: Constants, draws: Draws) -> Images:
    """`amount` is added to the value of hue, saturation and value."""
    hue, saturation, value = to_hsv(images / 255.0)
    return (to_rgb(hue, saturation, np.clip(value + constants[0], 0, 1)) * 255).astype(np.uint8)


def plasma(draws: Draws, side: int, decay: float) -> NDArray[np.float64]:
    """Height maps from 0 to 1 by diamonds and squares, on a torus whose side is the next power of two; [N, M, M].

    The wobble is a uniform number times its own bound, as published.
    """
    size = 1 << (side - 1).bit_length()
    uniform = draws.uniform((size * size,)) * 2 - 1
    heights = np.zeros((len(uniform), size, size))
    step, used, wobble = size, 0, 100.0
    while step >= 2:
        half, cells = step // 2, size // step
        drawn = uniform[:, used : used + 3 * cells**2].reshape(-1, 3, cells, cells) * wobble**2
        corners = heights[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        middles = (pairs + np.roll(pairs, -1, axis=2)) / 4 + drawn[:, 0]
        across = middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=2)
        along = middles + np.roll(middles, 1, axis=2) + pairs
        heights[:, half::step, half::step] = middles
        heights[:, ::step, half::step] = across / 4 + drawn[:, 1]
        heights[:, half::step, ::step] = along / 4 + drawn[:, 2]
        step, used, wobble = half, used + 3 * cells**2, wobble / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    heights /= heights.max(axis=(1, 2), keepdims=True)
    return heights
