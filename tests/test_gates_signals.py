"""A change of a patch is finished before anything else of its thread runs: interrupts, signals, finalizers."""

import os
import signal
import threading
import time

import pytest
from bits import bits, changed
from builders import tiny_resnet
from test_gates import fog, till_a_change_waits

from rws_hub import PatchStateError, active_patches, deltas, patch, steady

__all__ = ["fog"]  # a fixture


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
