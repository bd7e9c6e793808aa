"""A forward pass inside of `steady` sees one state of the patches, whole, whatever other threads do."""

import gc
import math
import threading
import time
import weakref

import pytest
import torch
from bits import bits, changed
from builders import perturbed, seeded, tiny_resnet, tiny_signature
from torch import nn
from torch._dynamo.testing import CompileCounter

from rws_hub import PatchStateError, RobustWeightSignature, gates, patch, steady


@pytest.fixture(scope="module")
def fog():
    return tiny_signature(corruption="fog", seed=1)


@pytest.fixture(scope="module")
def noise():
    return tiny_signature(corruption="noise", seed=2)


class Deep(nn.Module):
    """Many layers that all have to be of one state: the output tells which states went into it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
            time.sleep(0)  # let others run
        return x


def deep_signature(seed: int, corruption: str) -> RobustWeightSignature:
    clean = seeded(Deep, 0)
    robust = perturbed(clean, 0.3, seed)
    return RobustWeightSignature.extract(
        standard=clean, robust=robust, corruption=corruption, license="mit", layers=["*"], bits=4
    )


@pytest.mark.parametrize("mode", ["snapshot", "ledger"])
def test_no_forward_pass_ever_sees_a_half_patched_model(mode):
    model, x = seeded(Deep, 0), torch.ones(1, 64)
    fog, rain = deep_signature(1, "fog"), deep_signature(2, "rain")
    with torch.no_grad():
        p = patch(model, fog, alpha=0.0, removal=mode, max_relative_norm=math.inf)
        states = {}
        for alpha in (0.0, 0.5, 1.0):
            p.set_alpha(fog=alpha)
            states["fog", alpha] = model(x).numpy().tobytes()
        p.exchange("fog", rain)
        states["rain"] = model(x).numpy().tobytes()
        p.exchange("rain", fog)
    assert len(set(states.values())) == 4
    seen, wrong, stop = set(), [], threading.Event()

    def serve() -> None:
        while not stop.is_set():
            with steady(model), torch.no_grad():
                found = model(x).numpy().tobytes()
            seen.add(found)
            if found not in states.values():
                wrong.append(found)

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    changes = 0
    end = time.monotonic() + 60
    while (changes < 40 or len(seen) < 4) and time.monotonic() < end:
        p.set_alpha(fog=(0.0, 0.5, 1.0)[changes % 3])
        if changes % 4 == 3:
            p.exchange("fog", rain)
            time.sleep(0.001)
            p.exchange("rain", fog)
        changes += 1
        time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and changes >= 40 and len(seen) == 4


def till_a_change_waits() -> None:
    """Wait till a change waits for those inside."""
    while gates._under_way is None or not gates._under_way.waiting:
        time.sleep(0.01)


def test_a_change_waits_for_those_inside_and_those_who_come_wait_for_the_change(fog):
    model, plain = tiny_resnet(), tiny_resnet()
    p = patch(model, fog)
    patch(plain, fog, alpha=0.5)
    before, after, seen = bits(model), bits(plain), []

    def late() -> None:
        with steady(model):
            seen.append(bits(model))

    changing, coming = threading.Thread(target=lambda: p.set_alpha(fog=0.5)), threading.Thread(target=late)
    with steady(model):
        with steady(model):  # again, in the same thread
            changing.start()
            till_a_change_waits()
            coming.start()
            time.sleep(0.05)
            assert not seen and bits(model) == before
        with steady(model):  # who is inside already is not kept waiting by those who wait for him
            assert bits(model) == before
        assert not seen
    changing.join()
    coming.join()
    assert seen == [after] and p.alphas == {"fog": 0.5}


@pytest.mark.parametrize("known", [True, False], ids=["a wrapper seen before", "a new wrapper"])
def test_who_is_inside_of_a_model_may_come_to_a_wrapper_of_it(fog, known):
    """A change waits for both, and whoever is inside of one must not wait for the change."""
    model = tiny_resnet()
    wrapper = nn.DataParallel(model)
    if known:
        with steady(wrapper):
            pass
    p, entered = patch(model, fog), threading.Event()

    def nested() -> None:
        with steady(model):
            entered.set()
            till_a_change_waits()
            with steady(wrapper):
                assert p.active

    thread = threading.Thread(target=nested, daemon=True)
    thread.start()
    entered.wait(60)
    changing = threading.Thread(target=p.unpatch, daemon=True)
    changing.start()
    changing.join(20)
    thread.join(20)
    assert not thread.is_alive() and not changing.is_alive() and not p.active


def test_other_models_do_not_wait(fog):
    model, other = tiny_resnet(), tiny_resnet()
    p = patch(model, fog)
    with steady(other):
        thread = threading.Thread(target=p.unpatch)
        thread.start()
        thread.join(10)
        assert not thread.is_alive() and not p.active


def test_a_wrapper_is_its_model(fog):
    model = tiny_resnet()
    p = patch(model, fog)
    thread = threading.Thread(target=p.unpatch)
    with steady(nn.DataParallel(model)):
        thread.start()
        thread.join(0.1)
        assert thread.is_alive() and p.active
    thread.join()
    assert not p.active


def test_changing_from_the_inside_is_refused(fog, noise):
    model = tiny_resnet()
    p = patch(model, fog)
    before = bits(model)
    actions = [
        p.unpatch,
        lambda: p.set_alpha(fog=0),
        lambda: p.remove("fog"),
        lambda: p.add(noise),
        lambda: p.exchange("fog", noise),
        lambda: patch(tiny_resnet(), fog),
    ]
    with steady(model):
        for action in actions:
            with pytest.raises(PatchStateError, match=r"inside of `with steady\(model\)` by the same thread"):
                action()
    assert changed(before, model) == set() and p.alphas == {"fog": 1.0}
    p.unpatch()


def test_an_error_inside_opens_the_gate_again(fog):
    model = tiny_resnet()
    with pytest.raises(ZeroDivisionError), steady(model):
        1 / 0  # noqa: B018
    patch(model, fog).unpatch()


def test_a_refused_change_opens_the_gate_again(fog):
    model = tiny_resnet()
    p = patch(model, fog)
    with torch.no_grad():
        model.conv1.weight.zero_()
    with steady(model):
        pass
    with pytest.raises(PatchStateError, match="was changed while it was patched"):
        p.unpatch()
    with steady(model):
        pass
    p.unpatch(force=True)


def test_a_dropped_model_is_forgotten():
    model = tiny_resnet()
    gone = weakref.ref(model)
    with steady(model):
        assert len(gates._open) == 1
    del model
    gc.collect()
    assert gone() is None and not gates._open


def test_a_compiled_model_is_not_compiled_again(fog, noise):
    model, x = tiny_resnet(), torch.ones(1, 3, 32, 32)
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    with torch.no_grad():
        clean = compiled(x)
        compilations = counter.frame_count
        p = patch(compiled, fog)
        for change in (lambda: p.set_alpha(fog=0.3), lambda: p.exchange("fog", noise), p.unpatch):
            with steady(compiled):
                assert torch.equal(compiled(x), model(x)) and not torch.equal(compiled(x), clean)
            change()
        assert torch.equal(compiled(x), clean)
    assert counter.frame_count == compilations > 0
