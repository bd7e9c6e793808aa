"""One file from the Hub, by the unmodified client, with every byte that the Hub announced.

The client compares sizes. Its cache names a file by what the Hub says of its content, the id of a git blob or a
sha256, so that a file that was damaged on the way or on the disk can be told from one that was published so, and is
fetched once more. What is wrong again goes, unless the digests of the artifact itself hold: a mirror of the Hub may
name files by something else.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from rws_hub._version import __version__
from rws_hub.disk import reason
from rws_hub.errors import ArtifactError, CorruptArtifactError, RWSError

LIBRARY = "rws-hub"
_HEX = re.compile(r"[0-9a-f]+")
# Statuses that say nothing about what was asked for: too slow, too often, the Hub itself.
_PASSING = (408, 425, 429)


def download(
    repo_id: str,
    filename: str,
    *,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    proof: Callable[[Path], object] | None = None,
) -> Path:
    """Where the cache holds a file of a commit.

    `proof` raises an `ArtifactError` for a file that its own digests refuse; it is asked where the bytes are twice not
    those that the Hub announced. Without one such a file is never taken.

    Raises:
        CorruptArtifactError: twice other bytes than those that the Hub announced.
        huggingface_hub.errors: as the client raises them.
    """

    def fetch(force: bool) -> Path:
        found = hf_hub_download(
            repo_id,
            filename,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force,
            local_files_only=local_files_only,
            library_name=LIBRARY,
            library_version=__version__,
        )
        return Path(found)

    path = fetch(force_download)
    if local_files_only or constants.HF_HUB_OFFLINE or is_whole(path):
        return path
    path = fetch(True)
    if is_whole(path):
        return path
    with contextlib.suppress(ArtifactError):
        if proof is not None:
            proof(path)
            return path
    for damaged in (path.resolve(), path):
        damaged.unlink(missing_ok=True)
    raise CorruptArtifactError(
        f"{repo_id}/{filename}: twice other bytes arrived than those that the Hub announced. Nothing of it is used; "
        "try again later, or from another network"
    )


def is_whole(path: Path) -> bool:
    """Whether a file of the cache has the digest that it is named by; where it has no such name, True.

    Some mirrors of the Hub take the plain sha1 of a file.
    """
    name = path.readlink().name if path.is_symlink() else ""
    if len(name) == 64 and _HEX.fullmatch(name):
        return _sha256(path) == name
    if len(name) == 40 and _HEX.fullmatch(name):
        data = path.read_bytes()
        return name in (git_blob(data), hashlib.sha1(data, usedforsecurity=False).hexdigest())
    return True


@contextlib.contextmanager
def explained(state: str, again: str) -> Iterator[None]:
    """Add to the client's errors what the state of things is, and what to do.

    Args:
        state: such as "nothing was published".
        again: what helps if the network or the Hub itself failed.
    """
    try:
        yield
    except Exception as error:
        if not getattr(error, "__notes__", ()):
            if isinstance(error, OSError) and error.filename is not None:  # the disk that the cache is on
                error.add_note(f"{state}; {reason(error)}")
            elif is_passing(error) or isinstance(error, OfflineModeIsEnabled):
                error.add_note(f"{state}; {again}")
            elif isinstance(error, HfHubHTTPError):
                error.add_note(f"{state}; see whether the name, the revision and the token are right")
        raise


def is_passing(error: Exception) -> bool:
    """Whether an error that came through the client says nothing about what was asked for."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in _PASSING or status >= 500
    return not isinstance(error, (RWSError, OfflineModeIsEnabled))


def git_blob(data: bytes) -> str:
    """The id that git gives to a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
