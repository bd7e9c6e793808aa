"""Small seeded models and a ready signature, for every test that needs real ones."""

import copy
from typing import Any

import timm
import torch
from torch import nn

from rws_hub import RobustWeightSignature


def seeded(build: Any, seed: int) -> Any:
    """What `build()` returns with the global generator at `seed`, which is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def tiny_resnet(seed: int = 0, **kw: Any) -> nn.Module:
    """A ResNet of four basic blocks, 8 to 64 channels wide behind the stem."""
    options = {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64], "num_classes": 10} | kw
    model = seeded(lambda: timm.create_model("resnet18", pretrained=False, **options), seed)
    return _with_statistics(model, seed).eval()


def tiny_vit(seed: int = 0, **kw: Any) -> nn.Module:
    """A ViT of two blocks, 48 wide, for pictures of 32 by 32 (about 70,000 weights)."""
    options = {"depth": 2, "img_size": 32, "patch_size": 8, "embed_dim": 48, "num_heads": 3, "num_classes": 10} | kw
    model: nn.Module = seeded(lambda: timm.create_model("vit_tiny_patch16_224", pretrained=False, **options), seed)
    return model.eval()


def perturbed(model: nn.Module, scale: float, seed: int) -> nn.Module:
    """A copy with seeded noise on every float parameter and buffer; running variances stay positive."""
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in twin.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator) * scale
            if name.endswith("running_var"):
                tensor.mul_(noise.exp().to(tensor.dtype))
            else:
                tensor.add_(noise.to(tensor.dtype))
    return twin


def tiny_signature(
    kind: str = "resnet", corruption: str = "fog", seed: int = 1, **extract_kwargs: Any
) -> RobustWeightSignature:
    """A signature of `tiny_resnet()` or `tiny_vit()`; another `seed` gives another robust twin."""
    standard = {"resnet": tiny_resnet, "vit": tiny_vit}[kind]()
    options: dict[str, Any] = {
        "corruption": corruption,
        "severity": 5,
        "dataset": "cifar10",
        "license": "apache-2.0",
        "layers": 2,
    } | extract_kwargs
    return RobustWeightSignature.extract(standard=standard, robust=perturbed(standard, 0.01, seed), **options)


def _with_statistics(model: nn.Module, seed: int) -> nn.Module:
    """Batch-norm statistics that are not the trivial 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model
