"""Patches under load: threads that change and threads that run one model, forks, shared memory, one cache for many.

    python benchmarks/trust/load.py               # into benchmarks/results/trust-load.json, in some minutes
    python benchmarks/trust/load.py --seconds 1   # each part shorter, and printed only

Every output that is seen within `steady` is compared, bit for bit, with those of all states that there can be; at the
end of every part every weight has to have the bits that it had. A process that does not end in time is counted as
locked, and killed. The Hub is the one of the tests, on loopback. Linux only: it forks.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from load_model import ALPHAS, SEED, Crew, Row, bits, deep, output, signature
from load_processes import cache, forks, shared, with_hub
from safetensors.torch import save_file

import rws_hub
from rws_hub import Patch, RobustWeightSignature, patch, steady

RESULT = Path(__file__).parent.parent / "results" / "trust-load.json"
SECONDS = 20.0


def states(first: RobustWeightSignature, second: RobustWeightSignature) -> set[bytes]:
    """Outputs of all states that two handles can make of the model."""
    found = set()
    for a, b in itertools.product((None, *ALPHAS), repeat=2):
        model = deep()
        for made, alpha in ((first, a), (second, b)):
            if alpha is not None:
                patch(model, made, alpha=alpha)
        found.add(output(model))
    return found


def threads(seconds: float, removal: str, guarded: bool, checkpoint: Path) -> Row:
    """Two threads change one model, each by handles of its own, while three others run it."""
    fog, rain = signature("fog", 1), signature("rain", 2)
    model = deep()
    clean, allowed = bits(model), states(fog, rain)
    # Appended to, since += may lose what another thread adds.
    changed: list[int] = []
    passes: list[bytes | None] = []
    options: dict[str, Any] = {"checkpoint": checkpoint} if removal == "reload" else {"removal": removal}

    def changes(own: RobustWeightSignature, dice: random.Random) -> Callable[[], None]:
        def work() -> None:
            name = own.config.corruption.name
            p = patch(model, own, alpha=dice.choice(ALPHAS), **options)
            for _ in range(dice.randrange(4)):
                p.set_alpha(**{name: dice.choice(ALPHAS)})
                changed.append(1)
                time.sleep(0.0005)
            p.unpatch()
            changed.append(2)
            time.sleep(0.0005)

        return work

    def serve() -> None:
        if guarded:
            with steady(model):
                found = output(model)
            passes.append(found)
        else:
            output(model)
            passes.append(None)

    crew, start = Crew(), time.perf_counter()
    works = [changes(s, random.Random(SEED + i)) for i, s in enumerate((fog, rain))]
    with crew.at(*works, serve, serve, serve):
        time.sleep(seconds)
    # A thread may have stopped between putting on and taking off only by an error.
    row: Row = {"seconds": round(time.perf_counter() - start, 1), "changes": sum(changed), "passes": len(passes)}
    if guarded:  # without, mixtures are allowed
        row |= {"mixed": sum(p not in allowed for p in passes), "states_seen": len(set(passes)), "states": len(allowed)}
    return row | {"errors": crew.errors, "exact": bits(model) == clean}


def handles(seconds: float) -> Row:
    """Six threads put signatures of their own on one model and take them off in any order, two at a time."""
    made = [signature(f"s{i}", 10 + i) for i in range(12)]
    model = deep()
    clean, changed = bits(model), []

    def work_with(pair: list[RobustWeightSignature], dice: random.Random) -> Callable[[], None]:
        def work() -> None:
            on: list[Patch] = [patch(model, s, alpha=dice.choice(ALPHAS)) for s in pair]
            dice.shuffle(on)
            for p in on:
                p.unpatch()
            changed.append(2 * len(pair))

        return work

    crew, start = Crew(), time.perf_counter()
    with crew.at(*(work_with(made[2 * i : 2 * i + 2], random.Random(i)) for i in range(6))):
        time.sleep(seconds)
    taken = round(time.perf_counter() - start, 1)
    return {"seconds": taken, "changes": sum(changed), "errors": crew.errors, "exact": bits(model) == clean}


def loading(seconds: float, folder: Path) -> Row:
    """Four threads load one artifact."""
    expected, right = RobustWeightSignature.from_pretrained(folder), []

    def work() -> None:
        found = RobustWeightSignature.from_pretrained(folder)
        right.append(found.payload == expected.payload and found == expected)

    crew, start = Crew(), time.perf_counter()
    with crew.at(work, work, work, work):
        time.sleep(seconds)
    taken = round(time.perf_counter() - start, 1)
    return {"seconds": taken, "loads": len(right), "errors": crew.errors, "wrong": right.count(False)}


def dropped(rounds: int) -> Row:
    """Models that are dropped while a handle on them lives: is anything of them kept?"""
    from rws_hub import anchors, gates, handle

    fog, kept, refused = signature("fog", 1), [], 0
    start = time.perf_counter()
    for _ in range(rounds):
        model = deep()
        kept.append(patch(model, fog))
        with steady(model):
            pass
        del model
        gc.collect()
        try:
            kept[-1].unpatch()
        except rws_hub.PatchStateError:
            refused += 1
    left = len(anchors._anchors) + len(handle._handles) + len(gates._open)
    return {"seconds": round(time.perf_counter() - start, 1), "models": rounds, "refused": refused, "left": left}


def measure(seconds: float, scratch: Path) -> dict[str, Row]:
    """Every part, in order."""
    signature("fog", 1).save_pretrained(scratch / "fog")
    save_file(deep().state_dict(), scratch / "clean.safetensors")
    rounds = max(2, round(seconds))
    parts: dict[str, Callable[[], Row]] = {
        f"{removal}, {'within' if guarded else 'without'} steady": partial(
            threads, seconds, removal, guarded, scratch / "clean.safetensors"
        )
        for guarded in (True, False)
        for removal in ("snapshot", "ledger", "reload")
    }
    parts |= {
        "twelve handles, six threads": lambda: handles(seconds),
        "four threads load one artifact": lambda: loading(seconds, scratch / "fog"),
        "forks": lambda: forks(seconds, scratch / "fog"),
        "shared memory, fork": lambda: shared("fork", 50 * rounds),
        "shared memory, spawn": lambda: shared("spawn", 50 * rounds),
        "two processes, one cache": lambda: with_hub(2, rounds, scratch),
        "eight processes, one cache": lambda: with_hub(8, rounds, scratch),
        "models dropped": lambda: dropped(5 * rounds),
    }
    found = {}
    for name, part in parts.items():
        found[name] = part()
        print(name, found[name], file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help=f"of each part, nearly ({SECONDS:g}, and the result is kept)")
    parser.add_argument("--cache", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if given.cache:
        several, rounds, folder = given.cache
        print(json.dumps(cache(int(several), int(rounds), Path(folder))))
        return
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        parts = measure(given.seconds or SECONDS, Path(scratch))
    found = {
        "command": "python benchmarks/trust/load.py",
        "seed": SEED,
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "versions": {
            "rws-hub": rws_hub.__version__,
            "torch": version("torch"),
            "huggingface_hub": version("huggingface_hub"),
        },
        "seconds": round(time.perf_counter() - start, 1),
        "parts": parts,
    }
    if given.seconds is None:
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
