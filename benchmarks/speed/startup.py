"""Start-up of our command line and of imports, ours and others', each in a fresh interpreter."""

from __future__ import annotations

import itertools
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import rws_hub


def make_folder(folder: Path) -> Path:
    """A signature of the shapes of a ResNet-18 (torch modules of those names; weights are noise)."""
    widths = [64, 64, 128, 256, 512]
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (10, 512), "fc.bias": (10,)}
    norms = {"bn1": 64}
    for stage, (before, width) in enumerate(itertools.pairwise(widths), start=1):
        for block in (0, 1):
            into = before if block == 0 else width
            at = f"layer{stage}.{block}"
            shapes |= {f"{at}.conv1.weight": (width, into, 3, 3), f"{at}.conv2.weight": (width, width, 3, 3)}
            norms |= {f"{at}.bn1": width, f"{at}.bn2": width}
            if into != width:
                shapes[f"{at}.downsample.0.weight"] = (width, into, 1, 1)
                norms[f"{at}.downsample.1"] = width
    for name, width in norms.items():
        shapes |= {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    generator = torch.Generator().manual_seed(0)
    clean = {n: torch.rand(s, generator=generator) + 0.5 for n, s in shapes.items()}
    robust = {n: t * (1 + 0.01 * torch.rand(t.shape, generator=generator)) for n, t in clean.items()}
    signature = rws_hub.RobustWeightSignature.extract(
        standard=clean, robust=robust, corruption="fog", license="apache-2.0", layers="shallow"
    )
    signature.save_pretrained(folder)
    return folder


def run(code: str) -> tuple[float, float]:
    """Wall and CPU seconds of one fresh interpreter."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def startup(scratch: Path, runs: int) -> dict[str, Any]:
    """Median wall and CPU seconds of every case. They take turns, so that a slow moment hits all of them."""
    folder = make_folder(scratch / "resnet")
    cases = {
        "python": "pass",
        "import rws_hub": "import rws_hub",
        "rws --version": "from rws_hub.cli import main; main(['--version'])",
        "rws info FOLDER": f"from rws_hub.cli import main; main(['info', {str(folder)!r}])",
        "rws card FOLDER": f"from rws_hub.cli import main; main(['card', {str(folder)!r}])",
        "import torch": "import torch",
        "from rws_hub import patch": "from rws_hub import patch",
        "import safetensors.torch": "import safetensors.torch",
        "import peft": "import peft",
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for turn in range(runs + 1):
        for name, code in cases.items():
            seconds = run(code)
            if turn:  # the first turn only fills the file cache
                taken[name].append(seconds)
    return {
        name: {
            "wall_s": round(statistics.median(w for w, _ in times), 4),
            "cpu_s": round(statistics.median(c for _, c in times), 4),
        }
        for name, times in taken.items()
    }
