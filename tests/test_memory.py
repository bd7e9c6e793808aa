"""Checkpoints are walked through, never held: memory depends on the largest tensor and on what is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "extract_memory.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_extracting_from_large_files_takes_the_memory_of_a_few_tensors(tmp_path):
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--tensors", "16", "--touched", "2"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout)
    assert measured["checkpoint_mb"] > 250
    assert measured["growth_mb"] < 150, measured
