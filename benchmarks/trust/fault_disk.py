"""Faults of the disk at every call that changes it, in whatever library; another process between every two."""

from __future__ import annotations

import ctypes
import errno
import os
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fault_cases import NEW, OLD, Case
from fault_points import after, disturbed, forked, fresh, outcome
from fault_told import Row, Told

from rws_hub.errors import RWSError

WATCH, KILL, FULL, BROKEN, ONCE, PAUSE = range(6)
# Label -> what goes wrong, and with which number. "from there on": until the process ends.
FAULTS = {
    "kill -9": (KILL, 0),
    "ENOSPC from there on": (FULL, errno.ENOSPC),
    "EDQUOT from there on": (FULL, errno.EDQUOT),
    "EIO once": (ONCE, errno.EIO),
    "EIO from there on": (BROKEN, errno.EIO),
    "EACCES from there on": (BROKEN, errno.EACCES),
    "EROFS from there on": (BROKEN, errno.EROFS),
}
FEW = ("kill -9", "ENOSPC from there on", "EIO from there on")
_HOOK = ctypes.CFUNCTYPE(None, ctypes.c_long)
# Seconds after which a second writer is taken to wait for the first one.
_WAITING = 0.3


class Shim:
    """The library that has to be preloaded into this process (`fault_shim.c`)."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fault_disarm.restype = ctypes.c_long
        self._hook: Any = None

    def arm(self, root: Path, at: int, kind: int, error: int, hook: Callable[[int], None] | None = None) -> None:
        """From now on, count, and let the call number `at` go wrong."""
        self._hook = _HOOK(hook or (lambda number: None))
        self._library.fault_arm(str(root).encode(), ctypes.c_long(at), kind, error, self._hook)

    def disarm(self) -> int:
        """How many calls there were."""
        return int(self._library.fault_disarm())


def points(case: Case, root: Path, shim: Shim) -> int:
    """How many calls of the undisturbed operation change the disk."""
    fresh(case, root)

    def work() -> tuple[str, int]:
        shim.arm(root, -1, WATCH, 0)
        told = outcome(case, root)
        return told, shim.disarm()

    told, count = forked(work)
    state = forked(lambda: case.state(root))
    if (told, state) != ("done", NEW) or not count:
        raise SystemExit(f"{case.name}: undisturbed it ends in {told}, {state} after {count} calls")
    return int(count)


def enumerate_faults(case: Case, root: Path, shim: Shim, chosen: dict[str, tuple[int, int]]) -> list[Row]:
    """A row for every fault."""
    rows = []
    for label, (kind, error) in chosen.items():
        told = Told(case.name, label, points(case, root, shim))
        for at in range(1, told.points + 1):
            arm = partial(shim.arm, root, at, kind, error)
            told.add(at, *disturbed(case, root, arm, shim.disarm))
        rows.append(told.row())
    return rows


def between(case: Case, root: Path, shim: Shim, *, reads: bool) -> Row:
    """Another process comes in between every two calls: it reads, or does the same (or `case.other`) itself."""
    what = f"another process {'reads' if reads else 'writes'} in between"
    told = Told(case.name, what, points(case, root, shim))
    come = partial(_read if reads else _write, case, root)
    for at in range(1, told.points + 1):
        fresh(case, root)
        wrong = forked(partial(_visited, case, root, shim, at, come))
        state, after_it = after(case, root)
        if state not in (NEW, "other"):
            wrong.append(f"state: {state}")
        told.add(at, "", wrong + after_it)
    return told.row()


def _visited(case: Case, root: Path, shim: Shim, at: int, come: Callable[[list[str]], int | None]) -> list[str]:
    """What goes wrong where somebody else comes before the call number `at`; called in a child."""
    wrong: list[str] = []
    waiting: list[int | None] = []
    shim.arm(root, at, PAUSE, 0, lambda number: waiting.append(come(wrong)) if number == at else None)
    told = outcome(case, root)
    shim.disarm()
    wrong += [f"error: {told}"] if told not in ("done", "refused") else []
    for child in filter(None, waiting):
        wrong += ["the other one failed"] if os.waitpid(child, 0)[1] else []
    return wrong


def _read(case: Case, root: Path, wrong: list[str]) -> None:
    state = forked(partial(case.state, root))
    wrong += [] if state in (OLD, NEW) else [f"read: {state}"]


def _write(case: Case, root: Path, wrong: list[str]) -> int | None:
    """Begin another process; it if it is not done soon, since it waits for ours."""
    child = os.fork()
    if not child:
        os.closerange(3, 256)  # a lock of ours would be theirs, too
        try:
            (case.other or case.run)(root)
        except (RWSError, OSError):
            pass
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + _WAITING
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            wrong += ["the other one failed"] if status else []
            return None
        time.sleep(0.002)
    return child
