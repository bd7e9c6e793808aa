"""Processes made while others work: forked, spawned, sharing the memory of a model, pulling into one cache."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from bits import bits, bits_of, changed
from builders import tiny_resnet
from hub import Hub
from published import fog, saved
from torch import nn
from torch.utils.data import DataLoader, Dataset

from rws_hub import RobustWeightSignature, gates, patch, steady
from rws_hub.handle import Patch

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
_LIMIT = 60


def in_child(work: Callable[[], object]) -> bool:
    """Whether a forked child does some work without an error, and before the time is up."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(1)
    end = time.monotonic() + _LIMIT
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Another thread does some work again and again."""
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_LIMIT)


def exchange(p: Patch) -> None:
    p.set_alpha(fog=0.5)
    p.set_alpha(fog=1.0)


@needs_fork
@pytest.mark.parametrize("other", ["changes", "is inside", "waits for those inside", "loads"])
def test_a_fork_is_made_between_changes_and_its_child_is_not_locked_out(other: str, tmp_path: Path) -> None:
    model, folder = tiny_resnet(), saved(tmp_path / "fog")
    clean = bits(model)
    p = patch(model, fog())
    plain = tiny_resnet()
    whole = []
    for alpha in (1.0, 0.5):
        with patch(plain, fog(), alpha=alpha):
            whole.append(bits(plain))

    def child() -> None:
        assert bits(model) in whole
        assert bits(model) == whole[[1.0, 0.5].index(p.alphas["fog"])]
        with steady(model):
            pass
        RobustWeightSignature.from_pretrained(folder)
        p.unpatch()
        assert changed(clean, model) == set()

    def inside() -> None:
        with steady(model):
            time.sleep(0.002)

    works = {"changes": lambda: exchange(p), "is inside": inside, "loads": lambda: fog_again(folder)}
    if other == "waits for those inside":
        with steady(model):
            thread = threading.Thread(target=lambda: p.set_alpha(fog=0.5))
            thread.start()
            while gates._under_way is None or not gates._under_way.waiting:
                time.sleep(0.001)
            assert in_child(lambda: bits(model) == whole[0] or os._exit(1))
        thread.join(_LIMIT)
    else:
        with meanwhile(works[other]):
            assert all(in_child(child) for _ in range(4))
    p.unpatch()
    assert changed(clean, model) == set()


def fog_again(folder: Path) -> None:
    RobustWeightSignature.from_pretrained(folder)


class Patched(Dataset[torch.Tensor]):
    """What a model that is patched in the worker makes of ones, in turn with a signature and without."""

    def __init__(self, model: nn.Module, signature: RobustWeightSignature) -> None:
        self.model, self.signature = model, signature

    def __len__(self) -> int:
        return 4

    @torch.no_grad()
    def __getitem__(self, index: int) -> torch.Tensor:
        x = torch.ones(1, 3, 32, 32)
        if index % 2:
            with patch(self.model, self.signature):
                return self.model(x)[0]
        return self.model(x)[0]


@needs_fork
def test_workers_of_a_data_loader_patch_models_of_their_own() -> None:
    model = tiny_resnet()
    data = Patched(model, fog())
    expected = torch.stack([data[i] for i in range(4)])
    assert not torch.equal(expected[0], expected[1])
    before = bits(model)
    other = tiny_resnet()  # not made in the thread: torch.manual_seed takes a lock of torch's own
    with meanwhile(lambda: exchange_on(other)):
        loader = DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context="fork", timeout=_LIMIT)
        (found,) = list(loader)
    assert bits_of(found) == bits_of(expected) and changed(before, model) == set()


def exchange_on(model: nn.Module) -> None:
    with patch(model, fog()) as p:
        p.set_alpha(fog=0.5)


def test_a_signature_travels_by_pickle_and_is_verified_again() -> None:
    data = pickle.dumps(fog())
    again = pickle.loads(data)
    assert again == fog() and again.payload == fog().payload
    assert all(bits_of(again.delta(n)) == bits_of(fog().delta(n)) for n in fog().names)
    payload = fog().payload
    at = data.index(payload) + len(payload) // 2
    with pytest.raises(ValueError, match=r"sha256 is .* the file was damaged or replaced"):
        pickle.loads(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def patch_for_a_moment(
    model: nn.Module, signature: RobustWeightSignature, seen: "multiprocessing.Queue[dict[str, bytes]]", go: object
) -> None:
    """In another process: patch a model, tell what it is now, wait, and take the patch off."""
    p = patch(model, signature)
    seen.put(bits(model))
    go.wait(_LIMIT)  # type: ignore[attr-defined]
    p.unpatch()


@pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])
def test_a_model_in_shared_memory_is_patched_for_all(method: str) -> None:
    context = multiprocessing.get_context(method)
    model = tiny_resnet()
    model.share_memory()
    clean, plain = bits(model), tiny_resnet()
    patch(plain, fog())
    seen, go = context.Queue(), context.Event()
    process = context.Process(target=patch_for_a_moment, args=(model, fog(), seen, go))
    process.start()
    try:
        assert seen.get(timeout=_LIMIT) == bits(model) == bits(plain)
    finally:
        go.set()
        process.join(_LIMIT)
    assert process.exitcode == 0 and changed(clean, model) == set()


def pull(cache: str, folder: str) -> str:
    """In another process: load a signature from the Hub into one cache, and tell its digest."""
    signature = RobustWeightSignature.from_pretrained("alice/resnet-fog", cache_dir=cache)
    assert sorted(p.name for p in Path(cache).iterdir() if p.name.startswith("models--")) == [folder]
    return signature.config.digest


@pytest.mark.parametrize("several", [2, 8])
def test_processes_that_pull_into_one_cache_all_get_it_whole(several: int, hub: Hub, tmp_path: Path) -> None:
    fog().push_to_hub("alice/resnet-fog", token=hub.alice)
    work = [(str(tmp_path / "cache"), "models--alice--resnet-fog")] * several
    with multiprocessing.get_context("fork").Pool(several) as pool:
        found = pool.starmap_async(pull, work, chunksize=1).get(_LIMIT)
    assert set(found) == {fog().config.digest}
    files = [f for f in (tmp_path / "cache").rglob("*") if f.is_file() and f.suffix == ".incomplete"]
    assert not files


def test_threads_that_load_one_artifact_all_get_it_whole(tmp_path: Path) -> None:
    folder, found, errors = saved(tmp_path / "fog"), [], []

    def load() -> None:
        try:
            found.extend(RobustWeightSignature.from_pretrained(folder) for _ in range(5))
        except Exception as error:  # told below, in the main thread
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_LIMIT)
    assert not errors and len(found) == 20 and all(signature == fog() for signature in found)
