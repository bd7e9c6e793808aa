"""How patching grows: with the touched bytes, and with the number of signatures on one model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from clock import resident, summary
from subject import base, noise, signature
from torch import nn

from rws_hub import Patch, RobustWeightSignature, patch

TURNS = 7
BLOCKS = (1, 2)
NUMBERS = (1, 10, 100)
SMALL = "vit_tiny_patch16_224"


def _rounds(model: nn.Module, signatures: list[RobustWeightSignature]) -> dict[str, Any]:
    """Put all on at once, rescale one, take all off; beside it a copy of what they touch."""
    taken: dict[str, list[float]] = {"copy": [], "patch": [], "swap one": [], "remove": []}
    live = model.state_dict()
    touched = [live[name] for s in signatures for name in s.names]
    source = [value.clone() for value in touched]
    first = signatures[0].config.corruption.name
    handles: list[Patch] = []

    def timed(step: str, do: Callable[[], object]) -> None:
        start = time.process_time()
        do()
        taken[step].append(time.process_time() - start)

    before = held = 0
    for turn in range(TURNS + 1):
        timed("copy", lambda: [v.copy_(s) for v, s in zip(touched, source, strict=True)])
        timed("patch", lambda: handles.append(patch(model, *signatures, max_relative_norm=math.inf)))
        timed("swap one", lambda: handles[0].set_alpha(**{first: 0.5}))
        if turn == TURNS:
            held = resident()
        timed("remove", lambda: handles.pop().unpatch())
        if turn == 0:  # which only warms up
            before = resident()
            for times in taken.values():
                times.clear()
    return {
        "signatures": len(signatures),
        "disk": sum(s.nbytes for s in signatures),
        "touched_bytes": sum(value.nbytes for value in touched),
        "held": held - before,
        "left": resident() - before,
        "restored": all(
            torch.equal(v.view(torch.int32), s.view(torch.int32)) for v, s in zip(touched, source, strict=True)
        ),
        "ms": {step: summary(seconds) for step, seconds in taken.items()},
    }


def by_bytes(model: nn.Module, largest: RobustWeightSignature) -> list[dict[str, Any]]:
    """One signature of one and of two blocks of the subject, and the subject's own."""
    deltas = (noise(model, [f"blocks.[0-{count - 1}].*"], count) for count in BLOCKS)
    return [_rounds(model, [made]) for made in (*(signature(model, delta, "fog") for delta in deltas), largest)]


def by_number() -> list[dict[str, Any]]:
    """More and more small signatures on one small model, block by block and round again."""
    model = base(SMALL)
    made = [
        signature(model, noise(model, [f"blocks.{i % 12}.attn.proj.*"], i), f"noise{i}") for i in range(max(NUMBERS))
    ]
    return [_rounds(model, made[:count]) for count in NUMBERS]
