"""What the server keeps: repositories, their commits and references, and file contents."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from .errors import entry_not_found, revision_not_found
from .git import commit_id, lfs_pointer, object_id, tree_ids
from .xet import XetStore

# The extensions for which a new repository asks for large-file storage.
LFS_PATTERNS = (
    *("*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gz", "*.h5", "*.joblib", "*.lfs.*"),
    *("*.mlmodel", "*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb"),
    *("*.pickle", "*.pkl", "*.pt", "*.pth", "*.rar", "*.safetensors", "saved_model/**/*", "*.tar.*"),
    *("*.tar", "*.tflite", "*.tgz", "*.wasm", "*.xz", "*.zip", "*.zst", "*tfevents*"),
)
GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()


def timestamp() -> str:
    """The current time as the Hub writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class FileEntry:
    """A file of a commit; `sha256` is set for large files, whose `oid` is that of the pointer."""

    oid: str
    size: int
    sha256: str | None = None

    @property
    def etag(self) -> str:
        """What names the content for the client."""
        return self.sha256 or self.oid

    def lfs(self, digest_key: str) -> dict[str, object]:
        """The `lfs` object of listings, which name the digest differently."""
        pointer = lfs_pointer(self.sha256 or "", self.size)
        return {digest_key: self.sha256, "size": self.size, "pointerSize": len(pointer)}


Files = Mapping[str, FileEntry]


@dataclass(frozen=True)
class Commit:
    """A complete state of the files, with its history."""

    oid: str
    parents: tuple[str, ...]
    files: Files
    title: str
    message: str
    author: str
    date: str

    def folders(self) -> dict[str, str]:
        """Git id of every folder; the root is ""."""
        return tree_ids({path: entry.oid for path, entry in self.files.items()})

    def under(self, folder: str) -> dict[str, FileEntry]:
        """The files inside a folder, at any depth."""
        return {path: entry for path, entry in self.files.items() if path.startswith(f"{folder}/")}


@dataclass
class Discussion:
    """A discussion or, mostly, a pull request."""

    num: int
    title: str
    author: str
    is_pull_request: bool
    base: str
    status: str
    created: str
    events: list[dict[str, object]] = field(default_factory=list)
    merge_commit: str | None = None


@dataclass
class Repo:
    """A model repository."""

    id: str
    private: bool
    created: str
    gated: str | bool = False
    granted: set[str] = field(default_factory=set)
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """The user or organisation that owns the repository."""
        return self.id.split("/")[0]

    def revision(self, name: str) -> Commit:
        """The commit that a branch, tag, full reference or (short) commit id stands for."""
        for ref in (f"refs/heads/{name}", f"refs/tags/{name}", name):
            if ref in self.refs:
                return self.commits[self.refs[ref]]
        found = [oid for oid in self.commits if oid.startswith(name)] if re.fullmatch("[0-9a-f]{7,40}", name) else []
        if len(found) != 1:
            raise revision_not_found(name)
        return self.commits[found[0]]

    def writable_ref(self, name: str) -> str:
        """The reference that a commit to `name` moves: a branch or a pull request."""
        for ref in (f"refs/heads/{name}", name):
            if ref in self.refs and ref.startswith(("refs/heads/", "refs/pr/")):
                return ref
        raise revision_not_found(name)

    def history(self, commit: Commit) -> Iterator[Commit]:
        """The commit and its first parents, newest first."""
        yield commit
        while commit.parents:
            commit = self.commits[commit.parents[0]]
            yield commit

    def add_commit(self, ref: str, files: Files, title: str, author: str, message: str = "") -> Commit:
        """Commit on top of a reference, which is created if it does not exist."""
        parents: Sequence[str] = [self.refs[ref]] if ref in self.refs else []
        tree = tree_ids({path: entry.oid for path, entry in files.items()})[""]
        # Commits of one second must differ even if nothing else does.
        text = f"{title}\n\n{message}\n\nCommit-Number: {len(self.commits)}"
        oid = commit_id(tree, parents, author, int(time.time()), text)
        commit = Commit(oid, tuple(parents), dict(files), title, message, author, timestamp())
        self.commits[oid] = commit
        self.refs[ref] = oid
        return commit


class Store:
    """Every repository, and the contents of files, which all repositories share."""

    def __init__(self, xet: XetStore) -> None:
        self.xet = xet
        self.repos: dict[str, Repo] = {}
        self._blobs: dict[str, bytes] = {}
        self._lfs: dict[str, bytes] = {}
        # Parts of large files whose upload is not complete, by digest and number.
        self.parts: dict[tuple[str, int], bytes] = {}

    def clear(self) -> None:
        """Forget all repositories and contents."""
        self.repos.clear()
        self._blobs.clear()
        self._lfs.clear()
        self.parts.clear()
        self.xet.clear()

    def find(self, repo_id: str) -> Repo | None:
        """Look a repository up; the Hub ignores case."""
        return next((repo for repo in self.repos.values() if repo.id.lower() == repo_id.lower()), None)

    def create(self, repo_id: str, author: str, *, private: bool) -> Repo:
        """A new repository, with the first commit that the Hub makes by itself."""
        repo = self.repos[repo_id] = Repo(repo_id, private, timestamp())
        repo.add_commit("refs/heads/main", {".gitattributes": self.add_blob(GITATTRIBUTES)}, "initial commit", author)
        return repo

    def add_blob(self, data: bytes) -> FileEntry:
        """Keep the content of a regular file."""
        oid = object_id("blob", data)
        self._blobs[oid] = data
        return FileEntry(oid, len(data))

    def add_lfs(self, data: bytes) -> FileEntry:
        """Keep the content of a large file."""
        digest = sha256(data).hexdigest()
        self._lfs[digest] = data
        return self.lfs_entry(digest)

    def has_lfs(self, digest: str) -> bool:
        """Whether the content of a large file is known, whichever way it was uploaded."""
        return digest in self._lfs or self.xet.file_of(digest) is not None

    def lfs_entry(self, digest: str) -> FileEntry:
        """The entry of a large file whose content is known."""
        file = self.xet.file_of(digest)
        size = len(self._lfs[digest]) if file is None else file.size
        return FileEntry(object_id("blob", lfs_pointer(digest, size)), size, digest)

    def lfs_content(self, digest: str) -> bytes:
        """The content of a large file."""
        if digest not in self._lfs:
            file = self.xet.file_of(digest)
            if file is None:
                raise entry_not_found("Object not found")
            self._lfs[digest] = self.xet.content(file)
        return self._lfs[digest]

    def content(self, entry: FileEntry) -> bytes:
        """The content of any file."""
        return self._blobs[entry.oid] if entry.sha256 is None else self.lfs_content(entry.sha256)
