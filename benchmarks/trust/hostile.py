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
import json
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hostile_claims import claims
from hostile_guided import guided
from hostile_mutants import MUTANTS, mutants, traced
from hostile_watch import ROOT, Watch, keep, stop, write


def corpus() -> dict[str, Any]:
    """Every attack by hand."""
    from corpus import attacks, attempt

    signal.signal(signal.SIGPROF, stop)
    watch = Watch()
    counts: dict[str, Counter[str]] = {}
    wrong, slowest, most, errors = [], (0.0, ""), (0, ""), Counter[str]()
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
        slowest, most = max(slowest, (watch.seconds, attack.name)), max(most, (watch.growth, attack.name))
    total = sum(sum(c.values()) for c in counts.values())
    return {
        "attacks": total,
        "refused": total - len(wrong),
        "not_refused": wrong,
        "by_target": {k: dict(v) for k, v in sorted(counts.items())},
        "errors": dict(errors.most_common()),
        "slowest": [round(slowest[0], 3), slowest[1]],
        "largest_growth": list(most),
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
        ("v5/linear", "payload", 255),
        ("v2/table", "payload", 255),
        ("small", "config", 255),
        ("small uniform", "config", 8),
        ("v5/linear", "config", 8),
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


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["corpus", "mutants", "flips", "claims", "guided", "traced"])
    parser.add_argument("--mutants", type=int, default=MUTANTS, help="how many in all")
    parser.add_argument("--seconds", type=int, default=60, help="of each parser, guided")
    given = parser.parse_args()
    if given.part == "guided":
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
