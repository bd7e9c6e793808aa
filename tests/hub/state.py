"""The Hub as a test holds it: users, contents, settings, faults and the request log."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Literal

from .control import Fault, RequestLog
from .store import LFS_PATTERNS, Commit, FileEntry, Repo, Store
from .xet import XetStore


@dataclass(frozen=True)
class User:
    """Who a token stands for, and what it allows."""

    name: str
    orgs: tuple[str, ...] = ()
    read_only: bool = False

    def owns(self, namespace: str) -> bool:
        """Whether the namespace is the user's own or that of an organisation they belong to."""
        return namespace == self.name or namespace in self.orgs


class Hub:
    """One server's state. Its own event loop changes it; tests look at it between requests."""

    alice = "hf_alice"
    """Token of `alice`, a member of `acme`."""
    alice_read = "hf_alice_read"
    """Token of `alice` that may only read."""
    bob = "hf_bob"
    """Token of `bob`, who belongs to no organisation."""
    bad_token = "hf_revoked"
    """A token that nobody has."""
    org = "acme"

    def __init__(self, xet_folder: Path, url: str, cdn_url: str) -> None:
        self.url = url
        self.cdn_url = cdn_url
        self.users: Mapping[str, User] = {
            self.alice: User("alice", (self.org,)),
            self.alice_read: User("alice", (self.org,), read_only=True),
            self.bob: User("bob"),
        }
        self.store = Store(XetStore(xet_folder))
        self.log = RequestLog()
        self._secret = token_hex()
        self.reset()

    def reset(self) -> None:
        """Back to an empty Hub with default settings."""
        self.store.clear()
        self.log.clear()
        self._faults: list[Fault] = []
        # Exceptions that are the server's own, or those of a fault's `before`.
        self.crashes: list[Exception] = []
        self.page_size = 1000
        # Files above this size are large whatever their name.
        self.lfs_threshold = 10_000_000
        # Large files above this size are uploaded in parts of it, outside Xet.
        self.part_size = 5_000_000

    def fault(
        self,
        path: str,
        *,
        method: str | None = None,
        status: int | None = None,
        message: str = "injected fault",
        headers: Mapping[str, str] | None = None,
        cut: int | None = None,
        before: Callable[[], object] | None = None,
        times: int = 1,
        skip: int = 0,
        drop: Literal["before", "after"] | None = None,
        change: Callable[[bytes], bytes] | None = None,
    ) -> Fault:
        """Arm a fault for requests whose raw path matches a regular expression; its `hits` count up."""
        self._faults.append(Fault(path, method, status, message, headers or {}, cut, before, times, skip, drop, change))
        return self._faults[-1]

    def next_fault(self, method: str, path: str) -> Fault | None:
        """The fault that hits this request, if any."""
        return next((fault for fault in self._faults if fault.strikes(method, path)), None)

    def repo(self, repo_id: str) -> Repo:
        """A repository, whoever may see it."""
        found = self.store.find(repo_id)
        if found is None:
            raise KeyError(repo_id)
        return found

    def head(self, repo_id: str, revision: str = "main") -> Commit:
        """The commit that a revision stands for."""
        return self.repo(repo_id).revision(revision)

    def read(self, repo_id: str, path: str, revision: str = "main") -> bytes:
        """The content of a file as the server has it."""
        return self.store.content(self.head(repo_id, revision).files[path])

    def put(self, repo_id: str, files: Mapping[str, bytes | None], branch: str = "main") -> Commit:
        """Commit files (None deletes) as their owner, without HTTP; makes the repository if it is missing."""
        author = repo_id.split("/")[0]
        repo = self.store.find(repo_id) or self.store.create(repo_id, author, private=False)
        after: dict[str, FileEntry] = dict(repo.revision(branch).files)
        for path, data in files.items():
            if data is None:
                del after[path]
            elif any(fnmatch(path, pattern) for pattern in LFS_PATTERNS):
                after[path] = self.store.add_lfs(data)
            else:
                after[path] = self.store.add_blob(data)
        return repo.add_commit(repo.writable_ref(branch), after, "Change files", author)

    def web_url(self, repo: Repo) -> str:
        """Address of a repository's page, which the client takes apart."""
        return f"{self.url}/{repo.id}"

    def signature(self, path: str) -> str:
        """What makes an address on the CDN usable without a token."""
        return sha256(f"{self._secret} {path}".encode()).hexdigest()[:16]

    def signed_url(self, path: str) -> str:
        """Address of a path on the CDN, usable without a token."""
        return f"{self.cdn_url}{path}?signature={self.signature(path)}"
