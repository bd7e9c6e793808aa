"""Labelled pictures that a tiny network learns in seconds, and folders of them as `rws train` and `rws eval` read."""

from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import timm
from builders import tiny_resnet
from numpy.typing import NDArray
from PIL import Image
from torch import nn

CLASSES = ("red", "green", "blue", "grey")
SIZE = 32
# How a `tiny_resnet` is built again; what goes into its config.json.
TINY = {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64]}


@cache
def patterns(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Stripes of any brightness, pitch and phase, tinted in four ways: pixels [count, 32, 32, 3] and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), count)
    tint = (np.eye(4, 3) * 60)[labels][:, None, None]
    phase, pitch, ground = (rng.uniform(*span, (count, 1, 1)) for span in ((0, 6), (2, 5), (60, 160)))
    waves = ground + 30 * np.sin(2 * np.pi * pitch * np.arange(SIZE)[:, None] / SIZE + phase)
    pixels = waves[..., None] + tint + rng.normal(0, 12, (count, SIZE, SIZE, 3))
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8), labels


def parquet(folder: Path, images: dict[str, int], *, labels: Any = None, seed: int = 0, **columns: Any) -> Path:
    """A folder with one Parquet file for each split (name -> how many images), columns `image` and `label`.

    `labels` makes another feature than the class names; `columns` are more features, each holding the label.
    """
    feature = labels or datasets.ClassLabel(names=list(CLASSES))
    features = datasets.Features({"image": datasets.Image(), "label": feature, **columns})
    for number, (split, count) in enumerate(images.items()):
        pixels, numbers = patterns(count, seed + number)
        textual = feature == datasets.Value("string")
        told = [CLASSES[n] for n in numbers] if textual else numbers.tolist()
        table = {"image": [Image.fromarray(p) for p in pixels], "label": told, **dict.fromkeys(columns, told)}
        made = datasets.Dataset.from_dict(table, features=features)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        made.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def timm_folder(folder: Path, model: nn.Module | None = None, classes: int = len(CLASSES)) -> Path:
    """A `tiny_resnet` (`model`, or one of seed 0) as timm publishes models, for pictures of 32 by 32."""
    model = model or tiny_resnet(num_classes=classes)
    says = {"input_size": (3, SIZE, SIZE), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "crop_pct": 1.0}
    model.pretrained_cfg |= says  # type: ignore[operator]
    timm.models.save_for_hf(model, folder, model_args=TINY, safe_serialization=True)
    return folder
