"""PEFT, diffusers and this package through the same wrong bases, damaged files, merges and unmerges.

    python benchmarks/trust/side_by_side.py           # into benchmarks/results/trust-rivals.json, in a minute or two
    python benchmarks/trust/side_by_side.py --print   # printed only

Needs peft and diffusers. One small UNet of random weights stands for every base, so that all of them can take it; all
get the same change of the same layers. Nothing is expected here: what happens is written down. Of every case: whether
there was an error, a warning or neither, its first line, and whether each weight of the model has the bits it had.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from adapters import Factors, Library, RwsHub, factors, libraries, run, unet
from noticing import Ear, Row, Weights, bits_of, first_line, told
from torch import nn
from wrongs import BASES, FILES, SEED

import rws_hub
from rws_hub import steady

RESULT = Path(__file__).parent.parent / "results" / "trust-rivals.json"
CYCLES = 100
# Of forward passes while a thread merges and unmerges.
SECONDS = 2.0


def loaded(library: Library, model: nn.Module, folder: Path, known: set[str]) -> Row:
    """Put what is in the folder on a model."""
    before, names = Weights(model), set(dict(model.named_parameters()))
    row = told(lambda: library.load(model, folder), known)
    row["weights_changed"] = before.differing()[0] > 0
    row["names_changed"] = set(dict(model.named_parameters())) != names
    row["finite"] = all(bool(p.isfinite().all()) for p in model.parameters())
    return row


def cycles(library: Library, folder: Path, change: Factors, dtype: torch.dtype) -> Row:
    """Share of the touched weights that are not back after one removal, and after many."""
    model = unet(SEED).to(dtype)
    weights, touched = Weights(model), [f"{name}.weight" for name in change]
    handle = library.load(model, folder)
    library.off(handle)
    once = weights.differing(touched)
    for _ in range(CYCLES - 1):
        library.on(handle)
        library.off(handle)
    after, count = weights.differing(touched)
    return {"once": once[0] / count, f"after_{CYCLES}": after / count}


def two(library: Library, first: Path, second: Path, change: Factors, dtype: torch.dtype) -> Row:
    """Two are put on, the first is taken off, then the other: is what is left what it should be, bit for bit?"""
    alone, model = unet(SEED).to(dtype), unet(SEED).to(dtype)
    library.load(alone, second)
    touched = [f"{name}.weight" for name in change]
    weights, live = Weights(model), dict(model.named_parameters())
    expected = [bits_of(p) for n, p in _plain(alone).items() if n in touched]
    handle = library.load(model, first)
    library.second(handle, second)
    library.first_off(handle)
    left = sum(
        int((bits_of(live[n]) != bits).sum()) for n, bits in zip(_in_order(alone, touched), expected, strict=True)
    )
    library.off(handle)
    wrong, count = weights.differing(touched)
    return {"second_alone": left / count, "both_off": wrong / count}


def _plain(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n.replace("base_layer.", ""): p for n, p in model.named_parameters()}


def _in_order(model: nn.Module, names: list[str]) -> list[str]:
    return [n for n in _plain(model) if n in names]


def again(library: Library, folder: Path, known: set[str]) -> Row:
    """Put it on when it is on already."""
    model = unet(SEED)
    handle = library.load(model, folder)
    before = Weights(model)
    return told(lambda: library.on(handle), known) | {"weights_changed": before.differing()[0] > 0}


def foreign(library: Library, folder: Path, change: Factors, known: set[str]) -> Row:
    """Take it off when somebody else has changed one weight meanwhile."""
    model = unet(SEED)
    live = dict(model.named_parameters())[f"{next(iter(change))}.weight"]
    clean = float(live[0, 0])
    handle = library.load(model, folder)
    with torch.no_grad():
        live[0, 0] += 1.0
    before = Weights(model)
    row = told(lambda: library.off(handle), known) | {"weights_changed": before.differing()[0] > 0}
    return row | {"foreign_change_kept": abs(float(live[0, 0]) - clean) > 0.5}


def beside(library: Library, folder: Path) -> Row | None:
    """Use it without merging, where the library can: do the weights stay, and is the output the clean one after?"""
    model = unet(SEED)
    before, clean = Weights(model), run(model)
    undo = library.beside(model, folder)
    if undo is None:
        return None
    row = {"weights_changed": before.differing()[0] > 0}
    return row | {"output_back": torch.equal(run(undo()), clean), "weights_changed_after": before.differing()[0] > 0}


def overflow(library: Library, folder: Path, known: set[str]) -> Row:
    """Put on a model in fp16 what is too much for it in the last layer only."""
    return loaded(library, unet(SEED).to(torch.float16), folder, known)


def meanwhile(library: Library, folder: Path, guarded: bool) -> Row:
    """Forward passes in one thread while another one puts on and takes off: how many saw a mixture, or failed."""
    model = unet(SEED)
    allowed = [run(model)]
    handle = library.load(model, folder)
    net = library.net(handle)
    allowed.append(run(net))
    library.off(handle)
    stop, counts = threading.Event(), {"passes": 0, "mixed": 0, "errors": 0}
    # PEFT and diffusers add rounding to the clean weights again and again, so outputs near one of both are one of both.
    apart = float((allowed[0] - allowed[1]).abs().max())

    def serve() -> None:
        while not stop.is_set():
            counts["passes"] += 1
            try:
                if guarded:
                    with steady(model):
                        found = run(net)
                else:
                    found = run(net)
            except Exception:
                counts["errors"] += 1
                continue
            counts["mixed"] += min(float((found - a).abs().max()) for a in allowed) > 0.01 * apart

    thread = threading.Thread(target=serve)
    thread.start()
    end, rounds = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        library.on(handle)
        time.sleep(0.002)
        library.off(handle)
        time.sleep(0.002)
        rounds += 1
    stop.set()
    thread.join()
    return counts | {"rounds": rounds}


def measure(scratch: Path) -> dict[str, Any]:
    """Every library through every case."""
    base = unet(SEED)
    change, other = factors(base, SEED + 1), factors(base, SEED + 2)
    last = list(change)[-1]
    huge = dict(change) | {last: (change[last][0] * 1e4, change[last][1] * 1e4)}
    found: dict[str, Any] = {"bases": {}, "files": {}, "cycles": {}, "two": {}, "life": {}, "beside": {}, "threads": {}}
    attacker = RwsHub("rws-hub, digests made anew", resealed=True)
    everyone: list[Library] = [*libraries(), attacker]
    for number, library in enumerate(everyone):
        start = time.perf_counter()
        root = scratch / str(number)
        for name, wanted in (("first", change), ("second", other), ("huge", huge)):
            library.write(root / name, base, wanted)
        with Ear() as ear:
            library.load(unet(SEED), root / "first")
        known = {first_line(text) for text in ear.heard}
        rows: dict[str, Row] = {}
        found["files"][library.label] = rows
        for case, damage in FILES.items():
            folder = root / f"damaged-{len(rows)}"
            shutil.copytree(root / "first", folder)
            damage(library, folder)
            rows[case] = loaded(library, unet(SEED), folder, known)
        if library is not attacker:
            lives(found, library, root, change, known)
        print(f"{library.label}: {time.perf_counter() - start:.0f} s", flush=True)
    return found


def lives(found: dict[str, Any], library: Library, root: Path, change: Factors, known: set[str]) -> None:
    """Everything but damaged files."""
    first, second, label = root / "first", root / "second", library.label
    found["bases"][label] = {n: loaded(library, make(), first, known) for n, make in BASES.items()}
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if library.label.startswith("rws-hub, verify"):
        return  # that switch is about the base, and bf16 is not the very base
    found["cycles"][label] = {name: cycles(library, first, change, dtype) for name, dtype in dtypes.items()}
    found["two"][label] = {name: two(library, first, second, change, dtype) for name, dtype in dtypes.items()}
    found["life"][label] = {
        "put on twice": again(library, first, known),
        "taken off after a foreign change": foreign(library, first, change, known),
        "fp16, the last layer overflows": overflow(library, root / "huge", known),
    }
    found["beside"][label] = beside(library, first)
    found["threads"][label] = meanwhile(library, first, guarded=False)
    if isinstance(library, RwsHub):
        found["threads"][f"{label}, within steady"] = meanwhile(library, first, guarded=True)


def main() -> None:
    """Measure, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="write nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure(Path(scratch))
    found = {
        "command": "python benchmarks/trust/side_by_side.py",
        "seed": SEED,
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "versions": {
            "rws-hub": rws_hub.__version__,
            "torch": version("torch"),
            "peft": version("peft"),
            "diffusers": version("diffusers"),
        },
        "seconds": round(time.perf_counter() - start, 1),
        **measured,
    }
    if given.print:
        print(json.dumps(found, indent=1))
    else:
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
