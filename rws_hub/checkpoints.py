"""The (sharded) safetensors behind a model reference.

Of a repository only `config.json` and the chosen safetensors files are fetched, all from one commit: a branch
is resolved by the first file, everything else comes from the commit it turned out to be. Pickles never are.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RemoteEntryNotFoundError

from rws_hub._version import __version__
from rws_hub.errors import CheckpointError
from rws_hub.places import LIBRARY
from rws_hub.references import Reference
from rws_hub.sources import INDEX_SUFFIX, checkpoint_files
from rws_hub.spec import CONFIG_FILE, FORMAT

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model" + INDEX_SUFFIX
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PICKLE = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|tar)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the Hub, as its client takes it."""

    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False

    def download(self, repo_id: str, filename: str, revision: str | None) -> Path | None:
        """A file in the cache; None only if the Hub says, or once said of this commit, that it does not exist."""
        if revision is not None and _COMMIT.fullmatch(revision) and self._is_known_to_lack(repo_id, filename, revision):
            return None
        try:
            path = hf_hub_download(
                repo_id,
                filename,
                revision=revision,
                token=self.token,
                cache_dir=self.cache_dir,
                local_files_only=self.local_files_only,
                library_name=LIBRARY,
                library_version=__version__,
            )
        except RemoteEntryNotFoundError:
            return None
        except LocalEntryNotFoundError:
            if not self._is_known_to_lack(repo_id, filename, revision):
                raise
            return None
        return Path(path)

    def _is_known_to_lack(self, repo_id: str, filename: str, revision: str | None) -> bool:
        found = try_to_load_from_cache(repo_id, filename, cache_dir=self.cache_dir, revision=revision)
        return found is not None and not isinstance(found, str)  # the client's mark of a file that does not exist

    def api(self) -> HfApi:
        """The client for everything but downloads."""
        return HfApi(token=self.token, library_name=LIBRARY, library_version=__version__)


@dataclass(frozen=True, slots=True)
class Located:
    """Files that are on this machine.

    Attributes:
        path: what was named, or the cache folder of one commit; the file or index in it where the cache holds
            other weights of that commit, too.
        label: what to call it in messages; for a repository a reference to this very commit.
        weights: the file or index, if it came from the Hub and weights were asked for.
        commit: of a repository.
    """

    path: Path
    label: str
    weights: Path | None = None
    commit: str | None = None

    @property
    def folder(self) -> Path:
        """Where the config is, if there is one."""
        return self.path if self.path.is_dir() else self.path.parent

    def config(self) -> dict[str, Any]:
        """The `config.json` that timm and transformers write.

        Raises:
            CheckpointError: there is none, or it is not a JSON object.
        """
        file = self.folder / CONFIG_FILE
        if not file.is_file():
            raise CheckpointError(
                f"{self.label} has no {CONFIG_FILE}, which would say how to build the model. Build it yourself and "
                "patch it: patch(model, signature)"
            )
        try:
            config = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.label}: {CONFIG_FILE} is not JSON ({error})") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{self.label}: {CONFIG_FILE} is not a JSON object")
        return config


def locate(reference: Reference, access: Access) -> Located:
    """The weights behind a reference, fetched if they are on the Hub.

    Raises:
        CheckpointError: a signature, no safetensors or several, or a damaged index.
        huggingface_hub.errors: as the client raises them.
    """
    if reference.path is not None:
        return _local(reference.path)
    repo_id = reference.repo_id
    usual = (access.download(repo_id, name, reference.revision) for name in (CONFIG_FILE, SINGLE_FILE, INDEX_FILE))
    first = next(filter(None, usual), None)
    commit = _commit(reference, access) if first is None else first.parent.name
    label = f"{repo_id}@{commit}"
    # Again, by the commit: the branch may have moved since it was said to have none.
    config = access.download(repo_id, CONFIG_FILE, commit)
    if config is not None:
        _refuse_signature(config.parent, label)  # before anything large is fetched
    chosen = access.download(repo_id, SINGLE_FILE, commit) or access.download(repo_id, INDEX_FILE, commit)
    if chosen is None:
        chosen = access.download(repo_id, _only_one(_names(repo_id, commit, access, config), label), commit)
    if chosen is None:
        raise CheckpointError(f"{label}: its weights are not there any more")
    for name in _shards(chosen):
        access.download(repo_id, name, commit)
    return Located(_clean(chosen), label, chosen, commit)


@contextlib.contextmanager
def tidy(found: Located) -> Iterator[Path]:
    """What `locate` found, for whoever takes along what lies beside the weights.

    For a repository a folder with links to its config and weights: what else the cache happens to hold of the
    commit must not make a difference.
    """
    if found.weights is None:
        yield found.path
        return
    with tempfile.TemporaryDirectory(prefix="rws-") as name:
        for file in {found.folder / CONFIG_FILE, found.weights, *checkpoint_files(found.weights)}:
            if file.is_file():
                _link(Path(name) / file.name, file)
        yield Path(name)


def locate_config(reference: Reference, access: Access) -> Located:
    """The `config.json` behind a reference, without weights.

    Raises:
        CheckpointError: there is none, or it is that of a signature.
        huggingface_hub.errors: as the client raises them.
    """
    if reference.path is not None:
        return _local(reference.path)
    config = access.download(reference.repo_id, CONFIG_FILE, reference.revision)
    if config is None:
        raise CheckpointError(f"{reference.repo_id} has no {CONFIG_FILE}, which would say how to build the model")
    commit = config.parent.name
    found = Located(config.parent, f"{reference.repo_id}@{commit}", None, commit)
    _refuse_signature(found.folder, found.label)
    return found


def _local(path: Path) -> Located:
    found = Located(path, path.name or str(path))
    if path.is_dir():
        _refuse_signature(path, found.label)
    return found


def _refuse_signature(folder: Path, label: str) -> None:
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # weights need no config
    if isinstance(config, dict) and config.get("format") == FORMAT:
        raise CheckpointError(
            f"{label} is a robust weight signature, not a model; name the model that it is to be added to"
        )


def _commit(reference: Reference, access: Access) -> str:
    """The commit of a repository that has none of the usual files."""
    if access.local_files_only:
        raise CheckpointError(f"{reference.repo_id} has no file of a usual name, so it cannot be read from the cache")
    commit = access.api().model_info(reference.repo_id, revision=reference.revision).sha
    if commit is None:
        raise CheckpointError(f"{reference.repo_id}: the Hub did not say which commit it is at")
    return commit


def _names(repo_id: str, commit: str, access: Access, config: Path | None) -> list[str]:
    """The files of a commit; offline those that are in the cache."""
    try:
        if not access.local_files_only:
            return access.api().list_repo_files(repo_id, revision=commit)
    except OfflineModeIsEnabled:
        pass
    return [] if config is None else [f.name for f in config.parent.iterdir()]


def _link(link: Path, file: Path) -> None:
    try:
        link.symlink_to(file.resolve())
    except OSError:  # a file system or an account that makes no links
        shutil.copyfile(file, link)


def _only_one(names: list[str], label: str) -> str:
    """The one checkpoint of a repository that has none of the usual name."""
    indices = sorted(n for n in names if "/" not in n and n.endswith(INDEX_SUFFIX))
    singles = sorted(n for n in names if "/" not in n and n.endswith(".safetensors"))
    found = indices or singles
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(
            f"{label} holds several checkpoints and none of them is {SINGLE_FILE}: {', '.join(found[:8])}"
            + (" ..." if len(found) > 8 else "")
            + ". Download the one that is meant and name the file"
        )
    if pickles := sorted(n for n in names if _PICKLE.fullmatch(n)):
        raise CheckpointError(
            f"{label} holds no .safetensors, only {pickles[0]}: a pickle can run code and is not read. If you "
            "trust it, load it with its own library and save it with save_pretrained (transformers), save_for_hf (timm)"
        )
    raise CheckpointError(f"{label} holds no .safetensors file")


def _shards(chosen: Path) -> list[str]:
    """Files that an index names; what is wrong with an index `checkpoint_files` says."""
    if not chosen.name.endswith(INDEX_SUFFIX):
        return []
    try:
        names = [n for n in json.loads(chosen.read_bytes())["weight_map"].values() if isinstance(n, str)]
    except (ValueError, KeyError, AttributeError, TypeError):
        return []
    return sorted({n for n in names if PurePosixPath(n).name == n and n.endswith(".safetensors")})


def _clean(chosen: Path) -> Path:
    """The folder of the chosen weights, unless the cache holds other weights of this commit, too."""
    files = checkpoint_files(chosen)
    try:
        return chosen.parent if checkpoint_files(chosen.parent) == files else chosen
    except CheckpointError:
        return chosen
