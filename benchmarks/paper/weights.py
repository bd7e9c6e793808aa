"""The questions that the weights themselves answer, without an image."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from lab import MAIN, OTHER, Answer, Lab

from rws_hub import RobustWeightSignature, compare, patch
from rws_hub.classifier import with_head
from rws_hub.spec import SignatureConfig

ALPHAS = (-1.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


def profile(lab: Lab) -> Answer:
    """Are the differences shallow: relative difference by layer, against that of two seeds."""
    zoo, seeds = lab.zoo, lab.setting.seeds
    if len(seeds) < 2:
        return {}
    sketch: dict[str, list[SignatureConfig]] = {
        "from-clean": [lab.signature(MAIN, c, s).config for c in lab.setting.corruptions for s in seeds],
        "two-branch": [lab.signature(MAIN, c, 0, twin="two-branch").config for c in lab.setting.compared],
        "another seed": [
            lab.difference(zoo.standard(MAIN, a), zoo.standard(MAIN, b), MAIN).config for a, b in pairwise(seeds)
        ],
        "fine-tuning itself": [_finetuning(lab).config],
    }
    layers = [u.unit for u in sketch["from-clean"][0].extraction.profile]
    return {
        "layers": layers,
        "relative": {
            label: [fmean(c.extraction.profile[i].relative_difference for c in configs) for i in range(len(layers))]
            for label, configs in sketch.items()
            if configs
        },
    }


def similarity(lab: Lab) -> Answer:
    """Does a signature tell its corruption: cosines between seeds and data sets, and the nearest of each."""
    if len(lab.setting.seeds) < 2:
        return {}
    keys = [(d, c, s) for d in (MAIN, OTHER) for c in lab.setting.corruptions for s in lab.seeds(d)]
    seeds_only = [
        lab.difference(lab.zoo.standard(MAIN, a), lab.zoo.standard(MAIN, b), MAIN)
        for a, b in pairwise(lab.setting.seeds)
    ]
    names = [" ".join(map(str, k)) for k in keys] + [f"seeds {i}" for i in range(len(seeds_only))]
    answer: Answer = {"corruptions": list(lab.setting.corruptions)}
    for layers in ("all", "shallow"):
        made = [lab.signature(*key, layers=layers, error=0.0) for key in keys]
        answer[layers] = _identification(keys, compare([*made, *seeds_only], names).overall.cosine, len(seeds_only))
    return answer


def linearity(lab: Lab) -> Answer:
    """Largest departure from theta + alpha * delta, in ulp of the larger summand; and bytes that differ afterwards."""
    model = lab.model(lab.zoo.standard(MAIN, 0), MAIN)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    worst, changed = 0.0, 0
    for corruption in lab.setting.corruptions:
        signature = lab.signature(MAIN, corruption, 0)
        for alpha in ALPHAS:
            with patch(model, signature, alpha=alpha, max_relative_norm=math.inf):
                live = model.state_dict()
                for name in signature.names:
                    if "running_var" in name:
                        continue
                    own, added = before[name].double(), alpha * signature.delta(name).double()
                    exact, larger = own + added, torch.maximum(own.abs(), added.abs()).float()
                    spacing = torch.nextafter(larger, torch.tensor(torch.inf)) - larger
                    worst = max(worst, float(((live[name].double() - exact).abs() / spacing.double()).max()))
            after = model.state_dict()
            changed += sum(
                int((after[n].flatten().view(torch.uint8) != t.flatten().view(torch.uint8)).sum())
                for n, t in before.items()
            )
    return {"worst_ulp": worst, "bytes_changed_after_removal": changed}


def _finetuning(lab: Lab) -> Any:
    """Standard minus pretrained, under the head of the standard model."""
    zoo = lab.zoo
    start = with_head(lab.model(zoo.pretrained(), "tinyimagenet32"), 10, 0)
    return RobustWeightSignature.extract(
        standard=start,
        robust=lab.model(zoo.standard(MAIN, 0), MAIN),
        corruption="difference",
        license="apache-2.0",
        layers=["*"],
        bits=32,
    )


def _identification(keys: list[tuple[str, str, int]], cosines: Any, seeds_only: int) -> Answer:
    """Nearest neighbours among the signatures of other seeds, or of the other data set; and mean cosines."""
    n = len(keys)

    def mean(chosen: Callable[[int, int], bool]) -> float:
        return fmean(cosines[i][j] for i in range(n) for j in range(n) if i != j and chosen(i, j))

    def identified(allowed: Callable[[int, int], bool]) -> list[int]:
        right = asked = 0
        for i in range(n):
            others = [j for j in range(n) if j != i and allowed(i, j)]
            if others:
                asked += 1
                right += keys[max(others, key=lambda j: cosines[i][j])][1] == keys[i][1]
        return [right, asked]

    def other_seed(i: int, j: int) -> bool:
        return keys[i][0] == keys[j][0] and keys[i][2] != keys[j][2]

    def other_data(i: int, j: int) -> bool:
        return keys[i][0] != keys[j][0]

    def same(i: int, j: int) -> bool:
        return keys[i][1] == keys[j][1]

    corruptions = list(dict.fromkeys(c for _, c, _ in keys))
    between = [
        [mean(lambda i, j, a=a, b=b: other_seed(i, j) and keys[i][1] == a and keys[j][1] == b) for b in corruptions]  # type: ignore[misc]
        for a in corruptions
    ]
    return {
        "same corruption, another seed": mean(lambda i, j: same(i, j) and other_seed(i, j)),
        "another corruption, another seed": mean(lambda i, j: not same(i, j) and other_seed(i, j)),
        "same corruption, another data set": mean(lambda i, j: same(i, j) and other_data(i, j)),
        "another corruption, another data set": mean(lambda i, j: not same(i, j) and other_data(i, j)),
        "another corruption, same seed": mean(lambda i, j: not same(i, j) and keys[i][::2] == keys[j][::2]),
        "difference of two seeds": fmean(abs(cosines[i][n + k]) for i in range(n) for k in range(seeds_only)),
        "identified among other seeds": identified(other_seed),
        "identified in the other data set": identified(other_data),
        "between": between,
    }
