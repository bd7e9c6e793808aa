"""How often a name table can be inferred and proven for two models, and how often a wrong one is.

    PYTHONPATH=tests python benchmarks/infer_maps.py        (about twenty minutes on two cores)

Twins come from tests/twins.py: the same function in two libraries' names. Everything that is no twin but of similar
size is tried, too, and so are twins spoiled in one setting: nothing of that may be "proven". Writes
benchmarks/results/infer_maps.json, from which `make docs` fills docs/NAMES.md.
"""

from __future__ import annotations

import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import transformers
from torch import nn
from tqdm import tqdm
from twin_weights import layout
from twins import TWINS, Twin

import rws_hub
from rws_hub.errors import InferenceError
from rws_hub.infer import infer_table

RESULT = Path(__file__).parent / "results" / "infer_maps.json"
# Pairs of other twins are tried if the larger has at most this many times the numbers of the smaller.
SIMILAR = 1.25


def attempt(a: nn.Module, b: nn.Module, size: int) -> dict[str, Any]:
    """One inference: solved with what proof, or the reason, and how long it took."""
    start = time.perf_counter()
    try:
        found = infer_table(a, b, torch.zeros(1, 3, size, size))
    except InferenceError as error:
        return {"solved": False, "reason": str(error), "seconds": round(time.perf_counter() - start, 2)}
    rows = sum(" | " in line for line in found.text.splitlines()) - 1
    facts = {"pairs": len(found.pairs), "rows": rows, "difference": found.difference, "before": found.before}
    return {"solved": True, **facts, "seconds": round(time.perf_counter() - start, 2)}


def twins() -> list[dict[str, Any]]:
    """Every entry of the catalogue."""
    return [
        {"name": t.name, "table": t.table, **attempt(t.a(), t.b(), t.size)} for t in tqdm(TWINS, "twins", leave=False)
    ]


def strangers() -> dict[str, Any]:
    """Pairs that are no twins: how many were tried, and those that were "solved" although their shapes differ."""
    sizes = {t.name: sum(_count(s) for s in layout(t.a()).values()) for t in TWINS}
    tried, wrong, alike = 0, [], 0
    for one in tqdm(TWINS, "strangers", leave=False):
        for other in TWINS:
            if one.name == other.name or one.size != other.size:
                continue
            low, high = sorted((sizes[one.name], sizes[other.name]))
            if high > SIMILAR * low:
                continue
            if _same_shapes(one, other):
                alike += 1  # one architecture under two names of the catalogue: solving it is right
                continue
            tried += 1
            if attempt(one.a(), other.b(), one.size)["solved"]:
                wrong.append(f"{one.name} and {other.name}")
    return {"tried": tried, "false_positives": wrong, "left_out_as_one_architecture": alike}


def spoiled() -> list[dict[str, Any]]:
    """Twins of equal names and shapes with one setting changed."""
    changes: dict[str, Callable[[nn.Module], bool]] = {
        "every activation to tanh": _other_activation,
        "first stride of 2 to 1, padding kept": _other_stride,
        "every norm epsilon times 10": partial(_other_epsilon, 10),
        "every norm epsilon times 1000": partial(_other_epsilon, 1000),
    }
    found: list[dict[str, Any]] = []
    for twin in tqdm(TWINS, "spoiled", leave=False):
        for what, change in changes.items():
            model = twin.b()
            if change(model):
                found.append({"name": twin.name, "change": what, **attempt(twin.a(), model, twin.size)})
    return found


def _other_activation(model: nn.Module) -> bool:
    kinds = (nn.GELU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish)
    places = [(m, n) for m in model.modules() for n, c in m.named_children() if isinstance(c, kinds)]
    for module, name in places:
        setattr(module, name, nn.Tanh())
    return bool(places)


def _other_stride(model: nn.Module) -> bool:
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2) and module.kernel_size == (3, 3):
            module.stride = (1, 1)
            return True
    return False


def _other_epsilon(factor: int, model: nn.Module) -> bool:
    changed = False
    for module in model.modules():
        epsilon: object = getattr(module, "eps", None)
        if isinstance(epsilon, float):
            setattr(module, "eps", factor * epsilon)  # noqa: B010 - modules type their attributes as tensors
            changed = True
    return changed


def _same_shapes(one: Twin, other: Twin) -> bool:
    a, b = (sorted(tuple(d for d in s if d != 1) for s in layout(t.a()).values()) for t in (one, other))
    return a == b


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def main() -> None:
    """Measure, write, and print what matters."""
    warnings.simplefilter("ignore")  # of the model libraries, about each other
    found: dict[str, Any] = {
        "command": "PYTHONPATH=tests python benchmarks/infer_maps.py",
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "versions": {
            "rws-hub": rws_hub.__version__,
            "torch": torch.__version__.partition("+")[0],
            "timm": timm.__version__,
            "transformers": transformers.__version__,
            "torchvision": torchvision.__version__.partition("+")[0],
        },
        "twins": twins(),
        "spoiled": spoiled(),
        "strangers": strangers(),
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    solved = [t for t in found["twins"] if t["solved"]]
    print(f"{len(solved)} of {len(TWINS)} twins; {found['strangers']}")


if __name__ == "__main__":
    main()
