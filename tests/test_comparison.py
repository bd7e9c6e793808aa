"""How alike signatures are: the numbers against an independent computation, and what is refused."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import transformers
from builders import perturbed, seeded, tiny_resnet, tiny_signature, tiny_vit
from published import fog
from torch import nn
from twin_weights import copy_body

from rws_hub import ComparisonError, RobustWeightSignature, compare, identify
from rws_hub.comparison import Comparison

LAYERS = ["stem", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]


def extract(standard, robust, corruption="fog", **options):
    options = {"license": "mit", "layers": 2, "bits": 32} | options
    return RobustWeightSignature.extract(standard=standard, robust=robust, corruption=corruption, **options)


def mixture(*shares: float) -> nn.Module:
    """A robust twin of `tiny_resnet()`: so much of the differences of seeds 1, 2 and so on."""
    clean = tiny_resnet()
    robust = copy.deepcopy(clean)
    with torch.no_grad():
        for seed, share in enumerate(shares, 1):
            for own, other, base in zip(
                robust.parameters(), perturbed(clean, 0.01, seed).parameters(), clean.parameters(), strict=True
            ):
                own += share * (other - base)
    return robust


def independent(signatures, names):
    """Cosines of the concatenated deltas of some tensors, by numpy alone."""
    vectors = [np.concatenate([s.delta(n).numpy().astype(np.float64).ravel() for n in names]) for s in signatures]
    return np.array([[a @ b / np.sqrt((a @ a) * (b @ b)) for a in vectors] for b in vectors])


def learned(names):
    return [n for n in names if "running" not in n]


def matrix(similarity):
    return np.array(similarity.cosine, float)


@pytest.mark.parametrize("bits", [4, 32])
def test_cosines_are_those_of_the_concatenated_deltas(bits):
    signatures = [tiny_signature(seed=s, corruption=f"c{s}", bits=bits) for s in (1, 2, 3)]
    found = compare(signatures)
    names = learned(signatures[0].names)
    assert found.labels == ("c1", "c2", "c3")
    assert np.allclose(matrix(found.overall), independent(signatures, names), rtol=0, atol=1e-13)
    assert (found.overall.tensors, found.overall.parameters) == (
        len(names),
        sum(signatures[0].delta(n).numel() for n in names),
    )
    assert [layer.label for layer in found.layers] == LAYERS
    prefixes = {"stem": ("conv1.", "bn1."), "layer1.0": ("layer1.0.",)}
    for layer in found.layers[:2]:
        members = [n for n in names if n.startswith(prefixes[layer.label])]
        assert np.allclose(matrix(layer.similarity), independent(signatures, members), rtol=0, atol=1e-13)
        assert layer.similarity.tensors == len(members) and layer.touched == (True,) * 3
    assert all(layer.similarity is None and layer.touched == (False,) * 3 for layer in found.layers[2:])
    for i, signature in enumerate(signatures):
        recorded = [u.relative_difference for u in signature.config.extraction.profile]
        assert [layer.relative_difference[i] for layer in found.layers] == recorded


def test_the_mean_is_over_different_signatures():
    similarity = compare([tiny_signature(seed=s) for s in (1, 2, 3)]).overall
    cosines = matrix(similarity)
    assert similarity.mean == pytest.approx((cosines[0, 1] + cosines[0, 2] + cosines[1, 2]) / 3)


def test_large_tensors_are_summed_in_blocks(monkeypatch):
    monkeypatch.setattr("rws_hub.comparison._BLOCK", 100)
    signatures = [tiny_signature(seed=s) for s in (1, 2)]
    expected = independent(signatures, learned(signatures[0].names))
    assert np.allclose(matrix(compare(signatures).overall), expected, rtol=0, atol=1e-13)


def test_one_with_itself_and_its_opposite():
    found = compare([extract(tiny_resnet(), mixture(x), c) for x, c in ((1, "fog"), (-1, "gof"), (2, "snow"))])
    cosines = matrix(found.overall)
    assert np.array_equal(cosines, cosines.T) and np.array_equal(np.diag(cosines), np.ones(3))
    assert cosines[0, 1] == pytest.approx(-1, abs=1e-6) and cosines[0, 2] == pytest.approx(1, abs=1e-6)
    assert np.abs(cosines).max() <= 1


def test_another_order_is_the_same_comparison():
    signatures = [tiny_signature(seed=s, corruption=f"c{s}") for s in (1, 2, 3, 4)]
    order = [2, 0, 3, 1]
    found, moved = compare(signatures), compare([signatures[i] for i in order])
    assert moved.labels == tuple(found.labels[i] for i in order)
    assert np.allclose(matrix(moved.overall), matrix(found.overall)[np.ix_(order, order)], rtol=0, atol=1e-13)
    for before, after in zip(found.layers, moved.layers, strict=True):
        assert after.relative_difference == tuple(before.relative_difference[i] for i in order)


def test_what_all_of_them_touch_is_compared():
    standard = tiny_resnet()
    shallow = extract(standard, perturbed(standard, 0.01, 1), "fog", layers=2)
    convolutions = extract(standard, perturbed(standard, 0.01, 2), "snow", layers=["conv1.*", "*.conv?.weight"])
    found = compare([shallow, convolutions])
    names = ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight"]
    assert found.overall.tensors == 3
    assert np.allclose(matrix(found.overall), independent([shallow, convolutions], names), rtol=0, atol=1e-13)
    assert [layer.similarity.tensors if layer.similarity else 0 for layer in found.layers] == [1, 2, 0, 0, 0]
    assert found.layers[-1].touched == (False, True)
    deep = extract(standard, perturbed(standard, 0.01, 3), "rain", layers=["layer4.*"])
    with pytest.raises(ComparisonError, match=r"^rain touches none of .* that fog touches .*\(bn1.*nothing to compare"):
        compare([shallow, deep])
    with pytest.raises(ComparisonError, match=r"rain touches none of .* that all of fog, snow touch \("):
        compare([shallow, convolutions, deep])


def test_running_statistics_do_not_count():
    standard = tiny_resnet()
    one, two = (perturbed(standard, 0.01, 1) for _ in range(2))
    for name, buffer in two.named_buffers():
        if "running" in name:
            buffer.mul_(2)
    found = compare([extract(standard, one), extract(standard, two)])
    assert found.overall.cosine[0][1] == 1
    statistics = [extract(standard, m, layers=["bn1.running_*"]) for m in (one, two)]
    with pytest.raises(ComparisonError, match=r"fog #2 touches none of .* that fog #1 touches \(none\)"):
        compare(statistics)


def test_a_zero_vector_has_no_cosine():
    standard, names = tiny_resnet(), ["conv1.weight", "bn1.weight"]
    still, moved = perturbed(standard, 0.01, 1), perturbed(standard, 0.01, 2)
    with torch.no_grad():
        still.conv1.weight.copy_(standard.conv1.weight)
    zero = extract(standard, still, "fog", layers=["conv1.weight", "layer1.*"])
    other = extract(standard, moved, "snow", layers=names)
    found = compare([zero, other, zero], ["a", "b", "c"])
    assert found.overall.cosine == ((None, None, None), (None, 1.0, None), (None, None, None))
    assert found.overall.mean is None and found.layers[0].similarity == found.overall
    with pytest.raises(ComparisonError, match="the unknown signature is zero in the 9,408 parameters that it shares"):
        identify(zero, [other])
    nothing_near = identify(other, [zero])
    assert [m.cosine for m in nothing_near.ranking] == [None] and nothing_near.margin is None


@pytest.mark.parametrize(
    ("facts", "labels"),
    [
        ([("fog", 5), ("snow", 5)], ("fog", "snow")),
        ([("fog", 1), ("snow", 5), ("fog", 5)], ("fog 1", "snow", "fog 5")),
        ([("fog", 5), ("fog", 5), ("fog", 1)], ("fog 5 #1", "fog 5 #2", "fog 1")),
        ([("fog", None), ("fog", None), ("fog", 2)], ("fog #1", "fog #2", "fog 2")),
    ],
)
def test_labels(facts, labels):
    def named(name, severity):
        corruption = dataclasses.replace(fog().config.corruption, name=name, severity=severity)
        return dataclasses.replace(fog(), config=dataclasses.replace(fog().config, corruption=corruption))

    assert compare([named(*f) for f in facts]).labels == labels


def test_names_of_ones_own():
    assert compare([fog(), fog()], ["a", "b"]).labels == ("a", "b")
    for wrong in (["a"], ["a", "a"], ["a", "b", "c"], []):
        with pytest.raises(ComparisonError, match="2 signatures need as many different names"):
            compare([fog(), fog()], wrong)
    for few in ([], [fog()]):
        with pytest.raises(ComparisonError, match=f"at least two signatures, found {len(few)}"):
            compare(few)


def test_other_backbones_are_refused_in_words():
    wider = tiny_resnet(channels=[16, 16, 32, 64])
    deeper = tiny_resnet(layers=[1, 1, 2, 1])
    for other, message in (
        (tiny_signature("vit", "snow"), r"fog is for .*\(resnet names\), snow for .*\(vit names\); only signatures of"),
        (extract(wider, perturbed(wider, 0.01, 1), "snow"), r"layer1\.0\..*: fog has shape \[8\], snow \[16\]; only"),
        (extract(deeper, perturbed(deeper, 0.01, 1), "snow"), r"backbone of snow has layer3\.1, that of fog has not"),
    ):
        with pytest.raises(ComparisonError, match=message):
            compare([fog(), other])
        with pytest.raises(ComparisonError, match="only signatures of one backbone"):
            identify(fog(), [other])


def test_other_tables_are_refused():
    config = fog().config
    backbone = dataclasses.replace(config.backbone, table="columns: a | b\nx | y")
    own = dataclasses.replace(fog(), config=dataclasses.replace(config, backbone=backbone))
    with pytest.raises(ComparisonError, match="fog 5 #1 and fog 5 #2 bring different name tables 'resnet'"):
        compare([fog(), own])


def test_timm_and_transformers_meet_under_the_same_names():
    def theirs(model):
        config = transformers.ViTConfig(
            image_size=32,
            patch_size=8,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=192,
            num_labels=10,
        )
        twin = seeded(lambda: transformers.ViTForImageClassification(config), 7).eval()
        copy_body(model, twin)
        return twin

    clean = tiny_vit()
    robust = [perturbed(clean, 0.01, seed) for seed in (1, 2)]
    ours = [extract(clean, r, c) for r, c in zip(robust, ("fog", "snow"), strict=True)]
    hf = extract(theirs(clean), theirs(robust[0]), "haze")
    assert hf.config.backbone.dialect != ours[0].config.backbone.dialect
    found = compare([*ours, hf])
    assert found.overall.tensors == len(ours[0].names) == len(hf.names)
    assert found.overall.cosine[0][2] == pytest.approx(1, abs=1e-12)
    assert found.overall.cosine[1][2] == pytest.approx(found.overall.cosine[0][1], abs=1e-12)
    assert [layer.label for layer in found.layers] == ["embed", "blocks.0", "blocks.1", "norm"]


class Plain(nn.Sequential):
    """A backbone that no table knows: two modules with matrices, a norm between them."""

    def __init__(self, width=4, more=0):
        super().__init__(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), *(nn.Conv2d(4, 4, 1) for _ in range(1 + more)))


def test_a_backbone_of_its_own_names():
    standard = seeded(Plain, 0)
    signatures = [extract(standard, perturbed(standard, 0.1, s), f"c{s}") for s in (1, 2)]
    found = compare(signatures)
    assert np.allclose(matrix(found.overall), independent(signatures, learned(signatures[0].names)), rtol=0, atol=1e-13)
    assert [(layer.label, layer.similarity.tensors) for layer in found.layers] == [("0", 2), ("2", 2)]
    assert found.overall.tensors == 6  # with the norm, whose layer the config does not tell
    deeper = seeded(lambda: Plain(more=1), 0)
    with pytest.raises(ComparisonError, match=r"backbone of snow has 3\.bias, that of c1 has not"):
        compare([signatures[0], extract(deeper, perturbed(deeper, 0.1, 1), "snow")])


# --- identify


def test_identify_finds_the_planted_one_and_tells_the_margin():
    shares = {"fog": (1.0, 0.0, 0.0), "snow": (0.3, 1.0, 0.0), "rain": (0.0, 0.0, 1.0)}
    references = [extract(tiny_resnet(), mixture(*s), corruption) for corruption, s in shares.items()]
    twin = extract(tiny_resnet(), mixture(0.9, 0.1, 0.2), "haze")
    found = identify(twin, [references[2], references[1], references[0]])
    cosines = compare([twin, *references]).overall.cosine[0]
    assert found.ranking[0].label == "fog"
    assert [m.cosine for m in found.ranking] == pytest.approx(sorted(cosines[1:], reverse=True), abs=1e-12)
    assert found.rival == found.ranking[1]
    assert found.margin == pytest.approx(found.ranking[0].cosine - found.ranking[1].cosine)
    assert found.parameters == compare([twin, *references]).overall.parameters


def test_the_margin_is_to_another_corruption():
    severe, mild = (extract(tiny_resnet(), mixture(1, x), severity=s) for x, s in ((0.1, 5), (0.2, 1)))
    snow = extract(tiny_resnet(), mixture(0, 1), "snow")
    found = identify(severe, [snow, mild, severe])
    assert [(m.label, m.corruption) for m in found.ranking] == [("fog 5", "fog"), ("fog 1", "fog"), ("snow", "snow")]
    assert found.rival is not None and found.rival.label == "snow"
    assert found.margin == pytest.approx(1 - found.ranking[2].cosine)
    alone = identify(severe, [mild, severe])
    assert alone.rival is None and alone.margin is None
    with pytest.raises(ComparisonError, match="at least two"):
        identify(severe, [])


def test_a_comparison_is_data():
    found = compare([fog(), tiny_signature(seed=2)])
    assert isinstance(found, Comparison) and hash(found) and found == compare([fog(), tiny_signature(seed=2)])
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.labels = ()  # type: ignore[misc]
