"""Pairing the tensors of two models by running them side by side.

Model A runs once, and every operation where its own tensors meet activations is noted with a fingerprint of those
activations that does not depend on their layout. Then B runs: just before an operation uses a tensor that has no
partner yet, the one that met the same activations in A is copied into it, so that B's next activations are A's again.
Names, module structure and order of definition play no part; they only break ties. What comes out is a guess, which
`infer` proves or throws away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from rws_hub.errors import InferenceError
from rws_hub.pairing import Pair, Pairing

# How far two fingerprints of the same activations may lie apart: operations in another order round otherwise.
_TOLERANCE = 1e-5


# The share of B's tensors that may be paired by shape and order alone: operations that are one in A and many in B.
_GUESSES = 0.5


class OutOfStepError(InferenceError):
    """The activations of the two models have nothing in common from some tensor on."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """An operation: the own tensors in it, a fingerprint of the activations, and what is neither of them."""

    names: tuple[str, ...]
    print: tuple[float, ...]
    call: str

    def like(self, other: tuple[float, ...]) -> bool:
        """Whether these are the activations of another fingerprint, but for rounding."""
        pairs = zip(self.print, other, strict=False)
        return len(self.print) == len(other) and all(abs(x - y) <= _TOLERANCE * max(1.0, abs(x)) for x, y in pairs)


Meet = Callable[[tuple[str, ...], list[torch.Tensor], str], None]


class Watch(TorchFunctionMode):
    """Calls `meet(names, activations, call)` before every operation in which tensors of a model meet activations.

    Tensors made from a model's own alone (views, gathered tables) stand for what they were made from.
    """

    def __init__(self, owned: Mapping[str, torch.Tensor], meet: Meet) -> None:
        super().__init__()
        self._sources: dict[int, tuple[str, ...]] = {id(t): (n,) for n, t in owned.items()}
        self._live: set[int] = set()
        self._kept: list[torch.Tensor] = []  # an id must not be given twice
        self._meet = meet

    def feed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Mark the input of the model."""
        self._kept.append(tensor)
        self._live.add(id(tensor))
        return tensor

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note what meets, run the operation, and trace where its result comes from."""
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        active = [t for t in given if id(t) in self._live]
        names = tuple(dict.fromkeys(n for t in given for n in self._sources.get(id(t), ())))
        if active and names:
            plain = [a for a in (*args, *kwargs.values()) if isinstance(a, (int, float, str, tuple))]
            self._meet(names, active, f"{getattr(func, '__name__', func)}{plain}")
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._kept.append(tensor)
            if active:
                self._live.add(id(tensor))
                self._sources.pop(id(tensor), None)
            elif names and id(tensor) not in self._live:
                self._sources[id(tensor)] = names
        return result


class _Resizing(Watch):
    """Notes whether tensors made from a model's own alone are resized."""

    found = False

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Look at interpolations, and run everything."""
        if func is nn.functional.interpolate and any(id(t) in self._sources for t in _tensors((args, kwargs))):
            self.found = True
        return super().__torch_function__(func, types, args, kwargs)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


def _fingerprint(activations: Sequence[torch.Tensor]) -> tuple[float, ...]:
    """Count, mean, second and third moment and maximum of each, in the order of their means."""
    prints: list[tuple[float, ...]] = []
    for tensor in activations:
        x = tensor.detach().double().flatten() if tensor.is_floating_point() else tensor.detach().flatten().double()
        if x.numel():
            prints.append(
                (float(x.numel()), float(x.mean()), float((x * x).mean()), float((x**3).mean()), float(x.max()))
            )
    return tuple(v for p in sorted(prints) for v in p)


def renew(model: nn.Module) -> None:
    """Let a model in evaluation forget what it made of older weights: some do when the mode changes."""
    model.train().eval()


def meetings(model: nn.Module, tensors: Mapping[str, torch.Tensor], example: torch.Tensor) -> list[Meeting]:
    """Every operation in which tensors of a model meet activations, in order of execution."""
    found: list[Meeting] = []

    def note(names: tuple[str, ...], activations: list[torch.Tensor], call: str) -> None:
        found.append(Meeting(names, _fingerprint(activations), call))

    renew(model)
    with torch.no_grad(), Watch(tensors, note) as watch:
        model(watch.feed(example))
    return found


def resizes(model: nn.Module, tensors: Mapping[str, torch.Tensor], example: torch.Tensor) -> bool:
    """Whether a model resizes tensors of its own, such as position embeddings, to fit this input."""
    renew(model)
    watch = _Resizing(tensors, lambda names, activations, call: None)
    with torch.no_grad(), watch:
        model(watch.feed(example))
    return watch.found


def pair_up(
    a: nn.Module,
    b: nn.Module,
    tensors: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]],
    example: torch.Tensor,
    use_roles: bool,
    tick: Callable[[], object],
    given: Sequence[Pair] = (),
) -> tuple[list[Pair], list[str], list[str]]:
    """Pair the tensors of two models; B's are overwritten.

    Args:
        a: the first model, in float64.
        b: the second.
        tensors: the tensors of each, by name.
        example: an input of both, float64.
        use_roles: let the words query, key and value in names break ties.
        tick: called after every pass over B.
        given: pairs to begin with.

    Returns:
        The pairs, and the names of A and of B that were used and are left over.

    Raises:
        OutOfStepError: too many tensors of B never met what one of A met.
    """
    met_in_a = meetings(a, tensors[0], example)
    first_use = list(dict.fromkeys(n for m in met_in_a for n in m.names))
    pairing = Pairing(tensors[0], tensors[1], [], use_roles)
    pairing.take(given)
    used: dict[str, None] = {}
    guessed: list[str] = []

    def meet(names: tuple[str, ...], activations: list[torch.Tensor], call: str) -> None:
        used.update(dict.fromkeys(names))
        wanted = [n for n in names if pairing.is_open(n)]
        if not wanted:
            return
        here = _fingerprint(activations)
        alike = sorted((m for m in met_in_a if m.like(here)), key=lambda m: m.call != call)
        met = [n for m in alike for n in m.names]
        for name in wanted:
            pairing.take(pairing.propose(name, [n for n in dict.fromkeys(met) if pairing.left(n)]))

    while True:
        before = len(pairing.pairs)
        renew(b)
        with torch.no_grad(), Watch(tensors[1], meet) as watch:
            b(watch.feed(example))
        tick()
        if len(pairing.pairs) > before:
            continue
        # Nothing met its like. The first open tensor takes the first open one of its shape and last word.
        openings = [n for n in used if pairing.is_open(n)]
        rest = [n for n in first_use if pairing.left(n)]
        guess = next((g for n in openings if (g := pairing.propose(n, rest))), [])
        if not guess:
            break
        guessed.append(guess[0].b)
        if len(guessed) > _GUESSES * len(tensors[1]) + 1:
            raise OutOfStepError(
                f"the two run apart at {guessed[0]} of the second model: before it every tensor met the same "
                "activations in both, and after it hardly any. Look for another activation, norm epsilon or order"
            )
        pairing.take(guess)
    left_a = [n for n in first_use if pairing.left(n)]
    return pairing.pairs, left_a, [n for n in used if pairing.is_open(n)]
