"""What the name tables hold, in numbers: equal outputs by family, timm architectures explained, planning time.

    PYTHONPATH=tests python benchmarks/name_tables.py        (about five minutes on two cores)

Writes benchmarks/results/name_tables.json, from which `make docs` fills docs/NAMES.md. Random weights throughout:
nothing is downloaded. Models of the planning part are real sizes on real memory; those of the coverage part are on
the meta device, which holds names and shapes only.
"""

from __future__ import annotations

import collections
import json
import os
import platform
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import transformers
from builders import perturbed
from tqdm import tqdm
from twin_weights import copy_body, copy_head, layout
from twins import TWINS, Twin, images, output, refill

import rws_hub
from rws_hub import RobustWeightSignature, patch, plan_patch
from rws_hub.planner import plan_module
from rws_hub.recognise import recognise

RESULT = Path(__file__).parent / "results" / "name_tables.json"
RUNS = 15


def proof(twin: Twin) -> dict[str, Any]:
    """Largest differences of the outputs of two twins, in float64: by copied weights and by one signature."""
    differences: dict[str, Any] = {"name": twin.name, "table": twin.table}
    for way in ("a to b", "b to a"):
        models = [twin.a().double(), twin.b().double()]
        for seed, model in enumerate(models):
            refill(model, seed)
        source, target = models if way == "a to b" else models[::-1]
        picture = images(twin, 0)
        before = _distance(output(source, picture), output(target, picture))
        copy_body(source, target)
        copy_head(source, target)
        copied = _distance(output(source, picture), output(target, picture))
        signature = _signature(source, ["*"])
        with patch(source, signature, alpha=0.8), patch(target, signature, alpha=0.8):
            patched = _distance(output(source, picture), output(target, picture))
        differences[way] = {"unrelated": before, "copied": copied, "patched": patched}
    return differences


def coverage() -> dict[str, Any]:
    """How many of timm's architectures a table explains whole, by family."""
    counts: collections.Counter[str] = collections.Counter()
    not_built: list[str] = []
    for name in tqdm(timm.list_models(), desc="timm", unit="model", leave=False):
        try:
            with torch.device("meta"):
                model = timm.create_model(name)
        except Exception as error:  # whatever a model of another library raises
            not_built.append(f"{name}: {type(error).__name__}")
            continue
        counts[recognise(layout(model))[0].family] += 1
    return {"families": dict(sorted(counts.items())), "not_built": not_built}


def planning() -> list[dict[str, Any]]:
    """Median milliseconds of a plan for large models, on names alone and with the kinship estimate."""
    config = transformers.ViTConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    vit = timm.create_model("vit_large_patch16_224")
    cases = {
        "ViT-L, timm": (vit, vit, 8),
        "ViT-L, timm to transformers": (vit, transformers.ViTForImageClassification(config), 8),
        "ConvNeXt-XL, timm": (convnext := timm.create_model("convnext_xlarge"), convnext, 8),
    }
    rows: list[dict[str, Any]] = []
    for label, (source, target, layers) in cases.items():
        signature = _signature(source, layers)
        row: dict[str, Any] = {"case": label, "parameters": sum(p.numel() for p in target.parameters())}
        row["touched"] = sum(signature.elements(n) for n in signature.names)
        row["names_ms"] = _median_ms(lambda t=target, s=signature: plan_module(t, [s]).require())
        row["with_kinship_ms"] = _median_ms(
            lambda t=target, s=signature: plan_patch(t, s, verify="architecture").require()
        )
        rows.append(row)
    return rows


def _signature(model: torch.nn.Module, layers: list[str] | int) -> RobustWeightSignature:
    return RobustWeightSignature.extract(
        standard=model, robust=perturbed(model, 0.02, 7), corruption="fog", license="mit", layers=layers
    )


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def _median_ms(run: Any) -> float:
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return round(1000 * statistics.median(seconds), 1)


def main() -> None:
    """Measure and write."""
    warnings.simplefilter("ignore")  # of the model libraries, about each other
    torch.manual_seed(0)
    found = {
        "command": "PYTHONPATH=tests python benchmarks/name_tables.py",
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "versions": {
            "rws-hub": rws_hub.__version__,
            "torch": torch.__version__.partition("+")[0],
            "timm": timm.__version__,
            "transformers": transformers.__version__,
            "torchvision": torchvision.__version__.partition("+")[0],
        },
        "proofs": [proof(t) for t in tqdm(TWINS, desc="twins", leave=False) if t.table],
        "planning": planning(),
        "coverage": coverage(),
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
