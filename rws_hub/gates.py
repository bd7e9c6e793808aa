"""Forward passes that no change of a patch can happen in: `steady`."""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from rws_hub.errors import PatchStateError
from rws_hub.shards import reshard

# Held while patches are changed, and while a gate is made: one change at a time, and none past a new gate.
_changing = threading.RLock()
_gates: weakref.WeakKeyDictionary[nn.Module, _Gate] = weakref.WeakKeyDictionary()
_inside = threading.local()
# What ends a program, or takes it out of what it does: Ctrl-C, servers that end their workers, time limits. Handlers of
# the operating system's own are none of Python's and are left alone.
_STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGABRT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)  # Windows has three of them
)


class _Gate:
    """Many may be inside, or one may close it; who wants to close it goes first."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._inside = 0
        self._closed = False

    def enter(self, *, again: bool) -> None:
        with self._moved:
            # Somebody who is inside already would wait for those who wait for him.
            self._moved.wait_for(lambda: again or not self._closed)
            self._inside += 1

    def leave(self) -> None:
        with self._moved:
            self._inside -= 1
            self._moved.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        with self._moved:
            self._closed = True
        try:
            with self._moved:
                self._moved.wait_for(lambda: not self._inside)
            yield
        finally:
            with self._moved:
                self._closed = False
                self._moved.notify_all()


@contextmanager
def steady(model: nn.Module) -> Iterator[None]:
    """No patch on the model changes inside of this block: a forward pass in it sees one state, whole.

    For a server that answers in some threads while another one changes strengths or signatures. Changes wait until
    every block that was begun is left, blocks that are begun meanwhile wait for the change; a change takes about as
    long as copying the weights that it touches. Outside of such a block a forward pass that runs at the same time as
    a change may see some tensors as before it and others as after it.

    Args:
        model: what is called inside, patched or not: a module, or a wrapper of it (torch.compile, DDP).

    Raises:
        PatchStateError: a patch is changed by the very thread that is inside.

    Example:
        >>> with steady(model):
        ...     logits = model(images)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"steady takes a live nn.Module, found {type(model).__name__}")
    gate = _gates.get(model)
    if gate is None:
        with _changing:
            gate = _gates.setdefault(model, _Gate())
    depth = _depth()
    gate.enter(again=gate in depth)
    depth.append(gate)
    try:
        yield
    finally:
        depth.remove(gate)
        gate.leave()


@contextmanager
def change(owners: Collection[nn.Module]) -> Iterator[None]:
    """Nobody is inside a `steady` block of a model that holds one of these modules. Within `one_change`."""
    with ExitStack() as gates:
        for model, gate in list(_gates.items()):
            if any(module in owners for module in model.modules()):
                gates.enter_context(gate.closed())
        yield


@contextmanager
def one_change(model: nn.Module | None) -> Iterator[None]:
    """Nobody else changes a patch inside of this block, shards are where they are kept, and signals wait for its end.

    Raises:
        PatchStateError: this thread is inside of a `steady` block, and would wait for itself.
    """
    if _depth():
        raise PatchStateError(
            "a patch cannot be changed inside of `with steady(model)` by the same thread; leave the block first. "
            "Nothing was changed."
        )
    with _changing, _uninterrupted():
        if model is not None:
            reshard(model)
        yield


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

    def later(number: int, frame: Any) -> None:
        if any(number == other for other, _ in waiting):
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


def _depth() -> list[_Gate]:
    """The gates that this thread is inside of."""
    found: list[_Gate] | None = getattr(_inside, "gates", None)
    if found is None:
        found = _inside.gates = []
    return found
