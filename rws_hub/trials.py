"""Running a foreign model on random weights and random input, as `infer` does to compare two."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from rws_hub.errors import InferenceError
from rws_hub.lockstep import renew
from rws_hub.sources import live_tensors

Kind = Literal["variance", "gain", "small", "matrix"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How large random weights and images are.

    Attributes:
        weights: factor of everything but gains; variances follow by its square.
        gains: factor of gains, but for those of batch norm, whose activations follow the images.
        images: factor of the images.
    """

    weights: float = 1
    gains: float = 1
    images: float = 1


USUAL = Scale()


class Exact(TorchFunctionMode):
    """Computes in float64 what a model asks to be computed in less, so that equal functions differ by rounding only."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The same operation, with another dtype where one is named."""
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        exact = {k: _double(v) for k, v in (kwargs or {}).items()}
        return func(*map(_double, args), **exact)


def _double(value: object) -> object:
    return torch.float64 if value is torch.float32 else value


def floating(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a table would speak of, each under its first name."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in live_tensors(model).items():
        if tensor.is_floating_point() and tensor.numel() and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def kind_of(name: str, tensor: torch.Tensor) -> Kind:
    """What sort of values suits a tensor, by its last word and its axes."""
    leaf = name.rpartition(".")[2]
    if leaf == "running_var":
        return "variance"
    if tensor.ndim < 2 and leaf not in ("bias", "running_mean"):
        return "gain"
    return "small" if tensor.ndim < 2 or sum(d > 1 for d in tensor.shape) < 2 else "matrix"


def refill(tensors: Mapping[str, torch.Tensor], seed: int, scale: Scale = USUAL) -> None:
    """New values, no two alike: matrices that keep the scale, everything else near 1 or small, nothing zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in tensors.items():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            kind = kind_of(name, tensor)
            if kind == "variance":
                values = (noise / 5).exp() * scale.weights**2
            elif kind == "gain":
                follows = tensor.ndim == 0 or f"{name.rpartition('.')[0]}.running_var" in tensors
                values = (noise / 5).exp() * (1 if follows else scale.gains)
            elif kind == "small":
                values = noise / 5 * scale.weights
            else:
                values = noise * (2 / tensor[0].numel()) ** 0.5 * scale.weights
            tensor.copy_(values)


def tie(tensors: Mapping[str, torch.Tensor]) -> None:
    """Give all tensors of one shape and kind the values of the first."""
    first: dict[tuple[object, ...], torch.Tensor] = {}
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(first.setdefault((*tensor.shape, kind_of(name, tensor)), tensor))


def picture(
    example: torch.Tensor, seed: int, count: int = 1, size: tuple[int, ...] | None = None, factor: float = 1
) -> torch.Tensor:
    """Random input, float64, of the example's shape but for the number of pictures and, if given, their size."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, *example.shape[1:]) if size is None else (count, example.shape[1], *size)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * factor


def outputs(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Every floating tensor that a model returns, in order."""
    renew(model)
    try:
        with torch.no_grad(), Exact():
            found = _flat(model(images))
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
    own = floating(model)
    size, found = gradients(model, images, key)
    changes = {
        n: float(g.norm()) * float(own[n].detach().norm()) / own[n].numel() ** 0.5 / size for n, g in found.items()
    }
    buffers = [n for n, t in own.items() if not isinstance(t, nn.Parameter)]
    return changes | dict.fromkeys(buffers, math.inf)


def gradients(model: nn.Module, images: torch.Tensor, key: int) -> tuple[float, dict[str, torch.Tensor]]:
    """The norm of an output, and the gradients of its component along a random direction, where there are any."""
    renew(model)
    asked = {n: t for n, t in floating(model).items() if isinstance(t, nn.Parameter)}
    was = {n: t.requires_grad for n, t in asked.items()}
    try:
        for tensor in asked.values():
            tensor.requires_grad_(True)
        with torch.enable_grad(), Exact():
            output = _flat(model(images))[key]
            direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(0), dtype=output.dtype)
            given = asked if output.requires_grad else {}
            found = (
                torch.autograd.grad((output * direction).sum(), list(given.values()), allow_unused=True)
                if given
                else ()
            )
    except Exception as error:  # whatever a foreign model raises
        raise InferenceError(f"{type(model).__name__} cannot be differentiated: {error}") from error
    finally:
        for name, tensor in asked.items():
            tensor.requires_grad_(was[name])
    size = float(output.detach().norm()) or 1.0
    return size, {n: g for n, g in zip(given, found, strict=True) if g is not None}


def rounding(model: nn.Module, images: torch.Tensor, key: int) -> float:
    """How far an output moves if the model's own constants, such as rotary frequencies, were rounded to float32.

    They are made in float32 when a model is built, and no cast brings their digits back.
    """
    persistent = {id(t) for t in live_tensors(model).values()}
    held = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.is_floating_point() and id(buffer) not in persistent
    ]
    if not held:
        return 0.0
    exact = outputs(model, images)[key]
    generator = torch.Generator().manual_seed(0)
    try:
        for module, name, buffer in held:
            noise = torch.randn(buffer.shape, generator=generator, dtype=buffer.dtype)
            module._buffers[name] = buffer * (1 + torch.finfo(torch.float32).eps * noise)
        return float((outputs(model, images)[key] - exact).abs().max())
    finally:
        for module, name, buffer in held:
            module._buffers[name] = buffer
