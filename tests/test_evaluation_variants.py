"""What is compared with what: variants that leave no trace, and controls that control for what they should."""

import pytest
import torch
from bits import bits
from builders import perturbed, tiny_resnet, tiny_signature, tiny_vit
from torch import Tensor, nn

from rws_hub import RobustWeightSignature, patch
from rws_hub.evaluation.cells import Condition
from rws_hub.evaluation.variants import Variant, noise_of_same_norm, raw_difference

FOG = Condition("fog", 5)


def moved(model: nn.Module, signature: RobustWeightSignature) -> dict[str, Tensor]:
    """What a signature adds to each tensor; to the logarithm of a variance."""
    before = {n: t.double().clone() for n, t in model.state_dict().items()}
    with patch(model, signature, alpha=1.0):
        after = {n: t.double().clone() for n, t in model.state_dict().items()}
    logs = {n for n in before if n.endswith("running_var")}
    found = {n: after[n].log() - before[n].log() if n in logs else after[n] - before[n] for n in before}
    return {n: d for n, d in found.items() if d.any()}


@pytest.mark.parametrize("model", [tiny_resnet(), tiny_vit()], ids=["resnet", "vit"])
def test_noise_of_the_same_norm(model: nn.Module) -> None:
    fog = tiny_signature("resnet" if hasattr(model, "bn1") else "vit")
    before, ours = bits(model), moved(model, fog)
    noise = noise_of_same_norm(model, fog, 0)
    assert bits(model) == before and noise.config.corruption.name == "noise"
    theirs = moved(model, noise)
    assert set(theirs) == set(ours)
    for name in ours:
        assert float(theirs[name].norm()) == pytest.approx(float(ours[name].norm()), rel=1e-3)
    flat = [torch.cat([d[n].flatten() for n in ours]) for d in (ours, theirs)]
    assert abs(torch.cosine_similarity(*flat, dim=0)) < 0.2  # another direction
    again, other = (noise_of_same_norm(model, fog, seed).payload for seed in (0, 1))
    assert again == noise.payload != other


def test_the_plain_difference_is_of_the_same_tensors() -> None:
    standard, pretrained = tiny_resnet(), perturbed(tiny_resnet(), 0.02, 8)
    robust = perturbed(standard, 0.01, 1)
    projected = tiny_signature(pretrained=pretrained, bits=4)
    assert projected.config.extraction.method == "projection"
    raw = raw_difference(standard, robust, projected)
    assert raw.names == projected.names and raw.config.corruption.name == "fog"
    for name, found in moved(standard, raw).items():
        was, now = standard.state_dict()[name].double(), robust.state_dict()[name].double()
        expected = now.log() - was.log() if name.endswith("running_var") else now - was
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_everything_is_taken_off_again() -> None:
    model, fog, snow = tiny_resnet(), tiny_signature(layers=["*"]), tiny_signature(corruption="snow", seed=2)
    before = bits(model)
    images = torch.randn(8, 3, 32, 32)
    variants = {
        "plain": Variant("a", model, ""),
        "patched": Variant("b", model, "", ((fog, 0.5),)),
        "together": Variant("c", model, "", ((fog, 0.5), (snow, 1.0))),
        "measured": Variant("d", model, "", (), 8),
        "both": Variant("e", model, "", ((fog, 1.0),), 8),
    }
    seen = {}
    for name, variant in variants.items():
        with variant.applied(FOG, lambda condition: iter([images])) as on, torch.inference_mode():
            assert on is model and not on.training
            seen[name] = on(images)
        assert bits(model) == before, name
    assert all(not torch.equal(a, b) for n, a in seen.items() for m, b in seen.items() if n != m)
    with pytest.raises(ZeroDivisionError), variants["both"].applied(FOG, lambda condition: iter([images])):
        raise ZeroDivisionError
    assert bits(model) == before


def test_facts_tell_what_decides_the_answers() -> None:
    model, fog, snow = tiny_resnet(), tiny_signature(), tiny_signature(corruption="snow", seed=2)
    told = [
        Variant("x", model, "", signatures, images).facts
        for signatures, images in [
            ((), 0),
            ((), 8),
            (((fog, 1.0),), 0),
            (((fog, 0.5),), 0),
            (((snow, 1.0),), 0),
            (((fog, 1.0), (snow, 1.0)), 0),
        ]
    ]
    assert len(set(told)) == len(told)
    assert Variant("x", model, "", ((snow, 1.0), (fog, 1.0))).facts == told[-1]  # in any order
    assert Variant("y", model, "", ((fog, 0.0),)).facts == told[0]
