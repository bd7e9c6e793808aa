"""Git object ids, computed without git.

The client compares these ids with the ones it computes from local files, to skip unchanged files
and to name files in its cache; invented ids would switch that code off.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha1


def object_id(kind: str, body: bytes) -> str:
    """Id of a git object of `kind` ("blob", "tree" or "commit")."""
    return sha1(f"{kind} {len(body)}\0".encode() + body).hexdigest()


def tree_ids(blobs: Mapping[str, str]) -> dict[str, str]:
    """Id of every folder of a {path: blob id} mapping; the root is ""."""
    ids: dict[str, str] = {}
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    rows: list[tuple[bytes, bytes, str]] = []
    for path, oid in blobs.items():
        head, slash, rest = path.partition("/")
        if slash:
            folders[head][rest] = oid
        else:
            rows.append((head.encode(), b"100644", oid))
    for folder, inner in folders.items():
        inner_ids = tree_ids(inner)
        # git sorts a folder as if its name ended in a slash
        rows.append((folder.encode() + b"/", b"40000", inner_ids[""]))
        ids |= {f"{folder}/{name}".rstrip("/"): oid for name, oid in inner_ids.items()}
    body = (mode + b" " + name.rstrip(b"/") + b"\0" + bytes.fromhex(oid) for name, mode, oid in sorted(rows))
    return ids | {"": object_id("tree", b"".join(body))}


def commit_id(tree: str, parents: Sequence[str], author: str, seconds: int, message: str) -> str:
    """Id of a commit object with one author, who is the committer too."""
    stamp = f"{author} <{author}@hub.invalid> {seconds} +0000"
    lines = [f"tree {tree}", *(f"parent {p}" for p in parents), f"author {stamp}", f"committer {stamp}"]
    return object_id("commit", ("\n".join(lines) + f"\n\n{message}\n").encode())


def lfs_pointer(sha256: str, size: int) -> bytes:
    """What git stores in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
