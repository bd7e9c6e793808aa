"""Every fault at every step of saving and applying; `benchmarks/trust/faults.py` has more of both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(sys.platform != "linux", reason="forks, kills and limits processes")
def test_the_old_state_or_the_new_and_the_next_run_succeeds(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "fault_enumeration.py"), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert set(told) == {"save, new folder", "save, over another", "apply, file"}
    for operation, faults in told.items():
        assert len(faults) == 4
        for fault, (points, wrong) in faults.items():
            assert points > 1 and not wrong, f"{operation}, {fault}: {wrong}"
