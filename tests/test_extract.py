"""The numbers of a signature against an independent float64 oracle of the method's formula."""

import numpy as np
import pytest
import torch
from builders import perturbed, tiny_resnet, tiny_vit
from oracle import log_ratio, relative, rws

from rws_hub import ExtractionError, RobustWeightSignature, codec, payload, trio
from rws_hub import extract as extract_room

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


@pytest.mark.parametrize("options", [{"error": 0.3}, {"max_bytes": 60_000}], ids=str)
def test_a_chosen_tensor_is_read_to_measure_it_to_sample_it_and_to_encode_it(options, monkeypatch):
    """However often a size is aimed at, layers are measured and sampled once."""
    standard = tiny_resnet()
    robust, start = perturbed(standard, 0.02, 1), perturbed(standard, 0.02, 2)
    real, read = trio.blocks, []

    def blocks(three, name, *given):
        read.append(name)
        return real(three, name, *given)

    def counted(*given, **keywords):
        return blocks(*given, *keywords.values())

    encoded = []
    real_run = extract_room.Encoder.run
    monkeypatch.setattr("rws_hub.measuring.blocks", counted)
    monkeypatch.setattr("rws_hub.extract.Encoder.run", lambda self, p: encoded.append(1) or real_run(self, p))
    extract(standard, robust, start, bits=None, layers=2, **options)
    # In both models' layers, along the clean direction, and as a sample.
    assert read.count("layer1.0.conv1.weight") == 3
    assert read.count("layer4.0.conv1.weight") == 1
    assert len(encoded) == 1 if "error" in options else len(encoded) > 1


def test_a_new_signature_is_decoded_when_it_is_asked_for(monkeypatch):
    standard = tiny_resnet()
    asked = []
    real = payload.payload_tensors
    monkeypatch.setattr("rws_hub.payload.payload_tensors", lambda *given: asked.append(1) or real(*given))
    signature = extract(standard, perturbed(standard, 0.02, 1), bits=4, layers=2)
    assert len(signature.tensors) == len(signature.names) and signature.nbytes and not asked
    whole = payload.read_payload(signature.payload, signature.config)
    assert list(whole) == list(signature.tensors)
    asked.clear()
    for name in signature.names:
        assert torch.equal(signature.delta(name), codec.unpack(whole[name], signature.config.codec.bits))
    assert asked == [1]
