"""The one-line reason for a refusal is true, whatever kind of model it is about."""

import dataclasses

import pytest
import timm
import torch
import torch.nn.utils.parametrizations
import torch.nn.utils.prune
import transformers
from builders import perturbed, tiny_resnet, tiny_vit
from test_own_table import TABLE, extract, mine, theirs
from test_resolve import hf_resnet, hf_vit
from timm.models.resnet import Bottleneck
from torch import nn
from twins import CLS, PYRAMID, SWIN

from rws_hub import RobustWeightSignature, plan_patch
from rws_hub.diagnosis import Known, diagnose
from rws_hub.names import parse_family
from rws_hub.resolve import match


def dino(name="vit_small_patch14_dinov2", **options):
    return timm.create_model(name, **CLS | options)


def swin(**options):
    return timm.create_model("swin_tiny_patch4_window7_224", **SWIN | options)


def next_(**options):
    return timm.create_model("convnext_tiny", **PYRAMID | options)


def video():
    options = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
    config = transformers.VideoMAEConfig(**options, image_size=32, patch_size=8)
    return transformers.VideoMAEForVideoClassification(config)


def diagnosis(source, target):
    signature = RobustWeightSignature.extract(
        standard=source, robust=perturbed(source, 0.01, 1), corruption="fog", license="mit", layers=["*"]
    )
    (plan,) = plan_patch(target, signature).signatures
    return plan.diagnosis


CASES = {
    "width": (
        tiny_vit,
        lambda: tiny_vit(embed_dim=96),
        "another shape (30 of 30 tensors): blocks.0.attn.proj.weight is [48, 48] in",
    ),
    "patch size": (
        tiny_vit,
        lambda: tiny_vit(patch_size=4),
        "another patch size (2 of 30 tensors): patch_embed.proj.weight is [48, 3, 8, 8] in the signature and [48, 3,",
    ),
    "kernel": (
        next_,
        lambda: next_(kernel_sizes=3),
        "another kernel size (5 of 63 tensors): stages.0.blocks.0.conv_dw.weight is [8, 1, 7, 7] in the signature and",
    ),
    "inputs": (
        tiny_resnet,
        lambda: tiny_resnet(in_chans=1),
        "another number of input channels (1 of 65 tensors): conv1.weight is [64, 3, 7, 7] in the signature and [",
    ),
    "registers": (
        lambda: dino("vit_small_patch14_reg4_dinov2"),
        lambda: dino("vit_small_patch14_reg4_dinov2", reg_tokens=8),
        "another shape (1 of 35 tensors): reg_token is [1, 4, 48] in the signature and [1, 8, 48] here",
    ),
    "SwiGLU": (
        dino,
        lambda: dino("vit_giant_patch14_dinov2"),
        "another shape (6 of 34 tensors): blocks.0.mlp.fc1.weight is [192, 48] in the signature and [256, 48] here",
    ),
    "a part": (
        tiny_vit,
        lambda: hf_vit(hidden_size=96),
        "another shape (28 of 30 tensors): blocks.0.attn.proj.weight is [48, 48] in the signature and [96, 96] here",
    ),
    "positions": (
        tiny_vit,
        lambda: tiny_vit(no_embed_class=True),
        "another number of positions, such as of class or register tokens: pos_embed is [1, 17, 48] in the signature",
    ),
    "input size": (tiny_vit, lambda: tiny_vit(img_size=64), "another input size: pos_embed is [1, 17, 48] in the"),
    "heads": (
        swin,
        lambda: swin(num_heads=(4, 8)),
        "another number of heads: layers.0.blocks.0.attn.relative_position_bias_table is [49, 2] in the signature and",
    ),
    "window": (swin, lambda: swin(window_size=8), "another input or window size: layers.0.blocks.0.attn.relative_pos"),
    "depth": (
        tiny_vit,
        lambda: hf_vit(num_hidden_layers=3),
        "another depth: this model has 16 tensors that the signature's backbone vit_tiny_patch16_224 has not, such as",
    ),
    "bottleneck": (
        tiny_resnet,
        lambda: tiny_resnet(block=Bottleneck),
        "another variant: this model has 20 tensors that",
    ),
    "bottleneck, hf": (tiny_resnet, lambda: hf_resnet("bottleneck"), "another variant: this model has 20 tensors that"),
    "wider stage": (
        lambda: tiny_resnet(channels=[64, 64, 64, 64]),
        tiny_resnet,
        "another variant: this model has 5 tensors that the signature's backbone resnet18 has not, such as layer1.0.do",
    ),
    "stem": (
        next_,
        lambda: next_(stem_type="overlap"),
        "another variant: this model has 2 tensors that the signature's",
    ),
    "layer scale": (
        tiny_vit,
        lambda: timm.create_model(
            "deit3_small_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3
        ),
        "another architecture: this model is named like 'dinov2' (timm names), the signature's backbone "
        "vit_tiny_patch16_224 like 'vit'; this model has 4 tensors that the signature's backbone vit_tiny_patch16_224 "
        "has not, such as blocks.0.ls1.gamma",
    ),
    "a norm before": (
        tiny_vit,
        lambda: tiny_vit(pre_norm=True),
        "another architecture: this model is named like 'clip_vision' (timm names), the signature's backbone",
    ),
    "video": (tiny_vit, video, "another architecture: this model is named like 'beit' (hf4 names), the signature's"),
    "a token less": (
        lambda: tiny_vit(no_embed_class=True, reg_tokens=4),
        lambda: tiny_vit(no_embed_class=True),
        "another variant: the signature's backbone vit_tiny_patch16_224 has 1 tensor that this model has not, such as",
    ),
    "a token more": (
        lambda: tiny_vit(no_embed_class=True),
        lambda: tiny_vit(no_embed_class=True, reg_tokens=4),
        "another variant: this model has 1 tensor that the signature's backbone vit_tiny_patch16_224 has not, such as",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_reason_is_true(case):
    source, target, expected = CASES[case]
    assert diagnosis(source(), target()).startswith(expected)


def test_a_backbone_without_a_name_is_told_by_its_family():
    source = tiny_vit()
    signature = RobustWeightSignature.extract(
        standard=source.state_dict(),
        robust=perturbed(source, 0.01, 1),
        corruption="fog",
        license="mit",
    )
    (plan,) = plan_patch(hf_resnet(), signature).signatures
    named = "this model is named like 'resnet' (hf names), the signature's backbone like 'vit'"
    assert plan.diagnosis == f"another architecture: {named}"


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        ("layers.{i}", "tiers.{i}", "the table mine does not explain this model: it has no row for layers."),
        ("[1/2]", "[0/2]", "the table mine has no row for blocks.0.a[4:8], and two for blocks.0.a[0:4], in its column"),
    ],
)
def test_a_signature_with_a_table_of_its_own_tells_what_that_lacks(was, now, expected, tmp_path):
    (tmp_path / "mine.map").write_text(TABLE)
    signature = extract(mine(), table=tmp_path / "mine.map")
    backbone = dataclasses.replace(signature.config.backbone, table=TABLE.replace(was, now))
    older = dataclasses.replace(signature, config=dataclasses.replace(signature.config, backbone=backbone).with_seal())
    (plan,) = plan_patch(theirs(mine()).body, older).signatures
    assert plan.diagnosis.startswith(expected)


def test_a_part_of_a_tensor_is_told_with_its_whole():
    """Equal shapes where the table takes the model's tensor for a larger one."""
    text = "columns: mine | theirs\nstem.{wb} | embed.{wb}\nblocks.{i}.a | layers.{i}.left[0/2]\n"
    table = parse_family("half", text + "blocks.{i}.z | layers.{i}.left[1/2]\n")
    body = {"stem.weight": (4, 3), "blocks.0.a": (32, 64), "blocks.0.z": (32, 64)}
    target = {"embed.weight": (4, 3), "layers.0.left": (32, 64)}
    best = match(table, body, list(body), target)[0]
    assert diagnose(best, Known("it", None, body, list(body)), target).endswith(
        "blocks.0.a is [32, 64] in the signature and should be layers.0.left[0:32] of [64, 64], which is [32, 64] here"
    )


@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel], ids=["bare", "wrapped"])
def test_tensors_that_are_computed_are_told_from_another_architecture(wrap):
    parametrized, pruned, normed = tiny_resnet(), tiny_resnet(), tiny_resnet()
    torch.nn.utils.parametrizations.weight_norm(parametrized.conv1)
    torch.nn.utils.prune.l1_unstructured(pruned.conv1, "weight", 0.5)
    torch.nn.utils.parametrizations.spectral_norm(normed.layer1[0].conv1)
    expected = {
        parametrized: "conv1.weight is parametrized, so there is no tensor to change. Make it plain first: "
        "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')",
        pruned: "conv1.weight_orig, so there is no tensor to change. Make it plain first: torch.nn.utils.prune",
        normed: "layer1.0.conv1.weight is parametrized",
    }
    for model, text in expected.items():
        assert text in diagnosis(tiny_resnet(), wrap(model))
    torch.nn.utils.parametrize.remove_parametrizations(parametrized.conv1, "weight")
    assert diagnosis(tiny_resnet(), wrap(parametrized)) == ""
