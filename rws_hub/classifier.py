"""A backbone as an image classifier: how it wants its pictures, what it answers, and a head for other classes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rws_hub.errors import DataError
from rws_hub.pictures import View

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a backbone wants its pictures.

    Attributes:
        view: size, and what is resized before the centre is cropped.
        mean: of each channel, for values from 0 to 1.
        std: likewise.
    """

    view: View
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def tensor(self, pixels: Tensor, device: torch.device) -> Tensor:
        """uint8 [n, size, size, 3] -> normalised float32 [n, 3, size, size] in channels-last memory."""
        scaled = pixels.to(device).permute(0, 3, 1, 2).float()
        mean = torch.tensor(self.mean, device=device).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.std, device=device).view(1, 3, 1, 1) * 255
        return (scaled - mean) / std


def preprocessing_of(
    model: nn.Module, processor: dict[str, Any] | None = None, size: int | None = None
) -> Preprocessing:
    """What the model, or the `preprocessor_config.json` beside it, says about its pictures.

    Args:
        model: of timm (its `pretrained_cfg` is read), of transformers, or any other.
        processor: the contents of `preprocessor_config.json`, for a model of transformers.
        size: side in pixels, in place of the stated one.

    Without any statement: 224 pixels, cropped from 256, ImageNet's mean and deviation. In a size that is not the
    stated one nothing but the longer side is cropped. Whatever the statement, an image is resized bicubically,
    keeping its proportions, and one that has the size already is taken as it is.
    """
    timm_says: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    said = processor or {}
    config: Any = getattr(model, "config", None)
    config = getattr(config, "vision_config", config)
    cropped = None if said.get("do_center_crop") is False else _side(said.get("crop_size"))
    stated = _side(timm_says.get("input_size")) or cropped or _side(said.get("size"))
    stated = stated or _side(getattr(config, "image_size", None)) or 224
    side = size or stated
    crop = 1.0  # nothing is said about pictures of another size
    if side == stated:
        crop = timm_says.get("crop_pct") or said.get("crop_pct") or _share(cropped, said)
    raw = said.get("do_normalize") is False
    return Preprocessing(
        # The sum makes up for a share that was itself computed, and is a hair too large.
        View(side, max(side, math.floor(side / crop + 1e-6))),
        (0.0, 0.0, 0.0) if raw else tuple(timm_says.get("mean") or said.get("image_mean") or _IMAGENET_MEAN),
        (1.0, 1.0, 1.0) if raw else tuple(timm_says.get("std") or said.get("image_std") or _IMAGENET_STD),
    )


def _share(cropped: int | None, said: dict[str, Any]) -> float:
    """How much of the resized image's side is left, as the processors of transformers spell it."""
    size = said.get("size")
    if cropped and (whole := _side(size)):
        return cropped / whole
    square = isinstance(size, dict) and "height" in size
    return 1.0 if square or said.get("do_center_crop") is False else 0.875


def _side(stated: Any) -> int | None:
    """The side of a square from the forms in which libraries state it."""
    if isinstance(stated, dict):
        stated = next((stated[k] for k in ("height", "shortest_edge") if k in stated), None)
    if isinstance(stated, Sequence) and stated:
        stated = stated[-1]
    return stated if isinstance(stated, int) else None


def logits(model: nn.Module, images: Tensor) -> Tensor:
    """The scores of every class, [n, classes], whichever library the model is of."""
    answer = model(images)
    answer = getattr(answer, "logits", answer)
    if not isinstance(answer, Tensor) or answer.ndim != 2:
        raise DataError(
            f"{type(model).__name__} answers with {type(answer).__name__}"
            + (f" of shape {list(answer.shape)}" if isinstance(answer, Tensor) else "")
            + ", not with one score for each class: it is no classifier. Load it with a classification head"
        )
    return answer


def require_classes(model: nn.Module, view: View, classes: Sequence[str], label: str) -> None:
    """Refuse a model that has not one score for each class.

    Raises:
        DataError: with both counts.
    """
    parameter = next(model.parameters())
    was_training = {m: m.training for m in model.modules()}
    try:
        with torch.inference_mode():
            empty = torch.zeros(1, 3, view.size, view.size, device=parameter.device, dtype=parameter.dtype)
            found = logits(model.eval(), empty).shape[1]
    finally:
        for module, training in was_training.items():
            module.training = training
    if found != len(classes):
        raise DataError(
            f"{label} tells {found} classes apart, the data set has {len(classes)} ({', '.join(classes[:3])}, ...): "
            "take a model that was trained on these classes, or the data set that it was trained on"
        )


def stated_classes(config: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The names of a model's classes in the order of its scores, where its `config.json` has them."""
    said = config or {}
    names = said.get("label_names") or dict(said.get("pretrained_cfg") or {}).get("label_names")
    if isinstance(said.get("id2label"), Mapping):
        names = [name for _, name in sorted((int(k), v) for k, v in said["id2label"].items())]
    return tuple(map(str, names)) if isinstance(names, Sequence) and not isinstance(names, str) else None


def require_order(stated: Sequence[str] | None, classes: Sequence[str], label: str) -> None:
    """Refuse a model that has the same classes in another order: every answer would be counted as another's.

    Raises:
        DataError: with the first class that stands elsewhere.
    """
    if stated is None or tuple(stated) == tuple(classes) or sorted(stated) != sorted(classes):
        return
    i = next(i for i, (a, b) in enumerate(zip(stated, classes, strict=True)) if a != b)
    raise DataError(
        f"{label} has the data set's classes in another order (number {i} is {stated[i]!r} there and {classes[i]!r} "
        "here): bring the labels of the data set into the model's order"
    )


def with_head(model: nn.Module, classes: int, seed: int) -> nn.Module:
    """A copy with a head for so many classes: its own if the number is right, else a freshly initialised one.

    Args:
        model: of timm or transformers; left as it is.
        classes: how many.
        seed: of the initialisation; the global random state stays as it is.

    Raises:
        DataError: a model that has no head which its library could replace.
    """
    copied = copy.deepcopy(model)
    config: Any = getattr(copied, "config", None)
    if getattr(copied, "num_classes", getattr(config, "num_labels", classes)) == classes:
        return copied
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if callable(reset := getattr(copied, "reset_classifier", None)):
            reset(classes)
            return copied
        head = getattr(copied, "classifier", None)
        last = head if isinstance(head, nn.Linear) else None
        if isinstance(head, nn.Sequential) and len(head) and isinstance(head[-1], nn.Linear):
            last = head[-1]
        if last is None or config is None:
            raise DataError(f"{type(model).__name__} has no head that could be exchanged for one of {classes} classes")
        fresh = nn.Linear(last.in_features, classes, bias=last.bias is not None)
        if isinstance(head, nn.Sequential):
            head[-1] = fresh
        else:
            copied.classifier = fresh
        config.num_labels = classes
        setattr(copied, "num_labels", classes)  # noqa: B010 - nn.Module promises tensors and modules only
    return copied
