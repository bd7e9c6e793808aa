"""How far a patch would move a model, and that nobody can turn it up beyond that unawares."""

import dataclasses
import math

import pytest
import torch
import transformers
from bits import bits, changed
from builders import perturbed, seeded, tiny_resnet, tiny_signature, tiny_vit
from safetensors.torch import save_file
from torch import nn
from twin_weights import copy_body

from rws_hub import IncompatibleModelError, RobustWeightSignature, patch, plan_patch
from rws_hub.bounds import square_of
from rws_hub.codec import is_wide, norm_of, unpack


@pytest.fixture(scope="module")
def fog():
    return tiny_signature(layers=2)


@pytest.mark.parametrize("shape", [(3,), (64, 48), (300, 70, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_norm_is_estimated_well_and_exactly_where_it_is_cheap(shape, dtype):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact = float(values.double().square().sum())
    assert float(square_of(values)) == pytest.approx(exact, rel=0.05 if values.numel() > 2**13 else 1e-5)
    if values.ndim == 4:
        turned = values.to(memory_format=torch.channels_last)
        assert float(square_of(turned)) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("bits_", [4, 7.5, 32])
def test_the_norm_of_a_delta_is_counted_from_its_codes(bits_):
    signature = tiny_signature(bits=bits_)
    for name in signature.names:
        packed = signature.tensors[name]
        exact = float(unpack(packed, signature.config.codec.bits).double().norm())
        assert norm_of(packed, signature.config.codec.bits) == pytest.approx(exact, rel=1e-6), name


def test_every_change_is_what_happens(fog):
    model = tiny_resnet()
    before = {n: t.detach().double().clone() for n, t in model.state_dict().items()}
    plan = plan_patch(model, fog, alpha=0.7)
    with patch(model, fog, alpha=0.7) as p:
        after = {n: t.detach().double().clone() for n, t in model.state_dict().items()}
        carried_out = {c.names: c.relative_norm for c in p.plan.changes}
        assert carried_out == pytest.approx({c.names: c.relative_norm for c in plan.changes}, rel=0.05)
    assert {n for c in plan.changes for n in c.names} == set(fog.names)
    for change in plan.changes:
        (name,) = change.names
        if name.endswith("running_var"):
            logs = (after[name] / before[name]).log()
            assert change.relative_norm == pytest.approx(float(logs.square().mean().sqrt()) / 2, rel=1e-3)
            assert change.factor == pytest.approx(math.exp(float(logs.abs().max())), rel=1e-3)
            continue
        layer = name.rpartition(".")[0]
        if is_wide(tuple(before[name].shape)):
            under = float(before[name].square().sum())
            assert change.recorded == pytest.approx(0.7 * fog.config.tensors[name].relative_norm)
        else:
            own = {n: t for n, t in before.items() if n.startswith(f"{layer}.") and "num_batches" not in n}
            under = sum(float(t.sum() if n.endswith("var") else t.square().sum()) for n, t in own.items())
        moved = float((after[name] - before[name]).norm())
        assert change.relative_norm == pytest.approx(moved / math.sqrt(under), rel=0.05), name
    norms = [c.relative_norm for c in plan.changes]
    assert norms == sorted(norms, reverse=True)


@pytest.mark.parametrize("what", ["patch", "several", "add", "exchange", "set_alpha", "another handle"])
def test_what_is_beyond_the_limit_is_refused_before_anything_is_touched(what, fog):
    again = tiny_signature(layers=2, corruption="again", seed=4)
    model = tiny_resnet()
    p = patch(model, again, alpha=0.5)
    q = patch(model, fog, alpha=0.1) if what == "another handle" else None
    before = bits(model)
    actions = {
        "patch": lambda: patch(model, fog, alpha=9),
        "several": lambda: patch(tiny_resnet(), fog, again, alpha=1.5),
        "add": lambda: p.add(fog, alpha=-9),
        "exchange": lambda: p.exchange("again", fog, alpha=9),
        "set_alpha": lambda: p.set_alpha(again=9),
        "another handle": lambda: q.set_alpha(fog=1.9),
    }
    with pytest.raises(IncompatibleModelError, match=r"max_relative_norm is 1 .*Nothing was changed") as caught:
        actions[what]()
    assert "conv1.weight: " in str(caught.value) and not caught.value.plan.ok
    assert changed(before, model) == set()
    assert p.alphas == {"again": 0.5}


def test_the_refusal_names_the_strength_that_would_do_and_how_to_insist(fog):
    model = tiny_resnet()
    with pytest.raises(IncompatibleModelError, match=r"the largest within it is alpha [\d.]+\. To insist") as caught:
        patch(model, fog, alpha=9)
    text = str(caught.value)
    most = float(text.partition("largest within it is alpha ")[2].partition(". ")[0])
    insist = float(text.partition("with max_relative_norm=")[2].partition(" ")[0])
    patch(model, fog, alpha=most).unpatch()
    with pytest.raises(IncompatibleModelError):
        patch(model, fog, alpha=1.02 * most)
    with patch(model, fog, alpha=9, max_relative_norm=insist) as p:
        p.set_alpha(fog=8.9)
        with pytest.raises(IncompatibleModelError, match=f"max_relative_norm is {insist:g}"):
            p.set_alpha(fog=9.5)
    with pytest.raises(IncompatibleModelError, match="within it are all strengths times 0"):
        patch(model, fog, tiny_signature(layers=2, corruption="again", seed=4), alpha=5)
    assert bits(model) == bits(tiny_resnet())


def test_less_is_always_allowed(fog):
    model = tiny_resnet()
    with patch(model, fog, alpha=9, max_relative_norm=math.inf) as p:
        p.add(tiny_signature("resnet", corruption="again", layers=1, seed=4))
        p.remove("again")
        p.set_alpha(fog=0)


def test_a_liar_in_the_config_is_not_believed(fog):
    facts = {n: dataclasses.replace(f, relative_norm=1e-6) for n, f in fog.config.tensors.items()}
    liar = dataclasses.replace(fog, config=dataclasses.replace(fog.config, tensors=facts).with_seal())
    (first, *_) = plan_patch(tiny_resnet(), liar, alpha=9).changes
    assert first.relative_norm > 3 and first.recorded == pytest.approx(9e-6)
    with pytest.raises(IncompatibleModelError, match="max_relative_norm"):
        patch(tiny_resnet(), liar, alpha=9)


def test_twins_are_judged_alike():
    """A fused qkv here, three projections there: one change, one number."""
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192, image_size=32, patch_size=8
    )
    ours = tiny_vit()
    theirs = seeded(lambda: transformers.ViTForImageClassification(config), 0)
    copy_body(ours, theirs)
    fog = tiny_signature("vit")
    plans = [plan_patch(model, fog) for model in (ours, theirs)]
    assert plans[0].signatures[0].similarity == plans[1].signatures[0].similarity == 1.0
    assert plans[1].signatures[0].same_base is True
    assert sorted(len(c.names) for c in plans[1].changes)[-1] == 3
    norms = [sorted(c.relative_norm for c in plan.changes) for plan in plans]
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


def test_weights_that_are_zero_or_not_finite():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    clean = seeded(Two, 0)
    signature = RobustWeightSignature.extract(
        standard=clean, robust=perturbed(clean, 0.01, 1), corruption="fog", license="mit", layers=["*"]
    )
    for value, limit in ((0.0, None), (math.nan, 1.0)):
        model = seeded(Two, 0)
        nn.init.constant_(model.a.weight, value)
        nn.init.constant_(model.a.bias, value)
        if limit is None:
            with pytest.raises(
                IncompatibleModelError,
                match=r"a\.\w+: fog=1 would change it by inf times its norm.*no strength is within it",
            ):
                patch(model, signature)
        before = bits(model)
        patch(model, signature, verify="architecture", max_relative_norm=limit or math.inf).unpatch()
        assert changed(before, model) == set()


def test_a_file_is_judged_as_the_model_in_it(fog, tmp_path):
    save_file(tiny_resnet().state_dict(), tmp_path / "model.safetensors")
    live, stored = (plan_patch(m, fog, alpha=9) for m in (tiny_resnet(), tmp_path / "model.safetensors"))
    assert not live.ok and not stored.ok
    for ours, theirs in zip(live.changes, stored.changes, strict=True):
        assert ours.names == theirs.names and ours.relative_norm == pytest.approx(theirs.relative_norm, rel=0.1)


@pytest.mark.parametrize("limit", [0, -1, math.nan, True, "1", None])
def test_a_limit_is_a_number_above_zero(limit, fog):
    with pytest.raises(ValueError, match="max_relative_norm="):
        patch(tiny_resnet(), fog, max_relative_norm=limit)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_pruned_model_is_not_refused_for_the_filters_that_it_lost(axis):
    """An estimate from a few of its weights could be anything."""
    model = seeded(lambda: nn.Sequential(nn.Conv2d(64, 256, 3), nn.Conv2d(256, 64, 3)), 0)
    robust = perturbed(model, 0.002, 1)
    signature = RobustWeightSignature.extract(
        standard=model,
        robust=robust,
        corruption="fog",
        license="mit",
        layers=["*"],
        example_input=torch.zeros(1, 64, 9, 9),
    )
    with torch.no_grad():
        for conv in model:
            dead = torch.randperm(conv.weight.shape[axis], generator=torch.Generator().manual_seed(0))
            conv.weight.index_fill_(axis, dead[: len(dead) * 9 // 10], 0.0)
    plan = plan_patch(model, signature)
    for change in (c for c in plan.changes if c.names[0].endswith("weight")):
        theta, delta = model.get_parameter(change.names[0]).detach().double(), signature.delta(change.names[0]).double()
        assert change.relative_norm == pytest.approx(float(delta.norm() / theta.norm()), rel=1e-4)
    patch(model, signature).unpatch()
    limit = max(c.relative_norm for c in plan.changes)
    with pytest.raises(IncompatibleModelError, match="max_relative_norm"):
        patch(model, signature, max_relative_norm=limit * 0.999)
    patch(model, signature, max_relative_norm=limit * 1.001).unpatch()


def test_a_smaller_strength_is_never_refused(fog):
    model = tiny_resnet()
    p = patch(model, fog)
    q = patch(model, tiny_signature(corruption="noise", seed=2, layers=2), alpha=30, max_relative_norm=math.inf)
    with pytest.raises(IncompatibleModelError, match="max_relative_norm"):
        p.set_alpha(fog=1.1)
    p.set_alpha(fog=-0.5)
    p.set_alpha(fog=0.0)
    q.unpatch()
    p.unpatch()
