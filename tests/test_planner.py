"""The plan: a pure look at names and shapes that says what would go where, or why not."""

import copy
import dataclasses

import pytest
import torch
import transformers
from bits import bits, changed
from builders import perturbed, seeded, tiny_resnet, tiny_signature, tiny_vit
from safetensors.torch import save_file
from torch import nn

from rws_hub import IncompatibleModelError, patch, plan_patch
from rws_hub.planner import plan_module


@pytest.fixture(scope="module")
def fog():
    return tiny_signature(layers=2)


@pytest.fixture(scope="module")
def vit_fog():
    return tiny_signature("vit", layers=2)


def rows(text):
    """The cells of the report's table, without its header."""
    table = [line for line in text.splitlines() if " | " in line]
    return [tuple(cell.strip() for cell in line.split(" | ")) for line in table[1:]]


def test_an_accepted_plan_in_words(fog):
    plan = plan_patch(tiny_resnet(), fog)
    assert plan.ok and plan.require() is plan
    batchnorm = "{weight,bias,running_mean,running_var}"
    text = plan.explain()
    assert text.splitlines()[:3] == ["plan for ResNet", "fog: fits, resnet in timm names", ""]
    assert rows(text.partition("\ntouches")[0]) == [
        (f"bn1.{batchnorm}", "accepted", "="),
        ("conv1.weight", "accepted", "="),
        (f"layer1.0.bn{{1,2}}.{batchnorm}", "accepted", "="),
        ("layer1.0.conv{1,2}.weight", "accepted", "="),
        ("layer1.0.downsample.{0,1}.weight", "accepted", "="),
        ("layer1.0.downsample.1.{bias,running_mean,running_var}", "accepted", "="),
    ]
    head, _, told = text.partition("('ledger'), or next to none ('reload', with a checkpoint)\n")
    assert head.splitlines()[-2:] == [
        "touches 15,456 weights and statistics in 20 tensors",
        "to take it off exactly, 61,824 bytes are kept in memory (removal='snapshot'), or about 966 ",
    ]
    assert told.splitlines()[0] == (
        "kinship: same base: the touched tensors are those of the signature's source, bit for bit"
    )
    assert rows(told) == [
        ("conv1.weight", "0.453", "0.398"),
        ("layer1.0.conv1.weight", "0.0662", "0.0601"),
        ("layer1.0.conv2.weight", "0.064", "0.0608"),
        ("all kernels and matrices", "0.0835", "-"),
    ]
    assert told.splitlines()[-1] == "running variances change by a factor of up to 1.02 (bn1.running_var)"


def test_another_dialect_in_words(vit_fog):
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192, image_size=32, patch_size=8
    )
    model = seeded(lambda: transformers.ViTForImageClassification(config), 0)
    plan = plan_patch(model, vit_fog, verify="architecture")
    text = plan.explain()
    modern = "vit.layers.0.attention.k_proj.weight" in model.state_dict()
    dialect, key = (
        ("hf5", "layers.0.attention.k_proj") if modern else ("hf4", "encoder.layer.0.attention.attention.key")
    )
    assert plan.ok and f"fog: fits, vit in {dialect} names under 'vit.'" in text
    assert ("cls_token", "accepted", "vit.embeddings.cls_token") in rows(text)
    leaf = "{weight,bias}"
    assert (f"blocks.0.attn.qkv.{leaf}[48:96]", "accepted", f"vit.{key}.{leaf}") in rows(text)
    assert "kinship: stranger (similarity " in text
    clean = bits(model)
    with patch(model, vit_fog, verify="architecture"):
        assert changed(clean, model) == {b.model for b in plan.signatures[0].bindings}


def without(name):
    model = tiny_resnet()
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, None)
    return model


def with_more():
    model = tiny_resnet()
    model.layer4.append(copy.deepcopy(model.layer4[0]))
    return model


THEIRS, OURS = (
    "the signature's backbone has it, this model has not",
    "this model has it, the signature's backbone has not",
)
NO_STEM = ("conv1.weight", "missing", "conv1.weight", THEIRS)


@pytest.mark.parametrize(
    ("build", "reason", "row"),
    [
        (
            lambda: without("layer1.0.conv2.weight"),
            "another variant: the signature's backbone resnet18 has 1 tensor that this model has not, such as layer1.0",
            ("layer1.0.conv2.weight", "missing", "layer1.0.conv2.weight", THEIRS),
        ),
        (
            lambda: without("conv1.weight"),
            "another variant: the signature's backbone resnet18 has 1 tensor that this model has not",
            NO_STEM,
        ),
        (
            with_more,
            "another depth: this model has 15 tensors that the signature's backbone resnet18 has not, such as layer4",
            ("-", "unexpected", "layer4.1.conv{1,2}.weight", OURS),
        ),
        (
            lambda: tiny_resnet(channels=[4, 16, 32, 64]),
            "another shape (15 of 20 tensors): layer1.0.conv1.weight is [8, 64, 3, 3] in the signature and "
            "[4, 64, 3, 3] here",
            (
                "layer1.0.conv1.weight",
                "mismatched",
                "layer1.0.conv1.weight",
                "signature [8, 64, 3, 3], model [4, 64, 3, 3]",
            ),
        ),
        (
            lambda: nn.ModuleDict({"left": tiny_resnet(), "right": tiny_resnet(seed=1)}),
            "the backbone occurs under 'left.', 'right.'; patch one submodule alone",
            ("-", "ambiguous", "ModuleDict", "the backbone occurs under 'left.', 'right.'; patch one submodule alone"),
        ),
        (lambda: nn.Linear(2, 2), "another architecture, or names that no table knows: most tensors of", NO_STEM),
        (
            tiny_vit,
            "another architecture: this model is named like 'vit' (timm names), the signature's backbone resnet18 like "
            "'resnet'",
            NO_STEM,
        ),
    ],
    ids=["missing", "missing-stem", "unexpected", "mismatched", "ambiguous", "other", "other-family"],
)
def test_a_refusal_in_words(build, reason, row, fog):
    model = build()
    clean = bits(model)
    plan = plan_patch(model, fog)
    text = plan.explain()
    assert not plan.ok and text.splitlines()[1].startswith("fog: does not fit, resnet in timm names")
    assert text.splitlines()[2].startswith(reason)
    assert row in rows(text)
    with pytest.raises(IncompatibleModelError, match=r"Nothing was changed\.") as caught:
        patch(model, fog)
    assert ("in all: print(plan_patch" in str(caught.value)) == ("the backbone occurs" not in reason)
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert rows(caught.value.plan.explain()) == rows(text)
    assert changed(clean, model) == set()


def test_an_untouched_tensor_of_another_shape_does_not_matter():
    blocks_only = tiny_signature("vit", layers=["blocks.0.*"])
    larger = tiny_vit(img_size=64)
    plan = plan_patch(larger, blocks_only, verify="architecture")
    assert plan.ok
    assert ("pos_embed", "untouched", "another shape here; not part of the signature") in rows(plan.explain())
    refused = plan_patch(larger, tiny_signature("vit", layers=1))
    sizes = "another input size: pos_embed is [1, 17, 48] in the signature and [1, 65, 48] here"
    assert refused.signatures[0].diagnosis.startswith(sizes)


@pytest.mark.parametrize("model", [tiny_resnet, lambda: tiny_resnet(num_classes=3), lambda: tiny_resnet(num_classes=0)])
def test_the_number_of_classes_does_not_matter(model, fog):
    assert plan_patch(model(), fog, verify="architecture").ok


def test_several_signatures_are_planned_each_for_itself(fog, vit_fog):
    plan = plan_patch(tiny_resnet(), fog, vit_fog)
    assert [s.ok for s in plan.signatures] == [True, False] and not plan.ok


def test_a_module_a_state_dict_and_a_file_give_one_plan(fog, tmp_path):
    model = perturbed(tiny_resnet(), 0.01, 9)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    plans = [plan_patch(x, fog) for x in (model, model.state_dict(), tmp_path / "model.safetensors", tmp_path)]
    assert [p.target for p in plans] == ["ResNet", "the state dict", "model.safetensors", tmp_path.name]
    (live,) = plans[0].signatures
    assert live.touched_bytes == 4 * live.touched
    assert all(p.signatures == (dataclasses.replace(live, touched_bytes=None),) and p.ok for p in plans[1:])
    for plan in plans[1:]:
        assert [c.names for c in plan.changes] == [c.names for c in plans[0].changes]
        assert plan.relative_norm == pytest.approx(plans[0].relative_norm, rel=0.02)


def test_planning_changes_nothing_and_copies_nothing(fog, monkeypatch):
    model = tiny_resnet()
    clean, versions = bits(model), [t._version for t in model.state_dict().values()]
    plan_patch(model, fog)
    assert changed(clean, model) == set() and versions == [t._version for t in model.state_dict().values()]
    for method in ("clone", "cpu", "copy_", "to", "detach"):
        monkeypatch.setattr(torch.Tensor, method, lambda *_, **__: pytest.fail("a value was read"))
    assert plan_module(model, [fog]).ok


def test_a_model_on_the_meta_device_fits_by_name_but_has_no_values_to_patch(fog):
    plan = plan_patch(tiny_resnet().to("meta"), fog)
    (signature,) = plan.signatures
    assert {b.model for b in signature.bindings} == set(fog.names)
    assert {(r.reason, r.detail) for r in signature.rejected} == {
        ("unusable", "it is on the meta device and holds no values; load the weights first")
    }
    assert plan_patch(tiny_vit().to("meta"), tiny_signature("vit")).signatures[0].bindings


def expanded(model):
    model.conv1.weight = nn.Parameter(torch.zeros(1, 3, 7, 7).expand(64, 3, 7, 7))
    return model


def with_odd_weight(make):
    model = tiny_resnet()
    model.conv1.weight = nn.Parameter(make(model.conv1.weight.detach()), requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: expanded(tiny_resnet()), "some of its elements share memory (an expanded view, say); clone it first"),
        (lambda: with_odd_weight(lambda w: w.to(torch.float8_e4m3fn)), "it is torch.strided, torch.float8_e4m3fn"),
        (lambda: with_odd_weight(lambda w: w.to_sparse()), "it is torch.sparse_coo"),
        (
            lambda: with_odd_weight(lambda w: w.mul(10).to(torch.int8)),
            "\nconv1.weight: it is a tensor of torch.int8; expected a dense fp16, bf16, fp32 or fp64 tensor\n",
        ),
    ],
)
def test_a_tensor_that_could_not_be_restored_is_refused(build, message, fog):
    (plan,) = plan_patch(build(), fog).signatures
    assert not plan.ok and message in plan.explain()


def test_a_tensor_made_in_inference_mode_is_refused(fog):
    with torch.inference_mode():
        model = tiny_resnet()
    (plan,) = plan_patch(model, fog).signatures
    assert not plan.ok and "created in inference mode" in plan.explain()


def test_integer_weights_in_a_file_are_named_as_such(fog, tmp_path):
    state = with_odd_weight(lambda w: w.mul(10).to(torch.int8)).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    for target, kind in ((state, "torch.int8"), (tmp_path / "model.safetensors", "I8")):
        (plan,) = plan_patch(target, fog).signatures
        assert [(r.reason, r.name) for r in plan.rejected] == [("unusable", "conv1.weight")]
        assert plan.diagnosis.startswith(f"conv1.weight: it is a tensor of {kind}; expected")
    state["conv1.weight"] = torch.zeros(0)
    assert plan_patch(state, fog).signatures[0].diagnosis.startswith("conv1.weight: it is empty; expected")


def two(left, right):
    return nn.ModuleDict({"left": left, "right": right})


def sharing_blocks():
    left, right = tiny_vit(), tiny_vit(seed=1)
    right.blocks = left.blocks
    return two(left, right)


def test_two_backbones_that_share_a_trunk_are_two(vit_fog):
    model = sharing_blocks()
    clean = bits(model)
    with pytest.raises(
        IncompatibleModelError, match=r"ModuleDict with 'fog': the backbone occurs under 'left.', 'right.'"
    ):
        patch(model, vit_fog)
    assert changed(clean, model) == set()


def test_a_backbone_by_two_names_is_one(vit_fog):
    model = tiny_vit()
    assert plan_patch(two(model, model), vit_fog).ok
    (plan,) = plan_patch(nn.ModuleDict({"left": model, "right": model, "third": tiny_vit()}), vit_fog).signatures
    assert plan.diagnosis == "the backbone occurs under 'left.', 'third.'; patch one submodule alone"
