"""Checkpoints -> deltas, exactly as the method defines them (ICML 2023, arXiv 2302.12480).

Per tensor l, with a = standard - pretrained and p = robust - pretrained:

    two-branch:  RWS = p - (<a, p> / ||a||^2) a        and p - a where a = 0 (nothing to project out)
    from-clean:  RWS = robust - standard

Batch-norm running means are plain differences (no gradient ever moved them along a); running variances are
ln(robust / standard), which the patch applies as theta * exp(alpha * delta), positive at every alpha. Dot
products and differences are taken in float64, block by block: memory stays at a few tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from tqdm import tqdm

from rws_hub import codec, layers
from rws_hub.errors import ExtractionError
from rws_hub.layers import LayerRule, Unit
from rws_hub.names import Layout
from rws_hub.rate import Sample, Sampler
from rws_hub.spec import UnitProfile
from rws_hub.trio import Block, Trio, blocks, is_batchnorm, is_statistic


@dataclass(frozen=True, slots=True)
class Measured:
    """What was chosen, and what it was chosen by.

    Attributes:
        order: the touched tensors, in the order of the backbone.
        along: how much of the clean direction each of them has (`_projection`), by sorted name.
        profile: layer by layer.
        sample: of their deltas, if they are to be quantized.
    """

    order: tuple[str, ...]
    along: Mapping[str, float | None]
    profile: tuple[UnitProfile, ...]
    sample: Sample | None


def measure(
    trio: Trio, rule: LayerRule, coded: bool, batchnorm: bool, executed: Sequence[str] | None, progress: bool
) -> Measured:
    """Measure every layer, and choose.

    Args:
        trio: the checkpoints.
        rule: which layers to keep (`layers.choose`).
        coded: whether deltas are to be quantized, so that a sample of them is wanted.
        batchnorm: whether batch-norm affine parameters and running statistics are part of the signature.
        executed: where no table states the order, module names in order of use (`layers.watch`).
        progress: show a progress bar on stderr.

    Raises:
        ExtractionError: a value that is not finite, or a bad rule.
    """
    body = trio.standard.recognition.body
    table = trio.standard.recognition.table
    units = layers.units_of(table, body, executed)
    bar: tqdm[NoReturn] = tqdm(total=len(body), desc="measuring", unit="tensor", disable=not progress, leave=False)
    differences = {u.label: _relative_difference(trio, u, bar) for u in units}
    bar.close()
    chosen = layers.choose(rule, units, differences, executed is not None or layers.states_order(table, body))
    touched = chosen if batchnorm else {n for n in chosen if not is_batchnorm(n, body)}
    if not touched:
        raise ExtractionError("the chosen layers hold nothing but batch norm, and batchnorm='none' leaves it out")
    along = {n: _projection(trio, n) if trio.pretrained and not is_statistic(n) else None for n in sorted(touched)}
    return Measured(
        order=tuple(n for n in body if n in touched),
        along=along,
        profile=_profile(units, body, differences, touched),
        sample=_sample(trio, along) if coded else None,
    )


def _sample(trio: Trio, along: Mapping[str, float | None]) -> Sample:
    body = trio.standard.recognition.body
    wide = [n for n in along if codec.is_wide(body[n])]
    sampler = Sampler(len(wide))
    for name in wide:
        found = blocks(trio, name, pretrained=along[name] is not None)
        sampler.add(name, body[name], (difference(block, along[name]) for block in found))
    return sampler.sample()


def difference(block: Block, along: float | None) -> torch.Tensor:
    """Float32 [n]: p - c a, with a = s - t and p = r - t, or r - s without a projection (c is None)."""
    s, r, t = block
    return (r - s if along is None or t is None else (r - t) - along * (s - t)).float()


def rounded(value: float, digits: int = 6) -> float:
    """So many significant digits: what lies beyond six depends on the order of sums, and so on the machine."""
    return float(f"{value:.{digits}g}")


def _projection(trio: Trio, name: str) -> float | None:
    """<a, p> / ||a||^2 in float64, or None where a = 0."""
    ap = aa = 0.0
    for s, r, t in blocks(trio, name, pretrained=True):
        assert t is not None
        a = s - t
        ap += float(a @ (r - t))
        aa += float(a @ a)
    return ap / aa if aa else None


def _relative_difference(trio: Trio, unit: Unit, bar: tqdm[NoReturn]) -> float:
    """||robust - standard|| / ||standard|| over a layer's matrices and kernels (its vectors, if it has no others)."""
    body = trio.standard.recognition.body
    wide = [n for n in unit.names if sum(d > 1 for d in body[n]) > 1]
    plain = [n for n in unit.names if not is_statistic(n)]
    square = difference = 0.0
    for name in wide or plain:
        for s, r, _ in blocks(trio, name, pretrained=False):
            square += float(s @ s)
            difference += float((r - s) @ (r - s))
        if not (math.isfinite(square) and math.isfinite(difference)):
            raise ExtractionError(f"{name}: a value is not finite (NaN or infinity) in one of the checkpoints")
    bar.update(len(unit.names))
    return math.sqrt(difference / square) if square else 0.0


def _profile(
    units: Sequence[Unit], body: Layout, differences: dict[str, float], touched: set[str]
) -> tuple[UnitProfile, ...]:
    return tuple(
        UnitProfile(
            unit=u.label,
            parameters=sum(math.prod(body[n]) for n in u.names),
            relative_difference=rounded(differences[u.label]),
            touched=any(n in touched for n in u.names),
        )
        for u in units
    )
