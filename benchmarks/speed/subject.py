"""What is patched: a third of a ViT-B/16 with random weights from a seed. Timings do not hang on the values.

The robust twin is the clean model with noise of a tenth of each tensor's spread in the touched layers. Noise has the
most entropy that a delta of its size can have, so the signature is larger here than one of a trained twin.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from rws_hub import RobustWeightSignature

SEED = 0
ARCHITECTURE = "vit_base_patch16_224"
TOUCHED = ("patch_embed.*", "pos_embed", "blocks.[0-3].*")
NOISE = 0.1


@dataclass(frozen=True)
class Subject:
    """A clean model, its delta, and both in every form that a contender reads.

    `delta` is float32 and holds the touched tensors only. `folder` holds, in the dtype of the model,
    `clean.safetensors` and `robust.safetensors` (the clean model but for the touched layers); in float32
    `delta.safetensors`; and `signature/`, a signature as it is published.
    """

    clean: nn.Module
    delta: Mapping[str, torch.Tensor]
    folder: Path

    def model(self) -> nn.Module:
        """A clean model of one's own."""
        return copy.deepcopy(self.clean)

    def file(self, name: str) -> Path:
        """One of the checkpoints."""
        return self.folder / f"{name}.safetensors"


def base(architecture: str = ARCHITECTURE) -> nn.Module:
    """A clean model of random weights, float32, without gradients."""
    torch.manual_seed(SEED)
    model: nn.Module = timm.create_model(architecture, pretrained=False)
    return model.eval().requires_grad_(False)


def noise(model: nn.Module, patterns: Sequence[str], seed: int) -> dict[str, torch.Tensor]:
    """A delta in float32 for every tensor whose name fits one of the patterns."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: NOISE * (value.std() + 0.01) * torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }


def added(model: nn.Module, delta: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict with the delta added, in the dtype of the model."""
    return {n: (v + delta[n]).to(v.dtype) if n in delta else v for n, v in model.state_dict().items()}


def signature(model: nn.Module, delta: Mapping[str, torch.Tensor], corruption: str) -> RobustWeightSignature:
    """The signature of a delta, at an error of 0.5."""
    return RobustWeightSignature.extract(
        standard=model,
        robust=added(model, delta),
        corruption=corruption,
        license="mit",
        layers=list(delta),
        error=0.5,
    )


def make_subject(clean: nn.Module, made: RobustWeightSignature, delta: Mapping[str, torch.Tensor], at: Path) -> Subject:
    """Write every form of a subject to a folder, in the dtype of `clean`."""
    at.mkdir()
    subject = Subject(clean, delta, at)
    save_file(clean.state_dict(), subject.file("clean"))
    save_file(added(clean, delta), subject.file("robust"))
    save_file(dict(delta), subject.file("delta"))
    made.save_pretrained(at / "signature")
    return subject
