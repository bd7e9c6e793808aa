"""Coverage-guided fuzzing of the parsers with atheris: `python benchmarks/trust/hostile.py guided --seconds 60`.

Every parser runs in a process of its own (libFuzzer ends the one that it runs in), from honest inputs on. What makes
one fail is kept in tests/hostile/found/, where a test replays it. Needs `pip install atheris`; nothing else of this
repository does.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SEED = 1
# One input may take so many seconds, be so long, and need so much memory before it counts as found.
SECONDS, LENGTH, MEGABYTES = 5, 8192, 2048


def work(parser: str, seconds: int, corpus: str, found: str) -> None:
    """Fuzz one parser in this process; never returns."""
    import atheris

    with atheris.instrument_imports(include=["rws_hub"]):
        from targets import TARGETS
    target = TARGETS[parser]
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/", f"-seed={SEED}", f"-max_len={LENGTH}"]
    options += [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", "-print_final_stats=1", corpus]
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


def guided(seconds: int, keep: Callable[[str, bytes, str], None]) -> dict[str, Any]:
    """Fuzz every parser for so many seconds, and keep what was found."""
    import importlib.metadata

    from targets import SEEDS

    rows = []
    for parser, honest in SEEDS.items():
        with tempfile.TemporaryDirectory() as name:
            corpus, found = Path(name, "corpus"), Path(name, "found")
            corpus.mkdir()
            found.mkdir()
            (corpus / "honest").write_bytes(honest())
            paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests" / "hostile"), *sys.path])
            command = [sys.executable, __file__, parser, str(seconds), str(corpus), str(found)]
            ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
            for file in sorted(found.iterdir()):
                keep(parser, file.read_bytes(), (ran.stdout + ran.stderr)[-600:])
            said = ran.stderr
            covered = re.findall(r"cov: (\d+)", said)
            units = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
            rows.append(
                {"parser": parser, "inputs": int(units[1]) if units else None, "exit": ran.returncode}
                | {"covered_at_first": int(covered[0]) if covered else None}
                | {"covered_at_last": int(covered[-1]) if covered else None}
                | {"kept_inputs": len(list(corpus.iterdir())), "found": len(list(found.iterdir()))}
            )
            print(rows[-1], said[-300:] if ran.returncode else "", file=sys.stderr)
    return {"seconds_each": seconds, "seed": SEED, "atheris": importlib.metadata.version("atheris"), "rows": rows}


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
