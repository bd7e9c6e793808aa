"""What is recorded about a model: what it says itself, and nothing that was only likely."""

import json

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from rws_hub.identity import describe_backbone
from rws_hub.sources import canonical_weights, open_weights


def describe(source, repo_id=None, revision=None):
    return describe_backbone(source, canonical_weights(open_weights(source, "it")).recognition, repo_id, revision)


def small_vit():
    return timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, num_classes=3)


def small_hf_vit():
    config = transformers.ViTConfig(hidden_size=24, num_attention_heads=2, intermediate_size=48, num_hidden_layers=1)
    return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize(
    ("make", "library", "architecture", "dialect"),
    [
        (small_vit, "timm", "vit_tiny_patch16_224", {"timm"}),
        (small_hf_vit, "transformers", "ViTForImageClassification", {"hf5", "hf4"}),  # by release
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "torch", "Sequential", {"identity"}),
    ],
)
def test_a_module_names_its_library_and_architecture(make, library, architecture, dialect):
    backbone = describe(make())
    assert (backbone.library, backbone.architecture) == (library, architecture) and backbone.dialect in dialect


def test_wrappers_are_looked_through():
    model = small_vit()
    wrapped = nn.Module()
    wrapped.module = model
    assert describe(wrapped).architecture == "vit_tiny_patch16_224"


def test_published_weights_are_never_guessed():
    backbone = describe(small_vit())  # its pretrained_cfg names a checkpoint, though the weights are random
    assert backbone.repo_id is None and backbone.revision is None
    assert describe(small_vit(), "timm/vit", "a" * 40).repo_id == "timm/vit"


def test_function_facts_are_recorded():
    facts = describe(small_vit()).function
    assert facts["activation"] == "GELU"
    assert facts["norm"] == "LayerNorm eps=1e-06"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architecture": "resnet18"}, ("timm", "resnet18")),
        ({"architectures": ["ViTModel"], "model_type": "vit"}, ("transformers", "ViTModel")),
        ({"something": 1}, ("unknown", "unknown")),
        (None, ("unknown", "unknown")),
    ],
)
def test_files_are_named_by_the_config_beside_them(tmp_path, config, expected):
    save_file({"a.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    backbone = describe(tmp_path)
    assert (backbone.library, backbone.architecture) == expected
