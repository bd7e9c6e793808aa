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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from tqdm import tqdm

from rws_hub import codec, kinship, layers
from rws_hub.cells import Shape
from rws_hub.codec import Encoded, Packed
from rws_hub.errors import ExtractionError
from rws_hub.layers import LayerRule, Unit
from rws_hub.names import Layout
from rws_hub.rate import Grid, Sampler, Target, choose
from rws_hub.sources import CanonicalWeights
from rws_hub.spec import Op, Sketch, Source, TensorFacts, UnitProfile
from rws_hub.spelling import IDENTITY

# Elements read and taken to float64 at a time, whatever the size of the tensor.
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
    grid: Grid | None


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
    trio: Trio, rule: LayerRule, target: Target | None, batchnorm: bool, executed: Sequence[str] | None, progress: bool
) -> Extracted:
    """Measure every layer, choose, and encode the chosen deltas.

    Args:
        trio: the checkpoints.
        rule: which layers to keep (`layers.choose`).
        target: what the quantization step is chosen for; None keeps every delta in float32.
        batchnorm: whether batch-norm affine parameters and running statistics are part of the signature.
        executed: where no table states the order, module names in order of use (`layers.watch`).
        progress: show a progress bar on stderr.

    Raises:
        ExtractionError: a non-finite value, a negative variance, no difference at all, or a bad rule.
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
    tensors: dict[str, Packed] = {}
    facts: dict[str, TensorFacts] = {}
    hashes = [hashlib.sha256() for _ in trio.all]
    norms: dict[str, float] = {}
    errors: dict[str, float] = {}
    along = {n: _projection(trio, n) if trio.pretrained and not is_statistic(n) else None for n in sorted(touched)}
    grid = None if target is None else _grid(trio, along, target)
    for name in tqdm(sorted(touched), desc="extracting", unit="tensor", disable=not progress, leave=False):
        encoded, facts[name] = _encode(trio, name, along[name], grid, hashes)
        tensors[name], norms[name], errors[name] = encoded.packed, encoded.norm, encoded.relative_error
    if not any(norms.values()):
        raise ExtractionError("the robust and the standard model are equal in the chosen layers: nothing to extract")
    roles = ("pretrained", "standard", "robust")[-len(hashes) :]
    order = [n for n in body if n in touched]
    return Extracted(
        tensors={n: tensors[n] for n in order},
        facts={n: facts[n] for n in order},
        profile=_profile(units, body, differences, touched),
        sources=tuple(Source(r, h.hexdigest()) for r, h in zip(roles, hashes, strict=True)),  # type: ignore[arg-type]
        sketch=kinship.sketch({n: body[n] for n in order}, trio.standard.rows),
        relative_error=_measured(_overall_error(facts, norms, errors)),
        grid=grid,
    )


def _grid(trio: Trio, along: Mapping[str, float | None], target: Target) -> Grid:
    """The quantizers of all wide tensors, chosen for them together."""
    body = trio.standard.recognition.body
    sampler = Sampler()
    for name in along:
        if codec.is_wide(body[name]):
            sampler.add(body[name], _differences(trio, name, along[name]))
    return choose(sampler.sample(), target)


def _encode(
    trio: Trio, name: str, along: float | None, grid: Grid | None, hashes: Sequence[hashlib._Hash]
) -> tuple[Encoded, TensorFacts]:
    """One delta as stored, and what is known about it. Adds the sources to their digests."""
    shape = trio.standard.recognition.body[name]
    for digest, weights in zip(hashes, trio.all, strict=True):
        hash_tensor(digest, name, shape, weights.rows)
    op: Op = "multiply" if name.endswith("running_var") else "add"
    if op == "multiply":
        # Taken against sqrt(n), the norm of the delta is the root mean square of the logarithm.
        encoded = codec.encode_plain(shape, [_log_ratio(trio, name)], half=grid is not None)
        norm = math.sqrt(math.prod(shape))
    else:
        blocks = _differences(trio, name, along)
        if grid is not None and codec.is_wide(shape):
            encoded = codec.encode_wide(shape, blocks, grid)
        else:
            encoded = codec.encode_plain(shape, blocks, half=grid is not None)
        norm = math.sqrt(sum(float(s @ s) for s, _, _ in _blocks(trio, name, pretrained=False)))
    if not math.isfinite(encoded.norm):
        raise ExtractionError(f"{name}: a value is not finite (NaN or infinity) in one of the checkpoints")
    packed, ratio = encoded.packed, encoded.norm / norm if norm else 0.0
    # Of hundreds of tensors nobody needs more digits, and each takes a byte.
    digits = 6 if grid is None else 3
    error, ratio = _measured(encoded.relative_error, digits), _measured(ratio, digits)
    return encoded, TensorFacts(op, along is not None, packed.encoding, packed.granularity, error, ratio)


def _differences(trio: Trio, name: str, along: float | None) -> Iterator[torch.Tensor]:
    """Float32 row blocks of p - c a, with a = s - t and p = r - t, or of r - s without a projection (c is None)."""
    length = math.prod(trio.standard.recognition.body[name][1:])
    for s, r, t in _blocks(trio, name, pretrained=along is not None):
        difference = r - s if along is None or t is None else (r - t) - along * (s - t)
        yield difference.float().reshape(-1, length)


def _overall_error(facts: Mapping[str, TensorFacts], norms: Mapping[str, float], errors: Mapping[str, float]) -> float:
    """The error of all quantized tensors together; half-precision vectors, large and exact, would only hide it."""
    coded = [n for n, f in facts.items() if f.encoding == "symbols"] or list(facts)
    total = sum(norms[n] ** 2 for n in coded)
    return math.sqrt(sum((errors[n] * norms[n]) ** 2 for n in coded) / total) if total else 0.0


def _measured(value: float, digits: int = 6) -> float:
    """So many significant digits: what lies beyond six depends on the order of sums, and so on the machine."""
    return float(f"{value:.{digits}g}")


def is_statistic(name: str) -> bool:
    """Whether a tensor is a batch-norm running statistic rather than a parameter."""
    return name.endswith(("running_mean", "running_var"))


def is_batchnorm(name: str, body: Layout) -> bool:
    """Whether a tensor belongs to a batch norm: something beside it is a running variance."""
    return f"{name.rpartition('.')[0]}.running_var" in body


def hash_tensor(digest: hashlib._Hash, name: str, shape: Shape, rows: Callable[[str, int, int], torch.Tensor]) -> None:
    """Add one tensor to a source digest: name, dtype, shape and little-endian values (SPEC, section 7)."""
    for start, stop in _row_blocks(shape):
        block = rows(name, start, stop)
        if start == 0:
            digest.update(f"{name}\0{str(block.dtype).removeprefix('torch.')}\0{list(shape)}\0".encode())
        digest.update(block.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _projection(trio: Trio, name: str) -> float | None:
    """<a, p> / ||a||^2 in float64, or None where a = 0."""
    ap = aa = 0.0
    for s, r, t in _blocks(trio, name, pretrained=True):
        assert t is not None
        a = s - t
        ap += float(a @ (r - t))
        aa += float(a @ a)
    return ap / aa if aa else None


def _log_ratio(trio: Trio, name: str) -> torch.Tensor:
    count = trio.standard.recognition.body[name][0]
    s, r = trio.standard.rows(name, 0, count).double(), trio.robust.rows(name, 0, count).double()
    if not bool((torch.isfinite(s) & torch.isfinite(r) & (s >= 0) & (r >= 0)).all()):
        raise ExtractionError(f"{name}: a running variance is negative or not finite")
    dead = (s < _DEAD_VARIANCE) | (r < _DEAD_VARIANCE)
    ratio = torch.where(dead, torch.ones_like(s), r / torch.where(dead, torch.ones_like(s), s))
    return ratio.log().float()


_Block = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def _blocks(trio: Trio, name: str, pretrained: bool) -> Iterator[_Block]:
    """Flat float64 row blocks of standard, robust and (if asked for) pretrained."""
    for start, stop in _row_blocks(trio.standard.recognition.body[name]):
        sources = [trio.standard, trio.robust, *([trio.pretrained] if pretrained and trio.pretrained else [])]
        s, r, *t = (w.rows(name, start, stop).reshape(-1).double() for w in sources)
        yield s, r, t[0] if t else None


def _row_blocks(shape: Shape) -> Iterator[tuple[int, int]]:
    """Half-open runs of rows of about `_BLOCK` elements, at least one row."""
    rows = shape[0] if shape else 1
    step = max(1, _BLOCK // math.prod(shape[1:]))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _relative_difference(trio: Trio, unit: Unit, bar: tqdm[NoReturn]) -> float:
    """||robust - standard|| / ||standard|| over a layer's matrices and kernels (its vectors, if it has no others)."""
    body = trio.standard.recognition.body
    wide = [n for n in unit.names if sum(d > 1 for d in body[n]) > 1]
    plain = [n for n in unit.names if not is_statistic(n)]
    square = difference = 0.0
    for name in wide or plain:
        for s, r, _ in _blocks(trio, name, pretrained=False):
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
            relative_difference=_measured(differences[u.label]),
            touched=any(n in touched for n in u.names),
        )
        for u in units
    )


def _require_same_body(standard: CanonicalWeights, other: CanonicalWeights) -> None:
    ours, theirs = standard.recognition, other.recognition
    differing = f"{standard.label} is of family {ours.family!r}, {other.label} of {theirs.family!r}"
    if ours.family != theirs.family and IDENTITY not in (ours.family, theirs.family):
        raise ExtractionError(differing)
    for name in sorted(ours.body.keys() ^ theirs.body.keys()):
        lacking = other if name in ours.body else standard
        raise ExtractionError(f"{lacking.label} has no tensor {name}; the checkpoints must be of one architecture")
    for name, shape in ours.body.items():
        if shape != theirs.body[name]:
            raise ExtractionError(
                f"{name}: {standard.label} has shape {list(shape)}, {other.label} {list(theirs.body[name])}"
            )
    if ours.family != theirs.family:
        raise ExtractionError(differing)
