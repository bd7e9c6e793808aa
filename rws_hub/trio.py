"""The two or three checkpoints of one extraction under one set of names, read side by side, block by block."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from rws_hub.cells import Shape
from rws_hub.errors import ExtractionError
from rws_hub.names import Layout
from rws_hub.sources import CanonicalWeights
from rws_hub.spelling import IDENTITY

# Elements read and taken to float64 at a time, whatever the size of the tensor.
_BLOCK = 2**16

# Standard, robust, and pretrained if there is one and it was asked for.
Block = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


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


def blocks(trio: Trio, name: str, pretrained: bool, hashes: Sequence[hashlib._Hash] = ()) -> Iterator[Block]:
    """One tensor as flat float64 blocks of rows, each read once.

    Args:
        trio: the checkpoints.
        name: canonical, of the tensor.
        pretrained: whether the third of a block is wanted.
        hashes: if given, one for each of `trio.all`, to which the tensor is added (`hash_tensor`).
    """
    shape = trio.standard.recognition.body[name]
    sources = [w for w in trio.all if pretrained or hashes or w is not trio.pretrained]
    for start, stop in _row_blocks(shape):
        read = [w.rows(name, start, stop) for w in sources]
        for digest, block in zip(hashes, read, strict=False):
            _hash_block(digest, name, shape, start, block)
        *t, s, r = (x.reshape(-1).double() for x in (read if pretrained else read[-2:]))
        yield s, r, t[0] if t else None


def is_statistic(name: str) -> bool:
    """Whether a tensor is a batch-norm running statistic rather than a parameter."""
    return name.endswith(("running_mean", "running_var"))


def is_batchnorm(name: str, body: Layout) -> bool:
    """Whether a tensor belongs to a batch norm: something beside it is a running variance."""
    return f"{name.rpartition('.')[0]}.running_var" in body


def hash_tensor(digest: hashlib._Hash, name: str, shape: Shape, rows: Callable[[str, int, int], torch.Tensor]) -> None:
    """Add one tensor to a source digest: name, dtype, shape and little-endian values (SPEC, section 7)."""
    for start, stop in _row_blocks(shape):
        _hash_block(digest, name, shape, start, rows(name, start, stop))


def digest_of(layout: Layout, rows: Callable[[str, int, int], torch.Tensor]) -> str:
    """The digest of a source, of which these are the touched tensors."""
    digest = hashlib.sha256()
    for name, shape in sorted(layout.items()):
        hash_tensor(digest, name, shape, rows)
    return digest.hexdigest()


def _hash_block(digest: hashlib._Hash, name: str, shape: Shape, start: int, block: torch.Tensor) -> None:
    if start == 0:
        digest.update(f"{name}\0{str(block.dtype).removeprefix('torch.')}\0{list(shape)}\0".encode())
    digest.update(block.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _row_blocks(shape: Shape) -> Iterator[tuple[int, int]]:
    """Half-open runs of rows of about `_BLOCK` elements, at least one row."""
    rows = shape[0] if shape else 1
    step = max(1, _BLOCK // math.prod(shape[1:]))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


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
