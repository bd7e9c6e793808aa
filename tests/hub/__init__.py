"""A Hugging Face Hub on loopback, for tests with the real client. See README.md for what it supports."""

from .control import Fault, LoggedRequest, RequestLog
from .serve import RunningHub, start
from .state import Hub, User
from .store import Commit, FileEntry, Repo

__all__ = [
    "Commit",
    "Fault",
    "FileEntry",
    "Hub",
    "LoggedRequest",
    "Repo",
    "RequestLog",
    "RunningHub",
    "User",
    "start",
]
