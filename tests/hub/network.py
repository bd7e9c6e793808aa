"""A guard against tests that reach out of this machine, for example to a host name fixed in a client."""

import ipaddress
import socket
from typing import Any

import pytest


class OutsideNetworkError(RuntimeError):
    """A test tried to reach an address outside loopback.

    Not an OSError: code that copes with broken connections must not cope with this one.
    """


def is_loopback(host: object) -> bool:
    """Whether a host name or address means this machine; no name is looked up."""
    if isinstance(host, bytes):
        host = host.decode()
    if host is None or host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _check(action: str, host: object, port: object) -> None:
    if not is_loopback(host):
        raise OutsideNetworkError(f"a test tried to {action} {host} (port {port}), which is not loopback")


def allow_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Python's sockets refuse other addresses; native code is not seen."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check_address(sock: socket.socket, address: Any) -> None:
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            _check("connect to", address[0], address[1])

    def guarded_connect(self: socket.socket, address: Any) -> None:
        check_address(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        check_address(self, address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        _check("look up", host, port)
        return getaddrinfo(host, port, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
