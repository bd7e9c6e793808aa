"""What signatures add to one tensor of a model, a block of its elements at a time (docs/SPEC.md, section 9).

A block is decoded, scaled, summed and added while it is in the processor's cache, so that a change costs little more
than reading and writing the weights once. Which blocks are taken decides nothing: every element is computed by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from rws_hub import codec
from rws_hub.cells import Shape, Slice
from rws_hub.codec import Packed
from rws_hub.errors import PatchStateError
from rws_hub.signature import RobustWeightSignature
from rws_hub.spec import Op
from rws_hub.spelling import Piece


@dataclass(frozen=True, slots=True)
class Run:
    """Elements `home` to `home + length` of a model's tensor take those from `source` on of a delta, in order."""

    home: int
    length: int
    source: int
    canonical: str
    packed: Packed


@dataclass(frozen=True)
class Delta:
    """One signature's part in one tensor of a model, at one strength.

    `name` is the tensor's, as the model spells it, for messages.
    """

    name: str
    shape: Shape
    signature: RobustWeightSignature
    pieces: tuple[Piece, ...]
    alpha: float
    _runs_found: list[tuple[Run, ...]] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def order(self) -> str:
        """What the signatures on a tensor are sorted by, so that their sum does not depend on history."""
        return self.signature.config.digest

    @property
    def op(self) -> Op:
        """Whether the tensor takes a summand or a factor."""
        return self.signature.config.tensors[self.pieces[0].canonical].op

    @property
    def runs(self) -> tuple[Run, ...]:
        """Where every element of the delta goes."""
        if not self._runs_found:
            self._runs_found.append(tuple(run for piece in self.pieces for run in self._runs(piece)))
        return self._runs_found[0]

    @property
    def reach(self) -> float:
        """No |alpha * delta| is larger."""
        bits = self.signature.config.codec.bits
        return abs(self.alpha) * max(codec.largest(run.packed, bits) for run in self.runs)

    @property
    def covers(self) -> bool:
        """Whether every element of the tensor gets one summand and no more."""
        ends = [0, *(run.home + run.length for run in sorted(self.runs, key=lambda r: r.home))]
        starts = [*sorted(run.home for run in self.runs), math.prod(self.shape)]
        return starts == ends

    def _runs(self, piece: Piece) -> list[Run]:
        packed = self.signature.tensors[piece.canonical]
        homes, sources = _spans(piece.model_part, self.shape), _spans(piece.part, packed.shape)
        found: list[Run] = []
        home, source = homes.pop(), sources.pop()
        while True:
            length = min(home[1], source[1])
            found.append(Run(home[0], length, source[0], piece.canonical, packed))
            home, source = ((at + length, left - length) for at, left in (home, source))
            if not home[1] and not homes:
                return found
            home = home if home[1] else homes.pop()
            source = source if source[1] else sources.pop()


def _spans(part: Slice | None, shape: Shape) -> list[tuple[int, int]]:
    """First element and number of elements of every unbroken part of a slice; the last one first."""
    if part is None:
        return [(0, math.prod(shape))]
    inner = math.prod(shape[part.axis + 1 :])
    outer, step = math.prod(shape[: part.axis]), shape[part.axis] * inner
    length = (part.stop - part.start) * inner
    return [(i * step + part.start * inner, length) for i in reversed(range(outer))]


class Scratch:
    """Room for the work on one block, used again and again so that it stays in the cache."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.total = torch.empty(size, dtype=torch.float32, device=device)
        self.other = torch.empty(size, dtype=torch.float32, device=device)
        self.codes = torch.empty(size, dtype=torch.uint8, device=device)
        self._expected: dict[torch.dtype, torch.Tensor] = {}

    def expected(self, like: torch.Tensor) -> torch.Tensor:
        """Room for the values of a block, of its dtype."""
        if like.dtype not in self._expected:
            self._expected[like.dtype] = torch.empty_like(self.total, dtype=like.dtype)
        return self._expected[like.dtype][: len(like)]


def total(deltas: Sequence[Delta], start: int, count: int, scratch: Scratch) -> torch.Tensor | None:
    """The sum of alpha * delta over some elements of a tensor, float32 [count] in `scratch`; None where nothing moves.

    The sum starts from +0.0 and goes in the order of the deltas given.
    """
    whole = scratch.total[:count]
    touched = False
    for delta in deltas:
        bits = delta.signature.config.codec.bits
        for run in delta.runs:
            first, last = max(start, run.home), min(start + count, run.home + run.length)
            if first >= last:
                continue
            source = run.source + first - run.home
            if not touched and last - first == count:
                codec.read(run.packed, bits, source, whole, delta.alpha, scratch.codes)
                if delta.alpha < 0 or run.packed.encoding in ("float16", "float32"):
                    whole.add_(0.0)  # 0.0 + -0.0 is 0.0
            else:
                if not touched:
                    whole.zero_()
                part = scratch.other[: last - first]
                codec.read(run.packed, bits, source, part, delta.alpha, scratch.codes)
                whole[first - start : last - start].add_(part)
            touched = True
    return whole if touched else None


def write(clean: torch.Tensor, change: torch.Tensor | None, op: Op, out: torch.Tensor, scratch: Scratch) -> None:
    """Put the patched values of one block into `out`: computed in fp32 (fp64 for fp64), rounded once.

    Args:
        clean: [n], in the dtype of the model.
        change: what `total` returned.
        op: what to do with it.
        out: as `clean`, and may be the same memory.
        scratch: where `change` lies.
    """
    if change is None:
        out.copy_(clean)
        return
    if op == "multiply":
        # exp differs by a bit between devices and vector widths; in float64, rounded to float32, it does not.
        change = change.cpu().double().exp().float().to(clean.device)
    act = torch.add if op == "add" else torch.mul
    if clean.dtype == torch.float32:
        act(clean, change, out=out)
    elif clean.dtype == torch.float64:
        act(clean, change.double(), out=out)
    else:
        value = scratch.other[: len(clean)].copy_(clean)
        out.copy_(act(value, change, out=value))


def can_overflow(deltas: Sequence[Delta], dtype: torch.dtype) -> bool:
    """Whether the deltas might turn a finite number of a dtype into one that is not; told without looking at any."""
    # Half a step of the largest number is what it takes; an eighth leaves room for the rounding of sums.
    limits = torch.finfo(dtype)
    adds = all(delta.op == "add" for delta in deltas)
    return not (adds and sum(delta.reach for delta in deltas) < limits.max * limits.eps / 8)


def overflows(clean: torch.Tensor, patched: torch.Tensor) -> bool:
    """Whether a value that was finite is not any more."""
    # A sum is cheap, and finite only if all is. If it is not, look closer.
    wide = torch.float64 if patched.dtype == torch.float64 else torch.float32
    if math.isfinite(float(patched.sum(dtype=wide))):
        return False
    return bool((torch.isfinite(clean) & ~torch.isfinite(patched)).any())


def patch_block(clean: torch.Tensor, start: int, on: Sequence[Delta], scratch: Scratch) -> None:
    """Patch elements `start` on of a tensor where they are: `clean`, [n], becomes the patched values.

    Raises:
        PatchStateError: a strength that overflows the dtype.
    """
    change = total(on, start, len(clean), scratch)
    if change is None:
        return
    before = scratch.expected(clean).copy_(clean)
    write(clean, change, on[0].op, clean, scratch)
    if overflows(before, clean):
        raise refusal(on[0].name, clean.dtype, on)


def refusal(name: str, dtype: torch.dtype, deltas: Sequence[Delta]) -> PatchStateError:
    """What to say about that."""
    strengths = ", ".join(f"{d.signature.config.corruption.name}={d.alpha:g}" for d in deltas)
    room = f"{dtype} (or torch.float32, in which changes are summed)" if dtype == torch.float64 else f"{dtype}"
    return PatchStateError(f"{name}: {strengths} overflows {room}. Nothing was changed; use a smaller alpha.")


def moving(deltas: Iterable[Delta]) -> list[Delta]:
    """Those that change anything, in the order in which they are summed."""
    return sorted((d for d in deltas if d.alpha != 0), key=lambda d: d.order)
