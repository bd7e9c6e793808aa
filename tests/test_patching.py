"""The promises of `patch`: exact, history-free, linear, atomic, strict."""

import math
import random

import numpy as np
import pytest
import torch
from bits import bits, bits_of, changed, plant_odd_values
from builders import perturbed, tiny_resnet, tiny_signature, tiny_vit

from rws_hub import IncompatibleModelError, PatchStateError, active_patches, deltas, patch

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture(scope="module")
def fog():
    return tiny_signature(corruption="fog", seed=1)


@pytest.fixture(scope="module")
def noise():
    return tiny_signature(corruption="noise", seed=2, layers=1)


@pytest.fixture(scope="module")
def blur():
    return tiny_signature(corruption="blur", seed=3, layers=3, bits=8)


@pytest.fixture(scope="module")
def exact_fog():
    return tiny_signature(corruption="fog", seed=1, bits=32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unpatching_restores_every_bit_of_odd_values_too(dtype, fog, noise):
    model = tiny_resnet().to(dtype)
    for name in ("conv1.weight", "layer1.0.conv1.weight", "bn1.weight"):
        plant_odd_values(model.get_parameter(name))
    clean = bits(model)
    p = patch(model, fog, noise, alpha=(0.7, -1.3), max_relative_norm=math.inf)
    assert changed(clean, model) == {*fog.names, *noise.names}
    p.set_alpha(fog=2.0)
    p.remove("noise")
    p.unpatch()
    assert changed(clean, model) == set()


def test_only_the_touched_tensors_change_and_integer_buffers_stay(fog):
    model = tiny_resnet(num_classes=7)
    clean = bits(model)
    with patch(model, fog, verify="architecture"):
        assert changed(clean, model) == set(fog.names)
        assert not any(name.startswith(("fc.", "layer2.", "layer3.", "layer4.")) for name in fog.names)
    assert changed(clean, model) == set()


def test_the_same_set_gives_the_same_bits_whatever_came_before(fog, noise, blur):
    wanted = {"fog": (fog, 0.3), "noise": (noise, -0.7), "blur": (blur, 1.1)}
    reference = tiny_resnet()
    patch(
        reference, *(s for s, _ in wanted.values()), alpha=[a for _, a in wanted.values()], max_relative_norm=math.inf
    )
    for seed in range(6):
        rng = random.Random(seed)
        order = rng.sample(list(wanted), 3)
        model = tiny_resnet()
        first = patch(model, wanted[order[0]][0], alpha=rng.uniform(-2, 2), max_relative_norm=math.inf)
        second = patch(model, wanted[order[1]][0], alpha=rng.uniform(-2, 2), max_relative_norm=math.inf)
        handle = rng.choice([first, second])
        handle.add(wanted[order[2]][0], alpha=9.0)
        handle.remove(order[2])
        handle.add(wanted[order[2]][0], alpha=rng.uniform(-2, 2))
        for p in (second, first):
            p.set_alpha(**{name: wanted[name][1] for name in p.alphas})
        assert bits(model) == bits(reference), order
        first.unpatch()
        second.unpatch()
        assert bits(model) == bits(tiny_resnet())


def rounded(values: np.ndarray, dtype: torch.dtype) -> bytes:
    """float32 (or float64) values as the bytes of `dtype`, rounded to nearest, ties to even."""
    if dtype == torch.bfloat16:
        word = values.astype(np.float32).view(np.uint32)
        return ((word + 0x7FFF + ((word >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
    return values.astype({torch.float16: "<f2", torch.float32: "<f4", torch.float64: "<f8"}[dtype]).tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("alpha", [1.0, -1.0, 0.37, 5.0, 1e-4])
def test_the_change_is_alpha_times_delta_up_to_one_rounding(dtype, alpha, exact_fog):
    model = tiny_resnet().to(dtype)
    clean = {n: t.detach().double().numpy().copy() for n, t in model.state_dict().items()}
    with patch(model, exact_fog, alpha=alpha, max_relative_norm=math.inf):
        for name in exact_fog.names:
            step = np.float32(alpha) * exact_fog.delta(name).numpy()
            theta = clean[name] if dtype == torch.float64 else clean[name].astype(np.float32)
            if name.endswith("running_var"):
                factor = np.exp(step.astype(np.float64)).astype(np.float32)
                expected = theta * factor
                assert (model.get_buffer(name) > 0).all()
            else:
                expected = theta + step
            assert bits_of(model.state_dict()[name]) == rounded(expected, dtype), name


def test_several_signatures_add_up(fog, noise):
    model = tiny_resnet()
    name = "conv1.weight"
    clean = model.conv1.weight.detach().double()
    patch(model, fog, noise, alpha=(0.5, -2.0), max_relative_norm=math.inf)
    wanted = clean + 0.5 * fog.delta(name).double() - 2.0 * noise.delta(name).double()
    assert (model.conv1.weight.double() - wanted).abs().max() <= 2.0**-23 * wanted.abs().max()


def test_alpha_zero_is_the_base_bit_for_bit(fog):
    model = tiny_resnet()
    plant_odd_values(model.conv1.weight)
    clean = bits(model)
    p = patch(model, fog, alpha=0)
    assert changed(clean, model) == set() and p.active and p.alphas == {"fog": 0.0}
    p.set_alpha(fog=-0.0)
    assert changed(clean, model) == set()


def test_the_recommended_alpha_is_the_default_and_alpha_may_be_one_for_all_or_one_each():
    model, fog = tiny_resnet(), tiny_signature(alpha=0.6)
    noise = tiny_signature(corruption="noise", seed=2)
    for alpha, expected in [
        (None, {"fog": 0.6, "noise": 1.0}),
        (2, {"fog": 2.0, "noise": 2.0}),
        (np.float32(0.5), {"fog": 0.5, "noise": 0.5}),
        ([0.1, -3], {"fog": 0.1, "noise": -3.0}),
    ]:
        with patch(model, fog, noise, alpha=alpha, max_relative_norm=math.inf) as p:
            assert p.alphas == expected


@pytest.mark.parametrize("alpha", [math.nan, math.inf, True, "1", "0.5", b"x", 10**400, [1.0, 2.0], []], ids=str)
def test_odd_strengths_are_refused_and_nothing_is_touched(alpha, fog):
    model = tiny_resnet()
    with pytest.raises(ValueError, match="alpha"):
        patch(model, fog, alpha=alpha)
    assert bits(model) == bits(tiny_resnet()) and active_patches(model) == ()
    with patch(model, fog, alpha=0.5) as p:
        before = bits(model)
        with pytest.raises(ValueError, match=r"alpha of 'fog' must be a (finite|plain) number"):
            p.set_alpha(fog=alpha)
        assert bits(model) == before and p.alphas == {"fog": 0.5}


class FailingWrite:
    """`deltas.write` that fails once, at one call, having written half of the block."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.calls, self.at, self.error = 0, at, error
        self.write = deltas.write

    def __call__(self, clean, change, op, out, scratch) -> None:
        self.calls += 1
        if self.calls == self.at:
            out[: -(-len(out) // 2)] = 7
            raise self.error
        self.write(clean, change, op, out, scratch)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("what", ["patch", "add", "set_alpha", "remove", "exchange", "unpatch"])
def test_a_fault_in_the_middle_of_writing_changes_nothing(what, error, fog, noise, blur, monkeypatch):
    model = tiny_resnet()
    clean = bits(model)
    p = patch(model, fog, noise, max_relative_norm=math.inf)
    before = bits(model)
    actions = {
        "patch": lambda: patch(model, blur, max_relative_norm=math.inf),
        "add": lambda: p.add(blur),
        "set_alpha": lambda: p.set_alpha(fog=0.25),
        "remove": lambda: p.remove("fog"),
        "exchange": lambda: p.exchange("fog", blur),
        "unpatch": p.unpatch,
    }
    at, failed = 1, True
    while failed:  # at every single write, until there is none left
        failing = FailingWrite(at, error)
        with monkeypatch.context() as context:
            context.setattr(deltas, "write", failing)
            try:
                actions[what]()
                failed = False
            except type(error):
                assert changed(before, model) == set()
                assert p.alphas == {"fog": 1.0, "noise": 1.0} and active_patches(model) == (p,)
        at += 1
    assert at > 7
    for handle in active_patches(model):
        handle.unpatch()
    assert changed(clean, model) == set()


def test_a_plan_that_fails_touches_nothing_even_if_another_signature_fits(fog):
    model, vit = tiny_resnet(), tiny_signature("vit", corruption="noise")
    clean = bits(model)
    with pytest.raises(IncompatibleModelError, match=r"'noise'.*Nothing was changed") as caught:
        patch(model, fog, vit)
    assert not caught.value.plan.ok and "fog: fits" in caught.value.plan.explain()
    assert changed(clean, model) == set() and active_patches(model) == ()
    with patch(model, fog) as p:
        before = bits(model)
        with pytest.raises(IncompatibleModelError):
            p.add(vit)
        assert changed(before, model) == set() and p.alphas == {"fog": 1.0}


def test_an_exception_inside_with_restores_the_model_and_passes(fog):
    model = tiny_resnet()
    clean = bits(model)
    with pytest.raises(ZeroDivisionError), patch(model, fog):
        _ = 1 / 0
    assert changed(clean, model) == set()
    with patch(model, fog) as p:
        p.unpatch()
    assert changed(clean, model) == set()


def test_an_overflow_is_refused_and_nothing_changes(fog):
    model = tiny_resnet().half()
    clean = bits(model)
    with pytest.raises(PatchStateError, match=r"overflows torch.float16.*smaller alpha"):
        patch(model, fog, alpha=1e8, max_relative_norm=math.inf)
    assert changed(clean, model) == set() and active_patches(model) == ()
    with patch(model, fog, max_relative_norm=math.inf) as p:
        before = bits(model)
        with pytest.raises(PatchStateError, match="overflows"):
            p.set_alpha(fog=1e300)
        assert changed(before, model) == set() and p.alphas == {"fog": 1.0}
    assert changed(clean, model) == set()
    with pytest.raises(
        PatchStateError, match=r"overflows torch.float64 \(or torch.float32, in which changes are summed\)"
    ):
        patch(model.double(), fog, alpha=1e300, max_relative_norm=math.inf)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("training", [True, False])
def test_any_gradient_mode_and_train_or_eval(mode, training, fog):
    model = tiny_resnet().train(training)
    clean = bits(model)
    with mode():
        p = patch(model, fog)
        p.set_alpha(fog=0.5)
    assert all(parameter.requires_grad and parameter.grad_fn is None for parameter in model.parameters())
    p.set_alpha(fog=0.7)
    with mode():
        p.unpatch()
    assert changed(clean, model) == set() and model.training is training
    with mode():
        p = patch(model, fog)
    p.unpatch()
    assert changed(clean, model) == set()


def test_gradients_flow_through_a_patched_model_and_the_optimizer_keeps_its_parameters(fog):
    model, images = tiny_resnet(), torch.zeros(1, 3, 32, 32)
    parameters = list(model.parameters())
    with patch(model, fog):
        model(images).sum().backward()
    assert all(parameter.grad is not None for parameter in parameters)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    model(images).sum().backward()


def test_a_patched_model_computes_what_the_robust_one_does(exact_fog):
    model, images = tiny_resnet(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    robust, everything = perturbed(model, 0.01, 1), tiny_signature(seed=1, bits=32, layers=5)
    robust.fc.load_state_dict(model.fc.state_dict())
    with torch.no_grad(), patch(model, everything):
        torch.testing.assert_close(model(images), robust(images), atol=1e-5, rtol=1e-4)


def test_a_vision_transformer():
    model, signature = tiny_vit(), tiny_signature("vit", bits=8)
    clean = bits(model)
    with patch(model, signature):
        assert changed(clean, model) == set(signature.names)
    assert changed(clean, model) == set()


def test_wrong_arguments_are_type_errors(fog):
    with pytest.raises(TypeError, match="rws apply"):
        patch(tiny_resnet().state_dict(), fog)
    with pytest.raises(TypeError, match="at least one signature"):
        patch(tiny_resnet())
