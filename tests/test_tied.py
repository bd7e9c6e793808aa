"""One storage under several names is one tensor: patched once, whichever name leads to it."""

import math

import pytest
import torch
from bits import bits, changed
from builders import perturbed, seeded, tiny_resnet, tiny_signature
from torch import nn

from rws_hub import IncompatibleModelError, PatchStateError, RobustWeightSignature, patch, plan_patch


def extract(standard, robust, layers=("*",), corruption="fog", **options):
    return RobustWeightSignature.extract(
        standard=standard, robust=robust, corruption=corruption, license="mit", layers=list(layers), bits=32, **options
    )


class Tied(nn.Module):
    """Two names for one parameter, and two layers beside it."""

    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.c = nn.Linear(4, 4)
        if tie:
            self.b.weight = self.a.weight


def untied(values):
    model = Tied(tie=False)
    with torch.no_grad():
        for name, value in values.items():
            model.get_parameter(name).fill_(value)
    return model


def test_a_shared_parameter_is_patched_once():
    model = seeded(Tied, 0)
    before = model.a.weight.detach().clone()
    zero = untied({"a.weight": 1, "b.weight": 1})
    equal = extract(zero, untied({"a.weight": 1.5, "b.weight": 1.5}), ["a.*", "b.*"])
    anyway = {"verify": "architecture", "max_relative_norm": math.inf}
    plan = plan_patch(model, equal, **anyway)
    assert plan.ok and len(plan.signatures[0].bindings) == 1
    with patch(model, equal, **anyway):
        assert torch.equal(model.a.weight, before + 0.5)
    assert torch.equal(model.a.weight, before)
    different = extract(zero, untied({"a.weight": 1.5, "b.weight": 2}), ["a.*", "b.*"])
    refused = plan_patch(model, different)
    assert "b.weight: it shares its storage with a.weight" in refused.explain()
    with pytest.raises(IncompatibleModelError, match="shares its storage"):
        patch(model, different)


def test_a_signature_of_a_tied_model_fits_it():
    model = seeded(Tied, 0)
    signature = extract(model, perturbed(model, 0.1, 1))
    assert set(signature.names) == {"a.weight", "c.bias", "c.weight"}
    before = bits(model)
    with patch(model, signature):
        assert changed(before, model) == {"a.weight", "b.weight", "c.bias", "c.weight"}
    assert changed(before, model) == set()
    assert plan_patch(model.state_dict(), signature).ok


def test_a_touched_tensor_tied_to_an_untouched_one_is_refused():
    start = untied({"a.weight": 1, "b.weight": 1})
    by_a = extract(start, untied({"a.weight": 2}), ["a.*"], "fog")
    model = seeded(Tied, 0)
    clean = bits(model)
    with pytest.raises(IncompatibleModelError, match=r"a\.weight: it shares its storage with b\.weight, which the"):
        patch(model, by_a)
    assert changed(clean, model) == set()


def test_a_deeper_layer_tied_to_a_touched_one_is_refused():
    fog = tiny_signature(layers=["layer2.0.conv2.weight"])
    tied = tiny_resnet()
    tied.layer2[0].bn2.weight = tied.layer2[0].bn1.weight
    assert plan_patch(tied, fog).ok  # neither of the two is touched
    by_norm = tiny_signature(layers=["layer2.0.bn1.weight"])
    assert "which the signature does not touch" in plan_patch(tied, by_norm).explain()


@pytest.mark.parametrize("offset", [50, 0])
def test_partly_shared_memory_is_refused(offset):
    model = tiny_resnet()
    a, b = model.layer1[0].conv1.weight, model.layer1[0].conv2.weight
    memory = torch.randn(a.numel() + b.numel())
    a.data = memory[: a.numel()].view(a.shape)
    b.data = memory[offset : offset + b.numel()].view(b.shape)
    plan = plan_patch(model, tiny_signature(layers=["layer1.0.conv1.weight"]))
    assert not plan.ok and "shares some of its memory with layer1.0.conv2.weight" in plan.explain()


def test_a_tensor_that_overlaps_itself_is_refused():
    model = tiny_resnet()
    shape = model.conv1.weight.shape
    model.conv1.weight.data = torch.randn(100_000).as_strided(shape, (100, 40, 6, 1))
    assert "some of its elements share memory" in plan_patch(model, tiny_signature(layers=1)).explain()


def test_two_models_that_share_memory_are_not_patched_both():
    fog = tiny_signature(layers=1)
    model, other = tiny_resnet(), tiny_resnet()
    other.load_state_dict(model.state_dict(), assign=True)
    clean = bits(model)
    p = patch(model, fog)
    with pytest.raises(PatchStateError, match="shares its memory with"):
        patch(other, fog)
    p.unpatch()
    assert changed(clean, model) == set()
    patch(other, fog).unpatch()


def test_a_backbone_that_goes_by_two_names_is_one_backbone():
    fog = tiny_signature(layers=1)
    model = nn.Module()
    model.encoder = model.backbone = tiny_resnet()
    clean = bits(model)
    with patch(model, fog):
        assert changed(clean, model) == {f"{x}.{n}" for x in ("encoder", "backbone") for n in fog.names}
        with pytest.raises(PatchStateError, match="carries this very signature"):
            patch(model.backbone, fog)
    assert changed(clean, model) == set()
