"""Hue, saturation and value, in the form and the order of operations that the published images were made with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def to_hsv(rgb: Floats) -> tuple[Floats, Floats, Floats]:
    """Hue in sixths of the circle, saturation and value of [..., 3] in 0 to 1."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    grey = spread == 0
    divisor = np.where(grey, 1.0, spread)
    saturation = spread / np.where(value == 0, 1.0, value)
    hue = np.where(green == value, 2.0 + (blue - red) / divisor, (green - blue) / divisor)
    hue = np.where(blue == value, 4.0 + (red - green) / divisor, hue)
    hue = (hue / 6.0) % 1.0
    hue[grey] = 0.0
    return hue, saturation, value


def to_rgb(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    """The inverse of `to_hsv`."""
    sixth = np.floor(hue * 6)
    part = hue * 6 - sixth
    low = value * (1 - saturation)
    down = value * (1 - part * saturation)
    up = value * (1 - (1 - part) * saturation)
    which = sixth.astype(np.intp) % 6
    red = np.choose(which, (value, down, low, low, up, value))
    green = np.choose(which, (up, value, value, down, low, low))
    blue = np.choose(which, (low, low, up, value, value, down))
    return np.stack([red, green, blue], axis=-1)
