"""What a user may call a model: a local path, or `namespace/name[@revision]` on the Hub. No network."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from rws_hub.config import is_repo_id
from rws_hub.errors import CheckpointError
from rws_hub.libraries import default_weights

_SCHEME = re.compile("hf[-_]hub:")
_FILE = re.compile(r".*\.(safetensors|json|bin|pt|pth|ckpt|npz)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user named: a local path, or a repository at a revision (None: its main branch)."""

    path: Path | None
    repo_id: str = ""
    revision: str | None = None


def parse(reference: str | Path, revision: str | None = None) -> Reference:
    """Read a reference; no network.

    Raises:
        CheckpointError: neither an existing path nor a Hub id, two revisions, or a bare `timm/name` without timm.
    """
    text = str(reference)
    scheme = _SCHEME.match(text) if isinstance(reference, str) else None
    if scheme is None and _exists(text):
        if revision is not None:
            raise CheckpointError(f"{text} is a local path; revision={revision!r} has no meaning there")
        return Reference(Path(text))
    repo_id, at, named = text[scheme.end() if scheme else 0 :].partition("@")
    if isinstance(reference, Path) or not is_repo_id(repo_id) or (scheme is None and _FILE.fullmatch(repo_id)):
        raise CheckpointError(_neither(text, repo_id))
    if at and (not named or revision not in (None, named)):
        wrong = "names no revision after the @" if not named else f"names another revision than revision={revision!r}"
        raise CheckpointError(f"{text!r} {wrong}")
    if scheme is None and repo_id.startswith("timm/") and "." not in repo_id:
        repo_id = default_weights(repo_id.removeprefix("timm/"))
    return Reference(None, repo_id, named or revision)


def timm_name(reference: str | Path) -> str | None:
    """What timm might call the model: the name in `timm/<name>`; None for anything else."""
    text = str(reference)
    named = isinstance(reference, str) and text.startswith("timm/") and is_repo_id(text) and not _exists(text)
    return text.removeprefix("timm/") if named else None


def _exists(text: str) -> bool:
    try:
        return text != "" and Path(text).exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _neither(text: str, repo_id: str) -> str:
    """What is wrong with something that is neither a path nor a Hub id."""
    shown = text[:200]
    if "://" in text:
        return f"{shown}: name the repository (namespace/name), not its address"
    if "/" in text or "\\" in text or _FILE.fullmatch(repo_id):
        return f"{shown}: no such file or folder"
    hint = f" (timm/{repo_id} for a model of timm)" if is_repo_id(f"timm/{repo_id}") else ""
    return f"{shown!r}: no such file or folder, and a Hub id is namespace/name{hint}"
