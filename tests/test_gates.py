"""A forward pass inside of `steady` sees one state of the patches, whole, whatever other threads do."""

import gc
import math
import os
import signal
import sys
import threading
import time
import weakref

import pytest
import torch
from bits import bits, changed
from builders import perturbed, seeded, tiny_resnet, tiny_signature
from torch import nn
from torch._dynamo.testing import CompileCounter

from rws_hub import PatchStateError, RobustWeightSignature, active_patches, deltas, gates, patch, steady


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


def test_two_threads_that_patch_take_turns(fog, noise):
    model = tiny_resnet()
    clean = bits(model)
    failures = []

    def live(signature: RobustWeightSignature) -> None:
        try:
            for alpha in (0.5, 1.0, -1.0) * 5:
                p = patch(model, signature, alpha=alpha)
                p.set_alpha(**{signature.config.corruption.name: 0.25})
                p.unpatch()
        except Exception as error:  # told below, in the main thread
            failures.append(error)

    threads = [threading.Thread(target=live, args=(s,)) for s in (fog, noise)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and changed(clean, model) == set()


@pytest.fixture
def restless():
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_reading_a_handle_and_running_the_model_meanwhile_do_no_harm(fog, noise, restless):
    """Without `steady`: what a handle says is one state of it, and no bit is lost, whatever a forward pass has seen."""
    model, x = tiny_resnet(), torch.ones(1, 3, 32, 32)
    clean = bits(model)
    p, stop, failures = patch(model, fog), threading.Event(), []
    allowed = [{"fog": 1.0}, {"noise": 1.0}]

    def read() -> None:
        while not stop.is_set():
            try:
                assert dict(p.alphas) in allowed and p.kept_bytes > 0 and len(p.plan.signatures) == 1
                assert p.active and active_patches(model) == (p,)
            except BaseException as error:  # told below, in the main thread
                failures.append(error)
                return

    def run() -> None:
        while not stop.is_set():
            with torch.no_grad():
                model(x)

    threads = [threading.Thread(target=work) for work in (read, run)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        p.exchange("fog", noise)
        p.exchange("noise", fog)
    stop.set()
    for thread in threads:
        thread.join()
    p.unpatch()
    assert not failures and changed(clean, model) == set()


def test_an_interrupt_waits_for_the_end_of_a_change(fog, monkeypatch):
    model = tiny_resnet()
    clean, write, sent = bits(model), deltas.write, []

    def interrupted(*arguments) -> None:
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))
        write(*arguments)

    with monkeypatch.context() as context:
        context.setattr(deltas, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            patch(model, fog)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    (p,) = active_patches(model)  # the new state, whole, with a handle on it
    plain = tiny_resnet()
    patch(plain, fog)
    assert bits(model) == bits(plain)
    p.unpatch()
    assert changed(clean, model) == set()


def test_nothing_is_changed_in_the_middle_of_a_change(fog, monkeypatch):
    """A finalizer, or the handler of a signal that does not wait, may run anywhere."""
    model = tiny_resnet()
    clean, write, told = bits(model), deltas.write, []
    p = patch(model, fog)

    def finalizing(*arguments) -> None:
        for action in (p.unpatch, lambda: patch(tiny_resnet(), fog), lambda: steady(model).__enter__()):
            with pytest.raises(PatchStateError, match="while this very thread changes a patch") as refused:
                action()
            told.append(refused)
        write(*arguments)

    with monkeypatch.context() as context:
        context.setattr(deltas, "write", finalizing)
        p.set_alpha(fog=0.5)
    assert told and p.alphas == {"fog": 0.5}
    p.unpatch()
    assert changed(clean, model) == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGALRM, signal.SIGABRT, signal.SIGUSR1])
def test_other_signals_whose_handlers_raise_wait_too(fog, number, monkeypatch):
    """As servers end their workers, and as time limits come."""

    class OutOfTime(Exception):
        pass

    def raises(number: int, frame: object) -> None:
        raise OutOfTime

    model = tiny_resnet()
    clean, write, sent = bits(model), deltas.write, []

    def disturbed(*arguments) -> None:
        if not sent:
            sent.extend(os.kill(os.getpid(), n) for n in (number, signal.SIGINT))
        write(*arguments)

    former = signal.signal(number, raises)
    try:
        with monkeypatch.context() as context:
            context.setattr(deltas, "write", disturbed)
            with pytest.raises((OutOfTime, KeyboardInterrupt)) as caught:
                patch(model, fog)
        assert {type(caught.value), type(caught.value.__context__)} == {OutOfTime, KeyboardInterrupt}
        assert signal.getsignal(number) is raises
    finally:
        signal.signal(number, former)
    (p,) = active_patches(model)
    p.unpatch()
    assert changed(clean, model) == set()


def test_a_handler_that_waited_for_the_end_may_take_the_patch_off(fog, monkeypatch):
    model = tiny_resnet()
    clean, write = bits(model), deltas.write
    p = patch(model, fog)
    sent = []

    def interrupted(*arguments) -> None:
        if not sent:
            sent.append(signal.raise_signal(signal.SIGINT))
        write(*arguments)

    former = signal.signal(signal.SIGINT, lambda *_: p.unpatch())
    try:
        with monkeypatch.context() as context:
            context.setattr(deltas, "write", interrupted)
            p.set_alpha(fog=0.5)
    finally:
        signal.signal(signal.SIGINT, former)
    assert not p.active and changed(clean, model) == set()


def test_a_second_interrupt_does_not_wait(fog):
    model = tiny_resnet()
    p = patch(model, fog)
    entered, leave = threading.Event(), threading.Event()

    def inside() -> None:
        with steady(model):
            entered.set()
            leave.wait(60)

    def interrupt() -> None:
        entered.wait(60)
        till_a_change_waits()
        for _ in range(2):
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)

    threads = [threading.Thread(target=inside), threading.Thread(target=interrupt)]
    try:
        for thread in threads:
            thread.start()
        entered.wait(60)
        with pytest.raises(KeyboardInterrupt):
            p.unpatch()
    finally:
        leave.set()
        for thread in threads:
            thread.join()
    assert p.active
    p.unpatch()


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
