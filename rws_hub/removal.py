"""Three ways back from a patched tensor to its clean values, bit for bit: a copy, the checkpoint, or a ledger.

Taking a patch off by subtracting what it added does not restore the weights: both operations round. So something is
kept for each tensor: all of its clean values (`Snapshot`); a digest of them, while the values stay in a checkpoint
file (`Reload`); or only what subtracting gets wrong, which is mostly nothing (`Ledger`).

The blocks of one tensor are always the same ones, and each is remembered by where it starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import torch

from rws_hub import shards
from rws_hub.bits import digest, same_bits
from rws_hub.deltas import Delta, Run
from rws_hub.errors import PatchStateError, RWSError
from rws_hub.ledger import Ledger
from rws_hub.signature import RobustWeightSignature
from rws_hub.stored import Stored, open_stored

Mode = Literal["snapshot", "reload", "ledger"]

_FORCE = "Unpatching would undo that change: call unpatch(force=True) to restore the clean values all the same."
# Below so many elements nothing is worth more than a copy.
_SMALL = 2**12
# Up to so many bytes in all, copies are kept if nobody says otherwise; a second model in memory is not small.
SNAPSHOT_BYTES = 2**28


def choose_mode(mode: Mode | None, has_checkpoint: bool, touched_bytes: int) -> Mode:
    """The way back for a patch.

    Raises:
        ValueError: a checkpoint without need, or none where it is needed.
    """
    if mode not in (None, "snapshot", "reload", "ledger"):
        raise ValueError(f"removal={mode!r}: expected 'snapshot', 'reload' or 'ledger'")
    if mode == "reload" and not has_checkpoint:
        raise ValueError("removal='reload' needs checkpoint=, the safetensors that the model was loaded from")
    if has_checkpoint and mode not in (None, "reload"):
        raise ValueError(f"removal={mode!r} needs no checkpoint; pass removal='reload', or leave one of them out")
    if has_checkpoint:
        return "reload"
    return mode or ("snapshot" if touched_bytes <= SNAPSHOT_BYTES else "ledger")


@dataclass(frozen=True, slots=True)
class Removal:
    """How clean values are to be restored, as the user said it."""

    mode: Mode | None
    checkpoint: str | Path | None

    def chooser(
        self, signatures: Iterable[RobustWeightSignature], touched_bytes: int, table: str | Path | None
    ) -> Callable[[torch.Tensor, Delta], Way]:
        """What chooses the way back for each tensor that has none yet.

        Raises:
            ValueError: as `choose_mode`.
            CheckpointError, IncompatibleModelError: as `open_stored`.
        """
        mode = choose_mode(self.mode, self.checkpoint is not None, touched_bytes)
        found = {} if self.checkpoint is None else {s: open_stored(self.checkpoint, s, table) for s in signatures}

        def choose(live: torch.Tensor, delta: Delta) -> Way:
            part = shards.part_of(live)
            return way_back(mode, part.values, part.offset, delta, found.get(delta.signature))

        return choose


def way_back(mode: Mode, live: torch.Tensor, offset: int, delta: Delta, stored: Stored | None) -> Way:
    """The way back for one tensor, of which elements from `offset` on are here; small or special ones are copied."""
    if delta.op == "add" and live.numel() >= _SMALL:
        if mode == "ledger":
            return Ledger(delta.name)
        readable = stored is not None and all(run.canonical in stored.names for run in delta.runs)
        if stored is not None and readable and delta.covers:
            return Reload(delta, stored, offset)
    return Snapshot(live)


class Way(Protocol):
    """What is kept of one tensor, block by block.

    `subtracts` says whether it needs to be told what was added; `advice` what to do if somebody changed the values.
    """

    subtracts: ClassVar[bool]
    advice: ClassVar[str]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""

    def next(self) -> Way:
        """Where the blocks of the next state are kept."""

    def begin(self, start: int, clean: torch.Tensor) -> torch.Tensor:
        """Take in a block before it is changed; returns its values, which the change does not touch."""

    def end(self, start: int, clean: torch.Tensor, live: torch.Tensor, change: torch.Tensor | None) -> None:
        """Take in what the block has become by adding `change`."""

    def clean(self, start: int, live: torch.Tensor, change: torch.Tensor | None) -> torch.Tensor:
        """The clean values of a block.

        Raises:
            PatchStateError: they cannot be restored.
        """


class Snapshot:
    """A copy of the clean values."""

    subtracts: ClassVar[bool] = False
    advice: ClassVar[str] = _FORCE

    def __init__(self, like: torch.Tensor) -> None:
        self._values = torch.empty(like.numel(), dtype=like.dtype, device=like.device)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        return self._values.nbytes

    def next(self) -> Snapshot:
        """The clean values stay what they are."""
        return self

    def begin(self, start: int, clean: torch.Tensor) -> torch.Tensor:
        """Copy a block."""
        return self._values[start : start + len(clean)].copy_(clean)

    def end(self, start: int, clean: torch.Tensor, live: torch.Tensor, change: torch.Tensor | None) -> None:
        """Nothing more to keep."""

    def clean(self, start: int, live: torch.Tensor, change: torch.Tensor | None) -> torch.Tensor:
        """The copy, where the live values are now."""
        return self._values[start : start + len(live)].to(live.device)


class Reload:
    """The checkpoint, and a digest of every block."""

    subtracts: ClassVar[bool] = False
    advice: ClassVar[str] = _FORCE

    def __init__(self, delta: Delta, stored: Stored, offset: int) -> None:
        self._name, self._runs = delta.name, delta.runs
        self._stored, self._offset = stored, offset
        self._digests: dict[int, bytes] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        return sum(map(len, self._digests.values()))

    def next(self) -> Reload:
        """The clean values stay where they are."""
        return self

    def begin(self, start: int, clean: torch.Tensor) -> torch.Tensor:
        """Make sure that the checkpoint holds this block, and remember its digest.

        Raises:
            PatchStateError: it does not.
        """
        found = self._read(start, clean)
        if not same_bits(found, clean):
            raise PatchStateError(
                f"{self._name}: the model does not hold what {self._stored.label} holds, so it could not be taken from "
                "there again. Nothing was changed. Name the checkpoint that was loaded, or use removal='snapshot'."
            )
        self._digests[start] = digest(found)
        return found

    def end(self, start: int, clean: torch.Tensor, live: torch.Tensor, change: torch.Tensor | None) -> None:
        """Nothing more to keep."""

    def clean(self, start: int, live: torch.Tensor, change: torch.Tensor | None) -> torch.Tensor:
        """Read the block again.

        Raises:
            PatchStateError: the file is gone, or holds something else.
        """
        found = self._read(start, live)
        if digest(found) != self._digests[start]:
            raise PatchStateError(
                f"{self._name}: {self._stored.label} is not what it was when the model was patched. Nothing was "
                "changed. Put the file back to take the patch off."
            )
        return found

    def _read(self, start: int, like: torch.Tensor) -> torch.Tensor:
        found = torch.empty_like(like)
        begin, end = self._offset + start, self._offset + start + len(like)
        for run in self._runs:
            first, last = max(begin, run.home), min(end, run.home + run.length)
            if first < last:
                found[first - begin : last - begin] = self._flat(run, first - run.home, last - run.home)
        return found

    def _flat(self, run: Run, first: int, last: int) -> torch.Tensor:
        length = math.prod(run.packed.shape[1:])
        start, stop = run.source + first, run.source + last
        try:
            rows = self._stored.rows(run.canonical, start // length, -(-stop // length))
        except (RWSError, OSError) as error:
            raise PatchStateError(
                f"{self._name} cannot be read from the checkpoint: {error}. Nothing was changed; put the file back."
            ) from error
        return rows.reshape(-1)[start % length :][: last - first]
