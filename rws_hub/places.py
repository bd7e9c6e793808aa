"""One signature's place on the Hub, and the unmodified client that goes there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

from rws_hub import artifact
from rws_hub._version import __version__
from rws_hub.downloads import LIBRARY, download, explained
from rws_hub.spec import SIGNATURE_FILE

_UNUSED = "nothing of it is used"
_OFFLINE = "offline: fetch it once online, or pin the cached commit (revision=, lock=)"


@dataclass(frozen=True, slots=True)
class Place:
    """A repository, or a subfolder of one, and how the client is to go there."""

    repo_id: str
    subfolder: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    force_download: bool = False
    local_files_only: bool = False

    @property
    def label(self) -> str:
        """What a message calls it."""
        return f"{self.repo_id}/{self._prefix}".rstrip("/")

    def download(self, filename: str, revision: str | None, proof: Callable[[Path], object] | None = None) -> Path:
        """One of its files, in the cache; `proof` as in `downloads.download`.

        Raises:
            CorruptArtifactError: twice other bytes than those that the Hub announced.
            huggingface_hub.errors: as the client raises them.
        """
        with explained(_UNUSED, self._again):
            return download(
                self.repo_id,
                self._prefix + filename,
                revision=revision,
                token=self.token,
                cache_dir=self.cache_dir,
                force_download=self.force_download,
                local_files_only=self.local_files_only,
                proof=proof,
            )

    def commit_of(self, config: Path) -> str:
        """The commit of a cached config: the cache keeps files as `snapshots/<commit>/<path in repository>`."""
        return config.parents[self._prefix.count("/")].name

    def files(self, commit: str) -> list[str]:
        """What it holds of a signature, by the paths in it."""
        with explained(_UNUSED, self._again):
            names = api_of(self.token).list_repo_files(self.repo_id, revision=commit)
        found = [n.removeprefix(self._prefix) for n in names if n.startswith(self._prefix)]
        return [n for n in found if artifact.belongs(n)]

    def is_signed(self, commit: str) -> bool | None:
        """Whether a signature file is there; None if that is not known offline."""
        try:
            self.download(SIGNATURE_FILE, commit, Path.exists)
        except RemoteEntryNotFoundError:
            return False
        except LocalEntryNotFoundError:
            return None
        return True

    @property
    def _again(self) -> str:
        return _OFFLINE if self.local_files_only or constants.HF_HUB_OFFLINE else "run it again in a moment"

    @property
    def _prefix(self) -> str:
        return f"{PurePosixPath(self.subfolder)}/" if self.subfolder else ""


def api_of(token: str | bool | None) -> HfApi:
    """The client, which tells the Hub who is calling."""
    return HfApi(token=token, library_name=LIBRARY, library_version=__version__)
