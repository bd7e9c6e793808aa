"""How it is measured: contenders take turns in random order; times, memory, and weights that do not come back.

One thread: CPU time, which other work on the machine disturbs least. More: wall time. Linux with glibc only.
"""

from __future__ import annotations

import ctypes
import gc
import random
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from contender import STEPS, Contender

_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and least, in milliseconds."""
    low, middle, high = (round(1000 * q, 3) for q in statistics.quantiles(seconds, n=4, method="inclusive"))
    return {"median": middle, "low": low, "high": high, "least": round(1000 * min(seconds), 3)}


def resident(*, highest: bool = False) -> int:
    """Bytes of this process in memory now (what is free goes back to the system first), or its highest."""
    if not highest:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
    key = "VmHWM:" if highest else "VmRSS:"
    line = next(x for x in Path("/proc/self/status").read_text("ascii").splitlines() if x.startswith(key))
    return int(line.split()[1]) * 1024


def different(contender: Contender, clean: Mapping[str, torch.Tensor], touched: Iterable[str]) -> float:
    """Share of the touched weights whose bits are not the clean ones."""
    live, wrong, count = contender.model.state_dict(), 0, 0
    for name in touched:
        kind = _BITS[clean[name].dtype]
        wrong += int((live[name].view(kind) != clean[name].view(kind)).sum())
        count += clean[name].numel()
    return wrong / count


def one_round(contender: Contender, threads: int, without: Sequence[str] = ()) -> dict[str, float]:
    """Seconds of every step but those `without`, and of loading and patching together."""
    clock = time.process_time if threads == 1 else time.perf_counter
    taken: dict[str, float] = {}
    gc.collect()
    for step, do in contender.steps.items():
        if step in without:
            continue
        start = clock()
        do()
        taken[step] = clock() - start
    contender.tidy()
    if "load" in taken:
        taken["from file"] = taken["load"] + taken["patch"]
    return taken


def memory(contender: Contender) -> dict[str, int]:
    """What one round takes beyond the model: held while the patch is on, highest on the way, left after it; bytes."""
    before = resident()
    # proc(5): look for the highest number of bytes anew.
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    for step in ("load", "patch", "from file"):
        if step in contender.steps:
            contender.steps[step]()
    highest, held = resident(highest=True), resident()
    for step in ("swap", "remove"):
        if step in contender.steps:
            contender.steps[step]()
    contender.tidy()
    return {"held": held - before, "highest": highest - before, "left": resident() - before}


def race(contenders: Sequence[Contender], turns: int, threads: int) -> dict[str, Any]:
    """Label -> step -> times. What is made on first use should be made before."""
    torch.set_num_threads(threads)
    order, shuffle = list(contenders), random.Random(0).shuffle
    taken: dict[str, dict[str, list[float]]] = {c.label: {} for c in contenders}
    for _ in range(turns):
        shuffle(order)
        for contender in order:
            for step, seconds in one_round(contender, threads).items():
                taken[contender.label].setdefault(step, []).append(seconds)
    return {label: {step: summary(steps[step]) for step in STEPS if step in steps} for label, steps in taken.items()}
