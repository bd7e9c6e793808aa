"""Start-up of the command line: median wall and CPU seconds, as JSON. Needs no network and no GPU.

    python benchmarks/startup.py [--runs 15]

Each case is a fresh interpreter. The cases take turns, so that a slow moment of the machine hits all of them.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="runs of each case (default 15)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_folder(Path(scratch) / "fog")
        size = sum(f.stat().st_size for f in folder.iterdir())
        cases = {
            "python": "pass",
            "import rws_hub": "import rws_hub",
            "rws --version": "from rws_hub.cli import main; main(['--version'])",
            "rws info FOLDER": f"from rws_hub.cli import main; main(['info', {str(folder)!r}])",
            "rws card FOLDER": f"from rws_hub.cli import main; main(['card', {str(folder)!r}])",
            "import rws_hub.hub": "import rws_hub.hub",
            "import torch": "import torch",
            "from rws_hub import patch": "from rws_hub import patch",
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
        for turn in range(runs + 1):
            for name, code in cases.items():
                seconds = run(code)
                if turn:  # the first turn only fills the file cache
                    taken[name].append(seconds)
    print(
        json.dumps(
            {
                "runs": runs,
                "folder_bytes": size,
                "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
                "versions": {
                    "python": platform.python_version(),
                    "rws-hub": rws_hub.__version__,
                    "torch": torch.__version__,
                },
                "median_wall_s": {n: round(statistics.median(w for w, _ in t), 4) for n, t in taken.items()},
                "median_cpu_s": {n: round(statistics.median(c for _, c in t), 4) for n, t in taken.items()},
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
