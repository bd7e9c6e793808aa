"""What a test does to the server besides talking HTTP to it: inject faults and read the request log."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class LoggedRequest:
    """One request as the server saw it; `path` is not decoded and header names are lower-case."""

    origin: Literal["hub", "cdn"]
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body_size: int
    status: int

    def __str__(self) -> str:
        return f"{self.status} {self.origin} {self.method} {self.path}" + (f"?{self.query}" if self.query else "")


class RequestLog:
    """The requests answered so far, oldest first."""

    def __init__(self) -> None:
        self._requests: list[LoggedRequest] = []

    def add(self, request: LoggedRequest) -> None:
        """Record one request."""
        self._requests.append(request)

    def clear(self) -> None:
        """Forget everything seen so far."""
        self._requests.clear()

    def matching(self, path: str = "", method: str | None = None) -> list[LoggedRequest]:
        """Requests whose path contains a match of the regular expression `path`."""
        return [r for r in self._requests if re.search(path, r.path) and method in (None, r.method)]

    def __iter__(self) -> Iterator[LoggedRequest]:
        return iter(list(self._requests))

    def __len__(self) -> int:
        return len(self._requests)

    def __str__(self) -> str:
        return "\n".join(map(str, self._requests))


@dataclass
class Fault:
    """Something to go wrong with `times` requests that match, after the first `skip` of them.

    With `status` the request is not handled, but answered with that status, `headers` and `message`; with `drop`
    "before" it is not handled either, and the connection is closed without a word.
    Otherwise it is handled, and then: with `drop` "after" the connection is closed, and nobody hears of it; `cut` keeps
    only the first bytes of the answer's body and then closes the connection; `change` makes another body of it, whose
    length is told. `before` runs first in either case, in a thread of its own, so it may use the client or wait.
    """

    path: str
    method: str | None = None
    status: int | None = None
    message: str = "injected fault"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    before: Callable[[], object] | None = None
    times: int = 1
    skip: int = 0
    drop: Literal["before", "after"] | None = None
    change: Callable[[bytes], bytes] | None = None
    hits: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Whether this request is hit; counts the hit."""
        if self.method not in (None, method) or re.search(self.path, path) is None:
            return False
        if self.skip:
            self.skip -= 1
            return False
        struck = self.hits < self.times
        self.hits += struck
        return struck
