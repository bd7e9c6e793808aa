"""The demo's numbers for README, and its signature for cards/: one run of `rws demo`, kept in the repository.

    python benchmarks/demo.py       # about a minute on 2 cores; writes benchmarks/results/demo.json and cards/

Seeds and settings are the demo's own and stand in the result, with versions and machine class.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "demo.json"
CARD = ROOT / "cards" / "resnet18-digits-gaussian_noise-s5"


def main() -> None:
    """Run the demo in a scratch folder and keep what it measured and made."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "demo"
        command = [sys.executable, "-m", "rws_hub.cli", "demo", "--json", "-o", str(out)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        shutil.rmtree(CARD, ignore_errors=True)
        shutil.copytree(out / "signature", CARD)
    for path in ("out", "signature", "figure", "url"):
        del found[path]
    found["command"] = "rws demo"
    found["machine"] = {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }
    found["versions"] = {name: version(name) for name in ("rws-hub", "torch", "timm", "scikit-learn")}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
