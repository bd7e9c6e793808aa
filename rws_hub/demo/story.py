"""One seed of the demo: train everything, then extract, save, load, patch and take off through the public API."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import safetensors.torch
import torch
from torch import nn

from rws_hub import RobustWeightSignature, patch, plan_patch
from rws_hub.demo.data import Images, Splits, add_noise, load_splits
from rws_hub.demo.records import Score, SeedStory, Sizes, TargetStory, Who
from rws_hub.demo.settings import CORRUPTION, DATASET, SEVERITY, DemoSettings
from rws_hub.demo.training import accuracy, build_model, reestimate_batchnorm, same_bits, train
from rws_hub.plan import KIN_SIMILARITY
from rws_hub.spec import CONFIG_FILE, PAYLOAD_FILE

# How many steps of progress one seed takes besides its epochs: the extraction and three targets.
MEASURE_STEPS = 4

# What a random generator is for; (purpose, seed) starts each of them, so that no two draw the same numbers.
_ANCESTOR, _CLEAN, _ROBUST, _TWO_BRANCH, _USER, _STRANGER, _TEST_NOISE, _RIVAL_NOISE = range(8)
_STRANGER_INIT = 1_000_003  # far from any seed a person would ask for


class Progress(Protocol):
    """What the story tells while it runs."""

    def stage(self, name: str) -> None:
        """A new stage begins."""

    def step(self) -> None:
        """One step of it is done."""


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The six trained models of one seed."""

    ancestor: nn.Module
    clean: nn.Module
    robust: nn.Module
    two_branch: nn.Module
    user: nn.Module
    stranger: nn.Module


def run_seed(settings: DemoSettings, seed: int, folder: Path, progress: Progress) -> SeedStory:
    """Train, extract, patch and measure; leaves `signature/`, `clean.safetensors`, `user.safetensors` in `folder`."""
    splits = load_splits(settings, seed)
    models = train_models(settings, splits, seed, progress)
    progress.stage("extracting, patching, measuring")
    _save_model(models.clean, folder / "clean.safetensors")
    _save_model(models.user, folder / "user.safetensors")
    extract_signature(models, settings).save_pretrained(folder / "signature")
    signature = RobustWeightSignature.from_pretrained(folder / "signature")
    two_branch = extract_signature(models, settings, pretrained=models.ancestor)
    sizes = _sizes(signature, extract_signature(models, settings, bits=32), folder)
    progress.step()

    noisy_pixels = add_noise(splits.test.pixels, _rng(_TEST_NOISE, seed))
    noisy = Images(noisy_pixels, splits.test.labels)
    unlabelled = add_noise(splits.user.pixels[: settings.bn_images], _rng(_RIVAL_NOISE, seed))

    def score(model: nn.Module) -> Score:
        return Score(accuracy(model, splits.test), accuracy(model, noisy))

    def tell(who: Who, model: nn.Module) -> TargetStory:
        rival = score(reestimate_batchnorm(model, unlabelled))
        told = _patch_and_measure(who, model, signature, two_branch, rival, score)
        progress.step()
        return told

    return SeedStory(
        seed=seed,
        images=len(splits.test),
        payload_sha256=signature.config.payload.sha256,
        targets=(tell("own", models.clean), tell("user", models.user), tell("stranger", models.stranger)),
        robust=score(models.robust),
        two_branch_robust=score(models.two_branch),
        sweep=_sweep(models.user, signature, settings.alphas, score),
        sizes=sizes,
    )


def train_models(settings: DemoSettings, splits: Splits, seed: int, progress: Progress) -> Models:
    """The six models, one after the other."""
    step = progress.step
    progress.stage("training the common ancestor")
    ancestor = train(build_model(settings, seed), splits.base, settings.ancestor, settings, _rng(_ANCESTOR, seed), step)
    progress.stage("training the clean model")
    clean = train(ancestor, splits.base, settings.clean, settings, _rng(_CLEAN, seed), step)
    progress.stage("training its robust twin")
    robust = train(clean, splits.base, settings.robust, settings, _rng(_ROBUST, seed), step, noisy_share=0.5)
    progress.stage("training the two-branch twin")
    rng = _rng(_TWO_BRANCH, seed)
    two_branch = train(ancestor, splits.base, settings.two_branch, settings, rng, step, noisy_share=1.0)
    progress.stage("training the user's model")
    user = train(clean, splits.user, settings.user, settings, _rng(_USER, seed), step)
    progress.stage("training the stranger")
    rng = _rng(_STRANGER, seed)
    stranger = train(build_model(settings, _STRANGER_INIT + seed), splits.base, settings.ancestor, settings, rng, step)
    stranger = train(stranger, splits.base, settings.clean, settings, rng, step)
    return Models(ancestor, clean, robust, two_branch, user, stranger)


def extract_signature(
    models: Models, settings: DemoSettings, *, pretrained: nn.Module | None = None, bits: float | None = None
) -> RobustWeightSignature:
    """The from-clean signature, or the two-branch one if `pretrained` is given."""
    return RobustWeightSignature.extract(
        standard=models.clean,
        robust=models.robust if pretrained is None else models.two_branch,
        pretrained=pretrained,
        corruption=CORRUPTION,
        severity=SEVERITY,
        dataset=DATASET,
        license="apache-2.0",
        bits=bits,
        description=(
            f"Made by rws demo from scikit-learn's digits, upsampled to {settings.side} by {settings.side} pixels. "
            "The backbone is a narrow ResNet, timm.create_model('resnet18', num_classes=10, in_chans=1, "
            f"layers=[1, 1, 1, 1], channels={list(settings.channels)}), for pictures scaled from -1 to 1."
        ),
    )


def _patch_and_measure(
    who: Who,
    model: nn.Module,
    signature: RobustWeightSignature,
    two_branch: RobustWeightSignature,
    rival: Score,
    score: Callable[[nn.Module], Score],
) -> TargetStory:
    judged = plan_patch(model, signature, verify="architecture").require().signatures[0]
    before, bits = score(model), _copy(model)
    with patch(model, signature, alpha=1.0, verify="architecture"):
        patched = score(model)
    after, restored = score(model), same_bits(bits, model.state_dict())
    with patch(model, two_branch, alpha=1.0, verify="architecture"):
        patched_two_branch = score(model)
    return TargetStory(
        who=who,
        similarity=judged.similarity,
        kinship=judged.kinship,
        kin=None if judged.similarity is None else judged.similarity >= KIN_SIMILARITY,
        before=before,
        patched=patched,
        two_branch=patched_two_branch,
        batchnorm=rival,
        after=after,
        restored=restored and same_bits(bits, model.state_dict()),
    )


def _sweep(
    model: nn.Module, signature: RobustWeightSignature, alphas: tuple[float, ...], score: Callable[[nn.Module], Score]
) -> tuple[tuple[float, Score], ...]:
    found: list[tuple[float, Score]] = []
    with patch(model, signature, alpha=0.0) as handle:
        for alpha in alphas:
            handle.set_alpha(**{CORRUPTION: alpha})
            found.append((alpha, score(model)))
    return tuple(found)


def _sizes(signature: RobustWeightSignature, float32: RobustWeightSignature, folder: Path) -> Sizes:
    """Bytes as the file system counts them."""
    config = signature.config
    with tempfile.TemporaryDirectory() as scratch:
        float32.save_pretrained(Path(scratch) / "signature")
        whole = sum((Path(scratch) / "signature" / n).stat().st_size for n in (CONFIG_FILE, PAYLOAD_FILE))
    return Sizes(
        config=signature.nbytes - len(signature.payload),
        payload=(folder / "signature" / PAYLOAD_FILE).stat().st_size,
        float32_artifact=whole,
        checkpoint=(folder / "clean.safetensors").stat().st_size,
        touched=config.touched_parameters,
        body=config.body_parameters,
        bits=config.coded_bits or 32.0,
        layers=tuple(u.unit for u in config.extraction.profile if u.touched),
        layers_total=len(config.extraction.profile),
    )


def _save_model(model: nn.Module, file: Path) -> None:
    tensors = {n: t.detach().contiguous() for n, t in model.state_dict().items()}
    file.write_bytes(safetensors.torch.save(tensors))


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: t.detach().clone() for n, t in model.state_dict().items()}


def _rng(purpose: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([purpose, seed])
