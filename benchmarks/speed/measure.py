"""Size, patch, new strength, removal, loading, making, start-up: rws-hub, its peers, and the floor below all of them.

    pip install -e '.[bench]' && python benchmarks/speed/measure.py        (about five minutes on two cores)

Writes benchmarks/results/speed.json, from which `make docs` makes docs/SPEED.md and a table of README. Linux only.
The whole model's weights are random and from a seed; nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from clock import different, memory, one_round, race
from contender import Contender, contenders
from peers import RANK, peers, write_deltas, write_patch
from scaling import by_bytes, by_number
from startup import startup
from subject import ARCHITECTURE, NOISE, SEED, TOUCHED, Subject, base, make_subject, noise, signature

T = TypeVar("T")
RESULT = Path(__file__).parent.parent / "results" / "speed.json"
PACKAGES = ("rws-hub", "torch", "timm", "safetensors", "backports.zstd", "peft", "deltatensors")


def measure(subject: Subject, entrants: Sequence[Contender], turns: int) -> list[dict[str, Any]]:
    """A row for each: bytes on disk, milliseconds on one thread and on two, memory, weights that did not come back."""
    clean, taking_off = subject.clean.state_dict(), [c for c in entrants if "remove" in c.steps]
    for entrant in entrants:
        one_round(entrant, 1, without=["swap"])
    once = {c.label: different(c, clean, subject.delta) for c in taking_off}
    times = {str(threads): race(entrants, turns, threads) for threads in (1, 2)}
    torch.set_num_threads(1)
    often = {c.label: different(c, clean, subject.delta) for c in taking_off}
    return [
        {
            "label": c.label,
            "disk": c.disk,
            "ms": {threads: found[c.label] for threads, found in times.items()},
            "memory": memory(c),
            "different": {"once": once[c.label], "after all rounds": often[c.label]} if c in taking_off else None,
        }
        for c in entrants
    ]


def timed(make: Callable[[], T]) -> tuple[T, float]:
    """What is published, and the CPU seconds of making it."""
    start = time.process_time()
    made = make()
    return made, round(time.process_time() - start, 2)


def main() -> None:
    """Measure all and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="rounds of each contender on each number of threads")
    turns, started = parser.parse_args().turns, time.monotonic()

    def told(what: str) -> None:
        print(f"{time.monotonic() - started:4.0f} s: {what}", file=sys.stderr, flush=True)

    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "command": f"python benchmarks/speed/measure.py --turns {turns}",
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "versions": {name: version(name) for name in PACKAGES},
        "turns": turns,
        "load": [round(os.getloadavg()[0], 1)],
        "runs": {},
    }
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        clean = base()
        delta = noise(clean, TOUCHED, SEED)
        made, ours = timed(partial(signature, clean, delta, "fog"))
        found["subject"] = {
            "architecture": ARCHITECTURE,
            "touched": TOUCHED,
            "seed": SEED,
            "noise": NOISE,
            "lora_rank": RANK,
            "touched_weights": sum(d.numel() for d in delta.values()),
            "weights": sum(p.numel() for p in clean.parameters()),
        }
        told("the subject")
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            subject = make_subject(base().to(dtype), made, delta, Path(scratch) / name)
            found["runs"][name] = measure(subject, [*contenders(subject), *peers(subject)], turns)
            if dtype == torch.float32:
                peers_make = {"zstd": write_patch, "deltatensors": write_deltas}
                making = {name: timed(partial(make, subject))[1] for name, make in peers_make.items()}
                found["making_cpu_s"] = {"rws-hub": ours, **making}
            told(name)
        found["by_bytes"], found["by_number"] = by_bytes(clean, made), by_number()
        told("scaling")
        found["startup"] = startup(Path(scratch), 3)
    found["load"].append(round(os.getloadavg()[0], 1))
    RESULT.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    told("all")


if __name__ == "__main__":
    main()
