"""What is compared: the model as it is, patched, with its batch norm re-estimated, and the controls."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rws_hub.batchnorm import reestimate_batchnorm
from rws_hub.evaluation.cells import Condition
from rws_hub.handle import Patch
from rws_hub.patching import patch
from rws_hub.signature import RobustWeightSignature

# Preprocessed batches of unlabelled images under a condition.
Unlabelled = Callable[[Condition], Iterator[Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """A model, and what is added to it while it is measured.

    Attributes:
        name: what to call it in tables, one line.
        model: live; between measurements it is as it was given.
        weights: sha256 of its weights.
        signatures: what is patched on, with the strength of each.
        norm_images: how many unlabelled images of the condition its batch norm is re-estimated on, after patching;
            0 leaves it alone.
    """

    name: str
    model: nn.Module
    weights: str
    signatures: tuple[tuple[RobustWeightSignature, float], ...] = ()
    norm_images: int = 0

    @property
    def facts(self) -> str:
        """What decides its answers, beside its weights."""
        added = sorted(f"{s.config.payload.sha256}*{alpha!r}" for s, alpha in self.signatures if alpha)
        return f"{'+'.join(added) or 'as it is'}; batch norm of {self.norm_images} images"

    @contextlib.contextmanager
    def applied(self, condition: Condition, unlabelled: Unlabelled) -> Iterator[nn.Module]:
        """The model with all that on it; bit for bit as before at the end."""
        with contextlib.ExitStack() as stack:
            for signature, alpha in self.signatures:  # each in a patch of its own: two may be of one corruption
                stack.enter_context(_patched(self.model, signature, alpha))
            if self.norm_images:
                stack.enter_context(reestimate_batchnorm(self.model, unlabelled(condition)))
            yield self.model.eval()


def _patched(model: nn.Module, signature: RobustWeightSignature, alpha: float) -> Patch:
    """Whatever it does: it was judged when the study was planned, and what it does is to be measured."""
    return patch(model, signature, alpha=alpha, verify="architecture", max_relative_norm=math.inf)


def noise_of_same_norm(model: nn.Module, signature: RobustWeightSignature, seed: int) -> RobustWeightSignature:
    """The control: in every tensor that the signature touches, normal noise of the same norm as its difference there.

    Args:
        model: that the signature fits; left as it is.
        signature: to take layers and norms from.
        seed: of the noise.
    """
    clean = {n: t.detach().clone() for n, t in model.state_dict().items()}
    noisy = copy.deepcopy(model)
    with _patched(model, signature, 1.0):
        patched = {n: t.detach().clone() for n, t in model.state_dict().items()}
    rng = torch.Generator().manual_seed(seed)
    spoiled = dict(clean)
    for name, before in clean.items():
        after = patched[name]
        if torch.equal(before, after) or not before.is_floating_point():
            continue
        noise = torch.randn(before.shape, generator=rng).to(before)
        if name.endswith("running_var"):  # moves in its logarithm, so that it stays positive
            moved = (after.double() / before.double()).log()
            spoiled[name] = (before.double() * (noise.double() * (moved.norm() / noise.double().norm())).exp()).to(
                before
            )
        else:
            spoiled[name] = before + noise * ((after.double() - before.double()).norm() / noise.double().norm()).to(
                before
            )
    noisy.load_state_dict(spoiled)
    return _like(signature, model, noisy, "noise")


def raw_difference(standard: nn.Module, robust: nn.Module, signature: RobustWeightSignature) -> RobustWeightSignature:
    """The control for the projection: the plain difference of the same tensors, in float32."""
    return _like(signature, standard, robust, signature.config.corruption.name)


def _like(
    signature: RobustWeightSignature, standard: nn.Module, robust: nn.Module, corruption: str
) -> RobustWeightSignature:
    config = signature.config
    return RobustWeightSignature.extract(
        standard=standard,
        robust=robust,
        corruption=corruption,
        severity=config.corruption.severity,
        license=config.license,
        layers=list(_exactly(signature.names)),
        bits=32,
        batchnorm=config.extraction.batchnorm,
    )


def _exactly(names: Sequence[str]) -> Iterator[str]:
    """Names as patterns that match nothing else."""
    for name in names:
        yield "".join(f"[{c}]" if c in "*?[" else c for c in name)
