"""Hostile artifacts, counted: a corpus by hand, a million mutants, every flipped byte, what a small file can claim.

    python benchmarks/trust/hostile.py corpus                   # every attack by hand, and whether it was refused
    nice python benchmarks/trust/hostile.py mutants             # 1,000,000 by seed; goes on where it was stopped
    python benchmarks/trust/hostile.py flips                    # every byte of small artifacts
    python benchmarks/trust/hostile.py claims                   # memory and time of files that claim a terabyte
    python benchmarks/trust/hostile.py traced --mutants 20000   # what Python holds at once, of the first of them
    python benchmarks/trust/hostile.py guided --seconds 60      # coverage-guided, with atheris (pip install atheris)

Each writes its own part of benchmarks/results/trust-hostile.json. The attacks, mutants and rules are those of
tests/hostile. Linux only: it reads and resets what /proc knows of this process.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutants import Origin

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "hostile"), str(Path(__file__).parent)]
RESULT = ROOT / "benchmarks" / "results" / "trust-hostile.json"
FOUND = ROOT / "tests" / "hostile" / "found"

MUTANTS = 1_000_000
# A mutant may take so much processor time, and so much memory beyond twice its own size.
SECONDS, MEMORY = 2.0, 16 * 2**20
# Address space beyond what the process has: what asks for more gets a MemoryError, which no loader of ours handles.
SPACE = 2**30
# Mutants between two writes of the result.
STEP = 2_000


class TooLongError(Exception):
    """A reader used more processor time than it may."""


class Watch:
    """Processor time and memory of one call after the other."""

    def __init__(self) -> None:
        self._reset = os.open("/proc/self/clear_refs", os.O_WRONLY)
        self._now = os.open("/proc/self/statm", os.O_RDONLY)
        self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._page = resource.getpagesize()
        self.seconds = 0.0
        self.growth = 0
        self.entered = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Measure what happens inside.

        Raises:
            TooLongError: it took more than `SECONDS`.
        """
        self.entered += 1
        before = int(os.pread(self._now, 200, 0).split()[1]) * self._page
        os.pwrite(self._reset, b"5", 0)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds = time.process_time() - start
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.growth = max(0, self.highest() - before)

    def highest(self) -> int:
        """The most memory of this process since it was last reset, in bytes; what getrusage tells outlives an exec."""
        return int(os.pread(self._status, 8192, 0).partition(b"VmHWM:")[2].split()[0]) * 1024


def stop(number: int, frame: FrameType | None) -> None:
    """What the timer calls."""
    raise TooLongError(f"more than {SECONDS:g} s of processor time")


def limit_space() -> None:
    """No more address space than there is now, and `SPACE`."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    most = pages * resource.getpagesize() + SPACE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def loader() -> str:
    """Digest of everything that reads an artifact: numbers of another loader are not added to."""
    digest = hashlib.sha256()
    for name in (
        *("card card_merge card_metadata cells codec compact config errors frames jsonio names numbering".split()),
        *("payload pools resolve results spec spelling symbols".split()),
    ):
        digest.update((ROOT / "rws_hub" / f"{name}.py").read_bytes())
    for name in ("mutants", "judge", "side"):
        digest.update((ROOT / "tests" / "hostile" / f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]


def mutants(wanted: int) -> dict[str, Any]:
    """Judge mutants by seed, from 0 on, or from where the last run was stopped."""
    import torch
    from mutants import origins
    from side import judged
    from tqdm import tqdm

    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, stop)
    known = origins(ROOT / "tests" / "fixtures")
    found: dict[str, Any] = read().get("mutants", {})
    if found.get("loader") != loader():
        found = {"loader": loader(), "done": 0, "kinds": {}, "seconds": 0.0, "cpu_seconds": 0.0, "violations": []}
        found |= {
            "slowest": 0.0,
            "largest_growth": 0,
            "versions_of_format": sorted({o.config.format_version for o in known}),
        }
        found |= {"limits": {"seconds": SECONDS, "memory_beyond_twice_the_size": MEMORY, "address_space": SPACE}}
    counts = {kind: Counter(verdicts) for kind, verdicts in found["kinds"].items()}
    watch, began, cpu = Watch(), time.perf_counter(), time.process_time()
    for seed in range(min(found["done"], 200)):  # what is made once is made before anything is measured
        judged(known, seed)
    limit_space()
    for violation in list(found["violations"]):
        if not made(known, violation["seed"]):
            found["violations"].remove(violation)
            found["not_made"] = sorted({*found.get("not_made", []), violation["seed"]})
            counts[violation["kind"]]["violation"] -= 1
    counts = {kind: +c for kind, c in counts.items() if +c}
    found["kinds"] = {k: dict(sorted(v.items())) for k, v in sorted(counts.items())}
    wanted += len(found.get("not_made", []))
    bar = tqdm(range(found["done"], wanted), initial=found["done"], total=wanted, unit="mutant", mininterval=5)
    for seed in bar:
        case, verdict, entered = None, "", watch.entered
        try:
            case = judged(known, seed, watch)
            verdict = case.verdict
            if watch.growth > 2 * case.size + MEMORY:
                verdict = "too much memory"
        except Exception as error:
            verdict = f"{type(error).__name__}: {error}"[:200]
            if entered == watch.entered:  # there is no file that says it
                found["not_made"] = [*found.get("not_made", []), seed]
                continue
        kind = "?" if case is None else case.kind
        if verdict not in ("refused", "the same", "another"):
            found["violations"].append({"seed": seed, "kind": kind, "what": verdict, "growth": watch.growth})
            bar.write(f"seed {seed}: {verdict}")
            verdict = "violation"
        counts.setdefault(kind, Counter())[verdict] += 1
        if seed >= 200:  # the first ones import and compile what is used for the first time
            found["slowest"] = max(found["slowest"], round(watch.seconds, 3))
            found["largest_growth"] = max(found["largest_growth"], watch.growth)
        if (seed + 1) % STEP == 0 or seed + 1 == wanted:
            now, used = time.perf_counter(), time.process_time()
            found |= {"done": seed + 1, "kinds": {k: dict(sorted(v.items())) for k, v in sorted(counts.items())}}
            found |= {"seconds": round(found["seconds"] + now - began, 1)}
            found |= {"cpu_seconds": round(found["cpu_seconds"] + used - cpu, 1)}
            began, cpu = now, used
            write("mutants", found)
    return found


def made(origins: Sequence[Origin], seed: int) -> bool:
    """Whether a seed gives a file at all: an integer of more than 4,300 digits cannot be spelled by Python."""
    from side import judged

    watch = Watch()
    with contextlib.suppress(Exception):
        judged(origins, seed, watch)
    return watch.entered > 0


def traced(count: int) -> dict[str, Any]:
    """The most that Python and numpy hold at once while a mutant is judged, of the first mutants."""
    from mutants import origins
    from side import judged
    from tqdm import tqdm

    known = origins(ROOT / "tests" / "fixtures")
    for seed in range(200):
        judged(known, seed)
    peaks: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def watch() -> Iterator[None]:
        tracemalloc.start()
        try:
            yield
        finally:
            peaks.append((tracemalloc.get_traced_memory()[1], seed))
            tracemalloc.stop()

    sizes = {}
    for seed in tqdm(range(count), unit="mutant", mininterval=5):
        case = judged(known, seed, watch)
        sizes[seed] = case.size
    beyond = [(peak - 2 * sizes[seed], seed) for peak, seed in peaks]
    return {"mutants": count, "largest": max(peaks)[0], "beyond_twice_the_size": max(beyond)[0], "seed": max(beyond)[1]}


def corpus() -> dict[str, Any]:
    """Every attack by hand."""
    import tempfile

    from corpus import attacks, attempt

    signal.signal(signal.SIGPROF, stop)
    watch = Watch()
    counts: dict[str, Counter[str]] = {}
    wrong, slowest, most, errors = [], 0.0, 0, Counter[str]()
    for attack in attacks():
        with tempfile.TemporaryDirectory() as folder:
            got = None
            attack.make(Path(folder))
            try:
                with watch():
                    got = attempt(attack, Path(folder))
            except Exception as error:
                got = error
        good = attack.allows(got)
        counts.setdefault(attack.target, Counter())["refused" if good else "not refused"] += 1
        errors[type(got).__name__] += 1
        if not good:
            wrong.append({"name": attack.name, "what": repr(got)[:200]})
        slowest, most = max(slowest, watch.seconds), max(most, watch.growth)
    total = sum(sum(c.values()) for c in counts.values())
    return {
        "attacks": total,
        "refused": total - len(wrong),
        "not_refused": wrong,
        "by_target": {k: dict(v) for k, v in sorted(counts.items())},
        "errors": dict(errors.most_common()),
        "slowest": round(slowest, 3),
        "largest_growth": most,
    }


def flips() -> dict[str, Any]:
    """Every byte of small artifacts set to every other value, or each of its bits turned."""
    from judge import judge
    from mutants import Mutant, origins
    from tqdm import tqdm

    rows = []
    known = {o.name: o for o in origins(ROOT / "tests" / "fixtures")}
    plan = [
        ("small", "payload", 255),
        ("small uniform", "payload", 255),
        ("v2/table", "payload", 255),
        ("small", "config", 255),
        ("small uniform", "config", 8),
        ("v2/table", "config", 8),
    ]
    for name, part, values in plan:
        origin = known[name]
        data = origin.payload if part == "payload" else origin.text
        counts: Counter[str] = Counter()
        for at in tqdm(range(len(data)), desc=f"{name}, {part}", leave=False):
            changes = range(1, 256) if values == 255 else [1 << bit for bit in range(8)]
            for change in changes:
                changed = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
                text, payload = (origin.text, changed) if part == "payload" else (changed, origin.payload)
                counts[judge(Mutant(origin, part, text, payload, False))] += 1
        rows.append(
            {"artifact": name, "format": origin.config.format_version, "part": part, "bytes": len(data)}
            | {"values_each": values, "flips": sum(counts.values()), **dict(counts)}
        )
    return {"rows": rows}


def claims() -> dict[str, Any]:
    """Memory and time of small files that claim much, opened in a process that has made none of them."""
    import tempfile

    from corpus import attacks

    with tempfile.TemporaryDirectory() as name:
        plan = []
        for i, attack in enumerate(a for a in attacks() if a.claims):
            folder = Path(name, str(i))
            folder.mkdir()
            attack.make(folder)
            files = [f.stat() for f in folder.rglob("*") if f.is_file()]
            plan.append(
                {"name": attack.name, "claims": attack.claims, "folder": str(folder), "enter": attack.enter.__name__}
                | {"error": attack.error.__name__, "message": attack.message}
                | {"bytes": sum(min(f.st_size, f.st_blocks * 512) for f in files)}
            )
        Path(name, "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        command = [sys.executable, __file__, "open", "--plan", str(Path(name, "plan.json"))]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def opened(plan: Path) -> dict[str, Any]:
    """Open every folder of a plan five times, after an honest artifact was read."""
    import corpus
    import torch

    from rws_hub import RobustWeightSignature
    from rws_hub.errors import RWSError

    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, stop)
    honest = RobustWeightSignature.from_pretrained(ROOT / "tests" / "fixtures" / "v3" / "vit")
    for name in honest.names:
        honest.delta(name)
    watch, rows = Watch(), []
    before = int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()
    for row in json.loads(plan.read_text("utf-8")):
        times, growth, highest, refused = [], 0, 0, True
        for _ in range(5):
            start = time.perf_counter()
            with watch():
                try:
                    getattr(corpus, row["enter"])(Path(row["folder"]))
                    refused = False
                except RWSError as error:
                    refused = refused and type(error).__name__ == row["error"] and row["message"] in str(error)
            times.append(time.perf_counter() - start)
            growth = max(growth, watch.growth)
            highest = max(highest, watch.highest() - before)
        rows.append(
            {k: row[k] for k in ("name", "claims", "bytes")}
            | {"refused": refused, "growth": growth, "above_the_start": highest}
            | {"milliseconds_least": round(min(times) * 1e3, 2), "milliseconds_most": round(max(times) * 1e3, 2)}
        )
    return {"rows": rows, "memory_at_the_start": before}


def keep(parser: str, data: bytes, why: str) -> None:
    """A found case as a small file of its own, for ever."""
    FOUND.mkdir(exist_ok=True)
    name = f"{parser}-{hashlib.sha256(data).hexdigest()[:12]}.json"
    case = {"parser": parser, "why": why, "input": base64.b64encode(data).decode()}
    (FOUND / name).write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8")


def read() -> dict[str, Any]:
    """What was measured so far."""
    found: dict[str, Any] = json.loads(RESULT.read_text("utf-8")) if RESULT.is_file() else {}
    return found


def write(part: str, found: dict[str, Any]) -> None:
    """One part of the results, beside the others."""
    import safetensors
    import torch

    import rws_hub

    machine = {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}
    versions = {
        "rws-hub": rws_hub.__version__,
        "torch": torch.__version__.partition("+")[0],
        "safetensors": safetensors.__version__,
    }
    about = {"command": "python benchmarks/trust/hostile.py", "seed": 0, "machine": machine, "versions": versions}
    whole = about | {k: v for k, v in read().items() if k not in about} | {part: found}
    scratch = RESULT.with_suffix(".part")
    scratch.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    scratch.replace(RESULT)


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["corpus", "mutants", "flips", "claims", "guided", "traced", "open"])
    parser.add_argument("--mutants", type=int, default=MUTANTS, help="how many in all")
    parser.add_argument("--seconds", type=int, default=60, help="of each parser, guided")
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part == "open":
        print(json.dumps(opened(given.plan)))
        return
    if given.part == "guided":
        from guided import guided

        found = guided(given.seconds, keep)
    elif given.part == "mutants":
        found = mutants(given.mutants)
    elif given.part == "traced":
        found = traced(given.mutants)
    else:
        found = {"corpus": corpus, "flips": flips, "claims": claims}[given.part]()
    write(given.part, found)
    print(json.dumps(found, indent=1)[:4000])


if __name__ == "__main__":
    main()
