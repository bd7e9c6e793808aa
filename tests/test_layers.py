"""Which layers a rule keeps, and how the order of execution is found."""

import copy

import pytest
import torch
from builders import perturbed, seeded, tiny_resnet, tiny_vit
from torch import nn

from rws_hub import ExtractionError, RobustWeightSignature, layers


def extract(standard, robust, **options):
    return RobustWeightSignature.extract(
        standard=standard, robust=robust, corruption="fog", license="mit", bits=32, **options
    )


def units(signature):
    return [(u.unit, u.touched) for u in signature.config.extraction.profile]


class Crooked(nn.Module):
    """Runs `first`, `second`, `third`; defines them the other way round, and has a head."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.third = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.first = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        x = self.third(self.second(self.norm(self.first(images))))
        return self.head(x.mean((2, 3)))


EXAMPLE = torch.zeros(1, 3, 8, 8)


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_a_number_keeps_the_first_layers(depth):
    standard = tiny_resnet()
    signature = extract(standard, perturbed(standard, 0.01, 1), layers=depth)
    assert [touched for _, touched in units(signature)] == [True] * depth + [False] * (5 - depth)
    assert (signature.config.extraction.layers, signature.config.extraction.share) == ("first", None)


def test_the_layers_of_a_vision_transformer():
    standard = tiny_vit()
    signature = extract(standard, perturbed(standard, 0.01, 1), layers=2)
    assert units(signature) == [("embed", True), ("blocks.0", True), ("blocks.1", False), ("norm", False)]
    assert {"cls_token", "patch_embed.proj.bias", "patch_embed.proj.weight", "pos_embed"} <= set(signature.names)


@pytest.mark.parametrize(
    ("shares", "depth"),
    [
        ((0.71, 0.29, 0, 0, 0), 1),
        ((0.69, 0.02, 0.29, 0, 0), 2),
        ((0.4, 0.2, 0.2, 0.1, 0.1), 3),
        ((0.2, 0.2, 0.2, 0.2, 0.2), 4),
        ((0, 0, 0, 0.3, 0.7), 5),
    ],
)
def test_shallow_is_the_shortest_prefix_with_its_share_of_the_change(shares, depth):
    standard = tiny_resnet()
    robust = copy.deepcopy(standard)
    parts = [robust.conv1, *(getattr(robust, f"layer{s}") for s in (1, 2, 3, 4))]
    with torch.no_grad():
        for part, share in zip(parts, shares, strict=True):
            for tensor in part.parameters():
                tensor.mul_(1 + 0.1 * share)
    extraction = extract(standard, robust, layers="shallow").config.extraction
    assert [u.relative_difference for u in extraction.profile] == pytest.approx([0.1 * x for x in shares], rel=1e-3)
    assert [u.touched for u in extraction.profile] == [True] * depth + [False] * (5 - depth)
    assert (extraction.layers, extraction.share) == ("shallow", layers.SHALLOW_SHARE) == ("shallow", 0.7)


def test_patterns_choose_by_canonical_name():
    standard = tiny_resnet()
    signature = extract(standard, perturbed(standard, 0.01, 1), layers=["conv1.*", "layer?.0.bn1.running_*"])
    statistics = [f"layer{s}.0.bn1.running_{x}" for s in (1, 2, 3, 4) for x in ("mean", "var")]
    assert signature.names == ("conv1.weight", *statistics)
    assert signature.config.extraction.patterns == ("conv1.*", "layer?.0.bn1.running_*")
    assert signature.config.extraction.layers == "names"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (0, r"a number from 1 to 5.*The layers are: stem, layer1\.0, layer2\.0, layer3\.0, layer4\.0"),
        (6, "layers=6: expected 'shallow', a number from 1 to 5"),
        (-1, "layers=-1: expected"),
        (True, "layers=True: expected"),
        (2.0, "layers=2.0: expected"),
        ("deep", "layers='deep': expected"),
        (["conv1.*", "features.*"], r"the pattern 'features\.\*' matches no tensor.*its layers are stem"),
        (["fc.*"], r"the pattern 'fc\.\*' matches no tensor"),
        ([], "the list of name patterns is empty"),
    ],
    ids=str,
)
def test_a_rule_that_cannot_be_meant_is_refused(rule, message):
    standard = tiny_resnet()
    with pytest.raises(ExtractionError, match=message):
        extract(standard, perturbed(standard, 0.01, 1), layers=rule)


@pytest.mark.parametrize("rule", ["shallow", 1])
def test_an_unknown_order_is_refused_and_the_way_out_named(rule):
    standard = seeded(Crooked, 0)
    for source in (standard.state_dict(), seeded(DataDependent, 0)):
        robust = perturbed(standard, 0.01, 1) if isinstance(source, dict) else perturbed(source, 0.01, 1)
        with pytest.raises(ExtractionError, match=r"needs the execution order.*example_input=.*or name the layers"):
            extract(source, robust, layers=rule)
    with pytest.raises(ExtractionError, match="example_input needs the standard model as a live module"):
        extract(standard.state_dict(), perturbed(standard, 0.01, 1), layers=rule, example_input=EXAMPLE)


class DataDependent(Crooked):
    """Which no symbolic trace can follow."""

    def forward(self, images):
        return super().forward(images if images.sum() > 0 else -images)


def test_a_trace_shows_the_same_order_as_an_example():
    standard = seeded(Crooked, 0)
    robust = perturbed(standard, 0.01, 1)
    traced, watched = (extract(standard, robust, layers=2, example_input=x).config for x in (None, EXAMPLE))
    assert traced.extraction == watched.extraction and list(traced.tensors) == list(watched.tensors)


def test_an_example_shows_the_order_of_execution():
    standard = seeded(Crooked, 0)
    signature = extract(standard, perturbed(standard, 0.01, 1), layers=2, example_input=EXAMPLE)
    assert units(signature) == [("first", True), ("second.0", True), ("third", False)]
    assert set(signature.names) == {
        *(f"first.{x}" for x in ("weight", "bias")),
        *(f"norm.{x}" for x in ("weight", "bias", "running_mean", "running_var")),
        *(f"second.0.{x}" for x in ("weight", "bias")),
    }


def test_watching_changes_nothing_and_sees_through_wrappers():
    model = seeded(Crooked, 0).train()
    model.norm.eval()
    before = copy.deepcopy(model.state_dict())
    order = ["first", "norm", "second.0", "third", "head"]
    assert layers.watch(model, EXAMPLE, "") == order
    assert layers.watch(nn.DataParallel(model), EXAMPLE, "module.") == order
    assert model.training and model.third.training and not model.norm.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_model_that_fails_on_its_example_is_left_as_it_was():
    model = seeded(Crooked, 0).train()
    with pytest.raises(RuntimeError):
        layers.watch(model, torch.zeros(1, 5, 8, 8), "")
    assert model.training and not any(module._forward_pre_hooks for module in model.modules())


def test_a_module_used_twice_counts_where_it_is_first_used():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.a = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, images):
            return self.a(self.b(self.a(images)))

    assert layers.watch(Again(), EXAMPLE, "") == ["a", "b"]
