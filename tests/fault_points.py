"""An operation in a forked child with a fault at one point, and a look at what is left of it."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_cases import NEW, OLD, Case

from rws_hub.errors import RWSError


def forked(work: Callable[[], Any]) -> Any:
    """What `work` returns in a child process; None if the child was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                try:
                    told = work()
                except BaseException:
                    told = RuntimeError(traceback.format_exc())
                pickle.dump(told, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return None
    told = pickle.loads(data)
    if isinstance(told, RuntimeError):
        raise told
    return told


def outcome(case: Case, root: Path) -> str:
    """ "done", "refused", or the name of an error that is not one of ours."""
    try:
        code = case.run(root)
    except (RWSError, OSError):
        return "refused"
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__name__}: {error}"
    return "refused" if code else "done"


def temporary(root: Path) -> list[str]:
    """What is left of unfinished work."""
    return [p.relative_to(root).as_posix() for p in root.rglob("*") if ".rws-" in p.name or "incomplete" in p.name]


def fresh(case: Case, root: Path) -> None:
    """The state before the operation."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    case.prepare(root)


def disturbed(
    case: Case, root: Path, arm: Callable[[], object], disarm: Callable[[], object] | None = None
) -> tuple[str, list[str]]:
    """One fault, armed in the child: how the operation ended, and what is wrong after it and after the next run."""
    fresh(case, root)

    def work() -> str:
        arm()
        told = outcome(case, root)
        if disarm is not None:
            disarm()
        return told

    told = forked(work) or "killed"
    state, after_it = after(case, root)
    wrong = []
    if state not in (OLD, NEW):
        wrong.append(f"state: {state}")
    if told not in ("done", "refused", "killed"):
        wrong.append(f"error: {told}")
    if told == "done" and state != NEW:
        wrong.append(f"said that it was done, and left {state}")
    return told, wrong + after_it


def after(case: Case, root: Path) -> tuple[str, list[str]]:
    """The state, and what is wrong after the next run."""
    state, again, now = forked(lambda: (case.state(root), outcome(case, root), case.state(root)))
    wrong = []
    if now != NEW or (again != "done" and not (case.refuses and state == NEW)):
        wrong.append(f"next run: {again}, {now}")
    if left := temporary(root):
        wrong.append(f"left after the next run: {left}")
    return state, wrong
