"""What a patch does when somebody else touches the model meanwhile: refuse, explain, and still know the way back."""

import copy
import math

import pytest
import timm
import torch
from bits import bits, changed
from builders import perturbed, seeded, tiny_resnet, tiny_signature
from torch import nn

from rws_hub import IncompatibleModelError, PatchStateError, RobustWeightSignature, active_patches, patch, plan_patch


@pytest.fixture(scope="module")
def fog():
    return tiny_signature(corruption="fog", seed=1, layers=1)


@pytest.fixture(scope="module")
def noise():
    return tiny_signature(corruption="noise", seed=2, layers=1, bits=32)


@pytest.fixture
def model():
    return tiny_resnet()


def train_a_step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()


def forward_in_train_mode(model):
    model.train()
    with torch.no_grad():
        model(torch.ones(2, 3, 32, 32))
    model.eval()


def load_other_weights(model):
    model.load_state_dict(tiny_resnet(seed=5).state_dict())


def assign_other_weights(model):
    model.load_state_dict(tiny_resnet(seed=5).state_dict(), assign=True)


def change_one_weight_by_one_bit(model):
    flat = model.conv1.weight.detach().view(torch.int32).view(-1)
    flat[3] ^= 1


CHANGES = [
    train_a_step,
    forward_in_train_mode,
    load_other_weights,
    assign_other_weights,
    change_one_weight_by_one_bit,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_meanwhile_is_not_undone_unless_forced(change, model, fog):
    clean = bits(model)
    p = patch(model, fog)
    change(model)
    after = bits(model)
    for action in (p.unpatch, lambda: p.set_alpha(fog=0.5), lambda: p.remove("fog")):
        with pytest.raises(PatchStateError, match=r"was changed while it was patched.*unpatch\(force=True\)"):
            action()
        assert changed(after, model) == set() and p.active
    p.unpatch(force=True)
    assert not changed(clean, model) & set(fog.names)
    assert active_patches(model) == ()


def test_a_change_of_untouched_weights_does_not_matter(model, fog):
    clean = bits(model)
    with patch(model, fog), torch.no_grad():
        model.fc.weight.zero_()
    assert changed(clean, model) == {"fc.weight"}


def test_assigning_the_same_values_does_not_matter(model, fog):
    clean = bits(model)
    p = patch(model, fog)
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    p.unpatch()
    assert changed(clean, model) == set()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_converting_a_patched_model_is_refused_with_a_way_out(dtype, model, fog):
    clean = bits(model)
    p = patch(model, fog)
    model.to(dtype)
    for force in (False, True):
        with pytest.raises(PatchStateError, match="Unpatch before converting; convert it back to go on"):
            p.unpatch(force=force)
    model.float()
    p.unpatch(force=dtype == torch.bfloat16)  # going through bfloat16 lost digits of the patched weights
    assert not changed(clean, model) & set(fog.names)


def test_two_handles_come_off_in_any_order(fog, noise):
    clean = bits(tiny_resnet())
    for first in (0, 1):
        model = tiny_resnet()
        handles = [patch(model, s, alpha=a, max_relative_norm=math.inf) for s, a in ((fog, 0.5), (noise, 2))]
        assert active_patches(model) == tuple(handles)
        alone = tiny_resnet()
        patch(alone, *[(fog, noise)[1 - first]], alpha=(0.5, 2)[1 - first], max_relative_norm=math.inf)
        handles[first].unpatch()
        assert bits(model) == bits(alone) and active_patches(model) == (handles[1 - first],)
        handles[1 - first].unpatch()
        assert changed(clean, model) == set() and active_patches(model) == ()


def test_the_same_signature_twice_is_refused_and_a_name_is_taken_once(model, fog, noise):
    p = patch(model, fog)
    before = bits(model)
    refusals = [
        (lambda: patch(model, fog), "carries this very signature"),
        (lambda: patch(model, noise, fog), "carries this very signature"),
        (lambda: p.add(fog, name="other"), "carries this very signature"),
        (lambda: p.add(noise, name="fog"), "the name 'fog' is taken"),
        (lambda: patch(tiny_resnet(), noise, noise), "the name 'noise' is taken"),
    ]
    for action, message in refusals:
        with pytest.raises(PatchStateError, match=message):
            action()
        assert changed(before, model) == set() and active_patches(model) == (p,)
    p.add(noise, alpha=0.1, name="second")
    assert p.alphas == {"fog": 1.0, "second": 0.1} and repr(p) == "<Patch on ResNet: fog=1, second=0.1>"


def test_exchanging(model, fog, noise):
    clean, other = bits(model), tiny_resnet()
    p, q = patch(model, fog, alpha=0.5), patch(other, noise, alpha=2)
    p.exchange("fog", noise, alpha=2)
    assert bits(model) == bits(other) and p.alphas == {"noise": 2.0}
    p.exchange("noise", noise, alpha=1)  # itself: another strength
    q.set_alpha(noise=1)
    assert bits(model) == bits(other) and p.alphas == {"noise": 1.0}
    before = bits(model)
    for action, message in [
        (lambda: p.exchange("fog", fog), "no signature named 'fog'"),
        (lambda: p.exchange("noise", tiny_signature("vit")), "cannot patch ResNet"),
    ]:
        with pytest.raises((PatchStateError, IncompatibleModelError), match=message):
            action()
        assert changed(before, model) == set() and p.alphas == {"noise": 1.0}
    p.add(fog)
    with pytest.raises(PatchStateError, match="the name 'fog' is taken"):
        p.exchange("noise", fog)
    p.unpatch()
    assert changed(clean, model) == set() and active_patches(model) == ()


def test_unknown_names_and_handles_that_are_off_are_refused(model, fog, noise):
    clean = bits(model)
    p = patch(model, fog)
    for action in (lambda: p.remove("snow"), lambda: p.remove("fog", "snow"), lambda: p.set_alpha(snow=1)):
        with pytest.raises(PatchStateError, match="no signature named 'snow' in this patch; there are: fog"):
            action()
        assert p.alphas == {"fog": 1.0}
    p.remove("fog", "fog")
    p.remove()
    assert not p.active and changed(clean, model) == set() and active_patches(model) == ()
    with pytest.raises(PatchStateError, match="taken off before"):
        p.unpatch()
    with pytest.raises(PatchStateError, match="there are: none"):
        p.set_alpha(fog=1)
    p.add(noise)
    assert p.active and active_patches(model) == (p,) and p.plan.ok
    p.unpatch()
    assert changed(clean, model) == set()


def test_a_replaced_module_is_refused_and_force_restores_the_one_that_was_patched(model, fog):
    clean, conv = bits(model), model.conv1
    for replacement in (nn.Conv2d(3, 64, 7, bias=False), nn.Identity(), None):
        p = patch(model, fog)
        if replacement is None:
            del model.conv1
        else:
            model.conv1 = replacement
        for action in (p.unpatch, lambda p=p: p.set_alpha(fog=0.5), lambda p=p: p.remove("fog")):
            with pytest.raises(PatchStateError, match=r"conv1.weight is not the one that was patched"):
                action()
        p.unpatch(force=True)
        model.conv1 = conv
        assert changed(clean, model) == set()


def test_a_tensor_that_is_gone_is_refused(model, fog):
    clean, weight = bits(model), model.conv1.weight
    p = patch(model, fog)
    del model.conv1.weight
    with pytest.raises(PatchStateError, match="has no tensor 'weight' any more"):
        p.unpatch()
    model.conv1.weight = weight
    p.unpatch()
    assert changed(clean, model) == set()


def test_a_handle_that_was_taken_off_does_not_pretend(model, fog):
    p = patch(model, fog)
    p.unpatch()
    with pytest.raises(PatchStateError, match="not on the model any more"), p:
        pass


@pytest.mark.parametrize("wrong", ["fog", ["fog"], None])
def test_only_signatures_are_patched(wrong, model):
    for call in (lambda: patch(model, wrong), lambda: plan_patch(model, wrong)):
        with pytest.raises(TypeError, match="expected a RobustWeightSignature"):
            call()


def test_what_a_model_made_of_its_weights_for_evaluation_is_forgotten():
    """LeViT gathers its attention biases once per device and keeps them until the mode changes."""
    options = {"img_size": 64, "embed_dim": (16, 24, 32), "num_heads": (1, 2, 3), "depth": (1, 1, 1)}
    model = seeded(lambda: timm.create_model("levit_128s", **options), 0).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1)))
    robust = perturbed(model, 0.1, 2)
    names = [n for n, _ in model.named_parameters() if n.endswith("attention_biases")]
    signature = RobustWeightSignature.extract(
        standard=model, robust=robust, corruption="fog", license="mit", layers=names, bits=32
    )
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        next(m for m in model.modules() if isinstance(m, nn.Hardswish)).train()  # a flag of its own
        flags = [m.training for m in model.modules()]
        clean = model(images)
        p = patch(model, signature, max_relative_norm=math.inf)
        live = model(images)
        fresh = copy.deepcopy(model)
        fresh.train()
        for module, training in zip(fresh.modules(), flags, strict=True):
            module.training = training
        assert not torch.equal(live, clean) and torch.equal(live, fresh(images))
        p.unpatch()
        assert torch.equal(model(images), clean)
    assert [m.training for m in model.modules()] == flags
