"""The models that benchmarks/trust/kin.py compares with their source: copies in fewer bits, relatives, strangers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "paper"))

import torch
from relatives import RELATIVES, folder_of
from torch import nn
from zoo import Zoo

from rws_hub.backbones import open_model
from rws_hub.codec import is_wide
from rws_hub.names import Layout

State = Mapping[str, torch.Tensor]


def rows_of(state: State) -> Callable[[str, int, int], torch.Tensor]:
    """What a sketch reads."""
    return lambda name, start, stop: state[name][start:stop]


def body(state: State) -> Layout:
    """The wide tensors without the head, in the order of the model."""
    return {
        n: tuple(t.shape) for n, t in state.items() if is_wide(tuple(t.shape)) and not n.startswith(("fc.", "head."))
    }


def cosine(a: State, b: State, names: Layout) -> float:
    """Of all weights of these tensors."""
    dot = sum(float(a[n].double().flatten() @ b[n].double().flatten()) for n in names)
    square = [sum(float(s[n].double().square().sum()) for n in names) for s in (a, b)]
    return dot / math.sqrt(math.prod(square))


def to_levels(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Rounded to so many bits, one scale for each row."""
    top = 2 ** (bits - 1) - 1
    scale = values.abs().flatten(1).amax(1).clamp_min(1e-12).view(-1, *[1] * (values.ndim - 1)) / top
    rounded: torch.Tensor = (values / scale).round() * scale
    return rounded


def pruned(values: torch.Tensor, share: float) -> torch.Tensor:
    """The smallest weights of a tensor set to zero."""
    least = values.abs().flatten().kthvalue(max(1, int(share * values.numel()))).values
    kept: torch.Tensor = torch.where(values.abs() <= least, torch.zeros_like(values), values)
    return kept


COPIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "copy in float16": lambda t: t.half().float(),
    "copy in bfloat16": lambda t: t.bfloat16().float(),
    "copy in int8": partial(to_levels, bits=8),
    "copy in int4": partial(to_levels, bits=4),
    "half of it pruned": partial(pruned, share=0.5),
    "90 % of it pruned": partial(pruned, share=0.9),
}


def trained(zoo: Zoo, work: Path) -> Iterator[tuple[str, bool, str, Path]]:
    """Label, whether it is kin of the standard model, its data set, and its folder."""
    own = zoo.work / zoo.setting.name / zoo.backbone
    for folder in sorted(own.iterdir()):
        name = folder.name
        if not (folder / "train.json").exists() or name == "cifar10-standard-0":
            continue
        dataset, _, rest = name.partition("-")
        stranger = name in ("pretrained-1", "cifar10-standard-0-init1")
        kind = (
            "pretrained ancestor" if name == "pretrained-0"
            else "other random weights" if stranger
            else f"fine-tuned from the same ancestor, {dataset}" if "standard" in rest
            else "trained further" if "further" in rest
            else f"robust twin, {dataset}"
        )  # fmt: skip
        yield kind, not stranger, "tinyimagenet32" if "pretrained" in name else dataset, folder
    for relative in RELATIVES:
        found = folder_of(zoo, work, relative)
        if found is not None:
            speed = f"{relative.faster:g} times the rate" if relative.faster != 1 else "the usual rate"
            kind = (
                "other random weights"
                if relative.kind == "scratch"
                else f"trained further, {relative.dataset}, {speed}"
            )
            yield kind, relative.kind != "scratch", relative.dataset, found


def random_model(zoo: Zoo, seed: int) -> nn.Module:
    """Untrained, with weights from a seed."""
    start = zoo._build(seed)
    return start if isinstance(start, nn.Module) else open_model(start, seed=seed).model
