"""What the steps of the tensors should hang on: ways to quantize signatures, measured at equal bits.

    python benchmarks/paper/steps.py --data FOLDER --work FOLDER [--backbone resnet] [--setting small]

Uses the models that run.py trains. What the patched model answers with quantized weights is held against its answers
with exact ones: the divergence of the two, which resolves far finer differences than top-1 does, and top-1. Batch norm
is exact in all of them. Results go to benchmarks/results/paper/.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from lab import MAIN, Lab
from run import RESULTS
from setting import BACKBONES, SETTINGS
from torch import nn
from zoo import SIZE, Zoo

from rws_hub import patch
from rws_hub.cells import Shape
from rws_hub.classifier import preprocessing_of
from rws_hub.codec import is_wide
from rws_hub.corruptions import corrupt
from rws_hub.factoring import cost, decompose, factor, factorable
from rws_hub.rate import relative_step
from rws_hub.rounding import quantize, taps
from rws_hub.symbols import top

IMAGES = 1000
# Of the training images, without labels: on them it is measured how much of each tensor's error the answers feel.
FELT_ON = 256
BITS = 1.2
# Divergences below this are rounding.
LEAST = 1e-9
Deltas = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Rule:
    """The step of a clean weight's delta over the base step; where rounding up begins; whether kernels keep sums.

    Of deltas of whose shape `factors` is true, the parts of a decomposition are rounded instead.

    The step may hang on what is felt of the weight: divergence over squared error, where that tensor alone is coarse.
    """

    step: Callable[[torch.Tensor, float], float]
    up: float = 0.5
    kernels: bool = False
    factors: Callable[[Shape], bool] = lambda _: False

    def stored(self, delta: torch.Tensor, step: float) -> tuple[torch.Tensor, float]:
        """What is left of a delta, and the bits that it takes."""
        if self.factors(tuple(delta.shape)):
            return _product(delta.reshape(len(delta), -1), step, delta.shape)
        codes = self.codes(delta, step)
        return codes * step, entropy(codes)

    def codes(self, delta: torch.Tensor, step: float) -> torch.Tensor:
        """Whole numbers as floats, of the delta's shape."""
        if self.up != 0.5:
            return (delta.abs() / step + (1 - self.up)).floor().copysign(delta)
        length = taps(tuple(delta.shape)) if self.kernels else 1
        return quantize(delta.reshape(-1, length), step).float().reshape(delta.shape)


def _product(matrix: torch.Tensor, step: float, shape: torch.Size) -> tuple[torch.Tensor, float]:
    """A matrix as the library's factors, and their bits."""
    spectrum = decompose(matrix)
    told = None if spectrum is None else cost(spectrum, step)
    if told is None:
        return torch.zeros(shape), 0.0
    found = factor(matrix, step)
    left, right = found.codes[:, : len(matrix)].double(), found.codes[:, len(matrix) :].double()
    return ((left.T * torch.exp2(found.shifts.double())) @ right * found.step).float().reshape(shape), told[1]


def _one(weight: torch.Tensor, felt: float) -> float:
    return 1.0


def _outputs(weight: torch.Tensor, felt: float) -> float:
    return math.sqrt(len(weight))


def _elements(weight: torch.Tensor, felt: float) -> float:
    return math.sqrt(weight.numel())


def _chosen(weight: torch.Tensor, felt: float) -> float:
    return relative_step(tuple(weight.shape))


RULES = {
    "one step, rounded up from 0.6": Rule(_one, up=0.6),
    "one step": Rule(_one),
    "norm of the clean weights": Rule(lambda weight, _: float(weight.norm())),
    "sqrt(outputs)": Rule(_outputs),
    "sqrt(elements)": Rule(_elements),
    "as the library": Rule(_chosen),
    "one step, kernels keep their sums": Rule(_one, kernels=True),
    "sqrt(outputs), kernels keep their sums": Rule(_outputs, kernels=True),
    "sqrt(elements), kernels keep their sums": Rule(_elements, kernels=True),
    "as the library, kernels keep their sums": Rule(_chosen, kernels=True),
    "as the library, kernels keep their sums, matrices as factors": Rule(_chosen, kernels=True, factors=factorable),
    "as the library, kernels as matrices, as factors": Rule(_chosen, factors=lambda shape: shape[0] > 1),
    "1 / sqrt(felt on images), kernels keep their sums": Rule(lambda _, felt: felt**-0.5, kernels=True),
    "1 / fourth root(felt on images), kernels keep their sums": Rule(lambda _, felt: felt**-0.25, kernels=True),
}


def entropy(codes: torch.Tensor) -> float:
    """Bits of all codes of one tensor, as symbols of 4 bits: 16 more for each that stands aside."""
    magnitudes = codes.abs()
    symbols = torch.where(magnitudes > top(4), top(4) + 1, codes).add_(top(4)).long()
    counts = torch.bincount(symbols.reshape(-1), minlength=2 * top(4) + 2).double()
    aside = float(counts[-1])
    counts = counts[counts > 0]
    return float(-(counts * (counts / counts.sum()).log2()).sum()) + 16 * aside


def quantized(rule: Rule, clean: Deltas, deltas: Deltas, felt: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """The deltas with the finest steps that take `BITS` a weight."""
    relative = {n: rule.step(clean[n], felt[n]) for n in deltas}
    rms = math.sqrt(fmean(float((d / relative[n]).square().mean()) for n, d in deltas.items()))
    low, high = rms / 512, rms * 32
    while high / low > 1.02:
        base = math.sqrt(low * high)
        taken = sum(rule.stored(d, base * relative[n])[1] for n, d in deltas.items())
        low, high = (base, high) if taken > BITS * sum(d.numel() for d in deltas.values()) else (low, base)
    return {n: rule.stored(d, high * relative[n])[0] for n, d in deltas.items()}


def answers(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """Logarithms of the class probabilities, [n, classes]."""
    with torch.inference_mode():
        answered: torch.Tensor = model(pictures)
    return answered.log_softmax(1)


def divergence(exact: torch.Tensor, told: torch.Tensor) -> float:
    """Of answers from exact ones, in nats, mean over images."""
    return float((exact.exp() * (exact - told)).sum(1).mean())


def feel(model: nn.Module, live: Deltas, clean: Deltas, deltas: Deltas, pictures: torch.Tensor) -> dict[str, float]:
    """How much of an error in one tensor the answers feel, per squared error; `live` are the model's own tensors."""
    exact, felt = answers(model, pictures), {}
    for name, delta in deltas.items():
        value, step = live[name].clone(), 2 * float(delta.square().mean().sqrt())
        coarse = RULES["as the library, kernels keep their sums"].codes(delta, step) * step
        live[name].copy_(clean[name] + coarse)
        apart = divergence(exact, answers(model, pictures))
        live[name].copy_(value)
        felt[name] = max(apart, LEAST) / float((coarse - delta).square().sum())
    return felt


def measure(lab: Lab) -> dict[str, dict[str, dict[str, float]]]:
    """By layers and rule: means over every other corruption, seed 0."""
    zoo = lab.zoo
    images, others = zoo.pictures(MAIN, f"test[:{IMAGES}]"), zoo.pictures(MAIN, f"train[:{FELT_ON}]")
    model = lab.model(zoo.standard(MAIN, 0), MAIN)
    wanted = preprocessing_of(model, size=SIZE)
    pixels, labels = images.pixels(np.arange(IMAGES), wanted.view), torch.from_numpy(images.labels)
    other_pixels = others.pixels(np.arange(FELT_ON), wanted.view)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (wanted.mean, wanted.std))

    def ready(clear: np.ndarray, corruption: str) -> torch.Tensor:
        corrupted = torch.from_numpy(corrupt(clear, corruption, lab.setting.severity, seed=0))
        return (corrupted.permute(0, 3, 1, 2) / 255 - mean) / std

    clean = {n: t.clone() for n, t in model.state_dict().items()}
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for corruption in lab.setting.corruptions[::2]:
        inputs, other_inputs = ready(pixels, corruption), ready(other_pixels, corruption)
        for layers in ("all", "shallow"):
            signature = lab.signature(MAIN, corruption, 0, layers=layers, error=0.0)
            deltas = {n: signature.delta(n) for n in signature.names if is_wide(signature.config.shape(n))}
            size = math.sqrt(sum(float(d.square().sum()) for d in deltas.values()))
            with patch(model, signature):
                live = {n: t for n, t in model.state_dict().items() if n in deltas}
                exact, values = answers(model, inputs), {n: t.clone() for n, t in live.items()}
                felt = feel(model, live, clean, deltas, other_inputs)
                for label, rule in RULES.items():
                    made = quantized(rule, clean, deltas, felt)
                    for name, delta in made.items():
                        live[name].copy_(clean[name] + delta)
                    told = answers(model, inputs)
                    right = [(a.argmax(1) == labels).float().mean() for a in (told, exact)]
                    off = math.sqrt(sum(float((made[n] - d).square().sum()) for n, d in deltas.items())) / size
                    apart = divergence(exact, told)
                    found.setdefault((layers, label), []).append((apart, float(right[0] - right[1]), off))
                for name, value in values.items():
                    live[name].copy_(value)  # as the patch left it, so that it can be taken off
    answer: dict[str, dict[str, dict[str, float]]] = {}
    for (layers, label), each in found.items():
        names = ("divergence", "top1", "relative_error")
        row = {name: fmean(values) for name, values in zip(names, zip(*each, strict=True), strict=True)}
        answer.setdefault(layers, {})[label] = row
    return answer


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--backbone", choices=BACKBONES, action="append")
    parser.add_argument("--setting", choices=list(SETTINGS), default="small")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for backbone in arguments.backbone or BACKBONES:
        lab = Lab(Zoo(SETTINGS[arguments.setting][backbone], backbone, arguments.data, arguments.work))
        answer = measure(lab)
        for layers, rows in answer.items():
            for label, row in rows.items():
                numbers = f"{row['divergence']:.5f} nats, {100 * row['top1']:+.2f} points"
                print(f"{backbone}, {layers}, {BITS} bits, {label}: {numbers}", flush=True)
        folder = arguments.work if arguments.setting == "smoke" else RESULTS
        file = folder / f"{arguments.setting}-{backbone}-steps.json"
        written = {
            "command": f"benchmarks/paper/steps.py --setting {arguments.setting} --backbone {backbone}",
            "images": IMAGES,
            "felt_on": FELT_ON,
            "bits": BITS,
            "machine": {"cores": os.cpu_count(), "architecture": platform.machine()},
            "versions": {n: version(n) for n in ("rws-hub", "torch", "timm", "numpy", "scipy")},
            "answer": answer,
        }
        file.write_text(json.dumps(written, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
