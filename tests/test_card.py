"""The card as its readers and the Hub see it. New golden files: RWS_UPDATE_GOLDEN=1 pytest tests/test_card.py"""

import base64
import dataclasses
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rws_hub import card as card_module
from rws_hub.card import front_matter, render_card
from rws_hub.errors import CardError, CorruptArtifactError
from rws_hub.results import Accuracy, Evaluation, Results
from rws_hub.spec import (
    Backbone,
    Codec,
    Corruption,
    Extraction,
    Payload,
    SignatureConfig,
    Sketch,
    Source,
    TensorFacts,
    UnitProfile,
)

GOLDEN = Path(__file__).parent / "golden"
REVISION = "0123456789abcdef0123456789abcdef01234567"
LAYOUT = {
    "conv1.weight": (64, 3, 7, 7),
    "bn1.weight": (64,),
    "bn1.bias": (64,),
    "bn1.running_mean": (64,),
    "bn1.running_var": (64,),
    "layer1.0.conv1.weight": (64, 64, 3, 3),
    "layer2.0.conv1.weight": (128, 64, 3, 3),
    "layer3.0.conv1.weight": (256, 128, 3, 3),
}


def make_config(**changes: Any) -> SignatureConfig:
    """A config written by hand: what a card shows, and nothing that needs a model."""
    touched = ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "layer1.0.conv1.weight")
    tensors = {
        name: TensorFacts(
            op="multiply" if name.endswith("running_var") else "add",
            projected="running" not in name,
            encoding="codes" if "conv" in name else "float16",
            granularity="row" if "conv" in name else None,
            relative_error=0.074 if "conv" in name else 0.0002,
            relative_norm=0.12,
        )
        for name in touched
    }
    units = {"stem": 0.214, "layer1.0": 0.131, "layer2.0": 0.0672, "layer3.0": 0.0219}
    members = {"stem": ("conv1", "bn1")} | {u: (u,) for u in units if u != "stem"}
    profile = tuple(
        UnitProfile(
            unit=unit,
            parameters=sum(math.prod(s) for n, s in LAYOUT.items() if n.startswith(members[unit])),
            relative_difference=difference,
            touched=unit in ("stem", "layer1.0"),
        )
        for unit, difference in units.items()
    )
    config = SignatureConfig(
        format="rws",
        format_version=1,
        rws_hub_version="0.1.0",
        description="",
        license="apache-2.0",
        corruption=Corruption("gaussian_noise", 5, "uoft-cs/cifar10"),
        recommended_alpha=1.0,
        relative_error=0.0731,
        backbone=Backbone(
            library="timm",
            architecture="resnet18",
            repo_id="timm/resnet18.a1_in1k",
            revision=REVISION,
            family="resnet",
            dialect="timm",
            layout=LAYOUT,
            head={"fc.weight": (10, 512), "fc.bias": (10,)},
            function={},
        ),
        sources=tuple(Source(r, c * 64) for r, c in (("pretrained", "a"), ("standard", "b"), ("robust", "c"))),  # type: ignore[arg-type]
        sketch=Sketch("countsketch-256-v1", base64.b64encode(bytes(range(256))).decode()),
        extraction=Extraction("two-branch", "projection", "shallow", 0.5, (), "delta", profile),
        codec=Codec("uniform", 4),
        tensors=tensors,
        payload=Payload(24_680, "d" * 64),
        digest="",
    )
    return dataclasses.replace(config, **changes).with_seal()


def with_backbone(config: SignatureConfig, **changes: Any) -> SignatureConfig:
    return dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, **changes)).with_seal()


def make_results(*changes: dict[str, Any], **of_all: Any) -> Results:
    """Results of the config above; each of `changes` is one evaluation, made from a good one."""
    good = Evaluation(
        dataset="CIFAR-10",
        dataset_id="uoft-cs/cifar10",
        split="test",
        metric="accuracy",
        corruption="gaussian_noise",
        severity=5,
        target="standard",
        alpha=1.0,
        images=10_000,
        seed=0,
        clean=Accuracy(0.9412, 0.9307, 0.8911),
        corrupted=Accuracy(0.3245, 0.7163, 0.8324),
    )
    fields: dict[str, Any] = {
        "format": "rws-results",
        "format_version": 1,
        "payload_sha256": "d" * 64,
        "command": "rws eval signature model.safetensors --images test",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "evaluations": tuple(dataclasses.replace(good, **c) for c in changes or ({},)),
    }
    return Results(**fields | of_all)


FOG = {"corruption": "fog", "clean": Accuracy(0.9412, 0.9307, None), "corrupted": Accuracy(0.81, 0.774, None)}
LATER = {
    "target": "the clean model trained further on other images",
    "alpha": 0.8,
    "clean": Accuracy(0.95, 0.95, None),
    "corrupted": Accuracy(0.34, 0.66, None),
}
