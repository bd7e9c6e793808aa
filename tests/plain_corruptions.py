"""The published formulas once more, one image and mostly one pixel at a time, for comparison.

Each takes an image, the constants and the generator of that image, and follows the definition rather than the way
`rws_hub.corruptions` computes it: scipy's zoom and map_coordinates, colorsys, Pillow, and loops.
"""

import colorsys
import io
import math

import numpy as np
from PIL import Image
from scipy import ndimage

from rws_hub.corruptions.frost import TEXTURES, texture


def gaussian_noise(x, c, rng):
    return cut(x / 255 + rng.standard_normal(x.shape, dtype=np.float32).astype(float) * c[0])


def speckle_noise(x, c, rng):
    return cut(x / 255 + x / 255 * rng.standard_normal(x.shape, dtype=np.float32).astype(float) * c[0])


def impulse_noise(x, c, rng):
    uniform = rng.integers(0, 2**32, x.shape, dtype=np.uint32) / 2**32
    return np.select([uniform < c[0] / 2, uniform >= 1 - c[0] / 2], [0, 255], x.astype(int))


def gaussian_blur(x, c, rng):
    return cut(smooth(x / 255, c[0], 4, "edge"))


def defocus_blur(x, c, rng):
    radius, alias = c
    half, tail = (8, 1) if radius <= 8 else (int(radius), 2)
    kernel = np.array(
        [[math.hypot(i, j) <= radius for j in range(-half, half + 1)] for i in range(-half, half + 1)], float
    )
    taps = np.array([math.exp(-(i**2) / (2 * alias**2)) for i in range(-tail, tail + 1)])
    padded = np.pad(kernel / kernel.sum(), tail, "reflect")
    size = 2 * half + 1
    weights = np.outer(taps, taps) / taps.sum() ** 2
    kernel = sum(weights[i, j] * padded[i : i + size, j : j + size] for i in range(len(taps)) for j in range(len(taps)))
    padded = np.pad(x / 255, ((half, half), (half, half), (0, 0)), "reflect")
    height, width, _ = x.shape
    return cut(sum(kernel[i, j] * padded[i : i + height, j : j + width] for i in range(size) for j in range(size)))


def glass_blur(x, c, rng):
    sigma, reach, rounds = c
    height, width, _ = x.shape
    pixels = cut(smooth(x / 255, sigma, 4, "edge")).astype(np.uint8)
    steps = rng.integers(-reach, reach, (rounds, height - 2 * reach, width - 2 * reach, 2), dtype=np.int8)
    for step in range(rounds):
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                right, down = steps[step, h - reach - 1, w - reach - 1].tolist()
                pixels[h, w] = pixels[h + down, w + right]
    return cut(smooth(pixels / 255, sigma, 4, "edge"))


def motion_blur(x, c, rng):
    return np.round(streak(x.astype(float), c[0], c[1], rng.uniform(-45, 45)))


def zoom_blur(x, c, rng):
    x = (x / 255).astype(np.float32)
    factors = np.arange(*c)
    return cut((x + sum(zoom(x, factor) for factor in factors)) / (len(factors) + 1))


def snow(x, c, rng):
    mean, deviation, factor, threshold, radius, sigma, weight = c
    flakes = rng.standard_normal(x.shape[:2], dtype=np.float32).astype(float) * deviation + mean
    flakes = zoom(flakes[..., None], factor)
    flakes[flakes < threshold] = 0
    flakes = np.round(streak(cut(flakes), radius, sigma, rng.uniform(-135, -45))) / 255
    x = x / 255
    grey = x[..., :1] * 0.299 + x[..., 1:2] * 0.587 + x[..., 2:] * 0.114
    return cut(weight * x + (1 - weight) * np.maximum(x, grey * 1.5 + 0.5) + flakes + np.rot90(flakes, 2))


def frost(x, c, rng):
    height, width, _ = x.shape
    sheet = texture(
        int(rng.integers(TEXTURES)),
        0.2 if min(height, width) <= 48 else 0.3 if min(height, width) <= 96 else 1.0,
        height,
        width,
    )
    top = rng.integers(sheet.shape[0] - height + 1)
    left = rng.integers(sheet.shape[1] - width + 1)
    return cut((c[0] * x + c[1] * sheet[top : top + height, left : left + width].astype(float)) / 255)


def fog(x, c, rng):
    amount, decay = c
    size = 2 ** math.ceil(math.log2(max(x.shape[:2])))
    uniform = rng.random(size * size)
    land, step, bound, used = np.zeros((size, size)), size, 100.0, 0
    while step >= 2:
        half, cells = step // 2, size // step
        wobble = (bound * (2 * bound * uniform[used : used + 3 * cells**2] - bound)).reshape(3, cells, cells)
        for i in range(cells):
            for j in range(cells):
                y, z = i * step, j * step
                square = [land[a % size, b % size] for a in (y, y + step) for b in (z, z + step)]
                land[y + half, z + half] = sum(square) / 4 + wobble[0, i, j]
        for i in range(cells):
            for j in range(cells):
                for part, (y, z) in enumerate([(i * step, j * step + half), (i * step + half, j * step)], start=1):
                    near = [(y - half, z), (y + half, z), (y, z - half), (y, z + half)]
                    land[y, z] = sum(land[a % size, b % size] for a, b in near) / 4 + wobble[part, i, j]
        step, bound, used = half, bound / decay, used + 3 * cells**2
    land = (land - land.min()) / (land.max() - land.min())
    top = x.max() / 255
    return cut((x / 255 + amount * land[: x.shape[0], : x.shape[1], None]) * top / (top + amount))


def brightness(x, c, rng):
    return by_pixel(x, lambda hue, saturation, value: (hue, saturation, min(1, value + c[0])))


def saturate(x, c, rng):
    return by_pixel(x, lambda hue, saturation, value: (hue, min(1, max(0, saturation * c[0] + c[1])), value))


def contrast(x, c, rng):
    mean = (x / 255).mean(axis=(0, 1))
    return cut((x / 255 - mean) * c[0] + mean)


def pixelate(x, c, rng):
    height, width, _ = x.shape
    small = Image.fromarray(x).resize((int(width * c[0]), int(height * c[0])), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(x, c, rng):
    file = io.BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=c[0])
    return np.asarray(Image.open(file))


def elastic_transform(x, c, rng):
    alpha, sigma, affine = c
    height, width, _ = x.shape
    middle, reach = np.array([width // 2, height // 2]), min(height, width) // 3
    still = np.array([middle + reach, [middle[0] + reach, middle[1] - reach], middle - reach], float)
    moved = still + rng.uniform(-affine, affine, (3, 2))
    # Rows of the map back, from homogeneous places in the output.
    back = np.linalg.solve(np.c_[moved, np.ones(3)], still).T
    ys, xs = np.mgrid[:height, :width]
    from_x, from_y = (row[0] * xs + row[1] * ys + row[2] for row in back)
    x = sampled(x / 255, from_y, from_x, "mirror")
    if alpha:
        by_x, by_y = (smooth(f, sigma, 3, "symmetric") * alpha for f in rng.uniform(-1, 1, (2, height, width)))
        x = sampled(x, ys + by_y, xs + by_x, "reflect")
    return cut(x)


def spatter(x, c, rng):
    mean, deviation, sigma, threshold, strength, mud = c
    liquid = smooth(
        rng.standard_normal(x.shape[:2], dtype=np.float32).astype(float) * deviation + mean, sigma, 4, "edge"
    )
    if mud:
        cover = smooth((liquid > threshold).astype(float), strength, 4, "edge")
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return cut(x / 255 * (1 - cover) + cover * np.array([63, 42, 20]) / 255)
    drops = cut(np.where(liquid < threshold, 0, liquid))
    found = canny(drops)
    far = np.full(drops.shape, 20.0)
    for y, x_ in np.argwhere(found):
        offsets = np.abs(np.mgrid[: len(far), : far.shape[1]] - [[[y]], [[x_]]])
        far = np.minimum(far, steps(offsets.max(axis=0), offsets.min(axis=0)))
    far = np.floor(mean3(far) + 1e-4).astype(int)
    first = far.min()
    if (far != first).any():
        others = far.size - (far == first).sum()
        far = np.array([[round(255 * ((far <= d) & (far > first)).sum() / others) for d in row] for row in far])
    relief = np.clip(ndimage.correlate(far.astype(float), [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], mode="mirror"), 0, 255)
    shine = drops * np.round(mean3(relief))
    shine = shine / shine.max() if shine.any() else shine
    return cut(x / 255 + strength * shine[..., None] * np.array([175, 238, 238]) / 255)


def steps(long, short):
    """Length of the shortest way of straight, diagonal and knight's steps."""
    knight = np.where(long >= 2 * short, short, long - short)
    diagonal = np.where(long >= 2 * short, 0, 2 * short - long)
    return 2.1969 * knight + 1.4 * diagonal + (long - 2 * knight - diagonal)


def canny(picture):
    """Edges by the book: the direction is one of four, weak ones live by touching strong ones."""
    gy, gx = (ndimage.sobel(picture, axis=axis, mode="nearest") for axis in (0, 1))
    size = np.pad(np.abs(gx) + np.abs(gy), 1)
    ridge = np.zeros(picture.shape, bool)
    for (i, j), weight in np.ndenumerate(size[1:-1, 1:-1]):
        angle = math.degrees(math.atan2(gy[i, j], gx[i, j])) % 180
        down, right = [(0, 1), (1, 1), (1, 0), (1, -1)][round(angle / 45) % 4]
        before, after = size[i + 1 - down, j + 1 - right], size[i + 1 + down, j + 1 + right]
        diagonal = down and right
        ridge[i, j] = weight > 50 and weight > before and (weight > after if diagonal else weight >= after)
    strong = ridge & (size[1:-1, 1:-1] > 150)
    while (grown := ndimage.binary_dilation(strong, np.ones((3, 3))) & ridge).sum() > strong.sum():
        strong = grown
    return strong


def mean3(picture):
    padded = np.pad(picture, 1, "reflect")
    return sum(padded[i : i + len(picture), j : j + picture.shape[1]] for i in range(3) for j in range(3)) / 9


def cut(x):
    return np.floor(np.clip(x, 0, 1) * 255)


def smooth(x, sigma, truncate, border):
    """Gaussian smoothing of the first two axes by an explicit sum over taps."""
    radius = int(truncate * sigma + 0.5)
    taps = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(-radius, radius + 1)] if sigma else [1.0]
    for axis in (0, 1):
        pads = [(radius, radius) if a == axis else (0, 0) for a in range(x.ndim)]
        padded = np.moveaxis(np.pad(x, pads, border), axis, 0)
        x = np.moveaxis(sum(t * padded[i : i + x.shape[axis]] for i, t in enumerate(taps)) / sum(taps), 0, axis)
    return x


def streak(x, radius, sigma, degrees):
    taps = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    height, width = x.shape[:2]
    total = np.zeros_like(x)
    for i, tap in enumerate(taps / taps.sum()):
        right = math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
        rows, columns = (
            np.clip(np.arange(height) + down, 0, height - 1),
            np.clip(np.arange(width) + right, 0, width - 1),
        )
        total += tap * x[rows][:, columns]
    return total


def zoom(x, factor):
    crops = [math.ceil(side / factor) for side in x.shape[:2]]
    starts = [(side - crop) // 2 for side, crop in zip(x.shape, crops, strict=False)]
    piece = x[starts[0] : starts[0] + crops[0], starts[1] : starts[1] + crops[1]]
    large = ndimage.zoom(piece, (factor, factor, 1), order=1)
    tops = [(large.shape[axis] - x.shape[axis]) // 2 for axis in (0, 1)]
    return large[tops[0] : tops[0] + x.shape[0], tops[1] : tops[1] + x.shape[1]]


def sampled(x, ys, xs, border):
    planes = [ndimage.map_coordinates(x[..., d], [ys, xs], order=1, mode=border) for d in range(3)]
    return np.stack(planes, axis=-1)


def by_pixel(x, change):
    rows = [[colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in row] for row in (x / 255).tolist()]
    return cut(np.array(rows))
