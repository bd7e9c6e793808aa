"""Training and measuring as operations that `faults.py` disturbs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fault_cases import NEW, OLD, Case, command, files, fog, last, model
from patterns import parquet, timm_folder


def train(scratch: Path) -> Case:
    """`rws train` of one epoch, its state saved after every step."""
    from rws_hub import training
    from rws_hub.training import loop

    loop._SAVE_SECONDS = training._PATIENCE = 0.0
    parquet(scratch / "data", {"train": 150})
    timm_folder(scratch / "start", model())

    def run(root: Path) -> int:
        words = ("--epochs", 1, "--batch-size", 64, "--size", 32, "--json")
        return int(command("train", scratch / "start", scratch / "data", "-o", root / "out", *words))

    if run(scratch):
        raise SystemExit(last[1])

    def timeless(folder: Path) -> dict[str, object]:
        found: dict[str, object] = dict(files(folder))
        return found | {"train.json": json.loads((folder / "train.json").read_bytes()) | {"seconds": 0}}

    expected = timeless(scratch / "out")

    def state(root: Path) -> str:
        out = root / "out"
        if not (out / "train.json").exists():
            return str(OLD)  # unfinished, and says so; what it is worth the next run shows
        found = timeless(out)
        for state_of in ("state.safetensors", "best.safetensors"):
            found.pop(state_of, None)  # of a training that was killed after its end; the next run removes them
        return str(NEW) if found == expected else f"a finished training that differs: {sorted(found)}"

    return Case("train", lambda root: None, run, state)


def evaluate(scratch: Path) -> Case:
    """`rws eval` in the folder of another measurement."""
    parquet(scratch / "data", {"test": 100})
    timm_folder(scratch / "start", model())
    fog().save_pretrained(scratch / "fog")

    def measure(root: Path, alpha: float) -> int:
        words = ("--corruption", "gaussian_noise", "--severity", 2, "--json", "--alpha", alpha)
        out = ("-o", root / "out", "--signature", scratch / "fog")
        return int(command("eval", scratch / "start", scratch / "data", *out, *words))

    def told(root: Path) -> tuple[bytes | None, ...]:
        pair = (root / "out" / "measured.json", root / "out" / "results.json")
        return tuple(f.read_bytes() if f.exists() else None for f in pair)

    expected = {}
    for name, alpha in ((OLD, 1.0), (NEW, 0.5)):
        if measure(scratch / name, alpha):
            raise SystemExit(last[1])
        expected[name] = told(scratch / name)

    def state(root: Path) -> str:
        found = told(root)
        # measured.json is replaced whole; results.json may be missing beside it, but not be that of another one.
        whole = next((name for name, pair in expected.items() if found == pair), None)
        return whole or next((OLD for pair in expected.values() if found == (pair[0], None)), "a mixture")

    def prepare(root: Path) -> None:
        shutil.copytree(scratch / OLD / "out", root / "out")

    return Case("eval, over another", prepare, lambda root: measure(root, 0.5), state)
