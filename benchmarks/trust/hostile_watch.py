"""What a reader of hostile files may take: processor time and memory, watched; and where the numbers are kept."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "hostile")]
RESULT = ROOT / "benchmarks" / "results" / "trust-hostile.json"
FOUND = ROOT / "tests" / "hostile" / "found"

# A mutant may take so much processor time, and so much memory beyond twice its own size.
SECONDS, MEMORY = 2.0, 16 * 2**20
# Address space beyond what the process has: what asks for more gets a MemoryError, which no loader of ours handles.
SPACE = 2**30


class TooLongError(Exception):
    """A reader used more processor time than it may."""


class Watch:
    """Processor time and memory of one call after the other."""

    def __init__(self) -> None:
        self._reset = os.open("/proc/self/clear_refs", os.O_WRONLY)
        self._now = os.open("/proc/self/statm", os.O_RDONLY)
        self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._page = resource.getpagesize()
        self.seconds = 0.0
        self.growth = 0
        self.entered = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Measure what happens inside.

        Raises:
            TooLongError: it took more than `SECONDS`.
        """
        self.entered += 1
        before = int(os.pread(self._now, 200, 0).split()[1]) * self._page
        os.pwrite(self._reset, b"5", 0)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds = time.process_time() - start
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.growth = max(0, self.highest() - before)

    def highest(self) -> int:
        """The most memory of this process since it was last reset, in bytes; what getrusage tells outlives an exec."""
        return int(os.pread(self._status, 8192, 0).partition(b"VmHWM:")[2].split()[0]) * 1024


def stop(number: int, frame: FrameType | None) -> None:
    """What the timer calls."""
    raise TooLongError(f"more than {SECONDS:g} s of processor time")


def limit_space() -> None:
    """No more address space than there is now, and `SPACE`."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    most = pages * resource.getpagesize() + SPACE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def keep(parser: str, data: bytes, why: str) -> None:
    """A found case as a small file of its own, for ever."""
    FOUND.mkdir(exist_ok=True)
    name = f"{parser}-{hashlib.sha256(data).hexdigest()[:12]}.json"
    case = {"parser": parser, "why": why, "input": base64.b64encode(data).decode()}
    (FOUND / name).write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8")


def read() -> dict[str, Any]:
    """What was measured so far."""
    found: dict[str, Any] = json.loads(RESULT.read_text("utf-8")) if RESULT.is_file() else {}
    return found


def write(part: str, found: dict[str, Any]) -> None:
    """One part of the results, beside the others."""
    import safetensors
    import torch

    import rws_hub

    machine = {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}
    versions = {
        "rws-hub": rws_hub.__version__,
        "torch": torch.__version__.partition("+")[0],
        "safetensors": safetensors.__version__,
    }
    about = {"command": "python benchmarks/trust/hostile.py", "seed": 0, "machine": machine, "versions": versions}
    whole = about | {k: v for k, v in read().items() if k not in about} | {part: found}
    scratch = RESULT.with_suffix(".part")
    scratch.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    scratch.replace(RESULT)
