"""Real photographs in any size: pieces of the two that come with scikit-learn."""

import functools

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image


@functools.cache
def photographs(count: int, height: int, width: int) -> np.ndarray:
    """[count, height, width, 3], read-only; pieces of china.jpg and flower.jpg in turn."""
    sources = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    random, pieces = np.random.default_rng(0), []
    for number in range(count):
        scale = float(random.uniform(0.5, 0.95)) * min(640 / width, 427 / height)
        left, top = random.uniform(0, 640 - scale * width), random.uniform(0, 427 - scale * height)
        box = (left, top, left + scale * width, top + scale * height)
        pieces.append(np.asarray(sources[number % 2].resize((width, height), Image.Resampling.BOX, box)))
    found = np.stack(pieces)
    found.flags.writeable = False
    return found
