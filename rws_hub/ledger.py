"""The smallest way back from patched values to clean ones: what is wrong after subtracting the change again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from rws_hub import frames
from rws_hub.bits import bytes_of, digest, integer_of, ordinal, value_at
from rws_hub.errors import PatchStateError

# What subtracting gets wrong is counted in steps from one number of the dtype to the next: -7 to 7 are written in
# four bits, of anything beyond the clean value itself.
_TOP = 7
_BEYOND = 2 * _TOP + 1
# Of zstd: the fastest; a ledger is written in the middle of a change.
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class _Entry:
    """One block: digests of both values, a frame of what subtracting gets wrong, and the values beyond."""

    clean: bytes
    patched: bytes
    errors: bytearray
    beyond: bytes


class Ledger:
    """What is left when the change is subtracted again, rounded as the model rounds: mostly zeros."""

    subtracts: ClassVar[bool] = True
    advice: ClassVar[str] = (
        "A ledger knows the way back from its own values only: undo that change, or load the clean weights again and "
        "call unpatch(force=True)."
    )

    def __init__(self, name: str) -> None:
        self._name = name
        self._entries: dict[int, _Entry] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        return sum(len(e.clean) + len(e.patched) + len(e.errors) + len(e.beyond) for e in self._entries.values())

    def next(self) -> Ledger:
        """Another one: what was wrong with this change says nothing about the next."""
        return Ledger(self._name)

    def begin(self, start: int, clean: torch.Tensor) -> torch.Tensor:
        """A copy, for as long as the change takes."""
        return clean.clone()

    def end(self, start: int, clean: torch.Tensor, live: torch.Tensor, change: torch.Tensor | None) -> None:
        """Write down the block."""
        wrong = ordinal(clean) - ordinal(_subtracted(live, change))
        beyond = (wrong > _TOP) | (wrong < -_TOP)
        codes = torch.where(beyond, _BEYOND, wrong + _TOP).to(torch.uint8).numpy()
        half = -(-len(codes) // 2)
        pairs = codes[:half].copy()
        pairs[: len(codes) - half] |= codes[half:] << 4
        frame = frames.compress([pairs.data], half, _LEVEL)
        self._entries[start] = _Entry(
            digest(clean), digest(live), frame, bytes(bytes_of(clean.cpu().view(integer_of(clean.dtype))[beyond]))
        )

    def clean(self, start: int, live: torch.Tensor, change: torch.Tensor | None) -> torch.Tensor:
        """Subtract, and put right what that gets wrong.

        Raises:
            PatchStateError: the values are not those that were written down.
        """
        entry, count = self._entries[start], len(live)
        here = digest(live)
        if here == entry.clean:
            return live  # somebody has loaded them
        if here != entry.patched:
            raise PatchStateError(
                f"{self._name} was changed while it was patched. {self.advice} Nothing was changed now."
            )
        half = -(-count // 2)
        pairs = np.frombuffer(frames.decompress(entry.errors, half, self._name), np.uint8)
        codes = torch.from_numpy(np.concatenate([pairs & 15, pairs >> 4])[:count])
        order = ordinal(_subtracted(live, change))
        order += codes.to(order.dtype) - _TOP
        # As integers: a copied signalling NaN may come out as a quiet one.
        found = value_at(order, live.dtype).view(integer_of(live.dtype))
        found[codes == _BEYOND] = torch.from_numpy(np.frombuffer(entry.beyond, found.numpy().dtype).copy())
        return found.view(live.dtype).to(live.device)


def _subtracted(live: torch.Tensor, change: torch.Tensor | None) -> torch.Tensor:
    """What is live without the change, computed and rounded as adding was."""
    if change is None:
        return live
    if live.dtype == torch.float64:
        return live - change.double()
    return (live.float() - change).to(live.dtype)
