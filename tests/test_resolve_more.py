"""A backbone with more or less around it than its table has: adapters, other heads, models cut short."""

import pytest
import timm
from builders import tiny_resnet, tiny_vit
from test_resolve import RESNET, VIT, hf_vit
from twin_weights import layout

from rws_hub.recognise import recognise
from rws_hub.resolve import match


def adapted(layout, names):
    """As PEFT names a model with low-rank adapters on some layers."""
    out = {}
    for name, shape in layout.items():
        layer, _, leaf = name.rpartition(".")
        if layer not in names:
            out[f"base_model.model.{name}"] = shape
            continue
        out[f"base_model.model.{layer}.base_layer.{leaf}"] = shape
        out[f"base_model.model.{layer}.lora_A.default.weight"] = (4, shape[-1])
        out[f"base_model.model.{layer}.lora_B.default.weight"] = (shape[0], 4)
    return out


def test_adapters_are_no_part_of_the_backbone():
    target = adapted(layout(hf_vit()), {"vit.layers.0.attention.q_proj", "vit.layers.1.mlp.fc1", "classifier"})
    body = recognise(layout(tiny_vit()))[0].body
    (place,) = [m for m in match(VIT, body, body, target) if m.fits]
    assert place.prefix == "base_model.model.vit."
    if place.dialect == "hf5":
        assert "base_model.model.vit.layers.0.attention.q_proj.base_layer.weight" in {p.model for p in place.pieces}


@pytest.mark.parametrize(
    ("extra", "fits"),
    [
        ("blocks.0.ls1.gamma", False),  # a layer scale: another architecture
        ("blocks.0.attn.q_norm.weight", False),
        ("patch_embed.norm.weight", False),
        ("attn_pool.latent", False),  # pooling by attention: a SigLIP
        ("norm_pre.weight", False),  # a CLIP
        ("reg_token", False),  # a token more
        ("neck.weight", True),  # a module of the user's own beside the backbone's
        ("mask_token", True),  # of masked pretraining
        ("head.extra.weight", True),
    ],
)
def test_what_stands_among_the_backbones_own_is_unexpected(extra, fits):
    body = recognise(layout(tiny_vit()))[0].body
    for prefix in ("", "module.backbone."):
        target = {prefix + n: shape for n, shape in {**layout(tiny_vit()), extra: (48,)}.items()}
        best = match(VIT, body, body, {**target, "scale": (1,)} if prefix else target)[0]
        assert best.fits == fits and best.unexpected == (() if fits else (prefix + extra,))


def test_a_tensor_beside_a_backbone_that_has_none_there_is_the_users():
    body = recognise(layout(tiny_resnet()))[0].body
    assert match(RESNET, body, body, {**layout(tiny_resnet()), "mean": (1, 3, 1, 1)})[0].fits


CUT = {
    "vit": (lambda **kw: tiny_vit(**({"out_indices": (0, 1)} if kw else {}), **kw), "norm"),
    "convnext": (
        lambda **kw: timm.create_model("convnext_tiny", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), **kw),
        "head.norm",
    ),
    "swin": (
        lambda **kw: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, depths=(1, 1, 1, 1), **kw),
        "norm",
    ),
    "resnet": (tiny_resnet, None),
}


@pytest.mark.parametrize("family", CUT)
def test_a_model_cut_to_its_features_lacks_the_last_norm_alone(family):
    build, last = CUT[family]
    (found,) = recognise(layout(build()))
    features = layout(build(features_only=True))
    stem = next(iter(found.body))
    (best,) = [m for m in match(found.table, found.body, [stem], features) if m.fits]
    assert best.absent == (() if last is None else (f"{last}.bias", f"{last}.weight"))
    if last is not None:  # touched, it is missing
        refused = match(found.table, found.body, [f"{last}.weight"], features)[0]
        assert [p.canonical for p in refused.missing] == [f"{last}.weight"]
