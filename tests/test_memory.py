"""Checkpoints are walked through, never held: memory depends on the largest touched tensor and on what is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "memory.py"


# What both tasks take grows with the touched weights: symbols take half a byte each; codes, of one tensor at a time,
# two; zstd about 80 MB.
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("checkpoint", "side", "touched", "extract", "apply"),
    [(270e6, 2048, 2, 170e6, 70e6), (50e6, 3530, 1, 170e6, 40e6)],
    ids=["many tensors", "one tensor"],
)
def test_large_files_take_the_memory_of_a_few_blocks(tmp_path, checkpoint, side, touched, extract, apply):
    given = ["--bytes", str(checkpoint), "--side", str(side), "--touched", str(touched)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *given],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout)
    growth = {task["task"]: task["growth"] for task in measured["tasks"]}
    assert measured["checkpoint_bytes"] >= 0.99 * checkpoint
    assert growth["extract"] < extract and growth["apply"] < apply, measured
    assert not list(tmp_path.iterdir())
