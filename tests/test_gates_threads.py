"""Several threads that patch, read and run one model at once."""

import sys
import threading

import pytest
import torch
from bits import bits, changed
from builders import tiny_resnet
from test_gates import fog, noise

from rws_hub import RobustWeightSignature, active_patches, patch

__all__ = ["fog", "noise"]  # fixtures


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
