"""The clean values of a model where they came from: a checkpoint on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from rws_hub.errors import IncompatibleModelError
from rws_hub.planner import plan_weights
from rws_hub.signature import RobustWeightSignature
from rws_hub.sources import by_canonical, gather, open_weights
from rws_hub.spelling import Piece


@dataclass(frozen=True, slots=True)
class Stored:
    """Tensors of a checkpoint by the names that a signature has for them; `rows` is as that of `Weights`.

    `names` are those that can be read; a tensor that the checkpoint holds as one of several summands cannot.
    """

    label: str
    names: frozenset[str]
    rows: Callable[[str, int, int], torch.Tensor]


def open_stored(checkpoint: str | Path, signature: RobustWeightSignature, table: str | Path | None = None) -> Stored:
    """Find what a signature touches in (sharded) safetensors, in whatever dialect they are.

    Raises:
        CheckpointError: no safetensors there.
        IncompatibleModelError: the signature does not fit them.
    """
    weights = open_weights(checkpoint, Path(checkpoint).name)
    plans = plan_weights(weights, [signature], table)
    (plan,) = plans.signatures
    if not plan.ok:
        raise IncompatibleModelError(
            f"checkpoint={str(checkpoint)!r} is not of the backbone that {plan.name!r} was made for, or not all of it: "
            f"{plan.diagnosis}. Name the safetensors file, index or folder that the model was loaded from. Nothing was "
            "changed.",
            plans,
        )
    pieces = (Piece(p.canonical, p.part, b.model, p.model_part) for b in plan.bindings for p in b.pieces)
    homes = by_canonical(pieces)

    def rows(name: str, start: int, stop: int) -> torch.Tensor:
        return gather(weights, homes[name], signature.config.shape(name), start, stop)

    whole = (n for n, pieces in homes.items() if all(p.part is None or p.part.axis == 0 for p in pieces))
    return Stored(weights.label, frozenset(whole), rows)
