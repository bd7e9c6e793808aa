"""What handlers receive and return: a parsed request, a route table, JSON, pages and byte ranges."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from .state import Hub


@dataclass(frozen=True)
class Call:
    """One HTTP request, read completely; `args` are the decoded parts of its path."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes
    args: Mapping[str, str] = field(default_factory=dict)

    def first(self, name: str, default: str = "") -> str:
        """First value of a query parameter."""
        return self.query[name][0] if name in self.query else default

    def flag(self, name: str) -> bool:
        """Whether a query parameter is true."""
        return self.first(name).lower() in ("true", "1")

    def json(self) -> dict[str, Any]:
        """Decode the body, which may be empty, as a JSON object."""
        decoded = json.loads(self.body or b"{}")
        return decoded if isinstance(decoded, dict) else {}


Handler = Callable[["Hub", Call], Response]


class Routes:
    """Handlers by method and path.

    Patterns match the path as sent, before decoding: revisions such as `refs/pr/1` travel as
    `refs%2Fpr%2F1`, and would be indistinguishable from folders afterwards. In a pattern `{repo}` is one
    or two segments, a name in `{braces*}` takes the rest of the path, any other name is one segment.
    """

    def __init__(self) -> None:
        self._table: list[tuple[str, re.Pattern[str], Handler]] = []

    def on(self, method: str, pattern: str) -> Callable[[Handler], Handler]:
        """Register the decorated handler; GET answers HEAD too."""

        def part(match: re.Match[str]) -> str:
            name, rest = match[1], match[2]
            return f"(?P<{name}>{'.+' if rest else '[^/]+(?:/[^/]+)?' if name == 'repo' else '[^/]+'})"

        compiled = re.compile(re.sub(r"\{(\w+)(\*?)\}", part, pattern.replace(".", r"\.")))

        def register(handler: Handler) -> Handler:
            self._table.append((method, compiled, handler))
            return handler

        return register

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler for a raw path, with the decoded parts of the path."""
        wanted = "GET" if method == "HEAD" else method
        for registered, pattern, handler in self._table:
            if registered == wanted and (match := pattern.fullmatch(path)):
                return handler, {name: unquote(value) for name, value in match.groupdict().items()}
        return None


def page(hub: "Hub", call: Call, items: Sequence[object], size: int) -> Response:
    """One page of a list, with a `Link` header if there is more."""
    size = min(size, int(call.first("limit", str(size))))
    start = int(call.first("cursor", "0"))
    headers = {}
    if start + size < len(items):
        query = urlencode({**call.query, "cursor": str(start + size)}, doseq=True)
        headers["Link"] = f'<{hub.url}{call.path}?{query}>; rel="next"'
    return JSONResponse(items[start : start + size], headers=headers)


def file_bytes(call: Call, data: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """A file, or the part of it that a `Range` header asks for."""
    status, total = 200, len(data)
    found = dict(headers or {})
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("range", ""))
    if wanted and (wanted[1] or wanted[2]):
        if wanted[1]:
            start, last = int(wanted[1]), int(wanted[2] or total - 1)
        else:
            start, last = max(0, total - int(wanted[2])), total - 1
        last = min(last, total - 1)
        if start > last:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{total}"})
        data, status = data[start : last + 1], 206
        found["Content-Range"] = f"bytes {start}-{last}/{total}"
    return Response(data, status, found | {"Accept-Ranges": "bytes"}, "application/octet-stream")
