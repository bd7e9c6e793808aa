"""Kin and strangers told apart, what a signature does on each, and how far it may be turned up.

    python benchmarks/trust/kin.py --data DATA --zoo WORK --work FOLDER

Sources and relatives are the models of benchmarks/paper (in WORK/small) and those of relatives.py (in FOLDER; trained
if they are not there). Three questions, three backbones: how the sketch's similarity is spread over kin and strangers,
and what the threshold gets wrong; whether similarity predicts what the signature does; what the relative norm of a
change does. And what a look at a model costs. Writes benchmarks/results/trust-kin.json, in about half an hour.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "speed"))
sys.path.insert(0, str(Path(__file__).parent.parent / "paper"))

import numpy as np
import torch
from kin_models import COPIES, State, body, cosine, random_model, rows_of, trained
from lab import Lab
from setting import BACKBONES, SETTINGS
from subject import base, noise
from torch import nn
from zoo import SIZE, Zoo

from rws_hub import RobustWeightSignature, patch, plan_patch
from rws_hub.classifier import preprocessing_of
from rws_hub.corruptions import corrupt
from rws_hub.kinship import agreement, count_similarity, count_sketch, sketch
from rws_hub.plan import KIN_SIMILARITY, MAX_RELATIVE_NORM
from rws_hub.spec import Sketch

RESULT = Path(__file__).parent.parent / "results" / "trust-kin.json"
SEED, SEVERITY, IMAGES = 0, 5, 1000
CORRUPTIONS = {
    "resnet": ("gaussian_noise", "fog", "contrast"),
    "vgg": ("gaussian_noise", "fog"),
    "vit": ("contrast", "fog"),
}
ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
# Wide tensors that a signature may touch: so many of the first ones, or all.
PREFIXES = (1, 2, 4, 8, 16, 1000)
RANDOM = 12


def similarities(lab: Lab, work: Path) -> list[dict[str, Any]]:
    """Both sketches and the true cosine, for every model and number of touched tensors."""
    zoo = lab.zoo
    source = lab.model(zoo.standard("cifar10", 0), "cifar10").state_dict()
    wide = body(source)
    others: list[tuple[str, bool, State]] = [("itself", True, source)]
    others += [(kind, True, {n: change(source[n]) for n in wide}) for kind, change in COPIES.items()]
    others += [(kind, kin, zoo.load(folder, data).state_dict()) for kind, kin, data, folder in trained(zoo, work)]
    others += [("random weights", False, random_model(zoo, 1000 + i).state_dict()) for i in range(RANDOM)]
    found = []
    for count in PREFIXES:
        layout = dict(list(wide.items())[:count])
        if count > len(wide) and count != PREFIXES[-1]:
            continue
        signs = sketch(layout, rows_of(source))
        counts = Sketch("countsketch-256-v1", _base64(count_sketch(layout, rows_of(source))))
        for kind, kin, state in others:
            said = agreement(signs, layout, rows_of(state))
            found.append(
                {
                    "kind": kind,
                    "kin": kin,
                    "tensors": len(layout),
                    "places": said.compared,
                    "similarity": said.similarity,
                    "count_sketch": count_similarity(counts, layout, rows_of(state)),
                    "cosine": cosine(source, state, layout),
                }
            )
    return found


def _base64(levels: np.ndarray) -> str:
    import base64

    return base64.b64encode(levels.tobytes()).decode()


class Images:
    """Test images of one data set, corrupted once."""

    def __init__(self, zoo: Zoo, dataset: str, model: nn.Module) -> None:
        split = zoo.pictures(dataset, f"test[:{IMAGES}]")
        wanted = preprocessing_of(model, size=SIZE)
        self._pixels = split.pixels(np.arange(len(split)), wanted.view)
        self._labels = torch.from_numpy(split.labels)
        self._mean, self._std = (torch.tensor(v).view(1, 3, 1, 1) for v in (wanted.mean, wanted.std))
        self._inputs: dict[str, torch.Tensor] = {}

    def accuracy(self, model: nn.Module, corruption: str) -> float:
        """Top-1, from 0 to 1; clean images go by the name "clean"."""
        if corruption not in self._inputs:
            pixels = self._pixels
            pixels = pixels if corruption == "clean" else corrupt(pixels, corruption, SEVERITY, seed=SEED)
            self._inputs[corruption] = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - self._mean) / self._std
        with torch.inference_mode():
            parts = torch.tensor_split(self._inputs[corruption], max(1, len(self._labels) // 250))
            told = torch.cat([model(part).argmax(1) for part in parts])
        return float((told == self._labels).float().mean())


def gains(lab: Lab, work: Path) -> list[dict[str, Any]]:
    """What a signature does to models that are more and less similar to its source."""
    zoo = lab.zoo
    sets = {d: Images(zoo, d, lab.model(zoo.standard("cifar10", 0), "cifar10")) for d in ("cifar10", "cifar100")}
    found = []
    everybody = [("itself", True, "cifar10", zoo.standard("cifar10", 0)), *trained(zoo, work)]
    for kind, kin, dataset, folder in everybody:
        if dataset not in sets or "robust" in kind:
            continue
        model = zoo.load(folder, dataset)
        for corruption in CORRUPTIONS[zoo.backbone]:
            signature = lab.signature("cifar10", corruption, 0)
            before = sets[dataset].accuracy(model, corruption)
            similarity = plan_patch(model, signature, verify="architecture").signatures[0].similarity
            with patch(model, signature, alpha=1.0, verify="architecture", max_relative_norm=math.inf) as handle:
                after = sets[dataset].accuracy(model, corruption)
                norm = handle.plan.relative_norm
            row = {"kind": kind, "kin": kin, "dataset": dataset, "corruption": corruption, "similarity": similarity}
            found.append({**row, "before": before, "after": after, "gain": after - before, "relative_norm": norm})
        print(zoo.backbone, kind, [f"{r['gain']:+.3f}" for r in found[-len(CORRUPTIONS[zoo.backbone]) :]], flush=True)
    return found


def strengths(lab: Lab, work: Path) -> list[dict[str, Any]]:
    """What turning a signature up does to its own model."""
    zoo, found = lab.zoo, []
    model = lab.model(zoo.standard("cifar10", 0), "cifar10")
    images = Images(zoo, "cifar10", model)
    clean = images.accuracy(model, "clean")
    for corruption in CORRUPTIONS[zoo.backbone]:
        signature = lab.signature("cifar10", corruption, 0)
        before = images.accuracy(model, corruption)
        for alpha in ALPHAS:
            plan = plan_patch(model, signature, alpha=alpha, max_relative_norm=math.inf)
            with patch(model, signature, alpha=alpha, max_relative_norm=math.inf):
                row = {"corrupted": images.accuracy(model, corruption), "clean": images.accuracy(model, "clean")}
            worst = plan.changes[0]
            norms = {"relative_norm": worst.relative_norm, "tensor": worst.names[0], "whole": plan.relative_norm}
            found.append({"corruption": corruption, "alpha": alpha, **norms, **row, "unpatched": [before, clean]})
    return found


def norms(lab: Lab, work: Path) -> dict[str, Any]:
    """The largest relative change of every signature of the zoo at alpha 1, on its own model."""
    zoo = lab.zoo
    own = zoo.work / zoo.setting.name / zoo.backbone
    each: dict[str, float] = {}
    for folder in sorted(own.iterdir()):
        dataset, _, rest = folder.name.partition("-")
        if "from-clean" in rest or "two-branch" in rest:
            standard = lab.model(zoo.standard(dataset, int(rest[-1])), dataset)
            signature = RobustWeightSignature.extract(
                standard=standard, robust=zoo.load(folder, dataset), corruption="any", license="mit", layers=["*"]
            )
            plan = plan_patch(standard, signature, max_relative_norm=math.inf)
            each[folder.name] = plan.changes[0].relative_norm
    return {
        "signatures": len(each),
        "median": float(np.median(list(each.values()))),
        "largest": max(each.values()),
        "each": each,
    }


QUESTIONS: dict[str, Callable[[Lab, Path], Any]] = {
    "similarity": similarities,
    "gain": gains,
    "strength": strengths,
    "norms": norms,
}


def cost() -> dict[str, Any]:
    """Milliseconds on one thread, least of some: a third of a ViT-B/16."""
    model = base()
    state = model.state_dict()
    touched = noise(model, ("patch_embed.*", "pos_embed", "blocks.[0-3].*"), SEED)
    layout = {n: tuple(t.shape) for n, t in touched.items()}
    counts = Sketch("countsketch-256-v1", _base64(count_sketch(layout, rows_of(state))))
    signs = sketch(layout, rows_of(state))
    looks: dict[str, Callable[[], object]] = {
        "signs": lambda: agreement(signs, layout, rows_of(state)),
        "counts": lambda: count_similarity(counts, layout, rows_of(state)),
    }
    taken: dict[str, list[float]] = {name: [] for name in looks}
    for _ in range(9):
        for name, look in looks.items():
            start = time.process_time()
            look()
            taken[name].append(1000 * (time.process_time() - start))
    return {"weights": sum(t.numel() for t in touched.values()), "ms": {n: round(min(v), 3) for n, v in taken.items()}}


def rounded(found: Any) -> Any:
    """Numbers to four digits behind the point."""
    if isinstance(found, dict):
        return {k: rounded(v) for k, v in found.items()}
    if isinstance(found, list):
        return [rounded(v) for v in found]
    return round(found, 4) if isinstance(found, float) else found


def main() -> None:
    """Measure all and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10 and cifar100")
    parser.add_argument("--zoo", type=Path, required=True, help="what benchmarks/paper has trained")
    parser.add_argument("--work", type=Path, required=True, help="what relatives.py trains is kept here")
    parser.add_argument("--only", choices=QUESTIONS, help="measure this anew, and keep what was found of the rest")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(RESULT.read_bytes()) if arguments.only else {}
    asked = [arguments.only] if arguments.only else list(QUESTIONS)
    answers: dict[str, Any] = {question: {} for question in asked}
    for backbone in BACKBONES:
        lab = Lab(Zoo(SETTINGS["small"][backbone], backbone, arguments.data, arguments.zoo))
        for question in asked:
            answers[question][backbone] = QUESTIONS[question](lab, arguments.work)
            print(backbone, question, flush=True)
    found = {
        "command": "python benchmarks/trust/kin.py --data DATA --zoo WORK --work FOLDER",
        "seed": SEED,
        "images": IMAGES,
        "threshold": KIN_SIMILARITY,
        "limit": MAX_RELATIVE_NORM,
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "versions": {n: version(n) for n in ("rws-hub", "torch", "timm", "numpy")},
        "cost": cost(),
        **{question: kept.get(question) for question in QUESTIONS},
        **answers,
    }
    RESULT.write_text(json.dumps(rounded(found), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
