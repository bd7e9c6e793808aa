"""What is told of one operation and one fault at all its points."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

Row = dict[str, Any]


class Told:
    """Grows point by point, and becomes a row of the result."""

    def __init__(self, operation: str, fault: str, points: int) -> None:
        self.points = points
        self._operation, self._fault, self._since = operation, fault, time.monotonic()
        self._ends: Counter[str] = Counter()
        self._failures: dict[int, list[str]] = {}

    def add(self, at: int, end: str, wrong: list[str]) -> None:
        """How the operation ended with the fault at this point, and what was wrong afterwards."""
        if end:
            self._ends[end if end in ("done", "killed") else "refused"] += 1
        if wrong:
            self._failures[at] = wrong

    def row(self) -> Row:
        """For the result; printed, too."""
        found = {
            "operation": self._operation,
            "fault": self._fault,
            "points": self.points,
            "survived": self.points - len(self._failures),
            "ends": dict(self._ends),
            "failures": [f"{at}: {w}" for at, wrong in self._failures.items() for w in wrong],
            "seconds": round(time.monotonic() - self._since, 1),
        }
        print(found, flush=True)
        return found
