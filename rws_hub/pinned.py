"""Files held to a key and a lock file: those of a local folder, and those that `rws pull --lock` fetches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rws_hub import artifact, hub, lock
from rws_hub.errors import ArtifactError
from rws_hub.hub import Found
from rws_hub.lock import Pin


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pinned signature, the folder that holds it, and whether it was written there just now."""

    pin: Pin
    folder: Path
    written: bool


def read_held(where: str, found: Found) -> dict[str, bytes]:
    """Every file of a local folder, all of them verified and of one state of it."""

    def read() -> dict[str, bytes]:
        manifests = found.vouched()
        artifact.read_verified(found.folder, manifests)
        files = artifact.read_files(found.folder)
        for manifest in manifests:
            manifest.require_all(where, files)
        return files

    return artifact.consistently(found.folder, read)


def pull(file: Path, out: Path, public_key: Path | None) -> list[Pulled]:
    """Fetch all that a lock file pins into folders below `out`, and compare those that are there already."""
    pins = lock.read_lock(file).signatures
    found = [(pin, *_fetched(pin, file, out, public_key)) for pin in pins]  # all of them, before any is written
    return [Pulled(pin, at, files is not None and _written(at, files, pin, file)) for pin, at, files in found]


def _fetched(pin: Pin, file: Path, out: Path, public_key: Path | None) -> tuple[Path, dict[str, bytes] | None]:
    """Where a pinned signature belongs, and its files if they have yet to be written there."""
    if pin.repo is None:
        folder = file.parent / f"{pin.folder}"
        found = hub.locate(folder, subfolder=pin.subfolder, public_key=public_key, lock=file)
        read_held(str(found.folder), found)
        return found.folder, None
    _, files = hub.pull(pin.repo, subfolder=pin.subfolder, public_key=public_key, lock=file)
    folder = out / pin.label
    if not folder.exists():
        return folder, files
    _require_pinned(folder, pin, file)
    return folder, None


def _written(folder: Path, files: Mapping[str, bytes], pin: Pin, file: Path) -> bool:
    """Write what is pinned; False if somebody else, who pulls the same, was quicker."""
    if not folder.exists():
        try:
            artifact.write_files(folder, files)
            return True
        except FileExistsError:
            if not folder.is_dir():
                raise
    _require_pinned(folder, pin, file)
    return False


def _require_pinned(folder: Path, pin: Pin, file: Path) -> None:
    """Refuse a folder that is there already and holds something else than what is pinned."""
    try:
        lock.pinned(pin, file).require_all(str(folder), artifact.read_files(folder))
    except ArtifactError as error:
        error.add_note(f"delete {folder}, or name another folder with -o; it is fetched again")
        raise
