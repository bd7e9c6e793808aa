"""Frost on a window, grown from numbers.

The published corruption lays photographs over the image, and those are other people's. These five textures have about
the brightness, contrast and tint of such photographs, and none of their pixels: ice ferns (stems whose
branches leave at sixty degrees, with branches of their own) over smooth fractal noise.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Singles = NDArray[np.float32]

_HEIGHT, _WIDTH = 448, 640
_TILT = np.pi / 3


@dataclass(frozen=True, slots=True)
class _Look:
    """How one texture looks.

    Attributes:
        mean: average brightness, 0 to 255.
        deviation: standard deviation of the brightness.
        tint: what is added to red, green and blue of the darkest parts; white ice has none.
        ferns: number of stems.
        length: of the longest stems, in pixels.
        cloud: share of the smooth noise.
    """

    mean: float
    deviation: float
    tint: tuple[float, float, float]
    ferns: int
    length: float
    cloud: float


_LOOKS = (
    _Look(130, 32, (-44, 8, 30), 70, 330, 0.5),
    _Look(196, 30, (-22, 2, 16), 110, 240, 0.7),
    _Look(176, 34, (-30, 4, 22), 260, 130, 0.5),
    _Look(150, 34, (-26, 2, 22), 45, 420, 0.6),
    _Look(118, 44, (-24, 4, 22), 150, 200, 0.5),
)
TEXTURES = len(_LOOKS)


@functools.lru_cache(maxsize=64)
def texture(number: int, scale: float, height: int, width: int) -> NDArray[np.uint8]:
    """One texture, scaled, and never smaller than an image of that size."""
    scale = max(scale, height / _HEIGHT, width / _WIDTH)
    full = _grown(number)
    if scale == 1:
        return full
    size = (max(width, round(scale * _WIDTH)), max(height, round(scale * _HEIGHT)))
    return np.array(Image.fromarray(full).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC))


@functools.lru_cache(maxsize=TEXTURES)
def _grown(number: int) -> NDArray[np.uint8]:
    look, one = _LOOKS[number], np.random.default_rng(number)
    ice = _ferns(look, one)
    soft, glow = ndimage.gaussian_filter(ice, 0.6), ndimage.gaussian_filter(ice, 5)
    clouds, grain = _noise(one, 160, 0.55), _noise(one, 4, 0.6)
    pattern = _standard(soft + glow) + look.cloud * _standard(clouds) + 0.25 * _standard(grain)
    light: Singles = np.clip(look.mean + look.deviation * _standard(pattern), 8, 255)
    shade = 1 - (light / 255)[..., None]
    coloured = light[..., None] + np.array(look.tint, dtype=np.float32) * np.minimum(1.6 * shade, 1)
    grown: NDArray[np.uint8] = np.clip(coloured, 0, 255).astype(np.uint8)
    return grown


def _ferns(look: _Look, one: np.random.Generator) -> Singles:
    """Density of ice, 0 to 1."""
    count = look.ferns
    starts = one.uniform((-0.1 * _HEIGHT, -0.1 * _WIDTH), (1.1 * _HEIGHT, 1.1 * _WIDTH), (count, 2))
    # Neighbours grow in like directions, since the cold comes from one side.
    main = one.uniform(0, 2 * np.pi)
    angles = main + 1.6 * np.sin(starts[:, 0] / 190 + main) + 0.5 * one.standard_normal(count)
    lengths = look.length * one.uniform(0.35, 1, count)
    density = np.zeros(_HEIGHT * _WIDTH)
    for weight, spacing, share in ((1.0, 5.0, 0.34), (0.55, 4.0, 0.4), (0.3, 3.0, 0.0)):
        bend = 0.25 * one.standard_normal(len(starts))
        owner, along = _along(lengths, 0.7)
        spots, headings = _points(starts, angles, lengths, bend, owner, along)
        thin = weight * (1.15 - along / lengths[owner])
        density += _splat(spots, thin)
        owner, along = _along(lengths, spacing)
        left = lengths[owner] - along
        starts, headings = _points(starts, angles, lengths, bend, owner, along)
        side = np.where(np.arange(len(owner)) % 2, _TILT, -_TILT)
        angles = headings + side + 0.08 * one.standard_normal(len(owner))
        lengths = share * left * one.uniform(0.55, 1, len(owner)) + 0.5
    return (1 - np.exp(-0.75 * density.reshape(_HEIGHT, _WIDTH))).astype(np.float32)


def _along(lengths: NDArray[np.float64], spacing: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Places every `spacing` along all stems: of which stem, and how far from its start."""
    counts = np.maximum(1, (lengths / spacing).astype(int))
    owner = np.repeat(np.arange(len(lengths)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owner, (place + 0.5) * spacing


def _points(
    starts: NDArray[np.float64],
    angles: NDArray[np.float64],
    lengths: NDArray[np.float64],
    bend: NDArray[np.float64],
    owner: NDArray[np.intp],
    along: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where those places are, and in which direction the stem grows there; stems are flat arcs."""
    turn = bend[owner] * along / lengths[owner]
    headings = angles[owner] + turn
    chords = angles[owner] + turn / 2
    return starts[owner] + along[:, None] * np.stack([np.sin(chords), np.cos(chords)], axis=-1), headings


def _splat(spots: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights at places between pixels, shared among the four pixels around."""
    whole = np.floor(spots).astype(int)
    part = spots - whole
    out = np.zeros(_HEIGHT * _WIDTH)
    for down in (0, 1):
        for right in (0, 1):
            y, x = whole[:, 0] + down, whole[:, 1] + right
            inside = (y >= 0) & (y < _HEIGHT) & (x >= 0) & (x < _WIDTH)
            share = weights * np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1])
            out += np.bincount((y * _WIDTH + x)[inside], share[inside], len(out))
    return out


def _noise(one: np.random.Generator, scale: float, roughness: float) -> Singles:
    """Fractal noise: smoothed white noise of half the scale and `roughness` times the height, over and over."""
    total, height = np.zeros((_HEIGHT, _WIDTH), dtype=np.float32), 1.0
    while scale >= 1:
        grid = one.standard_normal((int(_HEIGHT / scale) + 4, int(_WIDTH / scale) + 4), dtype=np.float32)
        size = (int(grid.shape[1] * scale), int(grid.shape[0] * scale))
        total += height * np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))[:_HEIGHT, :_WIDTH]
        scale, height = scale / 2, height * roughness
    return total


def _standard(values: Singles) -> Singles:
    standard: Singles = (values - values.mean()) / values.std()
    return standard
