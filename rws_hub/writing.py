"""Changing the values of many live tensors: all of them, or none, in one pass over their memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from rws_hub import deltas, shards
from rws_hub.bits import digest, same_bits
from rws_hub.deltas import Delta, Scratch
from rws_hub.errors import PatchStateError
from rws_hub.removal import Way
from rws_hub.shards import Part
from rws_hub.spec import Op

# Elements worked on at a time: on a processor what fits the cache of each of torch's threads, as far as they help;
# elsewhere what is worth a call.
_CACHED, _CALLED = 2**17, 2**24
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Target:
    """One live tensor, and what is to become of it.

    Attributes:
        name: as the model spells it.
        live: the tensor.
        before, after: what is on it now and shall be on it, in the order in which it is summed; what has no strength
            is left out.
        old, new: the way back to its clean values from now (None: they are there), and then (None: they shall be).
        seals: digests of the blocks as they were written, by where they start; those of a processor's memory only.
        sealed: room for the digests of what is written now.
        block: elements of a block, whole rows.
    """

    name: str
    live: torch.Tensor
    before: Sequence[Delta]
    after: Sequence[Delta]
    old: Way | None
    new: Way | None
    seals: Mapping[int, bytes]
    sealed: dict[int, bytes]
    block: int


def block_of(tensor: torch.Tensor) -> int:
    """How many elements of a tensor are best worked on at a time: whole rows."""
    own = shards.part_of(tensor).values
    length = max(1, own[:1].numel() if own.ndim else 1)
    best = _CACHED * min(_THREADS, torch.get_num_threads()) if own.is_cpu else _CALLED
    return length * max(1, best // length)


@contextmanager
def written(targets: Sequence[Target], force: bool) -> Iterator[None]:
    """Write what is to become of the targets; if that or what is done inside fails, everything is as it was before.

    Args:
        targets: different tensors, none sharing memory with another.
        force: overwrite values that somebody else has changed.

    Raises:
        PatchStateError: a value overflows, was changed meanwhile, or cannot be restored.
    """
    writer = _Writer(targets, force)
    if force:  # what somebody else wrote cannot be computed back: see first that everything can be restored
        writer.rehearse()
    try:
        writer.work()
        yield
    except BaseException:  # KeyboardInterrupt too: a half-patched model must never be seen
        writer.roll_back()
        raise


def clean_values(target: Target) -> torch.Tensor:
    """The clean values of the part of a tensor that is here, flat; nothing is changed.

    Raises:
        PatchStateError: they cannot be restored.
    """
    writer = _Writer([target], force=False)
    with torch.no_grad():
        return torch.cat([writer.clean(job) for job in _jobs(target)])


@dataclass(frozen=True, slots=True)
class _Job:
    """Elements start to stop of the part of a target that is here; whether what they become has to be looked at."""

    target: Target
    part: Part
    start: int
    stop: int
    risky: bool

    def live(self) -> torch.Tensor:
        """The values, flat: themselves, or a copy if their layout does not allow that."""
        return self._view().reshape(-1).contiguous()

    def put(self, live: torch.Tensor) -> None:
        """Write back what `live` gave, if that was a copy."""
        if not self.part.values.is_contiguous():
            view = self._view()
            view.copy_(live.view(view.shape))

    def _view(self) -> torch.Tensor:
        values = self.part.values
        if values.is_contiguous():
            return values.view(-1)[self.start : self.stop]
        length = values[:1].numel()
        return values[self.start // length : self.stop // length]

    def change(self, on: Sequence[Delta], scratch: Scratch) -> torch.Tensor | None:
        return deltas.total(on, self.part.offset + self.start, self.stop - self.start, scratch)

    @property
    def op(self) -> Op:
        on = self.target.after or self.target.before
        return on[0].op if on else "add"


def _jobs(target: Target) -> list[_Job]:
    part = shards.part_of(target.live)
    count = part.values.numel()
    risky = deltas.can_overflow(target.after, part.values.dtype)
    return [_Job(target, part, at, min(at + target.block, count), risky) for at in range(0, count, target.block)]


class _Writer:
    """Does one block after the other, and knows how to undo it."""

    def __init__(self, targets: Sequence[Target], force: bool) -> None:
        self._jobs = [job for target in targets for job in _jobs(target)]
        self._force = force
        # How many are done, and the clean values of the one that may be under way: set by one assignment, so that
        # an interrupt finds both or neither.
        self._reached: tuple[int, torch.Tensor | None] = (0, None)
        self._scratch: dict[torch.device, Scratch] = {}

    def work(self) -> None:
        with torch.no_grad():
            for i, job in enumerate(self._jobs):
                self._do(i, job)
            self._reached = (len(self._jobs), None)

    def _do(self, i: int, job: _Job) -> None:
        target, live, scratch = job.target, job.live(), self._room(job)
        clean = live if target.old is None else self._restored(job, live, target.old)
        kept = clean
        if target.new is not None and target.new is not target.old:
            kept = target.new.begin(job.start, clean)
        self._reached = (i, kept)
        change = job.change(target.after, scratch)
        deltas.write(clean, change, job.op, live, scratch)
        job.put(live)
        if job.risky and change is not None and deltas.overflows(kept, live):
            raise deltas.refusal(target.name, live.dtype, target.after)
        if target.new is not None:
            target.new.end(job.start, kept, live, change)
            if live.is_cpu:
                target.sealed[job.start] = digest(live)

    def _restored(self, job: _Job, live: torch.Tensor, way: Way) -> torch.Tensor:
        """The clean values of a block, if nobody has changed what is there."""
        target, scratch = job.target, self._room(job)
        seal = target.seals.get(job.start) if live.is_cpu else None
        # A digest is quicker than computing once more what was written.
        again = seal is None and not self._force
        change = job.change(target.before, scratch) if again or way.subtracts else None
        same = self._force or seal is None or digest(live) == seal
        clean = way.clean(job.start, live, change)
        if again:
            expected = scratch.expected(live)
            deltas.write(clean, change, job.op, expected, scratch)
            same = same_bits(expected, live)
        if not same:
            raise PatchStateError(
                f"{target.name} was changed while it was patched (training, batch-norm statistics updated in train "
                f"mode, or load_state_dict). {way.advice} Nothing was changed now."
            )
        return clean

    def rehearse(self) -> None:
        """Restore every block, and do nothing with it."""
        with torch.no_grad():
            for job in self._jobs:
                self.clean(job)

    def clean(self, job: _Job) -> torch.Tensor:
        """The clean values of a block."""
        live = job.live()
        return live if job.target.old is None else self._restored(job, live, job.target.old)

    def roll_back(self) -> None:
        """Undo what was done: every block is computed again as it was before."""
        done, pending = self._reached
        with torch.no_grad():
            for job in self._jobs[:done]:
                live, way = job.live(), job.target.new
                change = job.change(job.target.after, self._room(job)) if way is not None and way.subtracts else None
                self._undo(job, live if way is None else way.clean(job.start, live, change))
            if pending is not None:
                self._undo(self._jobs[done], pending)

    def _undo(self, job: _Job, clean: torch.Tensor) -> None:
        live, scratch = job.live(), self._room(job)
        deltas.write(clean, job.change(job.target.before, scratch), job.op, live, scratch)
        job.put(live)

    def _room(self, job: _Job) -> Scratch:
        device = job.part.values.device
        if device not in self._scratch:
            size = max(j.stop - j.start for j in self._jobs if j.part.values.device == device)
            self._scratch[device] = Scratch(size, device)
        return self._scratch[device]
