"""`rws.lock`: which commit of which repository, and which bytes, a deployment takes. Small, strict JSON; no network."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rws_hub import artifact, disk, jsonio
from rws_hub.config import is_repo_id
from rws_hub.errors import ArtifactError, CorruptArtifactError, FormatVersionError, VerificationError
from rws_hub.manifest import Manifest
from rws_hub.spec import CONFIG_FILE, PAYLOAD_FILE, Data

LOCK_FILE = "rws.lock"
LOCK_VERSION = 1
MAX_LOCK_BYTES = 2**20
# Seconds to wait for another process that writes the same lock file.
_PATIENCE = 10.0
_HEX40, _HEX64 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One signature of a lock file, in a repository at a commit or in a folder.

    Attributes:
        repo: Hub id; or
        folder: path of a local folder, relative to the lock file, with `/`.
        subfolder: where in it the signature is.
        revision: the commit, 40 hex digits; of a repository only.
        sha256: of every file of the signature, by its path.
    """

    repo: str | None = None
    folder: str | None = None
    subfolder: str | None = None
    revision: str | None = None
    sha256: dict[str, str]

    @property
    def place(self) -> tuple[str, str]:
        """Where it comes from; a lock file has one pin for each place."""
        return self.repo or f"{self.folder}", self.subfolder or ""

    @property
    def label(self) -> str:
        """The same in one word."""
        return "/".join(filter(None, self.place))


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file."""

    version: int
    signatures: tuple[Pin, ...]


def read_lock(file: Path) -> Lock:
    """Read a lock file.

    Raises:
        FileNotFoundError: there is none.
        FormatVersionError: a newer version of it.
        CorruptArtifactError: naming the first value that does not hold.
    """
    if (size := file.stat().st_size) > MAX_LOCK_BYTES:
        raise CorruptArtifactError(f"{file}: {size:,} bytes; a lock file has at most {MAX_LOCK_BYTES:,}")
    data = jsonio.parse(file.read_bytes(), str(file))
    version = data.get("version") if isinstance(data, dict) else None
    if type(version) is int and version > LOCK_VERSION:
        raise FormatVersionError(
            f"{file}: version {version} of lock files; this rws-hub reads {LOCK_VERSION}. Upgrade it."
        )
    lock = jsonio.decode(Lock, data, str(file))
    if lock.version != LOCK_VERSION:
        raise CorruptArtifactError(f"{file}: version {lock.version} of lock files was never written")
    for i, pin in enumerate(lock.signatures):
        if reason := _why_not(pin):
            raise CorruptArtifactError(f"{file}: signatures[{i}]: {reason}")
    if len({p.place for p in lock.signatures}) < len(lock.signatures):
        raise CorruptArtifactError(f"{file}: two pins of one place; which of them holds?")
    return lock


def _why_not(pin: Pin) -> str | None:
    """What is wrong with a pin that is well-formed JSON."""
    if (pin.repo is None) is (pin.folder is None):
        return "expected either repo or folder"
    if pin.repo is not None and not (is_repo_id(pin.repo) and _HEX40.fullmatch(pin.revision or "")):
        return "expected a Hub id and the 40 hex digits of a commit"
    if pin.folder is not None and (pin.revision is not None or not pin.folder):
        return "a folder has a name, and no revision"
    try:
        artifact.require_plain(pin.subfolder)
    except ArtifactError as error:
        return str(error)
    if pin.subfolder is not None and pin.subfolder != str(PurePosixPath(pin.subfolder)):
        return f"subfolder {pin.subfolder!r} is not spelled plainly"
    if foreign := sorted(n for n in pin.sha256 if not artifact.belongs(n)):
        return f"{foreign[0]!r} is no file of a signature"
    if missing := [n for n in (CONFIG_FILE, PAYLOAD_FILE) if n not in pin.sha256]:
        return f"{missing[0]} is not pinned"
    wrong = [n for n, digest in pin.sha256.items() if not _HEX64.fullmatch(digest)]
    return f"sha256 of {wrong[0]}: expected 64 hex digits" if wrong else None


def write_lock(file: Path, pins: Iterable[Pin]) -> None:
    """Write a lock file, whole or not at all."""
    lock = Lock(LOCK_VERSION, tuple(sorted(pins, key=lambda p: p.place)))
    text = json.dumps(jsonio.to_json(lock), indent=2, ensure_ascii=False) + "\n"
    artifact.write_files(file.parent, {file.name: text.encode()})


def add_pins(file: Path, pins: Iterable[Pin]) -> dict[tuple[str, str], Pin]:
    """Add pins to a lock file, or replace those of the same places; what others pinned meanwhile stays.

    Returns:
        The pins that were there before, by their places.

    Raises:
        ArtifactError: another process keeps the lock file's folder for itself.
        FormatVersionError, CorruptArtifactError: as `read_lock`.
    """
    with disk.present(file.parent), disk.locked(file.parent, _PATIENCE) as alone:
        if alone is False:
            raise ArtifactError(
                f"{file}: another process has been writing in its folder for {_PATIENCE:.0f} s, and nothing was "
                "pinned; run it again when that is done"
            )
        before = {p.place: p for p in read_lock(file).signatures} if file.exists() else {}
        write_lock(file, (before | {p.place: p for p in pins}).values())
    return before


def find_pin(file: Path, source: str | Path, revision: str | None, subfolder: str | None) -> Pin:
    """The pin of a Hub id, or of a local folder.

    Raises:
        VerificationError: nothing is pinned there, or another revision is.
        FileNotFoundError, FormatVersionError, CorruptArtifactError: as `read_lock`.
    """
    artifact.require_plain(subfolder)
    wanted = str(PurePosixPath(subfolder)) if subfolder else None
    pins = read_lock(file).signatures
    pin = next((p for p in pins if p.subfolder == wanted and _is_of(p, file, source)), None)
    if pin is None:
        known = ", ".join(p.label for p in pins) or "nothing"
        asked = f"{source}{'' if wanted is None else f' (subfolder {wanted})'}"
        name, at, ref = str(source).partition("@")
        if at and any(p.repo == name for p in pins):
            raise VerificationError(f"{file} pins no {asked}: leave @{ref} out, the lock file says which revision")
        raise VerificationError(f"{file} pins no {asked}, only {known}. `rws lock` adds it.")
    if revision not in (None, pin.revision):
        raise VerificationError(
            f"{file} pins {pin.label} at {pin.revision}, and revision={revision!r} asks for another; leave it out, or "
            f"pin that one: rws lock {pin.repo or pin.folder}@{revision}"
        )
    return pin


def pinned(pin: Pin, file: Path) -> Manifest:
    """What the files of a pin have to be."""
    return Manifest(str(file), pin.sha256)


def folder_of(pin: Pin, file: Path) -> Path:
    """The artifact's folder, of a pin that is of a local one."""
    return file.parent / f"{pin.folder}" / (pin.subfolder or "")


def pin_repo(repo: str, revision: str, subfolder: str | None, files: Mapping[str, Data]) -> Pin:
    """A pin of what is published at a commit."""
    plain = str(PurePosixPath(subfolder)) if subfolder else None
    return Pin(repo=repo, subfolder=plain, revision=revision, sha256=_digests(files))


def pin_folder(folder: Path, subfolder: str | None, file: Path, files: Mapping[str, Data]) -> Pin:
    """A pin of what lies in a local folder."""
    path = Path(os.path.relpath(folder, file.parent)).as_posix()
    plain = str(PurePosixPath(subfolder)) if subfolder else None
    return Pin(folder=path, subfolder=plain, sha256=_digests(files))


def _digests(files: Mapping[str, Data]) -> dict[str, str]:
    return {n: hashlib.sha256(files[n]).hexdigest() for n in sorted(files)}


def _is_of(pin: Pin, file: Path, source: str | Path) -> bool:
    if pin.repo is not None:
        return source == pin.repo
    return (file.parent / f"{pin.folder}").resolve() == Path(source).resolve()
