"""Chosen deltas -> what is stored of them, and what is stated about them: each is read once, and let go."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tqdm import tqdm

from rws_hub import codec, kinship
from rws_hub.codec import Encoded, Packed
from rws_hub.errors import ExtractionError
from rws_hub.measuring import Measured, difference, rounded
from rws_hub.rate import Grid
from rws_hub.spec import CODED, Op, Sketch, Source, TensorFacts
from rws_hub.trio import Trio, blocks, hash_tensor

# A channel whose running variance is below this is dead; there is nothing meaningful to scale.
_DEAD_VARIANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a config states about the deltas of a signature."""

    facts: dict[str, TensorFacts]
    sources: tuple[Source, ...]
    sketch: Sketch
    relative_error: float


class Encoder:
    """Encodes the chosen deltas one after the other, and keeps what is known about them but not the deltas."""

    def __init__(self, trio: Trio, measured: Measured, grid: Grid | None) -> None:
        """`grid` is the quantizer of all wide tensors; None keeps every delta in float32."""
        self._trio, self._measured, self._grid = trio, measured, grid
        self._hashes = [hashlib.sha256() for _ in trio.all]
        self._facts: dict[str, TensorFacts] = {}
        self._norms: dict[str, float] = {}
        self._errors: dict[str, float] = {}

    def run(self, progress: bool) -> Iterator[tuple[str, Packed]]:
        """Every delta as stored, by sorted name.

        Args:
            progress: show a progress bar on stderr.

        Raises:
            ExtractionError: a value that is not finite, a negative variance, or no difference at all.
        """
        along = self._measured.along
        for name in tqdm(along, desc="extracting", unit="tensor", disable=not progress, leave=False):
            encoded, self._facts[name] = self._encode(name, along[name])
            self._norms[name], self._errors[name] = encoded.norm, encoded.relative_error
            yield name, encoded.packed
        if not any(self._norms.values()):
            raise ExtractionError(
                "the robust and the standard model are equal in the chosen layers: nothing to extract"
            )

    def extracted(self) -> Extracted:
        """What there is to state, after `run`."""
        body, order = self._trio.standard.recognition.body, self._measured.order
        roles = ("pretrained", "standard", "robust")[-len(self._hashes) :]
        return Extracted(
            facts={n: self._facts[n] for n in order},
            sources=tuple(Source(r, h.hexdigest()) for r, h in zip(roles, self._hashes, strict=True)),  # type: ignore[arg-type]
            sketch=kinship.sketch({n: body[n] for n in order}, self._trio.standard.rows),
            relative_error=rounded(self._overall_error()),
        )

    def _encode(self, name: str, along: float | None) -> tuple[Encoded, TensorFacts]:
        """One delta as stored, and what is known about it. Adds the sources to their digests."""
        shape, half = self._trio.standard.recognition.body[name], self._grid is not None
        op: Op = "multiply" if name.endswith("running_var") else "add"
        if op == "multiply":
            for digest, weights in zip(self._hashes, self._trio.all, strict=True):
                hash_tensor(digest, name, shape, weights.rows)
            # Taken against sqrt(n), the norm of the delta is the root mean square of the logarithm.
            encoded = codec.encode_plain(shape, [_log_ratio(self._trio, name)], half)
            square = float(math.prod(shape))
        else:
            square, length = 0.0, math.prod(shape[1:])

            def deltas() -> Iterator[torch.Tensor]:
                nonlocal square
                for block in blocks(self._trio, name, along is not None, self._hashes):
                    square += float(block[0] @ block[0])
                    yield difference(block, along).reshape(-1, length)

            if self._grid is not None and name in self._grid.factored:
                encoded = codec.encode_factors(name, shape, deltas(), self._grid)
            elif self._grid is not None and codec.is_wide(shape):
                encoded = codec.encode_wide(shape, deltas(), self._grid)
            else:
                encoded = codec.encode_plain(shape, deltas(), half)
        if not math.isfinite(encoded.norm):
            raise ExtractionError(f"{name}: a value is not finite (NaN or infinity) in one of the checkpoints")
        packed, ratio = encoded.packed, encoded.norm / math.sqrt(square) if square else 0.0
        # Of hundreds of tensors nobody needs more digits, and each takes a byte.
        digits = 3 if half else 6
        error, ratio = rounded(encoded.relative_error, digits), rounded(ratio, digits)
        rank = len(packed.parts["shifts"]) if packed.encoding == "factors" else None
        return encoded, TensorFacts(op, along is not None, packed.encoding, packed.granularity, error, ratio, rank)

    def _overall_error(self) -> float:
        """The error of all quantized tensors together; half-precision vectors, large and exact, would only hide it."""
        coded = [n for n, f in self._facts.items() if f.encoding in CODED] or list(self._facts)
        total = sum(self._norms[n] ** 2 for n in coded)
        return math.sqrt(sum((self._errors[n] * self._norms[n]) ** 2 for n in coded) / total) if total else 0.0


def _log_ratio(trio: Trio, name: str) -> torch.Tensor:
    count = trio.standard.recognition.body[name][0]
    s, r = trio.standard.rows(name, 0, count).double(), trio.robust.rows(name, 0, count).double()
    if not bool((torch.isfinite(s) & torch.isfinite(r) & (s >= 0) & (r >= 0)).all()):
        raise ExtractionError(f"{name}: a running variance is negative or not finite")
    dead = (s < _DEAD_VARIANCE) | (r < _DEAD_VARIANCE)
    ratio = torch.where(dead, torch.ones_like(s), r / torch.where(dead, torch.ones_like(s), s))
    return ratio.log().float()
