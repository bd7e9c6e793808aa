"""Memory and time of small files that claim much, opened in a process that has made none of them."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hostile_watch import ROOT, Watch, stop


def claims() -> dict[str, Any]:
    """Make them, and have them opened."""
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
        command = [sys.executable, __file__, str(Path(name, "plan.json"))]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def opened(plan: Path) -> dict[str, Any]:
    """Open every folder of a plan five times, after honest artifacts were read."""
    import corpus
    import torch

    from rws_hub import RobustWeightSignature
    from rws_hub.errors import RWSError

    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, stop)
    for version in ("v3", "v5"):
        honest = RobustWeightSignature.from_pretrained(ROOT / "tests" / "fixtures" / version / "vit")
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


if __name__ == "__main__":
    print(json.dumps(opened(Path(sys.argv[1]))))
