"""Checkpoints -> deltas, exactly as the method defines them (ICML 2023, arXiv 2302.12480).

Per tensor l, with a = standard - pretrained and p = robust - pretrained:

    two-branch:  RWS = p - (<a, p> / ||a||^2) a        and p - a where a = 0 (nothing to project out)
    from-clean:  RWS = robust - standard

Batch-norm running means are plain differences (no gradient ever moved them along a); running variances are
ln(robust / standard), which the patch applies as theta * exp(alpha * delta), positive at every alpha. Dot
products and differences are taken in float64, block by block: memory stays at a few tensors.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import nn
from tqdm import tqdm

from rws_hub import codec, kinship, layers
from rws_hub.codec import Packed
from rws_hub.errors import ExtractionError
from rws_hub.layers import LayerRule, Unit
from rws_hub.names import Layout
from rws_hub.resolve import IDENTITY
from rws_hub.sources import CanonicalWeights
from rws_hub.spec import Op, Sketch, Source, TensorFacts, UnitProfile

# Elements taken to float64 at a time: they fit a processor cache, whatever the size of the tensor.
_BLOCK = 2**16
# A channel whose running variance is below this is dead; there is nothing meaningful to scale.
_DEAD_VARIANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Extracted:
    """Everything measured from the checkpoints, ready to be written."""

    tensors: dict[str, Packed]
    facts: dict[str, TensorFacts]
    profile: tuple[UnitProfile, ...]
    sources: tuple[Source, ...]
    sketch: Sketch
    relative_error: float


@dataclass(frozen=True, slots=True)
class Trio:
    """The checkpoints under one set of canonical names. `pretrained` is None for the from-clean recipe."""

    standard: CanonicalWeights
    robust: CanonicalWeights
    pretrained: CanonicalWeights | None

    def __post_init__(self) -> None:
        reference = self.standard.recognition
        for other in (self.robust, self.pretrained):
            if other is not None:
                _require_same_body(self.standard, other)
        if not reference.body:
            raise ExtractionError("the checkpoints hold nothing but a classification head")

    @property
    def all(self) -> list[CanonicalWeights]:
        """Pretrained (if any), standard, robust."""
        return [w for w in (self.pretrained, self.standard, self.robust) if w is not None]


def extract(
    trio: Trio, rule: LayerRule, bits: int, batchnorm: bool, executed: Sequence[str] | None, progress: bool
) -> Extracted:
    """Measure every layer, choose, and encode the chosen deltas.

    Args:
        trio: the checkpoints.
        rule: which layers to keep (`layers.choose`).
        bits: 2 to 8, or 32.
        batchnorm: whether batch-norm affine parameters and running statistics are part of the signature.
        executed: for a backbone without a table, module names in order of use (`layers.watch`).
        progress: show a progress bar on stderr.

    Raises:
        ExtractionError: a non-finite value, a negative variance, no difference at all, or a bad rule.
    """
    body = trio.standard.recognition.body
    family = trio.standard.recognition.family
    units = layers.units_of(family, body, executed)
    bar: tqdm[NoReturn] = tqdm(total=len(body), desc="measuring", unit="tensor", disable=not progress, leave=False)
    differences = {u.label: _relative_difference(trio, u, bar) for u in units}
    bar.close()
    chosen = layers.choose(rule, units, differences, family != IDENTITY or executed is not None)
    touched = chosen if batchnorm else {n for n in chosen if not is_batchnorm(n, body)}
    if not touched:
        raise ExtractionError("the chosen layers hold nothing but batch norm, and batchnorm='none' leaves it out")
    tensors: dict[str, Packed] = {}
    facts: dict[str, TensorFacts] = {}
    hashes = [hashlib.sha256() for _ in trio.all]
    error = total = 0.0
    for name in tqdm(sorted(touched), desc="extracting", unit="tensor", disable=not progress, leave=False):
        tensors[name], facts[name], size = _encode(trio, name, bits, hashes)
        error, total = error + (facts[name].relative_error * size) ** 2, total + size**2
    if not total:
        raise ExtractionError("the robust and the standard model are equal in the chosen layers: nothing to extract")
    roles = ("pretrained", "standard", "robust")[-len(hashes) :]
    order = [n for n in body if n in touched]
    return Extracted(
        tensors={n: tensors[n] for n in order},
        facts={n: facts[n] for n in order},
        profile=_profile(units, body, differences, touched),
        sources=tuple(Source(r, h.hexdigest()) for r, h in zip(roles, hashes, strict=True)),  # type: ignore[arg-type]
        sketch=kinship.sketch(touched, trio.standard.read),
        relative_error=math.sqrt(error / total),
    )


def _encode(trio: Trio, name: str, bits: int, hashes: Sequence[hashlib._Hash]) -> tuple[Packed, TensorFacts, float]:
    """One delta as stored, what is known about it, and its norm. Adds the sources to their digests."""
    values = [w.read(name) for w in trio.all]
    for digest, value in zip(hashes, values, strict=True):
        hash_tensor(digest, name, value)
    delta, op, norm = delta_of(name, *values[-2:], pretrained=values[0] if trio.pretrained else None)
    del values  # as large as the delta each
    packed = codec.pack(delta, bits)
    relative = codec.relative_error(delta, codec.unpack(packed, bits))
    size = codec.norm(delta)
    projected = trio.pretrained is not None and not is_statistic(name)
    ratio = size / norm if norm else 0.0
    return packed, TensorFacts(op, projected, packed.encoding, packed.granularity, relative, ratio), size


def delta_of(
    name: str, standard: torch.Tensor, robust: torch.Tensor, *, pretrained: torch.Tensor | None = None
) -> tuple[torch.Tensor, Op, float]:
    """The float32 delta of one tensor, how it is applied, and the norm its size is compared with.

    The three tensors have one shape and any floating dtype. For a running variance the norm is sqrt(n), so
    that norm(delta) / norm is the root mean square of the logarithm.

    Raises:
        ExtractionError: a non-finite value or a negative variance.
    """
    if name.endswith("running_var"):
        return _log_ratio(name, standard, robust), "multiply", math.sqrt(standard.numel())
    if is_statistic(name):
        pretrained = None
    along = _projection(standard, robust, pretrained) if pretrained is not None else 0.0
    delta = torch.empty(standard.numel(), dtype=torch.float32)
    square = 0.0
    for i, s, r, t in _blocks(standard, robust, pretrained):
        # p - c a, with a = s - t and p = r - t; without a pretrained model (or where a = 0) it is r - s.
        delta[i : i + len(s)] = ((r - t) - along * (s - t) if along is not None and t is not None else r - s).float()
        square += float(s @ s)
    if not (math.isfinite(square) and bool(torch.isfinite(delta).all())):
        raise ExtractionError(f"{name}: a value is not finite (NaN or infinity) in one of the checkpoints")
    return delta.reshape(standard.shape), "add", math.sqrt(square)


def is_statistic(name: str) -> bool:
    """Whether a tensor is a batch-norm running statistic rather than a parameter."""
    return name.endswith(("running_mean", "running_var"))


def is_batchnorm(name: str, body: Layout) -> bool:
    """Whether a tensor belongs to a batch norm: something beside it is a running variance."""
    return f"{name.rpartition('.')[0]}.running_var" in body


def hash_tensor(digest: hashlib._Hash, name: str, tensor: torch.Tensor) -> None:
    """Add one tensor to a source digest: name, dtype, shape and little-endian values (SPEC, section 7)."""
    digest.update(f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{list(tensor.shape)}\0".encode())
    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def executed_modules(model: object, example_input: torch.Tensor | None, weights: CanonicalWeights) -> list[str] | None:
    """Execution order for backbones without a table, when there is a live model and an example to watch it on."""
    if example_input is None or weights.recognition.family != IDENTITY:
        return None
    if not isinstance(model, nn.Module):
        raise ExtractionError("example_input needs the standard model as a live module, not as a file or state dict")
    return layers.watch(model, example_input, weights.recognition.prefix)


def _projection(standard: torch.Tensor, robust: torch.Tensor, pretrained: torch.Tensor) -> float | None:
    """<a, p> / ||a||^2 in float64, or None where a = 0."""
    ap = aa = 0.0
    for _, s, r, t in _blocks(standard, robust, pretrained):
        assert t is not None
        a = s - t
        ap += float(a @ (r - t))
        aa += float(a @ a)
    return ap / aa if aa else None


def _log_ratio(name: str, standard: torch.Tensor, robust: torch.Tensor) -> torch.Tensor:
    s, r = standard.double(), robust.double()
    if not bool((torch.isfinite(s) & torch.isfinite(r) & (s >= 0) & (r >= 0)).all()):
        raise ExtractionError(f"{name}: a running variance is negative or not finite")
    dead = (s < _DEAD_VARIANCE) | (r < _DEAD_VARIANCE)
    ratio = torch.where(dead, torch.ones_like(s), r / torch.where(dead, torch.ones_like(s), s))
    return ratio.log().float()


_Block = tuple[int, torch.Tensor, torch.Tensor, torch.Tensor | None]


def _blocks(standard: torch.Tensor, robust: torch.Tensor, pretrained: torch.Tensor | None) -> Iterator[_Block]:
    """Offset and float64 blocks of the flattened tensors."""
    s, r = standard.reshape(-1), robust.reshape(-1)
    t = None if pretrained is None else pretrained.reshape(-1)
    for i in range(0, len(s), _BLOCK):
        j = i + _BLOCK
        yield i, s[i:j].double(), r[i:j].double(), None if t is None else t[i:j].double()


def _relative_difference(trio: Trio, unit: Unit, bar: tqdm[NoReturn]) -> float:
    """||robust - standard|| / ||standard|| over a layer's matrices and kernels (its vectors, if it has no others)."""
    body = trio.standard.recognition.body
    wide = [n for n in unit.names if sum(d > 1 for d in body[n]) > 1]
    plain = [n for n in unit.names if not is_statistic(n)]
    square = difference = 0.0
    for name in wide or plain:
        for _, s, r, _ in _blocks(trio.standard.read(name), trio.robust.read(name), None):
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
            relative_difference=differences[u.label],
            touched=any(n in touched for n in u.names),
        )
        for u in units
    )


def _require_same_body(standard: CanonicalWeights, other: CanonicalWeights) -> None:
    ours, theirs = standard.recognition, other.recognition
    if ours.family != theirs.family:
        raise ExtractionError(f"{standard.label} is of family {ours.family!r}, {other.label} of {theirs.family!r}")
    for name in sorted({*ours.body, *theirs.body}):
        if name not in theirs.body or name not in ours.body:
            lacking = other.label if name in ours.body else standard.label
            raise ExtractionError(f"{lacking} has no tensor {name}; the checkpoints must be of one architecture")
        if ours.body[name] != theirs.body[name]:
            raise ExtractionError(
                f"{name}: {standard.label} has shape {list(ours.body[name])}, {other.label} {list(theirs.body[name])}"
            )
