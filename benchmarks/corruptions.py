"""CPU milliseconds per image of every corruption, at 32, 64 and 224 pixels, beside the package that people use.

    PYTHONPATH=tests python benchmarks/corruptions.py        (about a minute)

Writes benchmarks/results/corruptions.json, from which `make docs` fills docs/CORRUPTIONS.md. The images are pieces of
the two photographs that come with scikit-learn. One thread; the least of several runs, so that what else the machine
does counts little.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import scipy
from photographs import photographs

import rws_hub
from rws_hub.corruptions import CORRUPTIONS, corrupt

RESULT = Path(__file__).parent / "results" / "corruptions.json"
COUNTS = {32: 128, 64: 48, 224: 4}
RUNS = 5

# imagecorruptions 1.1.2, which knows the constants of 224 pixels only; process time of one thread, measured on
# 2026-11-20 with numpy 2.4.6, scikit-image 0.26 and scipy 1.17, under which it needs a shim to be imported and to run.
IMAGECORRUPTIONS_MS: dict[int, dict[str, float]] = {
    32: {
        "gaussian_noise": 0.07,
        "shot_noise": 0.14,
        "impulse_noise": 0.08,
        "defocus_blur": 0.16,
        "glass_blur": 5.9,
        "motion_blur": 0.71,
        "zoom_blur": 1.46,
        "snow": 0.56,
        "frost": 7.7,
        "fog": 0.30,
        "brightness": 0.33,
        "contrast": 0.05,
        "elastic_transform": 0.38,
        "pixelate": 0.03,
        "jpeg_compression": 0.12,
        "speckle_noise": 0.06,
        "gaussian_blur": 0.16,
        "spatter": 0.18,
        "saturate": 0.34,
    },
    64: {
        "gaussian_noise": 0.20,
        "shot_noise": 0.50,
        "impulse_noise": 0.21,
        "defocus_blur": 0.29,
        "glass_blur": 30,
        "motion_blur": 1.1,
        "zoom_blur": 4.1,
        "snow": 0.83,
        "frost": 7.0,
        "fog": 0.39,
        "brightness": 0.91,
        "contrast": 0.12,
        "elastic_transform": 0.99,
        "pixelate": 0.04,
        "jpeg_compression": 0.14,
        "speckle_noise": 0.20,
        "gaussian_blur": 0.47,
        "spatter": 0.35,
        "saturate": 0.91,
    },
}


def milliseconds(name: str, severity: int, side: int) -> float:
    """CPU time of one image of a batch."""
    images = photographs(COUNTS[side], side, side)
    corrupt(images[:1], name, severity, seed=0)  # what is made once, such as textures and tables
    taken = []
    for _ in range(RUNS if side < 224 else 2):
        start = time.process_time()
        corrupt(images, name, severity, seed=0)
        taken.append(time.process_time() - start)
    return 1000 * min(taken) / len(images)


def main() -> None:
    """Measure, write, and print what matters."""
    rows: list[dict[str, Any]] = []
    for name in CORRUPTIONS:
        row: dict[str, Any] = {"name": name}
        for side in COUNTS:
            ours = [milliseconds(name, severity, side) for severity in range(1, 6)]
            theirs = IMAGECORRUPTIONS_MS.get(side, {}).get(name)
            row[str(side)] = {"mean": round(statistics.mean(ours), 4), "most": round(max(ours), 4), "theirs": theirs}
        rows.append(row)
        print(row)
    found = {
        "command": "PYTHONPATH=tests python benchmarks/corruptions.py",
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "versions": {
            "rws-hub": rws_hub.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "pillow": PIL.__version__,
        },
        "batch": {str(side): count for side, count in COUNTS.items()},
        "rows": rows,
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
