"""Running a foreign model on random weights and random input, as `infer` does to compare two."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from rws_hub.errors import InferenceError
from rws_hub.lockstep import renew
from rws_hub.sources import live_tensors


def floating(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a table would speak of, each under its first name."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in live_tensors(model).items():
        if tensor.is_floating_point() and tensor.numel() and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def refill(tensors: Mapping[str, torch.Tensor], seed: int) -> None:
    """New values, no two alike: matrices that keep the scale, everything else near 1 or small, nothing zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in tensors.items():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            leaf = name.rpartition(".")[2]
            if leaf == "running_var" or (tensor.ndim < 2 and leaf != "bias" and leaf != "running_mean"):
                values = (noise / 5).exp()
            elif tensor.ndim < 2 or sum(d > 1 for d in tensor.shape) < 2:
                values = noise / 5
            else:
                values = noise * (2 / tensor[0].numel()) ** 0.5
            tensor.copy_(values)


def picture(example: torch.Tensor, seed: int, count: int = 1) -> torch.Tensor:
    """Random input, float64, of the example's shape but for the number of pictures."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, *example.shape[1:]), generator=generator, dtype=torch.float64)


def outputs(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Every floating tensor that a model returns, in order."""
    renew(model)
    try:
        with torch.no_grad():
            found = list(_flat(model(images)))
    except Exception as error:  # whatever a foreign model raises
        raise InferenceError(
            f"{type(model).__name__} does not run on an input of shape {list(images.shape)}: {error}"
        ) from error
    if not all(bool(torch.isfinite(t).all()) for t in found):
        raise InferenceError(f"{type(model).__name__} gives values that are not finite on random weights")
    return found


def _flat(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in _flat(v)]
    return [t for v in value for t in _flat(v)] if isinstance(value, (list, tuple)) else []


def influence(model: nn.Module, images: torch.Tensor, key: int) -> dict[str, float]:
    """How much an output hangs on each tensor: its relative change if the tensor were another one of its size.

    To first order, and along a random direction of the output. A tensor that the output does not hang on at all is
    left out; buffers cannot be asked and count as infinite.
    """
    renew(model)
    own = floating(model)
    asked = {n: t for n, t in own.items() if isinstance(t, nn.Parameter)}
    was = {n: t.requires_grad for n, t in asked.items()}
    try:
        for tensor in asked.values():
            tensor.requires_grad_(True)
        with torch.enable_grad():
            output = _flat(model(images))[key]
            direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(0), dtype=output.dtype)
            gradients = torch.autograd.grad((output * direction).sum(), list(asked.values()), allow_unused=True)
    finally:
        for name, tensor in asked.items():
            tensor.requires_grad_(was[name])
    size = float(output.detach().norm()) or 1.0
    found = {
        n: float(g.norm()) * float(t.detach().norm()) / t.numel() ** 0.5 / size
        for (n, t), g in zip(asked.items(), gradients, strict=True)
        if g is not None
    }
    return found | dict.fromkeys(own.keys() - asked.keys(), math.inf)
