"""The right base: exact, kin, or names and shapes only; judged by clean values, whatever is on the model."""

import copy
import dataclasses
import math
import re

import old
import pytest
import torch
from bits import bits, changed, plant_odd_values
from builders import perturbed, tiny_resnet, tiny_signature, tiny_vit
from forge import small_models, small_signature
from safetensors.torch import load_file, save_file

from rws_hub import IncompatibleModelError, RobustWeightSignature, patch, plan_patch
from rws_hub.apply import apply_to_checkpoint
from rws_hub.judging import Terms


@pytest.fixture(scope="module")
def fog():
    return tiny_signature(layers=2)


@pytest.fixture(scope="module")
def noise():
    return tiny_signature(layers=2, corruption="noise", seed=2)


MODELS = {
    "same base": tiny_resnet,
    "bfloat16": lambda: tiny_resnet().bfloat16(),
    "tuned": lambda: perturbed(tiny_resnet(), 0.002, 9),
    "stranger": lambda: tiny_resnet(seed=1),
}
VERDICTS = {"same base": "same base", "bfloat16": "kin", "tuned": "kin", "stranger": "stranger"}


@pytest.mark.parametrize("kind", MODELS)
def test_a_plan_tells_base_kin_and_stranger_apart(kind, fog, tmp_path):
    model = MODELS[kind]()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for source in (model, model.state_dict(), tmp_path / "model.safetensors"):
        plan = plan_patch(source, fog)
        (found,) = plan.signatures
        assert found.kinship.startswith(VERDICTS[kind]) and found.compared == 2048
        assert (found.same_base is True) is (kind == "same base")
        assert plan.ok is (kind != "stranger") and ("refused: it is a stranger" in plan.explain()) is not plan.ok
        assert plan_patch(source, fog, verify="architecture").ok
        assert plan_patch(source, fog, verify="exact").ok is (kind == "same base")


@pytest.mark.parametrize("verify", ["exact", "kin", "architecture"])
@pytest.mark.parametrize("kind", MODELS)
def test_patch_refuses_what_it_is_told_to(verify, kind, fog, noise):
    model = MODELS[kind]()
    clean = bits(model)
    allowed = {"exact": {"same base"}, "kin": {"same base", "bfloat16", "tuned"}, "architecture": set(MODELS)}
    if kind in allowed[verify]:
        p = patch(model, fog, verify=verify)
        p.add(noise)
        p.exchange("fog", fog)
        p.unpatch()
    else:
        with pytest.raises(
            IncompatibleModelError, match=r"cannot patch ResNet with 'fog'.*Nothing was changed"
        ) as caught:
            patch(model, fog, verify=verify)
        assert "verify=" in str(caught.value) and not caught.value.plan.ok
    assert changed(clean, model) == set()


def test_the_refusal_of_a_stranger_says_how_similar_and_how_to_insist(fog):
    with pytest.raises(IncompatibleModelError) as caught:
        patch(tiny_resnet(seed=1), fog)
    (found,) = caught.value.plan.signatures
    text = str(caught.value)
    assert f"estimated similarity is {found.similarity:.2f}, and kin have at least 0.5" in text
    assert 'pass verify="architecture" (--verify architecture)' in text and "\n" not in text
    model = tiny_resnet(seed=1)
    with patch(model, fog, verify="architecture") as p:
        assert p.plan.signatures[0].kinship == ""  # it was not looked at


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("names", [("layer1.0.conv2.weight",), ("conv1.weight", "layer1.0.conv1.weight"), None])
@pytest.mark.parametrize("older", [False, True], ids=["signs", "counts"])
def test_weights_that_are_not_finite_have_no_kin(value, names, older, fog, tmp_path):
    if older:
        layout = {n: fog.config.shape(n) for n in fog.names}
        sketch = old.sketch(layout, tiny_resnet().state_dict())
        config = dataclasses.replace(fog.config, format_version=3, sketch=sketch).with_seal()
        fog = dataclasses.replace(fog, config=config)
    model = tiny_resnet()
    for name, tensor in model.named_parameters():
        if names is None or name in names:
            tensor.data.flatten()[: 2 * tensor.numel() // 3 + 1] = value
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    before = bits(model)
    named = r"layer1\.0\.conv2\.weight" if names and len(names) == 1 else r"conv1\.weight"
    for source in (model, model.state_dict(), tmp_path / "model.safetensors"):
        plan = plan_patch(source, fog)
        assert re.search(f"refused: most of the weights that were looked at in {named} are NaN or inf", str(plan))
        assert not plan.ok and plan_patch(source, fog, verify="architecture").ok
    with pytest.raises(IncompatibleModelError, match=rf"'fog': most of .*{named}.*Nothing was changed\."):
        patch(model, fog)
    with pytest.raises(IncompatibleModelError, match="not bit for bit"):
        patch(model, fog, verify="exact")
    assert changed(before, model) == set()
    patch(model, fog, verify="architecture").unpatch()
    assert changed(before, model) == set()


def test_a_few_weights_that_are_not_finite_are_no_evidence(fog):
    model = tiny_resnet()
    for name in ("conv1.weight", "layer1.0.conv1.weight"):
        plant_odd_values(model.get_parameter(name))
    (found,) = plan_patch(model, fog).signatures
    assert found.kinship.startswith("kin (similarity 1.00)") and found.ok


def test_exact_tells_the_robust_twin(fog):
    twin = perturbed(tiny_resnet(), 0.01, 1)
    with pytest.raises(IncompatibleModelError, match=r"but those of its robust twin, estimated similarity 0\.9"):
        patch(twin, fog, verify="exact")


@pytest.mark.parametrize("removal", ["snapshot", "ledger"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_patched_model_is_judged_by_its_clean_values(removal, dtype, fog, noise, monkeypatch):
    monkeypatch.setattr("rws_hub.removal._SMALL", 1)
    model, stranger = tiny_resnet().to(dtype), tiny_resnet(seed=1).to(dtype)
    # So strong that the signs of what is there say little.
    far = {"alpha": 30, "max_relative_norm": math.inf, "removal": removal}
    p, q = patch(model, fog, **far), patch(stranger, fog, verify="architecture", **far)
    (clean,) = plan_patch(tiny_resnet().to(dtype), noise).signatures
    (found,) = plan_patch(model, noise, max_relative_norm=math.inf).signatures
    assert found.similarity == pytest.approx(clean.similarity, abs=0.02)
    assert (found.same_base is True) is (clean.same_base is True) is (dtype == torch.float32)
    p.add(noise)
    second = patch(
        stranger, tiny_signature(layers=1, corruption="snow", seed=5), verify="architecture", max_relative_norm=99
    )
    before = bits(stranger)
    for verify in ("kin", "exact"):
        with pytest.raises(IncompatibleModelError):
            patch(stranger, noise, verify=verify, max_relative_norm=math.inf)
    if dtype == torch.float32:
        patch(
            model, tiny_signature(layers=1, corruption="snow", seed=5), verify="exact", max_relative_norm=99
        ).unpatch()
    assert changed(before, stranger) == set()
    for handle in (second, q, p):
        handle.unpatch()
    assert bits(model) == bits(tiny_resnet().to(dtype))


def test_a_model_with_the_signature_saved_into_it_is_kin_and_not_the_base(fog, noise):
    model = tiny_resnet()
    with patch(model, fog):
        saved = copy.deepcopy(model)
    (found,) = plan_patch(saved, noise).signatures
    assert found.kinship.startswith("kin") and found.same_base is not True
    patch(saved, noise).unpatch()
    with pytest.raises(IncompatibleModelError, match="not bit for bit"):
        patch(saved, noise, verify="exact")


def test_exchange_and_set_alpha_keep_what_was_asked_for(fog, noise):
    stranger = tiny_resnet(seed=1)
    p = patch(stranger, fog, verify="architecture")
    p.exchange("fog", noise)
    p.set_alpha(noise=0.3)
    p.unpatch()
    own = perturbed(tiny_resnet(), 0.002, 9)
    p = patch(own, fog)
    with pytest.raises(IncompatibleModelError, match="stranger"):
        p.add(RobustWeightSignature.extract(
            standard=stranger, robust=perturbed(stranger, 0.01, 3), corruption="rain", license="mit", layers=2
        ))  # fmt: skip
    assert p.alphas == {"fog": 1.0}


def test_vectors_alone_have_no_kinship_but_a_digest():
    signature = tiny_signature(layers=["bn1.*"])
    (found,) = plan_patch(tiny_resnet(seed=1), signature).signatures
    assert found.similarity is None and found.kinship == "unknown: no more than 0 weights can be compared" and found.ok
    assert plan_patch(tiny_resnet(), signature).signatures[0].same_base is True
    model = tiny_resnet(seed=1)
    patch(model, signature).unpatch()
    with pytest.raises(IncompatibleModelError, match="not bit for bit"):
        patch(model, signature, verify="exact")


def test_a_signature_of_an_older_format_is_judged_by_its_own_sketch(fog):
    state, layout = tiny_resnet().state_dict(), {n: fog.config.shape(n) for n in fog.names}
    config = dataclasses.replace(fog.config, format_version=3, sketch=old.sketch(layout, state)).with_seal()
    older = dataclasses.replace(fog, config=config)
    assert plan_patch(tiny_resnet(), older).signatures[0].same_base is True
    assert plan_patch(perturbed(tiny_resnet(), 0.002, 9), older).signatures[0].kinship.startswith("kin")
    with pytest.raises(IncompatibleModelError, match="stranger"):
        patch(tiny_resnet(seed=1), older)


def test_apply_judges_the_file(fog, tmp_path):
    source = tmp_path / "model.safetensors"
    save_file(tiny_resnet(seed=1).state_dict(), source)
    for terms in (Terms(), Terms("exact")):
        with pytest.raises(IncompatibleModelError):
            apply_to_checkpoint(source, [fog], [1.0], tmp_path / "out.safetensors", terms=terms)
    with pytest.raises(IncompatibleModelError, match="max_relative_norm"):
        apply_to_checkpoint(source, [fog], [9.0], tmp_path / "out.safetensors", terms=Terms("architecture"))
    assert [f.name for f in tmp_path.iterdir()] == ["model.safetensors"]
    apply_to_checkpoint(source, [fog], [9.0], tmp_path / "out.safetensors", terms=Terms("architecture", math.inf))
    assert not torch.equal(load_file(tmp_path / "out.safetensors")["conv1.weight"], load_file(source)["conv1.weight"])


def test_a_tiny_backbone_is_compared_as_far_as_it_goes():
    (found,) = plan_patch(small_models()[0], small_signature()).signatures
    assert found.similarity == 1.0 and found.compared == 192 and found.same_base is True and found.ok


@pytest.mark.parametrize("verify", ["Kin", "", None, True])
def test_a_word_that_is_none(verify, fog):
    with pytest.raises(ValueError, match="expected 'exact', 'kin' or 'architecture'"):
        patch(tiny_resnet(), fog, verify=verify)


def test_a_vision_transformer_that_was_tuned():
    signature = tiny_signature("vit")
    model = perturbed(tiny_vit(), 0.002, 3)
    patch(model, signature).unpatch()
    with pytest.raises(IncompatibleModelError, match="stranger"):
        patch(tiny_vit(seed=1), signature)
