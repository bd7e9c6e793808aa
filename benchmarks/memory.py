"""Peak memory and time of extracting a signature from sharded checkpoints of many gigabytes, and of applying it.

    python benchmarks/memory.py                                  # twice 10 GB, into benchmarks/results/memory.json
    python benchmarks/memory.py --bytes 300e6 --side 1024 --touched 2  # small, and printed only

Two checkpoints are written, seeded noise; then every task runs in a fresh process on one thread, whose peak is its
own: a plain read of both checkpoints (the floor of an extraction), the extraction, a plain copy of one (the floor of
applying), and applying what was extracted; both with a few touched tensors and with all of them. Files are dropped
from the page cache before every task. Linux only: it reads /proc/self/status.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "memory.json"
NAME = "layers.{:03}.weight"
SHARD = "model-{:05}-of-{:05}.safetensors"
# Bytes of a shard, as far as whole tensors go; bytes of a plain read.
SHARD_BYTES, READ = 2 * 10**9, 2**20
SEED = 0


def write_checkpoint(folder: Path, tensors: int, side: int, noise: float) -> None:
    """Write `tensors` square float32 matrices in shards with an index; the robust twin adds fresh noise to each."""
    folder.mkdir()
    size = 4 * side * side
    each = max(1, SHARD_BYTES // size)
    shards = [range(at, min(at + each, tensors)) for at in range(0, tensors, each)]
    weight_map: dict[str, str] = {}
    base = np.random.default_rng(SEED).standard_normal((side, side), np.float32)
    for number, own in enumerate(shards, start=1):
        file = SHARD.format(number, len(shards))
        header: dict[str, Any] = {
            NAME.format(i): {"dtype": "F32", "shape": [side, side], "data_offsets": [k * size, (k + 1) * size]}
            for k, i in enumerate(own)
        }
        weight_map |= dict.fromkeys(header, file)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for i in own:
                values = base * np.float32(0.02 / (1 + i % 7))
                if noise:
                    change = np.random.default_rng((SEED, i)).standard_normal((side, side), np.float32)
                    values += change * np.float32(noise)
                out.write(values.data)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def checkpoint_bytes(folder: Path) -> int:
    """Of all shards, on disk."""
    return sum(f.stat().st_size for f in folder.glob("*.safetensors"))


def forget(folder: Path) -> None:
    """Drop the files of a folder from the page cache, so that every task reads them from the disk."""
    for file in folder.rglob("*.safetensors"):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory(key: str) -> int:
    """`VmRSS` (now) or `VmHWM` (highest so far) of this process, in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text("ascii").splitlines() if x.startswith(key))
    return int(line.split()[1]) * 1024


def task(name: str, folder: Path, touched: int) -> dict[str, Any]:
    """Do one thing in this process, and tell what it took."""
    import torch

    from rws_hub import RobustWeightSignature
    from rws_hub.apply import apply_to_checkpoint

    torch.set_num_threads(1)
    standard, robust, out = folder / "standard", folder / "robust", folder / "out"
    signature = folder / f"signature-{touched}"
    before, start, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    if name == "read":
        for file in sorted([*standard.glob("*.safetensors"), *robust.glob("*.safetensors")]):
            with file.open("rb", buffering=0) as handle:
                while handle.read(READ):
                    pass
    elif name == "copy":
        shutil.copytree(standard, out)
    elif name == "extract":
        RobustWeightSignature.extract(
            standard=standard,
            robust=robust,
            corruption="noise",
            license="mit",
            layers=[NAME.format(i) for i in range(touched)],
            error=0.5,
        ).save_pretrained(signature)
    else:
        apply_to_checkpoint(standard, [RobustWeightSignature.from_pretrained(signature)], [1.0], out)
    found = {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "rss_after_imports": before,
        "peak_rss": memory("VmHWM"),
        "growth": memory("VmHWM") - before,
    }
    if name in ("extract", "apply"):
        found["signature_bytes"] = sum(f.stat().st_size for f in signature.iterdir())
    return found


def measure(folder: Path, wanted: int, side: int, touched: list[int] | None) -> dict[str, Any]:
    """Write the checkpoints into `folder` and run every task.

    Raises:
        SystemExit: the disk has too little room.
    """
    tensors = max(1, round(wanted / (4 * side * side)))
    need, free = int(3.3 * tensors * 4 * side * side), shutil.disk_usage(folder).free
    if free < need:
        raise SystemExit(f"{need:,} bytes are needed and {free:,} are free; take fewer (--bytes)")
    for role, noise in (("standard", 0.0), ("robust", 0.001)):
        write_checkpoint(folder / role, tensors, side, noise)
    tasks: list[dict[str, Any]] = []
    kept = [(name, count) for count in touched or (2, tensors) for name in ("extract", "apply")]
    for name, count in [("read", 0), ("copy", 0), *kept]:
        forget(folder)
        command = [sys.executable, __file__, "--touched", str(count), "--task", name, str(folder)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        tasks.append({"task": name, "touched_tensors": count, **found})
        print(tasks[-1], file=sys.stderr)
        shutil.rmtree(folder / "out", ignore_errors=True)
    return {
        "seed": SEED,
        "checkpoint_bytes": checkpoint_bytes(folder / "standard"),
        "shards": len(list((folder / "standard").glob("*.safetensors"))),
        "tensors": tensors,
        "weights": tensors * side * side,
        "tasks": tasks,
    }


def main() -> None:
    """Measure, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=float, help="of each checkpoint, nearly (10e9, and then the result is kept)")
    parser.add_argument("--side", type=int, default=4096, help="rows and columns of each matrix")
    parser.add_argument("--touched", type=int, nargs="+", help="how many tensors signatures keep (default 2, and all)")
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        print(json.dumps(task(given.task[0], Path(given.task[1]), given.touched[0])))
        return
    import torch

    import rws_hub

    with tempfile.TemporaryDirectory() as scratch:
        measured = measure(Path(scratch), int(given.bytes or 10e9), given.side, given.touched)
    versions = {"rws-hub": rws_hub.__version__, "torch": torch.__version__, "numpy": np.__version__}
    machine = {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}
    found = {"command": "python benchmarks/memory.py", "machine": machine, "versions": versions, **measured}
    if given.bytes is None:
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
