"""The common corruptions of Hendrycks and Dietterich (ICLR 2019) for whole batches: 15 standard and 4 extra ones.

    images = ...                                   # uint8, [N, H, W, 3]
    foggy = corrupt(images, "fog", 3, seed=0)

numpy, scipy and Pillow do the work. What each corruption means, and which are not bit for bit those of the published
images, stands in docs/CORRUPTIONS.md.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rws_hub.corruptions.constants import Constants, corruption_table
from rws_hub.corruptions.draws import Draws
from rws_hub.errors import CorruptionError, RWSError

__all__ = ["CORRUPTIONS", "KINDS", "STANDARD", "corrupt", "corruption_table"]

STANDARD = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
CORRUPTIONS = (*STANDARD, "speckle_noise", "gaussian_blur", "spatter", "saturate")
KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
        "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
        "weather": ("snow", "frost", "fog", "brightness", "spatter"),
        "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
    }
)
SMALLEST = 8

# Values of a chunk: intermediate results stay in a processor's cache.
_CHUNK = 100_000

_Function = Callable[[NDArray[np.uint8], Constants, Draws], NDArray[np.uint8]]


def corrupt(
    images: NDArray[np.uint8],
    name: str,
    severity: int,
    *,
    seed: int | Sequence[int],
    indices: Sequence[int] | NDArray[Any] | None = None,
) -> NDArray[np.uint8]:
    """Corrupt a batch of images.

    An image's random numbers depend on `seed`, `name`, `severity` and its index, and on nothing else: the pixels are
    the same in any batch, order, thread or process.

    Args:
        images: [N, H, W, 3], at least 8 pixels each way; not modified. The shorter side chooses the constants.
        name: one of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: one or several whole numbers, not negative.
        indices: the identity of each image, such as its number in the data set; default: 0 to N - 1.

    Returns:
        A new array of the same shape.

    Raises:
        CorruptionError: one of these is not as it should be.
        RWSError: scipy or Pillow is missing.

    Example:
        >>> corrupt(np.zeros((2, 32, 32, 3), np.uint8), "brightness", 5, seed=0).max()
        np.uint8(76)
    """
    require_name(name)
    if isinstance(severity, bool) or not isinstance(severity, numbers.Integral) or not 1 <= severity <= 5:
        raise CorruptionError(f"severity must be a whole number from 1 to 5, found {severity!r}")
    _require_images(images)
    count, height, width, _ = images.shape
    words = _whole("seed", seed if isinstance(seed, (Sequence, np.ndarray)) else (seed,))
    identities = _whole("indices", range(count) if indices is None else indices)
    if not words:
        raise CorruptionError("seed must hold at least one whole number")
    if len(identities) != count:
        raise CorruptionError(f"{count} images need as many indices, found {len(identities)}")
    function, level = _function(name), int(severity)
    constants = corruption_table(min(height, width))[name][level - 1]
    out = np.empty_like(images, order="C")
    step = max(1, _CHUNK // (height * width * 3))
    for start in range(0, count, step):
        chunk = slice(start, start + step)
        draws = Draws(words, name, level, identities[chunk])
        out[chunk] = function(np.ascontiguousarray(images[chunk]), constants, draws)
    return out


@functools.cache
def _function(name: str) -> _Function:
    """The function of a corruption, from the module of its kind."""
    kind = next(kind for kind, names in KINDS.items() if name in names)
    home = "spatter" if name == "spatter" else kind
    try:
        function: _Function = getattr(importlib.import_module(f"rws_hub.corruptions.{home}"), name)
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in ("PIL", "scipy"):
            raise
        raise RWSError(f"{name} needs {error.name}: pip install 'rws-hub[corruptions]'") from error
    return function


def require_name(name: str) -> None:
    """Refuse what is no corruption, naming the nearest.

    Raises:
        CorruptionError: it is none.
    """
    if name in CORRUPTIONS:
        return
    near = difflib.get_close_matches(str(name).lower().replace(" ", "_"), CORRUPTIONS, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    raise CorruptionError(f"no corruption is called {name!r}{meant} There are: {', '.join(CORRUPTIONS)}")


def _require_images(images: NDArray[np.uint8]) -> None:
    expected = f"expected a uint8 array [N, H, W, 3] of at least {SMALLEST} pixels each way"
    if not isinstance(images, np.ndarray):
        raise CorruptionError(f"{expected}, found {type(images).__name__}")
    if images.dtype != np.uint8:
        raise CorruptionError(f"{expected}, found dtype {images.dtype}; scale to 0 to 255 and convert")
    if images.ndim != 4 or images.shape[3] != 3 or min(images.shape[1:3]) < SMALLEST:
        raise CorruptionError(f"{expected}, found shape {list(images.shape)}")


def _whole(what: str, values: Sequence[int] | NDArray[Any]) -> tuple[int, ...]:
    """Whole numbers that are not negative."""
    if not isinstance(values, Iterable):
        raise CorruptionError(f"{what} must be whole numbers, one for each image, found {values!r}")
    found: list[Any] = np.atleast_1d(values).tolist() if isinstance(values, np.ndarray) else list(values)
    wrong = [v for v in found if isinstance(v, bool) or not isinstance(v, numbers.Integral) or v < 0]
    if wrong:
        raise CorruptionError(f"{what} must be whole numbers that are not negative, found {wrong[0]!r}")
    return tuple(int(v) for v in found)
