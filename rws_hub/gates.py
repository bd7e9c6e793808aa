"""Forward passes that no change of a patch can happen in: `steady`; and one change at a time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from rws_hub.errors import PatchStateError
from rws_hub.shards import reshard

# Guards the three below. One for all models, so that a thread that is inside of one and comes to another can be told
# from those who come from outside, and so that a fork has one thing to wait for.
_moved = threading.Condition()
_open: set[_Block] = set()
_under_way: _Change | None = None
_forks = 0
_own = threading.local()
# What ends a program, or takes it out of what it does: Ctrl-C, servers that end their workers, time limits. Handlers of
# the operating system's own are none of Python's and are left alone.
_STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGABRT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)  # Windows has three of them
)


class _Block:
    """One `steady` block that somebody is inside of."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def holds(self, owners: Collection[nn.Module]) -> bool:
        return any(module in owners for module in self.model.modules())


class _Change:
    """What one thread is about to change, and whether it still waits for those inside: then it has changed nothing."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.owners: Collection[nn.Module] = ()
        self.waiting = False

    def shuts_out(self, block: _Block, *, from_inside: bool) -> bool:
        # Somebody who is inside already would wait for those who wait for him.
        return not (self.waiting and from_inside) and block.holds(self.owners)


@contextmanager
def steady(model: nn.Module) -> Iterator[None]:
    """No patch on the model changes inside of this block: a forward pass in it sees one state, whole.

    For a server that answers in some threads while another one changes strengths or signatures. Changes wait until
    every block that was begun is left, blocks that are begun meanwhile wait for the change; a change takes about as
    long as copying the weights that it touches. Blocks may lie inside of each other, of one model or of several; what
    must not be done inside is to wait for another thread that begins one. Outside of such a block a forward pass that
    runs at the same time as a change may see some tensors as before it and others as after it.

    Args:
        model: what is called inside, patched or not: a module, or a wrapper of it (torch.compile, DDP).

    Raises:
        PatchStateError: a patch is changed by the very thread that is inside, or the other way round.

    Example:
        >>> with steady(model):
        ...     logits = model(images)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"steady takes a live nn.Module, found {type(model).__name__}")
    block, own = _Block(model), _blocks()
    _refuse_within_change("`with steady(model)` cannot begin")
    try:
        with _moved:
            _moved.wait_for(lambda: not (_under_way and _under_way.shuts_out(block, from_inside=bool(own))))
            _open.add(block)
        own.append(block)
        yield
    finally:
        if block in own:
            own.remove(block)
        with _moved:
            _open.discard(block)
            _moved.notify_all()


@contextmanager
def change(owners: Collection[nn.Module]) -> Iterator[None]:
    """Nobody is inside a `steady` block of a model that holds one of these modules. Within `one_change`."""
    now = _under_way
    assert now is not None
    try:
        with _moved:
            now.owners, now.waiting = owners, True
            _moved.notify_all()  # a fork need not wait any more
            _moved.wait_for(lambda: not any(block.holds(owners) for block in _open))
            now.waiting = False
        yield
    finally:
        with _moved:
            now.owners, now.waiting = (), False
            _moved.notify_all()


@contextmanager
def one_change(model: nn.Module | None) -> Iterator[None]:
    """Nobody else changes a patch inside of this block, shards are where they are kept, and signals wait for its end.

    Raises:
        PatchStateError: this thread is inside of a `steady` block, or of another change, and would wait for itself.
    """
    global _under_way
    if _blocks():
        raise PatchStateError(
            "a patch cannot be changed inside of `with steady(model)` by the same thread; leave the block first. "
            "Nothing was changed."
        )
    _refuse_within_change("a patch cannot be changed")
    mine = _Change()
    with _uninterrupted():  # outside, so that a handler that had to wait may change patches
        try:
            with _moved:
                _moved.wait_for(lambda: _under_way is None and not _forks)
                _under_way = mine
            if model is not None:
                reshard(model)
            yield
        finally:
            with _moved:
                if _under_way is mine:
                    _under_way = None
                _moved.notify_all()


def _refuse_within_change(what: str) -> None:
    """A signal handler or a finalizer may run in the middle of a change."""
    if _under_way is not None and _under_way.thread == threading.get_ident():
        raise PatchStateError(
            f"{what} while this very thread changes a patch (in a signal handler, or in a finalizer?); set a flag "
            "there, and act on it later. Nothing was changed by this call."
        )


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals wait: what a handler raises between writing and writing down who did it would leave nobody to undo it.

    A second one of its kind is not kept waiting: a forward pass that never ends may hold everything up.
    """
    former = {s: h for s in _STOPPING if callable(h := signal.getsignal(s))}
    if threading.current_thread() is not threading.main_thread() or not former:
        yield
        return
    waiting: list[tuple[int, Any]] = []
    process = os.getpid()

    def later(number: int, frame: Any) -> None:
        # A forked child is no part of the change.
        if os.getpid() != process or any(number == other for other, _ in waiting):
            former[signal.Signals(number)](number, frame)
        waiting.append((number, frame))

    for number in former:
        signal.signal(number, later)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        _tell([(former[signal.Signals(n)], n, frame) for n, frame in dict(waiting).items()])


def _tell(waiting: list[tuple[Any, int, Any]]) -> None:
    """Call handlers one after the other, whichever of them raises."""
    for at, (handler, number, frame) in enumerate(waiting):
        try:
            handler(number, frame)
        except BaseException:
            _tell(waiting[at + 1 :])
            raise


def _blocks() -> list[_Block]:
    """Those that this thread is inside of."""
    found: list[_Block] | None = getattr(_own, "blocks", None)
    if found is None:
        found = _own.blocks = []
    return found


def _before_fork() -> None:
    """A child gets a copy of the weights and no other thread: let no change be half done, and hold the only lock."""
    global _forks
    _moved.acquire()
    _forks += 1  # goes before the next change
    _moved.wait_for(lambda: _under_way is None or _under_way.waiting or _under_way.thread == threading.get_ident())


def _after_fork_in_parent() -> None:
    global _forks
    _forks -= 1
    _moved.notify_all()
    _moved.release()


def _after_fork_in_child() -> None:
    """The threads that were inside, or waiting to change something, are not here."""
    global _moved, _under_way, _forks
    _moved, _forks = threading.Condition(), 0
    _open.intersection_update(_blocks())
    if _under_way is not None and _under_way.thread != threading.get_ident():
        _under_way = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
