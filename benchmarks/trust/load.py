"""Patches under load: threads that change and threads that run one model, forks, shared memory, one cache for many.

    python benchmarks/trust/load.py               # into benchmarks/results/trust-load.json, in some minutes
    python benchmarks/trust/load.py --seconds 1   # each part shorter, and printed only

Every output that is seen within `steady` is compared, bit for bit, with those of all states that there can be; at the
end of every part every weight has to have the bits that it had. A process that does not end in time is counted as
locked, and killed. The Hub is the one of the tests, on loopback. Linux only: it forks.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import itertools
import json
import multiprocessing
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import rws_hub
from rws_hub import Patch, RobustWeightSignature, patch, steady

RESULT = Path(__file__).parent.parent / "results" / "trust-load.json"
TESTS = Path(__file__).parent.parent.parent / "tests"
SEED = 0
SECONDS = 20.0
ALPHAS = (0.5, 1.0)
# Seconds after which a process is taken to be locked.
PATIENCE = 20.0
REPO = "alice/rain"

Row = dict[str, Any]


class Deep(nn.Module):
    """Layers that all go into the output, so that it tells which states they were in. 12 x 64 x 64 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 64] -> [n, 64]; lets other threads run between two layers."""
        for layer in self.layers:
            x = layer(x)
            time.sleep(0)
        return x


def deep() -> nn.Module:
    """The same weights every time."""
    torch.manual_seed(SEED)
    return Deep().eval().requires_grad_(False)


def signature(name: str, seed: int) -> RobustWeightSignature:
    """Of every layer."""
    clean = deep().state_dict()
    generator = torch.Generator().manual_seed(seed)
    robust = {n: v + 0.05 * torch.randn(v.shape, generator=generator) for n, v in clean.items()}
    return RobustWeightSignature.extract(standard=clean, robust=robust, corruption=name, license="mit", layers=["*"])


def bits(model: nn.Module) -> bytes:
    """Every weight."""
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


def output(model: nn.Module) -> bytes:
    """Of one forward pass."""
    found: bytes = model(torch.ones(1, 64)).numpy().tobytes()
    return found


class Crew:
    """Threads that do their work again and again till it is over; what goes wrong in one of them is kept."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.errors: list[str] = []

    def _repeat(self, work: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                work()
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                return

    @contextlib.contextmanager
    def at(self, *works: Callable[[], object]) -> Iterator[None]:
        """They work while this block runs."""
        threads = [threading.Thread(target=self._repeat, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


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
    command = [sys.executable, __file__, "--cache", str(several), str(rounds), str(folder)]
    places |= {"HF_TOKEN": running.hub.alice, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    ran = subprocess.run(command, env=os.environ | places, check=True, stdout=subprocess.PIPE)
    running.stop()
    row: Row = json.loads(ran.stdout)
    return row


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
