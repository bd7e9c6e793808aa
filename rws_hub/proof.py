"""The proof of a found table: with equal weights in both models the outputs are equal, wherever another function shows.

A norm's epsilon shows where activations are small, a clipped activation where they are large, a stride or a padding at
some sizes of the input and not at others. So there are probes of each sort, in float64, where equal functions differ by
rounding alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from rws_hub.errors import InferenceError
from rws_hub.lockstep import resizes
from rws_hub.pairing import Pair, copy_part
from rws_hub.trials import USUAL, Scale, outputs, picture, refill, rounding

# Largest difference of equal outputs, relative to their size; of equal functions a few 1e-15 are known.
_EQUAL = 1e-10
# Least difference with unrelated weights, likewise.
_UNRELATED = 1e-2
# Constants that were rounded to float32 may move the output by this many times what one random rounding does.
_CONSTANTS = 16
_SCALES = {"1/100": Scale(weights=1e-2, images=1e-2), "1000 times": Scale(gains=1e3, images=1e3)}
_OTHER_SIDE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What is to be proven.

    Attributes:
        models: both, in float64.
        tensors: those of each by name; their values are lost.
        pairs: which is which.
        example: an input of both.
        key: the place of the compared output in what each model returns.
    """

    models: tuple[nn.Module, nn.Module]
    tensors: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]
    pairs: Sequence[Pair]
    example: torch.Tensor
    key: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Proof:
    """What was seen.

    Attributes:
        difference: largest difference of the outputs with equal weights of usual size.
        before: least difference with unrelated weights.
        tolerance: the largest difference that would have passed, relative to the outputs.
        sizes: of the pictures that were compared.
        scales: how large other values were, relative to usual ones.
        notes: what could not be compared, a sentence each.
    """

    difference: float
    before: float
    tolerance: float
    sizes: tuple[tuple[int, ...], ...]
    scales: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Trial:
    """Differences of the outputs with unrelated and with equal weights, how large they are, and what is rounding."""

    before: float
    difference: float
    extent: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.allowed * self.extent


def prove(case: Case, seed: int) -> Proof:
    """Compare the outputs in every probe.

    Raises:
        InferenceError: they differ in some probe, or hardly differ with unrelated weights.
    """
    usual = [_trial(case, seed + 100 * number, count=2) for number in (1, 2)]
    for trial in usual:
        if not trial.passed or trial.before <= _UNRELATED * trial.extent:
            raise InferenceError(_differ(case, trial, ""))
    at_scale = {what: _at_scale(case, seed + 300, what, scale) for what, scale in _SCALES.items()}
    notes = [note for note in at_scale.values() if note]
    sizes = [tuple(case.example.shape[2:])]
    if case.example.ndim != 4:
        notes.append("Not compared at another size: the input is no picture.")
    else:
        size = tuple(side * 2 * math.ceil(_OTHER_SIDE / 2 / side) for side in sizes[0])
        other = _at_size(case, seed + 500, size)
        if isinstance(other, _Trial):
            usual.append(other)
            sizes.append(size)
        else:
            notes.append(other)
        if _least_map(case.models[0], picture(case.example, seed, size=sizes[-1])) == 1:
            notes.append("The last feature map is 1x1 at every size compared: strides and padding there are unproven.")
    return Proof(
        difference=max(t.difference for t in usual),
        before=min(t.before for t in usual),
        tolerance=max(t.allowed for t in usual),
        sizes=tuple(sizes),
        scales=tuple(what for what, note in at_scale.items() if not note),
        notes=tuple(notes),
    )


def _trial(case: Case, seed: int, scale: Scale = USUAL, size: tuple[int, ...] | None = None, count: int = 1) -> _Trial:
    """Run both models on new weights and images, before and after the weights of A are copied into B."""
    for number, own in enumerate(case.tensors):
        refill(own, seed + number, scale)
    images = picture(case.example, seed, count, size, scale.images)
    wanted = _output(case, 0, images)
    before = _distance(wanted, _output(case, 1, images))
    for pair in case.pairs:
        copy_part(case.tensors[0][pair.a], case.tensors[1][pair.b], pair)
    difference, extent, allowed = _distance(wanted, _output(case, 1, images)), float(wanted.abs().max()), _EQUAL
    if not difference <= allowed * extent:
        moved = sum(rounding(m, images, k) for m, k in zip(case.models, case.key, strict=True))
        allowed += _CONSTANTS * moved / (extent or 1.0)
    return _Trial(before, difference, extent, allowed)


def _output(case: Case, side: int, images: torch.Tensor) -> torch.Tensor:
    found = outputs(case.models[side], images)
    if len(found) <= case.key[side]:
        raise InferenceError(f"{type(case.models[side]).__name__} returns less for {list(images.shape)}")
    return found[case.key[side]]


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b.reshape(a.shape)).abs().max()) if a.numel() == b.numel() else math.inf


def _at_scale(case: Case, seed: int, what: str, scale: Scale) -> str | None:
    """Compare with small or large values; a note if they make no numbers."""
    try:
        trial = _trial(case, seed, scale)
    except InferenceError as error:
        return f"Not compared with values {what} as large: {_brief(error)}"
    if not trial.passed:
        raise InferenceError(_differ(case, trial, f" with values {what} as large"))
    return None


def _at_size(case: Case, seed: int, size: tuple[int, ...]) -> _Trial | str:
    """Compare at another size of the input; a note if that says nothing."""
    pixels = f"{_by(size)} pixels"
    try:
        trial = _trial(case, seed, size=size)
    except InferenceError as error:
        return f"Not compared at {pixels}: {_brief(error)}"
    if trial.passed:
        return trial
    images = picture(case.example, seed, size=size)
    for which, model, own in zip(("first", "second"), case.models, case.tensors, strict=True):
        if resizes(model, own, images):
            return f"Not compared at {pixels}: the {which} model resizes a tensor of its own there, and in its own way."
    raise InferenceError(_differ(case, trial, f" at {pixels}"))


def _differ(case: Case, trial: _Trial, where: str) -> str:
    epsilons = [_epsilons(model) for model in case.models]
    told = (
        ""
        if epsilons[0] == epsilons[1]
        else (
            f": the first has {epsilons[0]}, the second {epsilons[1]}; names are found for models built with equal ones"
        )
    )
    return (
        f"every tensor found a partner, but the outputs differ by {trial.difference:.1e}{where} (they are as large as "
        f"{trial.extent:.1e}, and differ by {trial.before:.1e} with unrelated weights): not the same function. Look "
        f"for another activation, stride, padding or norm epsilon{told}"
    )


def _epsilons(model: nn.Module) -> str:
    values = {getattr(m, name, None) for m in model.modules() for name in ("eps", "variance_epsilon")}
    return " and ".join(f"{v:g}" for v in sorted(v for v in values if isinstance(v, float))) or "none"


def _brief(error: InferenceError) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else text[:157] + "..."


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


class _Maps(TorchFunctionMode):
    """Notes how many places the smallest map has that a kernel of several places runs over."""

    def __init__(self) -> None:
        super().__init__()
        self.least = math.inf

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Look at convolutions, and run everything."""
        if func is torch.conv2d and math.prod(args[1].shape[2:]) > 1:
            self.least = min(self.least, math.prod(args[0].shape[2:]))
        return func(*args, **(kwargs or {}))


def _least_map(model: nn.Module, images: torch.Tensor) -> float:
    seen = _Maps()
    with seen:
        outputs(model, images)
    return seen.least


def told(proof: Proof) -> list[str]:
    """The proof in sentences."""
    sizes = " and ".join(map(_by, filter(None, proof.sizes)))
    where = [f"at {sizes} pixels"] if sizes else []
    where += [f"with values {' and '.join(proof.scales)} as large"] if proof.scales else []
    return [
        f"Proof: with equal weights the outputs differ by {proof.difference:.1e}, with unrelated ones by "
        f"{proof.before:.1e}.",
        *([f"Compared {', and '.join(where)}."] if where else []),
        *proof.notes,
    ]
