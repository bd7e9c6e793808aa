"""A name table for two models of one architecture, found by running them side by side and proven by equal outputs.

`lockstep` guesses the pairs. The proof does not know how: new random weights in A, copied through the pairs into B,
must give equal outputs on new random input, twice, and every pair must reach the output that is compared. What
cannot be proven is an error, never a table.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import nn
from tqdm import tqdm

from rws_hub.errors import InferenceError
from rws_hub.folding import Names, table_text
from rws_hub.lockstep import OutOfStepError, pair_up, renew
from rws_hub.pairing import Pair, copy_part
from rws_hub.sources import live_tensors
from rws_hub.spelling import same_shape

# Largest difference of equal outputs, relative to their size. Some models compute a step in float32; that much is
# accepted only where unrelated weights differ a thousand times as much.
_EXACT = 1e-6
_ROUGH = 1e-4
_MARGIN = 1000
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Inferred:
    """A proven map between two models.

    Attributes:
        text: a name table (docs/NAMES.md) with one column for each.
        pairs: the same, tensor by tensor.
        difference: largest difference of the two outputs with the weights of A in both, float64.
        before: the same with unrelated weights: what a wrong map looks like.
    """

    text: str
    pairs: tuple[Pair, ...]
    difference: float
    before: float


def infer_table(
    a: nn.Module,
    b: nn.Module,
    example: torch.Tensor,
    *,
    columns: tuple[str, str] = ("a", "b"),
    seed: int = 0,
    progress: bool = False,
) -> Inferred:
    """Find which tensor of `a` is which of `b`. Neither model is changed, nor any random state.

    Args:
        a: a model, in any library's names, which become the canonical ones.
        b: one of the same architecture, that computes the same function of the same weights (equal norm epsilons,
            activations, strides).
        example: one input of both, float, such as [1, 3, 224, 224]; values do not matter.
        columns: what to call the two ways of naming.
        seed: of the random weights and inputs.
        progress: show a progress bar on stderr.

    Raises:
        InferenceError: a model that does not run, tensors that found no partner, or outputs that differ.

    Example:
        >>> from torch import nn
        >>> ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
        >>> theirs = nn.Sequential()
        >>> for name, layer in zip(("conv", "norm", "flat", "out"), ours):
        ...     theirs.add_module(name, layer)
        >>> print(infer_table(ours, theirs, images[:, :, :8, :8]).text.partition("a | b")[2].strip())
        0.{wb} | conv.{wb}
        1.{bn} | norm.{bn}
        3.{wb} | out.{wb}
    """
    try:
        models = [copy.deepcopy(m).to("cpu", torch.float64).eval() for m in (a, b)]
    except Exception as error:  # whatever a foreign model raises
        raise InferenceError(f"a model cannot be copied: {error}") from error
    problem: InferenceError | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bar: tqdm[NoReturn] = tqdm(desc="running side by side", unit="pass", disable=not progress, leave=False)
        with bar:
            for use_roles in (True, False):  # names are only a hint: without it, if it leads astray
                try:
                    return _attempt(models, example, columns, seed, use_roles, bar)
                except OutOfStepError:
                    raise
                except InferenceError as error:
                    problem = problem or error
    assert problem is not None
    raise problem


def _attempt(
    models: Sequence[nn.Module],
    example: torch.Tensor,
    columns: tuple[str, str],
    seed: int,
    use_roles: bool,
    bar: tqdm[NoReturn],
) -> Inferred:
    a, b = models
    tensors = (_floating(a), _floating(b))
    for number, own in enumerate(tensors):
        _refill(own, seed + number)
    images = _input(example, seed)
    first = _outputs(a, images), _outputs(b, images)
    keys = [(i, j) for i, x in enumerate(first[0]) for j, y in enumerate(first[1]) if same_shape(x.shape, y.shape)]
    if not keys:
        shapes = [[list(x.shape) for x in outputs] for outputs in first]
        raise InferenceError(f"no output of the two models has the same shape: {shapes[0]} and {shapes[1]}")
    reaches = {key: [_reached(m, images, k) for m, k in zip(models, key, strict=True)] for key in keys}
    sizes = {
        key: [sum(own[n].numel() for n in r) for own, r in zip(tensors, rs, strict=True)] for key, rs in reaches.items()
    }
    keys = [key for key in keys if sizes[key][0] == sizes[key][1]]
    if not keys:
        one, other = next(iter(sizes.values()))
        raise InferenceError(
            f"the tensors behind the output hold {one:,} numbers in the first model and {other:,} in the second: they "
            "are not one architecture at one size, or one of them derives from others what the other keeps"
        )
    try:
        pairs, left_a, left_b = pair_up(a, b, tensors, images, use_roles, bar.update)
    except OutOfStepError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        raise InferenceError(f"running the models side by side failed: {error}") from error
    problem = InferenceError("no output that both models have depends on the same tensors")
    for key in keys:
        reach = reaches[key]
        kept = [p for p in pairs if p.a in reach[0] and p.b in reach[1]]
        open_a = [n for n in left_a if n in reach[0]] + [p.a for p in pairs if p.a in reach[0] and p.b not in reach[1]]
        open_b = [n for n in left_b if n in reach[1]] + [p.b for p in pairs if p.b in reach[1] and p.a not in reach[0]]
        if open_a or open_b or not kept:
            problem = InferenceError(_open(open_a, open_b, tensors))
            continue
        try:
            before, difference = _prove(models, tensors, kept, example, key, seed)
        except InferenceError as error:
            problem = error
            continue
        unused = tuple(
            sorted(set(own) - {getattr(p, side) for p in kept}) for own, side in zip(tensors, "ab", strict=True)
        )
        names = Names(*({n: tuple(t.shape) for n, t in own.items()} for own in tensors))
        about = _about(models, difference, before, unused)
        return Inferred(table_text(kept, names, columns, about), tuple(kept), difference, before)
    raise problem


def _prove(
    models: Sequence[nn.Module],
    tensors: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]],
    pairs: Sequence[Pair],
    example: torch.Tensor,
    key: tuple[int, int],
    seed: int,
) -> tuple[float, float]:
    """Largest difference of the outputs with unrelated weights (the least of two trials) and with equal ones."""
    befores: list[float] = []
    differences: list[float] = []
    for trial in (1, 2):
        for number, own in enumerate(tensors):
            _refill(own, seed + 100 * trial + number)
        images = _input(example, seed + trial, count=2)
        wanted = _outputs(models[0], images)[key[0]]
        befores.append(_distance(wanted, _outputs(models[1], images)[key[1]]))
        for pair in pairs:
            copy_part(tensors[0][pair.a], tensors[1][pair.b], pair)
        differences.append(_distance(wanted, _outputs(models[1], images)[key[1]]))
        scale = float(wanted.abs().max())
        allowed = _ROUGH if befores[-1] > _MARGIN * differences[-1] else _EXACT
        if not differences[-1] <= allowed * scale or befores[-1] <= _MARGIN * _EXACT * scale:
            raise InferenceError(
                f"every tensor found a partner, but the outputs differ by {differences[-1]:.1e} (they are as large as "
                f"{scale:.1e}, and differ by {befores[-1]:.1e} with unrelated weights): not the same function. Look "
                "for another norm epsilon, activation, stride or padding"
            )
    return min(befores), max(differences)


def _floating(model: nn.Module) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in live_tensors(model).items():
        if tensor.is_floating_point() and tensor.numel() and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def _refill(tensors: Mapping[str, torch.Tensor], seed: int) -> None:
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


def _input(example: torch.Tensor, seed: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, *example.shape[1:]), generator=generator, dtype=torch.float64)


def _outputs(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
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


def _reached(model: nn.Module, images: torch.Tensor, key: int) -> set[str]:
    """Names of the tensors that an output depends on; buffers cannot be asked and count as if they did."""
    renew(model)
    own = _floating(model)
    asked = {n: t for n, t in own.items() if isinstance(t, nn.Parameter)}
    was = {n: t.requires_grad for n, t in asked.items()}
    try:
        for tensor in asked.values():
            tensor.requires_grad_(True)
        with torch.enable_grad():
            output = _flat(model(images))[key]
            gradients = torch.autograd.grad(output.sum(), list(asked.values()), allow_unused=True)
    finally:
        for name, tensor in asked.items():
            tensor.requires_grad_(was[name])
    reached = {n for n, g in zip(asked, gradients, strict=True) if g is not None}
    return reached | (own.keys() - asked.keys())


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b.reshape(a.shape)).abs().max())


def _open(
    a: Sequence[str], b: Sequence[str], tensors: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]
) -> str:
    def some(names: Sequence[str], own: Mapping[str, torch.Tensor]) -> str:
        unique = list(dict.fromkeys(names))
        listed = ", ".join(f"{n} {list(own[n].shape)}" for n in unique[:_SHOWN])
        return (listed or "none") + (f" and {len(unique) - _SHOWN} more" if len(unique) > _SHOWN else "")

    return f"tensors without a partner: {some(a, tensors[0])} in the first model; {some(b, tensors[1])} in the second"


def _about(
    models: Sequence[nn.Module], difference: float, before: float, unused: tuple[Sequence[str], ...]
) -> list[str]:
    """Comment lines: what was run, the proof, and what has no part in it."""
    kinds = " and ".join(f"{type(m).__module__.partition('.')[0]} {type(m).__name__}" for m in models)
    lines = [
        f"Found by running {kinds} side by side.",
        f"Proof: with equal weights the outputs differ by {difference:.1e}, with unrelated ones by {before:.1e}.",
    ]
    for which, names in zip(("first", "second"), unused, strict=True):
        lines += [f"In the {which} alone, without part in the output: {', '.join(names)}"] if names else []
    return lines
