"""Noise: Gaussian, shot, impulse, speckle. Formulas of Hendrycks and Dietterich (2019), on the scale 0 to 255."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from rws_hub.corruptions.constants import Constants
from rws_hub.corruptions.draws import Draws

Images = NDArray[np.uint8]


def gaussian_noise(images: Images, constants: Constants, draws: Draws) -> Images:
    """`x + N(0, sigma)`."""
    (sigma,) = constants
    noise = draws.normal(images.shape[1:])
    noise *= np.float32(255 * sigma)
    noise += images
    return _truncated(noise)


def speckle_noise(images: Images, constants: Constants, draws: Draws) -> Images:
    """`x + x N(0, sigma)`."""
    (sigma,) = constants
    noise = draws.normal(images.shape[1:])
    noise *= np.float32(sigma)
    noise += np.float32(1)
    noise *= images
    return _truncated(noise)


def impulse_noise(images: Images, constants: Constants, draws: Draws) -> Images:
    """A fraction `amount` of all values becomes 0 or 255, half of it each; channels are on their own."""
    (amount,) = constants
    words, half = draws.words(images.shape[1:]), int(amount / 2 * 2**32)
    out = images.copy()
    out[words < half] = 0
    out[words >= 2**32 - half] = 255
    return out


def shot_noise(images: Images, constants: Constants, draws: Draws) -> Images:
    """`Poisson(photons x) / photons`, for x from 0 to 1."""
    (photons,) = constants
    bits, cuts, values = _poisson(photons)
    words = draws.words(images.shape[1:])
    # The first bits of a word choose a column of the value's row, the others between the two values of that column.
    cells = images.astype(np.uint32) << bits
    cells |= words >> (32 - bits)
    words &= np.uint32((1 << (32 - bits)) - 1)
    cells <<= 1
    cells += words >= cuts[cells >> 1]
    drawn: Images = values[cells]
    return drawn


@functools.lru_cache(maxsize=16)
def _poisson(photons: float) -> tuple[int, NDArray[np.uint32], NDArray[np.uint8]]:
    """Alias tables (Walker 1977) of what each of the 256 values may become.

    An array of Poisson numbers of many rates is drawn two to three times as fast from these.

    Returns:
        The number of bits that choose a column; per value and column where its first value ends, in units of the bits
        that are left; per value and column the two values, interleaved.
    """
    outcomes = math.ceil(photons) + 1  # from here on every count is white
    bits = max(1, (outcomes - 1).bit_length())
    columns = 1 << bits
    rates = np.arange(256)[:, None] * photons / 255
    counts = np.arange(outcomes)
    mass = np.zeros((256, columns))
    mass[:, :outcomes] = np.exp(xlogy(counts, rates) - rates - gammaln(counts + 1))
    mass[:, outcomes - 1] = np.maximum(0, 1 - mass[:, : outcomes - 1].sum(axis=1))
    left = mass / mass.sum(axis=1, keepdims=True) * columns
    other = np.tile(np.arange(columns), (256, 1))
    cuts, rows, low = np.ones_like(left), np.arange(256), left.copy()
    for _ in range(columns - 1):
        # The poorest open column is filled up by the richest, and closed.
        poor, rich = low.argmin(axis=1), left.argmax(axis=1)
        cuts[rows, poor] = np.clip(low[rows, poor], 0, 1)
        other[rows, poor] = rich
        left[rows, rich] -= 1 - cuts[rows, poor]
        left[rows, poor] = -1
        low[rows, rich] = left[rows, rich]
        low[rows, poor] = np.inf
    seen = np.minimum(np.minimum(np.arange(columns), outcomes - 1) / photons, 1) * 255
    values = seen.astype(np.uint8)
    pairs = np.stack([np.tile(values, (256, 1)), values[other]], axis=-1)
    scale = 1 << (32 - bits)
    return bits, np.rint(cuts * scale).astype(np.uint32).ravel(), pairs.ravel()


def _truncated(values: NDArray[np.float32]) -> Images:
    return np.clip(values, 0, 255, out=values).astype(np.uint8)
