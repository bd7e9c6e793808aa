"""Starts the server on loopback, in a daemon thread of this process."""

import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from .app import Application
from .state import Hub


@dataclass(frozen=True)
class RunningHub:
    """A Hub that answers, until it is stopped."""

    hub: Hub
    folder: Path
    _server: uvicorn.Server
    _thread: threading.Thread

    def stop(self) -> None:
        """Close the server's sockets and wait for its thread to end."""
        self._server.should_exit = True
        self._thread.join(timeout=5)


def _listener() -> socket.socket:
    # The explicit protocol makes asyncio switch off Nagle's algorithm, which would cost 40 ms per answer.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def start(folder: Path) -> RunningHub:
    """Serve a new Hub, which keeps what it must on disk in `folder`, at 127.0.0.1 and its CDN at localhost.

    The names differ because clients before 2.0 tell origins apart by host name only. Both sockets listen
    before this returns, so requests wait for the thread instead of failing.
    """
    sockets = [_listener(), _listener()]
    port, cdn_port = (listener.getsockname()[1] for listener in sockets)
    hub = Hub(folder / "xorbs", f"http://127.0.0.1:{port}", f"http://localhost:{cdn_port}")
    config = uvicorn.Config(
        Application(hub),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        # The client keeps connections; closing idle ones would race with its next request.
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, name="hub", daemon=True)
    thread.start()
    return RunningHub(hub, folder, server, thread)
