"""The ASGI application: reads a request, injects faults, finds the handler, logs, answers."""

import asyncio
from dataclasses import replace
from secrets import token_hex
from typing import Literal
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from . import api_commits, api_discussions, api_files, api_lfs, api_refs, api_repos, api_xet
from .control import Fault, LoggedRequest
from .errors import HubError
from .http import Call, Routes
from .state import Hub

_HUB = (api_repos, api_refs, api_commits, api_discussions, api_lfs, api_xet, api_files)
_CDN = (api_lfs, api_xet, api_files)


class Application:
    """Serves one Hub on two addresses: the Hub's own and that of its CDN."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._cdn_port = int(hub.cdn_url.rsplit(":", 1)[1])
        self._tables: dict[bool, list[Routes]] = {
            False: [module.routes for module in _HUB],
            True: [module.cdn_routes for module in _CDN],
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request, query = Request(scope, receive), scope["query_string"].decode()
        path, on_cdn = scope["raw_path"].decode(), scope["server"][1] == self._cdn_port
        parsed = parse_qs(query, keep_blank_values=True)
        call = Call(request.method, path, parsed, dict(request.headers), await request.body())
        fault = self._hub.next_fault(call.method, call.path)
        try:
            if fault is not None and fault.before is not None:
                # In another thread, so that it may send requests to this server.
                await asyncio.to_thread(fault.before)
            if fault is not None and fault.drop == "before":
                return self._drop(send)
            response = self._answer(call, fault, on_cdn=on_cdn)
        except HubError as error:
            response = JSONResponse(error.body, error.status, error.headers)
        except Exception as error:  # kept for the test, which fails with it
            self._hub.crashes.append(error)
            response = JSONResponse({"error": repr(error)}, 500, {"X-Error-Message": type(error).__name__})
        response.headers["X-Request-Id"] = call.headers.get("x-amzn-trace-id", token_hex(8))
        origin: Literal["hub", "cdn"] = "cdn" if on_cdn else "hub"
        size, status = len(call.body), response.status_code
        self._hub.log.add(LoggedRequest(origin, call.method, path, query, call.headers, size, status))
        if fault is not None and fault.drop == "after":
            return self._drop(send)
        if fault is not None and fault.change is not None:
            headers = {k: v for k, v in response.headers.items() if k != "content-length"}
            response = Response(fault.change(bytes(response.body)), response.status_code, headers)
        if fault is None or fault.cut is None:
            await response(scope, receive, send)
        else:
            await self._send_cut(response, fault.cut, send)

    def _answer(self, call: Call, fault: Fault | None, *, on_cdn: bool) -> Response:
        if on_cdn and call.headers.get("authorization", "").startswith("Bearer hf_"):
            raise HubError(400, "A Hub token reached the CDN")
        if fault is not None and fault.status is not None:
            raise HubError(fault.status, fault.message, headers=fault.headers)
        for table in self._tables[on_cdn]:
            if found := table.find(call.method, call.path):
                handler, args = found
                return handler(self._hub, replace(call, args=args))
        raise HubError(501, f"This server does not support {call.method} {call.path}")

    @staticmethod
    def _drop(send: Send) -> None:
        """Close the connection without an answer: uvicorn's `send` is a method of what holds it."""
        send.__self__.transport.abort()  # type: ignore[attr-defined]

    @staticmethod
    async def _send_cut(response: Response, size: int, send: Send) -> None:
        """Promise the whole body, send its beginning, and drop the connection."""
        start = {"status": response.status_code, "headers": response.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": bytes(response.body)[:size], "more_body": True})
        raise ConnectionAbortedError("the connection is dropped on purpose")
