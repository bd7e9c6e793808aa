"""Which tensor is which, across libraries: names, shapes, and the numbers that come out of the models."""

import statistics
import time

import pytest
import torch
import torchvision
import transformers
from builders import seeded, tiny_resnet, tiny_vit
from safetensors.torch import load_file
from test_names import golden
from timm.models.resnet import Bottleneck
from torch import nn
from twin_weights import layout

from rws_hub.names import families
from rws_hub.recognise import recognise
from rws_hub.resolve import match, plain_names
from rws_hub.spelling import IDENTITY

VIT, RESNET = families()["vit"], families()["resnet"]


def layout_of(tensors):
    return {n: tuple(t.shape) for n, t in tensors.items() if t.is_floating_point()}


def hf_vit(cls=transformers.ViTForImageClassification, **kw):
    options = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
    options |= {"image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6, "num_labels": 10} | kw
    return seeded(lambda: cls(transformers.ViTConfig(**options)), 5).eval()


def hf_resnet(kind="basic", depths=(1, 1, 1, 1), widths=(8, 16, 32, 64)):
    config = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=list(widths), depths=list(depths), layer_type=kind, num_labels=10
    )
    return seeded(lambda: transformers.ResNetForImageClassification(config), 5).eval()


def tv_vit():
    with torch.device("meta"):
        return torchvision.models.VisionTransformer(32, 8, 2, 3, 48, 192, num_classes=10)


def hf4_file(folder, model):
    """The names that `save_pretrained` writes."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def pair(kind):
    """A timm model and its transformers twin, other weights."""
    if kind == "vit":
        return tiny_vit(), hf_vit()
    if kind == "basic":
        return tiny_resnet(), hf_resnet()
    return tiny_resnet(block=Bottleneck), hf_resnet("bottleneck", widths=(32, 64, 128, 256))


KINDS = ["vit", "basic", "bottleneck"]


@pytest.mark.parametrize("kind", KINDS)
def test_both_libraries_give_one_canonical_layout(kind):
    ours, theirs = pair(kind)
    (a,), (b,) = recognise(layout(ours)), recognise(layout(theirs))
    assert (a.family, a.dialect, a.prefix) == ("vit" if kind == "vit" else "resnet", "timm", "")
    assert b.family == a.family and b.dialect in ({"hf5", "hf4"} if kind == "vit" else {"hf"})  # by release
    assert b.prefix == ("vit." if kind == "vit" else "resnet.")
    assert a.body == b.body
    assert list(a.body) == list(b.body)
    assert a.head == b.head


def test_files_of_save_pretrained_have_the_older_names(tmp_path):
    saved = layout_of(hf4_file(tmp_path, hf_vit()))
    (found,) = recognise(saved)
    assert (found.family, found.dialect, found.prefix) == ("vit", "hf4", "vit.")
    assert found.body == recognise(layout(tiny_vit()))[0].body
    assert set(found.head) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("source", ["timm", "memory", "file", "tv"])
def test_every_vit_dialect_finds_its_way_into_every_other(source, tmp_path):
    layouts = {
        "timm": layout(tiny_vit()),
        "memory": layout(hf_vit()),
        "file": layout_of(hf4_file(tmp_path, hf_vit())),
        "tv": layout(tv_vit()),
    }
    # transformers renamed its tensors in memory in 5.9; on disk they keep the older names.
    modern = any(".q_proj." in name for name in layouts["memory"])
    dialects = {"timm": "timm", "memory": "hf5" if modern else "hf4", "file": "hf4", "tv": "tv"}
    (found,) = recognise(layouts[source])
    assert found.dialect == dialects[source]
    for place, target in layouts.items():
        (best,) = [m for m in match(VIT, found.body, found.body, target) if m.fits]
        assert best.dialect == dialects[place]
        assert not best.resized
        covered = {p.model: 0 for p in best.pieces}
        for piece in best.pieces:
            rows, part = target[piece.model][0], piece.model_part
            covered[piece.model] += rows if part is None else part.stop - part.start
        assert covered == {n: s[0] for n, s in target.items() if n in covered}
        assert {p.canonical for p in best.pieces} == set(found.body)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_torchvision_resnets_have_the_canonical_names(kind):
    with torch.device("meta"):
        model = (torchvision.models.resnet18 if kind == "basic" else torchvision.models.resnet50)()
    (found,) = recognise(layout(model))
    assert (found.family, found.dialect) == ("resnet", "timm")
    assert set(found.head) == {"fc.weight", "fc.bias"}


class Wrap(nn.Module):
    """Holds a model as an attribute of any name."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


WRAPPERS = {
    "module.": lambda m: Wrap(module=m),
    "_orig_mod.": lambda m: Wrap(_orig_mod=m),
    "module._orig_mod.": lambda m: Wrap(module=Wrap(_orig_mod=m)),
    "timm_model.": lambda m: Wrap(timm_model=m),
    "model.encoder.backbone.": lambda m: Wrap(model=Wrap(encoder=Wrap(backbone=m), decoder=nn.Linear(2, 2))),
}


@pytest.mark.parametrize("build", [tiny_vit, tiny_resnet, hf_vit, hf_resnet], ids=lambda b: b.__name__)
@pytest.mark.parametrize("prefix", WRAPPERS)
def test_wrappers_do_not_hide_a_backbone(build, prefix):
    bare = build()
    wrapped = WRAPPERS[prefix](bare)
    (a,) = recognise(layout(bare))
    (b,) = recognise(layout(wrapped))
    assert b.body == a.body
    assert (b.family, b.dialect) == (a.family, a.dialect)
    assert {p.model for p in b.pieces} == {prefix + p.model for p in a.pieces}
    (place,) = [m for m in match(a.table, a.body, a.body, layout(wrapped)) if m.fits]
    assert sorted(place.pieces, key=str) == sorted(b.pieces, key=str)


def test_transparent_parts_anywhere_in_a_name_are_ignored_unless_names_clash():
    assert plain_names(["a._orig_mod.b", "c.base_layer.weight"]) == {
        "a.b": "a._orig_mod.b",
        "c.weight": "c.base_layer.weight",
    }
    assert plain_names(["a.b", "a._orig_mod.b"]) == {"a.b": "a.b", "a._orig_mod.b": "a._orig_mod.b"}


@pytest.mark.parametrize(("small", "large"), [("resnet18", "resnet34")])
def test_another_depth_is_refused_both_ways(small, large):
    with torch.device("meta"):
        a, b = (layout(getattr(torchvision.models, n)()) for n in (small, large))
    body, touched = recognise(a)[0].body, ["conv1.weight"]
    best = match(RESNET, body, touched, b)[0]
    assert not best.fits and "layer1.2.conv1.weight" in best.unexpected and not best.missing
    body = recognise(b)[0].body
    best = match(RESNET, body, touched, a)[0]
    assert not best.fits and "layer1.2.conv1.weight" in {p.canonical for p in best.missing} and not best.unexpected


@pytest.mark.parametrize("target", [tiny_vit, hf_vit], ids=["timm", "transformers"])
def test_another_width_is_refused_with_the_tensors(target):
    body = recognise(layout(tiny_vit(embed_dim=96)))[0].body
    touched = ["blocks.0.attn.qkv.weight", "patch_embed.proj.bias"]
    best = match(VIT, body, touched, layout(target()))[0]
    assert not best.fits
    assert set(best.mismatched) == set(touched)
    assert not best.missing and not best.unexpected


def test_another_input_size_is_fine_where_the_positions_are_not_touched():
    body = recognise(layout(tiny_vit()))[0].body
    target = layout(tiny_vit(img_size=64))
    best = match(VIT, body, ["cls_token"], target)[0]
    assert best.fits and best.resized == ("pos_embed",)
    best = match(VIT, body, ["cls_token", "pos_embed"], target)[0]
    assert not best.fits and best.mismatched == ("pos_embed",)


def test_student_and_teacher_are_two_places():
    both = layout(Wrap(student=tiny_vit(), teacher=tiny_vit()))
    assert sorted(r.prefix for r in recognise(both)) == ["student.", "teacher."]
    body = recognise(layout(tiny_vit()))[0].body
    assert sorted(m.prefix for m in match(VIT, body, body, both) if m.fits) == ["student.", "teacher."]


def test_a_backbone_without_a_table_keeps_its_own_names():
    model = Wrap(module=Wrap(features=nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), classifier=nn.Linear(4, 2)))
    (found,) = recognise(layout(model))
    assert (found.family, found.dialect, found.prefix) == (IDENTITY, IDENTITY, "module.")
    assert set(found.head) == {"classifier.weight", "classifier.bias"}
    assert found.body["features.0.weight"] == (4, 3, 3, 3)
    best = match(None, found.body, found.body, layout(model.module))[0]
    assert best.fits and best.prefix == ""
    model.module.features.append(nn.Conv2d(4, 4, 1))
    best = match(None, found.body, found.body, layout(model.module))[0]
    assert best.unexpected == ("features.2.bias", "features.2.weight")


def test_a_vit_with_one_tensor_more_is_not_a_vit():
    strange = layout(tiny_vit()) | {"blocks.0.attn.q_norm.weight": (16,)}
    (found,) = recognise(strange)
    assert found.family == IDENTITY


def test_a_model_without_a_trace_of_the_backbone_lacks_everything():
    body = golden("vit", 2)
    (only,) = match(VIT, body, body, {"some.weight": (2, 2)})
    assert not only.fits and {p.canonical for p in only.missing} == set(body)
    assert not match(None, body, body, {})[0].fits


def test_the_order_of_a_layout_decides_nothing():
    body, target = golden("resnet", 3), layout(hf_resnet("bottleneck", (3, 3, 3, 3), (4, 4, 4, 4)))
    backwards = dict(reversed(body.items()))
    forth, back = match(RESNET, body, body, target), match(RESNET, backwards, body, target)
    assert [(m.prefix, m.dialect, set(m.pieces)) for m in forth] == [(m.prefix, m.dialect, set(m.pieces)) for m in back]


def test_a_tensor_that_does_not_split_has_no_name_where_it_is_split():
    body = golden("vit", 1) | {"blocks.0.attn.qkv.weight": (10, 4)}
    assert [m.dialect for m in match(VIT, body, body, layout(hf_vit()))] == ["timm"]


def test_planning_a_large_model_is_quick():
    body = golden("vit", 24)
    with torch.device("meta"):
        target = layout(hf_vit(hidden_size=12, num_hidden_layers=24, intermediate_size=48, image_size=4, patch_size=2))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert match(VIT, body, body, target)[0].fits
        times.append(time.perf_counter() - start)
    assert statistics.median(times) < 0.1


def test_flattened_stages_are_spelled_out_for_tables_only():
    names = ["stages_0.blocks.0.gamma", "backbone.layers_12.x", "my_stages_0.x", "blocks_0x.y"]
    assert plain_names(names) == {n: n for n in names}
    spelled = ["stages.0.blocks.0.gamma", "backbone.layers.12.x", "my_stages_0.x", "blocks_0x.y"]
    assert plain_names(names, in_table=True) == dict(zip(spelled, names, strict=True))
