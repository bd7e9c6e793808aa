"""A million mutants by seed, judged and watched; goes on where it was stopped."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hostile_watch import MEMORY, ROOT, SECONDS, SPACE, Watch, limit_space, read, stop, write

if TYPE_CHECKING:
    from mutants import Origin

MUTANTS = 1_000_000
# Mutants between two writes of the result.
STEP = 2_000


def loader() -> str:
    """Digest of everything that reads an artifact: numbers of another loader are not added to."""
    digest = hashlib.sha256()
    for name in (
        *("card card_merge card_metadata cells codec compact config errors factors frames jsonio names".split()),
        *("numbering payload pools resolve results spec spelling symbols".split()),
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
