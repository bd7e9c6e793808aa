"""Digital: contrast, elastic transform, pixelate, JPEG, saturate. Formulas of Hendrycks and Dietterich (2019)."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from rws_hub.corruptions.colour import to_hsv, to_rgb
from rws_hub.corruptions.constants import Constants
from rws_hub.corruptions.draws import Draws
from rws_hub.corruptions.filters import sample

Images = NDArray[np.uint8]


def contrast(images: Images, constants: Constants, draws: Draws) -> Images:
    """`(x - mean) c + mean`, with the mean of every channel of the image."""
    # Whole numbers have one sum, in any order; and there are only 256 levels.
    means = images.sum(axis=(1, 2), dtype=np.int64)[..., None] / (255.0 * images.shape[1] * images.shape[2])
    levels = (np.arange(256) / 255.0 - means) * constants[0] + means
    table = (np.clip(levels, 0, 1) * 255).astype(np.uint8).ravel()
    rows = 256 * np.arange(len(means) * 3).reshape(-1, 1, 1, 3)
    looked_up: Images = table.take(images + rows)
    return looked_up


def saturate(images: Images, constants: Constants, draws: Draws) -> Images:
    """The saturation of hue, saturation and value becomes `a S + b`."""
    hue, saturation, value = to_hsv(images / 255.0)
    changed = np.clip(saturation * constants[0] + constants[1], 0, 1)
    return (to_rgb(hue, changed, value) * 255).astype(np.uint8)


def jpeg_compression(images: Images, constants: Constants, draws: Draws) -> Images:
    """Written as JPEG of `quality` and read again, by Pillow."""
    out, quality = np.empty_like(images), int(constants[0])
    for image, target in zip(images, out, strict=True):
        file = io.BytesIO()
        picture = Image.fromarray(image)
        picture.save(file, "JPEG", quality=quality)
        # The decoder itself: to look for the format of what was just written takes as long as to read it.
        target[...] = Image.frombytes("RGB", picture.size, file.getvalue(), "jpeg", "RGB", "")
    return out


def pixelate(images: Images, constants: Constants, draws: Draws) -> Images:
    """Reduced to `int(factor side)` by Pillow's box filter and enlarged to its size by the same, both exactly."""
    (factor,) = constants
    small = images
    for axis in (2, 1):
        small = _box(small, int(images.shape[axis] * factor), axis)
    for axis in (2, 1):
        length, parts = images.shape[axis], small.shape[axis]
        small = small.take((2 * np.arange(length) + 1) * parts // (2 * length), axis=axis)
    return small


def elastic_transform(images: Images, constants: Constants, draws: Draws) -> Images:
    """A random affine map of corners moved by U(-a, a), then smoothed random displacements of size `alpha`.

    Most versions of OpenCV round the places that the affine map samples to 1/32 of a pixel; here they are exact.
    """
    alpha, sigma, affine = constants
    count, height, width, _ = images.shape
    moves = np.empty((count, 3, 2))
    field = np.zeros((count, 2, height, width))
    for at, one in enumerate(draws):
        moves[at] = one.uniform(-affine, affine, size=(3, 2))
        if alpha:
            field[at] = one.uniform(-1, 1, size=(2, height, width))
    scaled = images.astype(np.float32) / np.float32(255)
    back = _inverse_maps(moves, height, width)[..., None, None]
    ys, xs = np.arange(height, dtype=np.float64)[:, None], np.arange(width, dtype=np.float64)
    from_x, from_y = (
        (back[:, row, 0] * xs + back[:, row, 1] * ys + back[:, row, 2]).astype(np.float32) for row in (0, 1)
    )
    scaled = sample(scaled, from_y, from_x, "mirror")
    if alpha:
        for axis in (2, 3):
            field = ndimage.gaussian_filter1d(field, sigma, axis=axis, mode="reflect", truncate=3)
        by_x, by_y = ((field[:, part] * alpha).astype(np.float32) for part in (0, 1))
        scaled = sample(scaled, by_y + ys.astype(np.float32), by_x + xs.astype(np.float32), "reflect")
    return (np.clip(scaled, 0, 1, out=scaled) * 255).astype(np.uint8)


def _inverse_maps(moves: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """For each image the rows of the map from a place in the output to one in the input: [N, 2, 3], x first."""
    centre, reach = np.array([width // 2, height // 2]), min(height, width) // 3
    corners = centre + np.array([[reach, reach], [reach, -reach], [-reach, -reach]], dtype=np.float64)
    moved = corners + moves
    # An affine map is fixed by two sides of a triangle, as columns here, and one corner.
    sides = np.stack([corners[0] - corners[1], corners[1] - corners[2]], axis=-1)
    moved_sides = np.stack([moved[:, 0] - moved[:, 1], moved[:, 1] - moved[:, 2]], axis=-1)
    a, b, c, d = moved_sides.reshape(-1, 4).T
    determinant = a * d - b * c
    # On the smallest images three corners can meet in a line; no map leads back, and all shows one pixel.
    determinant[np.abs(determinant) < 1e-3] = np.inf
    inverse = np.stack([d, -b, -c, a], axis=-1) / determinant[:, None]
    linear = sides @ inverse.reshape(-1, 2, 2)
    return np.concatenate([linear, corners[1][:, None] - linear @ moved[:, 1, :, None]], axis=-1)


def _box(images: Images, size: int, axis: int) -> Images:
    """Means, rounded half up, of the pixels whose middles lie in each of `size` equal parts of an axis."""
    length = images.shape[axis]
    parts = -(-(2 * np.arange(length) + 1) * size // (2 * length)) - 1
    counts = np.bincount(parts, minlength=size)
    starts = np.cumsum(counts) - counts
    # Spelled out over the axes behind: numpy is slow where it repeats single values along runs of three.
    behind = (size, *images.shape[axis + 1 :])
    sizes = np.repeat(counts, math.prod(behind[1:])).reshape(behind)
    total = images.take(starts, axis=axis).astype(np.uint16)
    for step in range(1, counts.max()):
        more = images.take(np.minimum(starts + step, length - 1), axis=axis)
        more *= sizes > step
        total += more
    total *= 2
    total += sizes.astype(np.uint16)
    return (total / (2 * sizes).astype(np.float32)).astype(np.uint8)
