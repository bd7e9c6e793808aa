"""Under load with other processes: forks, a model in shared memory, one cache for all."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from load_model import ALPHAS, Crew, Row, bits, deep, output, signature
from torch import nn

from rws_hub import RobustWeightSignature, patch, steady

TESTS = Path(__file__).parent.parent.parent / "tests"
# Seconds after which a process is taken to be locked.
PATIENCE = 20.0
REPO = "alice/rain"


def ended(child: int) -> int | None:
    """The exit status of a forked child; None if it was locked, and is killed."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def forks(seconds: float, folder: Path) -> Row:
    """Forks while other threads change, run and load; each child loads, runs, rescales and takes off."""
    fog = signature("fog", 1)
    model = deep()
    clean = bits(model)
    p = patch(model, fog)
    allowed = set()
    for alpha in ALPHAS:
        twin = deep()
        patch(twin, fog, alpha=alpha)
        allowed.add(output(twin))

    def change() -> None:
        p.set_alpha(fog=ALPHAS[0])
        p.set_alpha(fog=ALPHAS[1])

    def serve() -> None:
        with steady(model):
            output(model)

    def child() -> bool:
        with steady(model):
            whole = output(model) in allowed
        RobustWeightSignature.from_pretrained(folder)
        p.set_alpha(fog=0.25)
        p.unpatch()
        return whole and bits(model) == clean

    counts = {"forks": 0, "locked": 0, "wrong": 0}
    crew, start = Crew(), time.perf_counter()
    with crew.at(change, serve, lambda: RobustWeightSignature.from_pretrained(folder)):
        while time.perf_counter() - start < seconds:
            pid = os.fork()
            if pid == 0:
                try:
                    os._exit(0 if child() else 2)
                finally:
                    os._exit(3)
            status = ended(pid)
            counts["forks"] += 1
            counts["locked"] += status is None
            counts["wrong"] += bool(status)
    p.unpatch()
    taken = round(time.perf_counter() - start, 1)
    return {"seconds": taken, **counts, "errors": crew.errors, "exact": bits(model) == clean}


def take_turns(model: nn.Module, own: RobustWeightSignature, turn: Any, other: Any, rounds: int) -> None:
    """In another process: patch the shared model when it is one's turn, and take the patch off when it is again."""
    for _ in range(rounds):
        turn.acquire()
        p = patch(model, own)
        other.release()
        turn.acquire()
        p.unpatch()
        other.release()


def shared(method: str, rounds: int) -> Row:
    """A model in shared memory: patched in one process, run in another, taken off again."""
    context: Any = multiprocessing.get_context(method)
    fog, model, twin = signature("fog", 1), deep(), deep()
    model.share_memory()
    patch(twin, fog)
    clean, expected, base = bits(model), output(twin), output(model)
    theirs, ours, wrong = context.Semaphore(0), context.Semaphore(0), 0
    start = time.perf_counter()
    process = context.Process(target=take_turns, args=(model, fog, theirs, ours, rounds))
    process.start()
    for _ in range(rounds):
        for state in (expected, base):
            theirs.release()
            ours.acquire()
            wrong += output(model) != state
    process.join(PATIENCE)
    taken = round(time.perf_counter() - start, 1)
    return {"seconds": taken, "changes": 2 * rounds, "wrong": wrong, "exact": bits(model) == clean}


def pull(cache: str, expected: str) -> bool:
    """In another process: from the Hub through a cache that others write into as well."""
    return RobustWeightSignature.from_pretrained(REPO, cache_dir=cache).config.digest == expected


def cache(several: int, rounds: int, scratch: Path) -> Row:
    """Processes that pull into one new cache at the same time, again and again."""
    rain, wrong = signature("rain", 2), 0
    rain.push_to_hub(REPO)
    digest, start = rain.config.digest, time.perf_counter()
    with multiprocessing.get_context("fork").Pool(several) as pool:
        for n in range(rounds):
            work = [(str(scratch / f"cache-{several}-{n}"), digest)] * several
            wrong += sum(not right for right in pool.starmap_async(pull, work, chunksize=1).get(60 + PATIENCE))
    taken = round(time.perf_counter() - start, 1)
    return {"seconds": taken, "pulls": several * rounds, "wrong": wrong}


def with_hub(several: int, rounds: int, scratch: Path) -> Row:
    """`cache`, in an interpreter of its own: the client reads the address of the Hub when it is imported."""
    sys.path.append(str(TESTS))
    hub: Any = importlib.import_module("hub")
    folder = scratch / f"hub-{several}"
    folder.mkdir()
    running = hub.start(folder)
    places = {"HF_ENDPOINT": running.hub.url, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [
        sys.executable,
        str(Path(__file__).parent / "load.py"),
        "--cache",
        str(several),
        str(rounds),
        str(folder),
    ]
    places |= {"HF_TOKEN": running.hub.alice, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    ran = subprocess.run(command, env=os.environ | places, check=True, stdout=subprocess.PIPE)
    running.stop()
    row: Row = json.loads(ran.stdout)
    return row
