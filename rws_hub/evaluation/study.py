"""From what a user asks for to a grid of variants and conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from rws_hub.batchnorm import has_batchnorm
from rws_hub.classifier import Preprocessing, require_classes
from rws_hub.errors import EvaluationError
from rws_hub.evaluation.cells import Condition
from rws_hub.evaluation.origin import is_source
from rws_hub.evaluation.runner import Grid
from rws_hub.evaluation.variants import Variant, noise_of_same_norm, raw_difference
from rws_hub.judging import plan_patch
from rws_hub.pictures import Pictures
from rws_hub.plan import Verify
from rws_hub.signature import RobustWeightSignature
from rws_hub.training.state import digest

Control = Literal["noise", "raw"]


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """What is to be compared.

    Attributes:
        model: live; what is patched.
        robust: the robust twin, measured beside it; None leaves it out.
        signatures: each is measured alone at every alpha, and where there are several all of them together, at every
            alpha and at that alpha divided by their number.
        alphas: strengths.
        controls: "noise" of the same norm in the place of each signature; "raw", the plain difference of robust and
            model in the same tensors.
        norm_images: how many unlabelled images batch norm is re-estimated on, as a rival and on top of each
            signature; 0 leaves that out.
        verify: which models are refused, as in `patch`. Strengths are not limited: what they do is to be measured.
    """

    model: nn.Module
    robust: nn.Module | None
    signatures: tuple[RobustWeightSignature, ...]
    alphas: tuple[float, ...]
    controls: tuple[Control, ...]
    norm_images: int
    verify: Verify = "kin"


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A grid, and which of its variants is which.

    Attributes:
        grid: to be measured.
        alone: for each signature, variant name -> alpha of the variants that are the model with it alone.
    """

    grid: Grid
    alone: tuple[dict[str, float], ...]


def plan(
    study: Study,
    data: Pictures,
    conditions: Sequence[Condition],
    preprocessing: Preprocessing,
    *,
    unlabelled: Pictures | None,
    seed: int,
    precision: str,
) -> Planned:
    """All variants by name; everything that can be refused is refused here.

    Raises:
        DataError: the model has other classes than the data.
        IncompatibleModelError: a signature does not fit, or is a stranger's.
        EvaluationError: a signature twice, a control that lacks what it needs, or no batch norm to re-estimate.
    """
    if study.norm_images and not has_batchnorm(study.model):
        raise EvaluationError(f"the model ({type(study.model).__name__}) has no batch norm that could be re-estimated")
    payloads = [s.config.payload.sha256 for s in study.signatures]
    if len(set(payloads)) < len(payloads):
        raise EvaluationError("the same signature is named twice")
    require_classes(study.model, preprocessing.view, data.classes, "the model")
    for signature in study.signatures:
        plan_patch(study.model, signature, verify=study.verify, max_relative_norm=math.inf).require()
    if study.robust is not None:
        require_classes(study.robust, preprocessing.view, data.classes, "the robust model")
    own = Variant("unpatched", study.model, digest(study.model))
    variants = [own]
    alone: list[dict[str, float]] = []
    labels = _labels(study.signatures)
    for label, signature in zip(labels, study.signatures, strict=True):
        by_name = {f"{label} at {alpha:g}": alpha for alpha in study.alphas}
        variants += [replace(own, name=n, signatures=((signature, alpha),)) for n, alpha in by_name.items()]
        alone.append(by_name)
        if study.norm_images:
            alpha = main_alpha(study, signature)
            rival = ((signature, alpha),)
            name = f"{label} at {alpha:g}, batch norm of {study.norm_images} images"
            variants.append(replace(own, name=name, signatures=rival, norm_images=study.norm_images))
        variants += _controls(study, own, label, signature, seed)
    if len(study.signatures) > 1:
        count = len(study.signatures)
        for each in dict.fromkeys(a for alpha in study.alphas for a in (alpha, alpha / count)):
            together = tuple((s, each) for s in study.signatures)
            variants.append(replace(own, name=f"all {count} at {each:.3g} each", signatures=together))
    if study.robust is not None:
        variants.append(Variant("robust", study.robust, digest(study.robust)))
    if study.norm_images:
        variants.append(replace(own, name=f"batch norm of {study.norm_images} images", norm_images=study.norm_images))
    grid = Grid(tuple(variants), tuple(conditions), data, preprocessing, unlabelled, seed, precision)
    return Planned(grid, tuple(alone))


def main_alpha(study: Study, signature: RobustWeightSignature) -> float:
    """The strength that controls are measured at: the recommended one, if it is among those asked for."""
    recommended = signature.config.recommended_alpha
    return recommended if recommended in study.alphas else study.alphas[0]


def _controls(study: Study, own: Variant, label: str, signature: RobustWeightSignature, seed: int) -> list[Variant]:
    found = []
    alpha = main_alpha(study, signature)
    if "noise" in study.controls:
        noise = noise_of_same_norm(study.model, signature, seed)
        found.append(replace(own, name=f"noise of the norm of {label} at {alpha:g}", signatures=((noise, alpha),)))
    if "raw" in study.controls:
        if study.robust is None or not is_source(study.robust, signature, "robust"):
            raise EvaluationError(
                f"the plain difference of {label} needs the robust model that it was made from: name it with --robust, "
                "and measure one signature at a time"
            )
        raw = raw_difference(study.model, study.robust, signature)
        found.append(replace(own, name=f"plain difference of {label} at {alpha:g}", signatures=((raw, alpha),)))
    return found


def _labels(signatures: Sequence[RobustWeightSignature]) -> list[str]:
    """The corruption, with a number where several signatures are of one."""
    names = [s.config.corruption.name for s in signatures]
    return [n if names.count(n) == 1 else f"{n} #{names[: i + 1].count(n)}" for i, n in enumerate(names)]
