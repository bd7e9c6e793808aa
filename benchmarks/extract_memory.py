"""Peak memory of extracting a signature from two checkpoint files that are much larger than it.

    python benchmarks/extract_memory.py                          # two files of 1.07 GB
    python benchmarks/extract_memory.py --tensors 16 --touched 2 # two files of 268 MB

Prints one JSON object; sizes are in MB of 1e6 bytes. Linux only: it reads /proc/self/status.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE = 2048
NAME = "layers.{}.weight"


def write_checkpoint(path: Path, tensors: int, noise: float) -> None:
    """Write a safetensors file of `tensors` square float32 matrices, one at a time."""
    size = 4 * SIDE * SIDE
    header = {
        NAME.format(i): {"dtype": "F32", "shape": [SIDE, SIDE], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(tensors)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = np.random.default_rng(0)
    base, change = (generator.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for i in range(tensors):
            file.write((base * np.float32(1 / (i + 1)) + change * np.float32(noise)).astype("<f4").data)


def memory(key: str) -> float:
    """`VmRSS` (now) or `VmHWM` (highest so far) of this process, in MB."""
    line = next(x for x in Path("/proc/self/status").read_text("ascii").splitlines() if x.startswith(key))
    return int(line.split()[1]) * 1024 / 1e6


def measure(folder: Path, touched: int) -> dict[str, float]:
    """Extract from the two files in `folder` and save, in this process."""
    import torch

    from rws_hub import RobustWeightSignature

    torch.set_num_threads(1)
    before, start = memory("VmRSS"), time.perf_counter()
    signature = RobustWeightSignature.extract(
        standard=folder / "standard.safetensors",
        robust=folder / "robust.safetensors",
        corruption="noise",
        license="mit",
        layers=[NAME.format(i) for i in range(touched)],
    )
    signature.save_pretrained(folder / "signature")
    return {
        "checkpoint_mb": (folder / "standard.safetensors").stat().st_size / 1e6,
        "signature_mb": signature.nbytes / 1e6,
        "seconds": time.perf_counter() - start,
        "rss_after_imports_mb": before,
        "peak_rss_mb": memory("VmHWM"),
        "growth_mb": memory("VmHWM") - before,
    }


def main() -> None:
    """Write the files, then measure in a fresh process, whose peak is that of the extraction alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensors", type=int, default=64, help="matrices of 16.8 MB in each file")
    parser.add_argument("--touched", type=int, default=8, help="how many of them the signature keeps")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps({k: round(v, 1) for k, v in measure(arguments.measure, arguments.touched).items()}))
        return
    with tempfile.TemporaryDirectory() as name:
        for role, noise in (("standard", 0.0), ("robust", 0.01)):
            write_checkpoint(Path(name, f"{role}.safetensors"), arguments.tensors, noise)
        command = [sys.executable, __file__, "--touched", str(arguments.touched), "--measure", name]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
