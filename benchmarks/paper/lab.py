"""Signatures and measurements on a zoo of models; whatever was computed once is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from setting import Setting
from torch import nn
from zoo import SIZE, Twin, Zoo

from rws_hub import RobustWeightSignature
from rws_hub.classifier import preprocessing_of
from rws_hub.evaluation.cells import CLEAN, Condition
from rws_hub.evaluation.runner import Grid, Table, measure
from rws_hub.evaluation.statistics import Right, gain, top1
from rws_hub.evaluation.variants import Variant
from rws_hub.training.state import digest

MAIN, OTHER = "cifar10", "cifar100"
AS_IT_IS = Condition(CLEAN, 0)
Answer = dict[str, Any]
Maker = Callable[[str, int], Variant]  # of a corruption and a seed


@dataclass(frozen=True, slots=True)
class Rows:
    """Which images were answered rightly, for each (corruption, seed): under that corruption, and clean."""

    clean: dict[tuple[str, int], Right]
    corrupted: dict[tuple[str, int], Right]

    def summary(self, base: Rows) -> dict[str, Any]:
        """Means over corruptions and seeds, with the 95 % interval over images and the spread over seeds.

        "gain" is over `base`, whose images are the same.
        """
        seeds = sorted({seed for _, seed in self.corrupted})
        each = {c: fmean(float(r.mean()) for (k, _), r in self.corrupted.items() if k == c) for c, _ in self.corrupted}
        return {
            "clean": _estimate(self.clean, seeds),
            "corrupted": _estimate(self.corrupted, seeds),
            "each": each,
            "gain": {
                kind: asdict(gain(list(before.values()), list(after.values())))
                for kind, before, after in (
                    ("clean", base.clean, self.clean),
                    ("corrupted", base.corrupted, self.corrupted),
                )
            },
            "seeds": len(seeds),
        }


def _estimate(rows: Mapping[tuple[str, int], Right], seeds: Sequence[int]) -> dict[str, Any]:
    by_seed = [fmean(float(r.mean()) for (_, s), r in rows.items() if s == seed) for seed in seeds]
    return {**asdict(top1(list(rows.values()))), "sd": stdev(by_seed) if len(seeds) > 1 else None}


@dataclass(slots=True)
class Lab:
    """One backbone: its zoo, and what was made from it so far in this process."""

    zoo: Zoo
    _models: dict[Path, tuple[nn.Module, str]] = field(default_factory=dict)
    _signatures: dict[tuple[Any, ...], RobustWeightSignature] = field(default_factory=dict)

    @property
    def setting(self) -> Setting:
        """How long and how large."""
        return self.zoo.setting

    def seeds(self, dataset: str) -> tuple[int, ...]:
        """Of the models of a data set."""
        return self.setting.seeds if dataset == MAIN else self.setting.few_seeds

    def variant(
        self, folder: Path, dataset: str, *signatures: tuple[RobustWeightSignature, float], norm_images: int = 0
    ) -> Variant:
        """A trained model with something on it; its name says nothing yet."""
        if folder not in self._models:
            model = self.zoo.load(folder, dataset)
            self._models[folder] = (model, digest(model))
        model, weights = self._models[folder]
        return Variant("", model, weights, signatures, norm_images)

    def model(self, folder: Path, dataset: str) -> nn.Module:
        """A trained model, in eval mode."""
        return self.variant(folder, dataset).model

    def signature(
        self,
        dataset: str,
        corruption: str,
        seed: int,
        *,
        twin: Twin = "from-clean",
        layers: str | int = "all",
        error: float | None = None,
        batchnorm: bool = True,
        projected: bool = False,
    ) -> RobustWeightSignature:
        """Extracted from the zoo; `layers` is "shallow", "all" or how many of the first; error 0 is plain float32."""
        key = (dataset, corruption, seed, twin, layers, error, batchnorm, projected)
        if key not in self._signatures:
            zoo = self.zoo
            self._signatures[key] = RobustWeightSignature.extract(
                standard=self.model(zoo.standard(dataset, seed), dataset),
                robust=self.model(zoo.robust(dataset, corruption, seed, twin), dataset),
                pretrained=self.model(zoo.pretrained(), "tinyimagenet32") if projected else None,
                corruption=corruption,
                severity=self.setting.severity,
                dataset=dataset,
                license="apache-2.0",
                layers=["*"] if layers == "all" else layers,
                bits=32 if error == 0 else None,
                error=error or None,
                batchnorm="delta" if batchnorm else "none",
            )
        return self._signatures[key]

    def difference(self, a: Path, b: Path, dataset: str) -> RobustWeightSignature:
        """The plain difference b - a of two models, all layers, float32: for what is no signature."""
        standard, robust = (self.model(p, dataset) for p in (a, b))
        return RobustWeightSignature.extract(
            standard=standard, robust=robust, corruption="difference", license="apache-2.0", layers=["*"], bits=32
        )

    def table(self, dataset: str, variants: Mapping[str, Variant], conditions: Sequence[Condition]) -> Table:
        """Which images were answered rightly, by name and condition."""
        named = tuple(replace(v, name=name) for name, v in variants.items())
        grid = Grid(
            named,
            tuple(conditions),
            self.zoo.pictures(dataset, self.setting.split("test")),
            preprocessing_of(named[0].model, size=SIZE),
            self.zoo.pictures(dataset, self.setting.split("train")) if any(v.norm_images for v in named) else None,
            seed=0,
        )
        return measure(grid, self.zoo.work / self.setting.name / "cells", progress=False)

    def rows(
        self,
        dataset: str,
        makers: Mapping[str, Maker],
        *,
        corruptions: Iterable[str] | None = None,
        seeds: Iterable[int] | None = None,
    ) -> dict[str, Rows]:
        """Every variant under the corruption that it was made for, and on clean images."""
        found = {label: Rows({}, {}) for label in makers}
        for corruption in corruptions or self.setting.corruptions:
            condition = self.condition(corruption)
            for seed in self.setting.seeds if seeds is None else seeds:
                variants = {label: make(corruption, seed) for label, make in makers.items()}
                table = self.table(dataset, variants, (AS_IT_IS, condition))
                for label in makers:
                    found[label].clean[corruption, seed] = table[label, AS_IT_IS]
                    found[label].corrupted[corruption, seed] = table[label, condition]
        return found

    def condition(self, corruption: str) -> Condition:
        """At the severity of the setting."""
        return Condition(corruption, self.setting.severity)
