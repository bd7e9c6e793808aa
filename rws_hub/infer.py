"""A name table for two models of one architecture, found by running them side by side and proven by equal outputs.

`lockstep` guesses the pairs. The proof does not know how: new random weights in A, copied through the pairs into B,
must give equal outputs on new random input in every probe of `proof`, and every pair must reach the output that is
compared. What cannot be proven is an error, never a table.
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
from rws_hub.lockstep import OutOfStepError, pair_up
from rws_hub.pairing import Pair
from rws_hub.proof import Case, Proof, prove, told
from rws_hub.report import fold_pairs
from rws_hub.spelling import same_shape
from rws_hub.symmetry import exchangeable
from rws_hub.trials import floating, influence, outputs, picture, refill

# A tensor whose influence on the output is below so many tolerances could be swapped with another one unnoticed.
_SEEN = 10
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Inferred:
    """A proven map between two models.

    Attributes:
        text: a name table (docs/NAMES.md) with one column for each.
        pairs: the same, tensor by tensor.
        difference: largest difference of the two outputs with the weights of A in both, of usual size, float64.
        before: the same with unrelated weights: what a wrong map looks like.
        unproven: tensors of B on which the output hardly hangs, such as the key bias of an attention: they are
            paired by the operation that they take part in, and no output can tell.
        exchangeable: pairs of tensors that could change places in the function, such as those of two equal branches
            that are added up: they are paired by order, and the other way would be as good. Names of B, or of A
            where B holds several tensors of A in one.
    """

    text: str
    pairs: tuple[Pair, ...]
    difference: float
    before: float
    unproven: tuple[str, ...]
    exchangeable: tuple[tuple[str, str], ...]


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
        TypeError: something else than two modules and a tensor.

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
    for what, kind in ((a, nn.Module), (b, nn.Module), (example, torch.Tensor)):
        if not isinstance(what, kind):
            raise TypeError(
                f"expected two modules and a tensor as an example of their input, got {type(what).__name__}"
            )
    try:
        models = [copy.deepcopy(m).to("cpu", torch.float64).eval() for m in (a, b)]
    except Exception as error:  # whatever a foreign model raises
        raise InferenceError(f"a model cannot be copied: {error}") from error
    problem: InferenceError | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        quiet = None if progress else True  # None: where stderr is a terminal, else its line would end in the error
        bar: tqdm[NoReturn] = tqdm(desc="running side by side", unit="pass", disable=quiet, leave=False)
        with bar:
            for use_roles in (True, False):  # names are only a hint: without it, if it leads astray
                try:
                    return _attempt(models, example, columns, seed, use_roles, bar)
                except InferenceError as error:
                    problem = problem or error
                    if isinstance(error, OutOfStepError):
                        break
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
    tensors = (floating(a), floating(b))
    for model, own in zip(models, tensors, strict=True):
        if not own:
            raise InferenceError(f"{type(model).__name__} has no floating tensors: there is nothing to name")
    for number, own in enumerate(tensors):
        refill(own, seed + number)
    images = picture(example, seed)
    first = outputs(a, images), outputs(b, images)
    keys = [(i, j) for i, x in enumerate(first[0]) for j, y in enumerate(first[1]) if same_shape(x.shape, y.shape)]
    if not keys:
        shapes = [[list(x.shape) for x in outputs] for outputs in first]
        raise InferenceError(f"no output of the two models has the same shape: {shapes[0]} and {shapes[1]}")
    reaches = {key: [influence(m, images, k) for m, k in zip(models, key, strict=True)] for key in keys}
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
            proof = prove(Case((a, b), tensors, kept, example, key), seed)
        except InferenceError as error:
            problem = error
            continue
        unused = tuple(
            sorted(set(own) - {getattr(p, side) for p in kept}) for own, side in zip(tensors, "ab", strict=True)
        )
        # Of a tensor that one model holds in parts, the parts are asked.
        asked = {p: reach[1][p.b] if p.b_part == (0, 1) else reach[0][p.a] for p in kept}
        unproven = tuple(p.b for p in kept if asked[p] < _SEEN * proof.tolerance)
        side = int(all(p.b_part == (0, 1) for p in kept))
        swaps = exchangeable((a, b)[side], images, key[side], {(p.a, p.b)[side] for p in kept}, seed, bar.update)
        names = Names(*({n: tuple(t.shape) for n, t in own.items()} for own in tensors))
        text = table_text(kept, names, columns, _about(models, proof, unused, unproven, swaps))
        return Inferred(text, tuple(kept), proof.difference, proof.before, unproven, swaps)
    raise problem


def _open(
    a: Sequence[str], b: Sequence[str], tensors: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]
) -> str:
    def some(names: Sequence[str], own: Mapping[str, torch.Tensor]) -> str:
        unique = list(dict.fromkeys(names))
        listed = ", ".join(f"{n} {list(own[n].shape)}" for n in unique[:_SHOWN])
        return (listed or "none") + (f" and {len(unique) - _SHOWN} more" if len(unique) > _SHOWN else "")

    return f"tensors without a partner: {some(a, tensors[0])} in the first model; {some(b, tensors[1])} in the second"


def _about(
    models: Sequence[nn.Module],
    proof: Proof,
    unused: tuple[Sequence[str], ...],
    unproven: Sequence[str],
    exchangeable: Sequence[tuple[str, str]],
) -> list[str]:
    """Comment lines: what was run, the proof, and what has no part in it."""
    kinds = " and ".join(f"{type(m).__module__.partition('.')[0]} {type(m).__name__}" for m in models)
    lines = [f"Found by running {kinds} side by side.", *told(proof)]
    for which, names in zip(("first", "second"), unused, strict=True):
        lines += [f"In the {which} alone, without part in the output: {', '.join(names)}"] if names else []
    if unproven:
        lines.append(f"Paired by their place alone, since the output hardly hangs on them: {', '.join(unproven)}")
    if exchangeable:
        swaps = ", ".join(f"{a} and {b}" for a, b in fold_pairs(exchangeable))
        lines.append(f"Paired by order alone, since all of these could change places in the same function: {swaps}")
    return lines
