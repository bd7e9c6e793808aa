"""Faults at every step that Python's auditing sees, as a program: its threads must not be those of the tests.

    python tests/fault_enumeration.py FOLDER

Prints what `test_faults.py` looks at. `benchmarks/trust/faults.py` sees the calls of other languages, too.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fault_cases
from fault_cases import NEW, OLD, Case, small_signature
from fault_points import after, disturbed, forked, fresh, outcome

_CHANGES = {"os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.chmod", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FAULTS = {"kill -9": 0, "ENOSPC": errno.ENOSPC}
# The largest file that a process may write, in bytes: a real limit, in the middle of every file of an artifact.
SIZES = (0, 1000)


def watched(root: Path, act: Callable[[int], None]) -> None:
    """Call `act` with the number of every step that changes something below a folder, until the process ends."""
    count, inside = 0, False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, inside
        changes = event in _CHANGES or (event == "open" and arguments[2] & _WRITES)
        if not changes or inside or not _below(root, arguments[:2]):
            return
        count, inside = count + 1, True
        try:
            act(count)
        finally:
            inside = False

    sys.addaudithook(hook)


def _below(root: Path, names: tuple[Any, ...]) -> bool:
    paths = [os.fspath(n) for n in names if isinstance(n, (str, os.PathLike))]
    # What is named relative to an open folder is removed with it: nothing here is relative to anything else.
    return any(not Path(p).is_absolute() or p.startswith(str(root)) for p in paths)


def fail(error: int, at: int, number: int) -> None:
    """The fault, from the step number `at` on."""
    if number == at and not error:
        os.kill(os.getpid(), signal.SIGKILL)
    if number >= at and error:
        raise OSError(error, os.strerror(error))


def limit(size: int) -> None:
    """No file of this process may become larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def steps(case: Case, root: Path) -> int:
    """How many there are in the undisturbed operation."""
    fresh(case, root)

    def work() -> tuple[str, int]:
        seen: list[int] = []
        watched(root, seen.append)
        return outcome(case, root), len(seen)

    told, count = forked(work)
    assert told == "done" and forked(lambda: case.state(root)) == NEW, case.name
    return int(count)


def read_between(case: Case, root: Path, at: int) -> list[str]:
    """Somebody reads before one step; called in a child."""
    wrong: list[str] = []

    def read(number: int) -> None:
        if number == at and (state := case.state(root)) not in (OLD, NEW):
            wrong.append(f"read: {state}")

    watched(root, read)
    told = outcome(case, root)
    return wrong if told == "done" else [*wrong, told]


def all_faults(case: Case, root: Path) -> dict[str, tuple[int, list[str]]]:
    """For every fault, how many points and what was wrong at which."""
    count = steps(case, root)
    found: dict[str, tuple[int, list[str]]] = {}
    for label, error in FAULTS.items():
        wrong = []
        for at in range(1, count + 1):
            wrong += [
                f"step {at}: {w}" for w in disturbed(case, root, partial(watched, root, partial(fail, error, at)))[1]
            ]
        found[label] = (count, wrong)
    limits = [f"{size} bytes: {w}" for size in SIZES for w in disturbed(case, root, partial(limit, size))[1]]
    found["a file may not become larger"] = (len(SIZES), limits)
    wrong = []
    for at in range(1, count + 1):
        fresh(case, root)
        wrong += [f"step {at}: {w}" for w in forked(partial(read_between, case, root, at)) + after(case, root)[1]]
    found["somebody reads"] = (count, wrong)
    return found


def main(folder: Path) -> None:
    """Every case in a folder of its own."""
    small_signature(seed=1), small_signature(seed=2), small_signature(seed=3)  # made once, not in every child
    told = {}
    for make in (
        fault_cases.save_new,
        fault_cases.save_over,
        partial(fault_cases.apply, sharded=False),
    ):
        scratch = folder / str(len(told))
        scratch.mkdir()
        case = make(scratch)
        told[case.name] = all_faults(case, folder / "root")
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
