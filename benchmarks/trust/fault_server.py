"""The Hub that `faults.py` disturbs: that of tests/hub, in a process of its own, with what goes wrong in it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from hub import Hub, start

REPO = "alice/resnet-fog"
THEIRS = b"\nA second person wrote this.\n"
_SLOW = 0.3


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else b""


# Label -> arguments of a fault of the server in tests/hub.
FAULTS: dict[str, dict[str, Any]] = {
    "connection dropped before the request is read": {"drop": "before"},
    "connection dropped after it was carried out": {"drop": "after"},
    "connection dropped in the middle of the answer": {"cut": 20},
    "429 with Retry-After": {"status": 429, "headers": {"Retry-After": "0"}},
    "500": {"status": 500},
    "503": {"status": 503},
    "404": {"status": 404},
    "404 of a file": {"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}},
    "one bit of the answer is wrong": {"change": _flipped},
    "half of the answer, told as all of it": {"change": lambda body: body[: len(body) // 2]},
    "slow": {"before": lambda: time.sleep(_SLOW)},
}


@dataclass(frozen=True)
class Remote:
    """A Hub in another process: calls of its methods, and of those here, by name."""

    pipe: Connection
    process: Any

    def ask(self, name: str, *arguments: Any, **options: Any) -> Any:
        """What the server's side returns."""
        self.pipe.send((name, arguments, options))
        found = self.pipe.recv()
        if isinstance(found, Exception):
            raise found
        return found


def _serve(pipe: Connection, folder: Path) -> None:
    running = start(folder)
    hub = running.hub
    own: dict[str, Callable[..., Any]] = {
        "url": lambda: hub.url,
        "reset": hub.reset,
        "put": lambda repo, files: hub.put(repo, files).oid,
        "fault": lambda label, skip, times: bool(hub.fault("", skip=skip, times=times, **FAULTS[label])),
        "kill": lambda pid, skip: bool(hub.fault("", skip=skip, before=lambda: os.kill(pid, signal.SIGKILL))),
        "come": lambda skip: bool(hub.fault("", skip=skip, before=lambda: _other(hub))),
        "wrote": lambda: _wrote(hub),
        "heal": lambda: hub._faults.clear(),
        "requests": lambda: [str(r) for r in hub.log],
        "forget": hub.log.clear,
        "commits": lambda: len(hub.repo(REPO).commits) if hub.store.find(REPO) else 0,
        "requested": lambda: len(hub.repo(REPO).discussions) if hub.store.find(REPO) else 0,
        "files": lambda revision: _files(hub, revision),
        "crashes": lambda: [repr(c) for c in hub.crashes],
    }
    while True:
        try:
            name, arguments, options = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(own[name](*arguments, **options))
        except Exception as error:
            pipe.send(RuntimeError(f"{name}: {error!r}"))


def _files(hub: Hub, revision: str) -> dict[str, bytes]:
    if hub.store.find(REPO) is None:
        return {}
    found = hub.head(REPO, revision).files
    return {n: hub.read(REPO, n, revision) for n in found if n != ".gitattributes"}


def _other(hub: Hub) -> None:
    """Somebody else's commit in the middle of ours: a sentence more in the card."""
    hub.put(REPO, {"README.md": hub.read(REPO, "README.md") + THEIRS})


def _wrote(hub: Hub) -> bool:
    """Whether that happened."""
    commits = hub.repo(REPO).commits.values() if hub.store.find(REPO) else ()
    return any(THEIRS in hub.store.content(c.files["README.md"]) for c in commits if "README.md" in c.files)


def served(folder: Path) -> Remote:
    """A Hub for all operations here; it ends with this process."""
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, folder), daemon=True)
    process.start()
    theirs.close()
    return Remote(ours, process)
