"""The numbers of a signature against an independent float64 oracle of the method's formula."""

import copy

import numpy as np
import pytest
import timm
import torch
from builders import perturbed, seeded, tiny_resnet, tiny_vit
from oracle import log_ratio, relative, rws
from torch import nn

from rws_hub import ExtractionError, RobustWeightSignature

WHOLE = {"corruption": "fog", "license": "mit", "layers": ["*"], "bits": 32}
BUILD = {"resnet": tiny_resnet, "vit": tiny_vit}


def extract(standard, robust, pretrained=None, **options):
    return RobustWeightSignature.extract(
        standard=standard, robust=robust, pretrained=pretrained, **{**WHOLE, **options}
    )


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize("recipe", ["two-branch", "from-clean"])
def test_every_tensor_equals_the_formula(kind, recipe):
    start = BUILD[kind]()
    standard, robust = perturbed(start, 0.02, 1), perturbed(start, 0.03, 2)
    pretrained = start if recipe == "two-branch" else None
    signature = extract(standard, robust, pretrained)
    clean, strong, origin = (m.state_dict() for m in (standard, robust, start))
    floats = {n for n, t in clean.items() if t.is_floating_point()}
    assert set(signature.names) == {n for n in floats if not n.startswith(("fc.", "head."))}
    config = signature.config
    assert config.extraction.recipe == recipe
    assert config.extraction.method == ("projection" if pretrained else "difference")
    assert [s.role for s in config.sources] == ["pretrained", "standard", "robust"][0 if pretrained else 1 :]
    for name in signature.names:
        facts, found = config.tensors[name], signature.delta(name)
        assert found.dtype == torch.float32 and found.shape == clean[name].shape
        if name.endswith("running_var"):
            assert facts.op == "multiply" and not facts.projected
            expected = log_ratio(clean[name], strong[name])
        else:
            parameter = not name.endswith("running_mean")
            assert facts.op == "add" and facts.projected == (parameter and pretrained is not None)
            expected = rws(clean[name], strong[name], origin[name] if facts.projected else None)
        assert relative(found, expected) < 1e-6, name
        assert facts.relative_error < 1e-7
        size = np.sqrt(expected.size) if facts.op == "multiply" else np.linalg.norm(clean[name].double())
        assert facts.relative_norm == pytest.approx(np.linalg.norm(expected) / size, rel=1e-5, abs=0)


def test_the_projection_is_orthogonal_to_the_clean_direction():
    start = tiny_resnet()
    standard, robust = perturbed(start, 0.02, 1), perturbed(start, 0.03, 2)
    signature = extract(standard, robust, start)
    for name in signature.names:
        if signature.config.tensors[name].projected:
            a = (standard.state_dict()[name].double() - start.state_dict()[name].double()).flatten()
            delta = signature.delta(name).double().flatten()
            assert abs(delta @ a) / (delta.norm() * a.norm()) < 1e-6, name


def test_where_nothing_moved_there_is_nothing_to_project_out():
    start = tiny_resnet()
    standard, robust = perturbed(start, 0.02, 1), perturbed(start, 0.03, 2)
    with torch.no_grad():
        standard.conv1.weight.copy_(start.conv1.weight)
    delta = extract(standard, robust, start).delta("conv1.weight")
    assert relative(delta, (robust.conv1.weight.double() - start.conv1.weight.double()).detach().numpy()) < 1e-6
    same = extract(start, robust, start)
    plain = extract(start, robust)
    assert all(torch.equal(same.delta(n), plain.delta(n)) for n in plain.names)


def test_dead_channels_are_left_alone():
    standard = tiny_resnet()
    robust = perturbed(standard, 0.02, 1)
    standard.bn1.running_var[0] = 0.0
    robust.bn1.running_var[1] = 1e-20
    delta = extract(standard, robust).delta("bn1.running_var")
    assert delta[0] == delta[1] == 0 and (delta[2:] != 0).all() and delta.isfinite().all()


@pytest.mark.parametrize("layers", ["shallow", 2, ["*"]], ids=str)
def test_batchnorm_none_leaves_all_of_it_out(layers):
    standard = tiny_resnet()
    robust = perturbed(standard, 0.02, 1)
    names = extract(standard, robust, layers=layers, batchnorm="none").names
    everything = extract(standard, robust, layers=layers).names
    norms = ("bn1.", "bn2.", "downsample.1.")
    assert set(names) == {n for n in everything if not any(norm in n for norm in norms)} != set(everything)
    with pytest.raises(ExtractionError, match="nothing but batch norm"):
        extract(standard, robust, layers=["bn1.*"], batchnorm="none")


def test_the_head_is_out_even_when_the_numbers_of_classes_differ():
    standard = tiny_resnet(num_classes=10)
    robust, start = tiny_resnet(num_classes=3), tiny_resnet(num_classes=0, seed=1)
    signature = extract(standard, robust, start)
    assert not any(name.startswith("fc.") for name in signature.names)
    assert signature.config.backbone.head == {"fc.weight": (10, 64), "fc.bias": (10,)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sources_of_any_floating_dtype(dtype):
    standard = tiny_resnet().to(dtype)
    robust, start = perturbed(standard, 0.05, 2), perturbed(standard, 0.05, 1)
    signature = extract(standard, robust, start)
    for name in ("conv1.weight", "layer2.0.conv2.weight", "bn1.bias"):
        states = (m.state_dict()[name] for m in (standard, robust, start))
        assert relative(signature.delta(name), rws(*states)) < 1e-6


def test_models_of_mixed_dtypes():
    standard, start = tiny_resnet(), tiny_resnet(seed=1).half()
    robust = perturbed(standard, 0.05, 2).bfloat16()
    states = (m.state_dict()["conv1.weight"] for m in (standard, robust, start))
    assert relative(extract(standard, robust, start).delta("conv1.weight"), rws(*states)) < 1e-6


@pytest.mark.parametrize("bits", [4, 32])
def test_the_same_input_gives_the_same_bytes(bits):
    standard = tiny_resnet()
    robust, start = perturbed(standard, 0.02, 1), perturbed(standard, 0.02, 2)
    first, second = (extract(standard, robust, start, bits=bits, layers=2) for _ in range(2))
    assert first.payload == second.payload and first.config.to_text() == second.config.to_text()


def test_the_profile_is_the_relative_difference_of_each_layer():
    standard = tiny_resnet()
    robust = perturbed(standard, 0.02, 1)
    profile = extract(standard, robust, layers=2).config.extraction.profile
    assert [u.unit for u in profile] == ["stem", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    assert [u.touched for u in profile] == [True, True, False, False, False]
    clean, strong = standard.state_dict(), robust.state_dict()
    for unit in profile:
        prefixes = ("conv1.", "bn1.") if unit.unit == "stem" else (f"{unit.unit}.",)
        names = [n for n, t in clean.items() if n.startswith(prefixes) and t.is_floating_point()]
        kernels = [n for n in names if clean[n].ndim > 1]
        a = np.concatenate([clean[n].double().numpy().ravel() for n in kernels])
        b = np.concatenate([strong[n].double().numpy().ravel() for n in kernels])
        assert unit.relative_difference == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-5)
        assert unit.parameters == sum(clean[n].numel() for n in names)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", ["pretrained", "standard", "robust"])
@pytest.mark.parametrize("name", ["layer1.0.conv2.weight", "bn1.bias", "bn1.running_mean"])
def test_a_value_that_is_not_finite_is_refused_by_name(value, which, name):
    models = {"pretrained": tiny_resnet(seed=1), "standard": tiny_resnet(), "robust": tiny_resnet(seed=2)}
    with torch.no_grad():
        models[which].state_dict()[name].view(-1)[-1] = value
    if which == "pretrained" and name.endswith("running_mean"):
        extract(**models)  # the pretrained statistics play no part
        return
    with pytest.raises(ExtractionError, match=f"{name}: a value is not finite"):
        extract(**models)


def test_a_negative_variance_is_refused():
    standard, robust = tiny_resnet(), tiny_resnet(seed=1)
    robust.bn1.running_var[0] = -0.1
    with pytest.raises(ExtractionError, match=r"bn1\.running_var: a running variance is negative or not finite"):
        extract(standard, robust)


def other_depth():
    return seeded(lambda: timm.create_model("resnet18", layers=[1, 1, 1, 2], channels=[8, 16, 32, 64]), 0)


class NotAResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (other_depth, r"standard has no tensor layer4\.1\.\S+; the checkpoints must be of one architecture"),
        (lambda: tiny_resnet(channels=[8, 16, 32, 48]), r"layer4\.\S+: standard has shape \[64.*\], robust \[48"),
        (tiny_vit, "standard is of family 'resnet', robust of 'vit'"),
        (NotAResNet, "robust has no tensor bn1.bias; the"),
    ],
)
def test_another_architecture_is_refused(other, message):
    with pytest.raises(ExtractionError, match=message):
        extract(tiny_resnet(), other())


def test_identical_models_hold_nothing_to_extract():
    standard = tiny_resnet()
    for layers in (["*"], "shallow", 1):
        with pytest.raises(ExtractionError, match="equal in the chosen layers: nothing to extract"):
            extract(standard, copy.deepcopy(standard), layers=layers)
    deep = copy.deepcopy(standard)
    with torch.no_grad():
        deep.layer4[0].conv1.weight.add_(1)
    with pytest.raises(ExtractionError, match="nothing to extract"):
        extract(standard, deep, layers=2)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"bits": 0.05}, "bits=0.05: expected a number from 0.1 to 8, or 32 for plain float32"),
        ({"bits": 16}, "bits=16: expected a number from 0.1 to 8, or 32 for plain float32"),
        ({"batchnorm": "keep"}, "batchnorm='keep': expected 'delta' or 'none'"),
        ({"alpha": float("nan")}, "alpha of 'fog' must be a finite number, found nan"),
        ({"alpha": float("inf")}, "alpha of 'fog' must be a finite number, found inf"),
        ({"severity": 6}, "severity must be 1 to 5, found 6"),
        ({"severity": 2.5}, "severity"),
        ({"severity": "5"}, "severity"),
        ({"bits": "4"}, "bits='4'"),
        ({"bits": True}, "bits=True"),
        ({"license": 3}, "license must be one plain word"),
        ({"dataset": 3}, "dataset must be text"),
        ({"alpha": "1"}, "alpha of 'fog' must be a plain number"),
        ({"layers": [1]}, "1 is no name pattern"),
        ({"corruption": "fog and rain"}, "corruption.name must be one plain word"),
        ({"license": ""}, "license must be one plain word"),
        ({"dataset": "../x"}, "dataset must be one word or a Hub id"),
        ({"base_model": "../../x"}, "not a Hub id"),
        ({"base_revision": "main"}, "not a 40-hex commit"),
    ],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_what_could_not_be_loaded_again_is_not_made(option, message):
    standard = tiny_resnet()
    with pytest.raises(ExtractionError, match=message):
        extract(standard, perturbed(standard, 0.1, 1), **{"layers": 1, **option})


def test_one_tensor_too_many_is_named():
    standard = tiny_resnet()
    robust = perturbed(standard, 0.1, 1).state_dict() | {"layer1.0.extra.weight": torch.zeros(3, 3)}
    with pytest.raises(ExtractionError, match=r"standard has no tensor layer1\.0\.extra\.weight; the"):
        extract(standard, robust)


def test_nothing_is_called_projected_where_there_was_no_direction():
    standard = tiny_resnet()
    facts = extract(standard, perturbed(standard, 0.1, 1), pretrained=standard).config.tensors
    assert not any(f.projected for f in facts.values())


@pytest.mark.parametrize("bits", [4, 32])
def test_neither_the_default_device_nor_the_default_dtype_matters(bits, tmp_path):
    standard, robust = tiny_resnet(), perturbed(tiny_resnet(), 0.1, 1)
    expected = extract(standard, robust, bits=bits)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = extract(standard, robust, bits=bits)
            found.save_pretrained(tmp_path)
            loaded = RobustWeightSignature.from_pretrained(tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.payload == expected.payload
    assert all(torch.equal(loaded.delta(n), expected.delta(n)) for n in expected.names)


@pytest.mark.parametrize("block", [64, 2**30])
@pytest.mark.parametrize("options", [{"error": 0.3}, {"bits": 6}, {"max_bytes": 60_000}], ids=str)
def test_how_much_is_read_at_a_time_decides_nothing(block, options, monkeypatch):
    standard = tiny_resnet()
    robust = perturbed(standard, 0.02, 1)
    options = {"bits": None, "layers": 3, **options}
    expected = extract(standard, robust, **options)
    monkeypatch.setattr("rws_hub.trio._BLOCK", block)
    monkeypatch.setattr("rws_hub.codec._BLOCK", block)
    monkeypatch.setattr("rws_hub.symbols._BLOCK", block)
    assert extract(standard, robust, **options).payload == expected.payload
