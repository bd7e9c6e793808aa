"""Replacing several files of an artifact's folder at once: a reader finds all of the old ones or all of the new ones.

A folder that holds other things cannot be exchanged for another one. So the new files are collected in a folder of
this name inside of it, `config.json` goes to its place, and with that the change is made: what is still in the folder
goes before what lies beside it. Then the others go to their places. A kill leaves a folder that has a `config.json`,
which never counted, or one that has none, which goes on counting; the next writer removes the one and finishes the
other. What decides is the real `config.json`, whose digest its payload has to have, wherever that lies.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from rws_hub.disk import scratch_folder, write
from rws_hub.errors import ArtifactError
from rws_hub.spec import CARD_FILE, CONFIG_FILE, PAYLOAD_FILE, RESULTS_FILE, SIGNATURE_FILE, Data

PENDING = ".rws-pending"

Stamp = tuple[tuple[int, int, int] | None, ...]


def current(folder: Path, name: str) -> Path:
    """Where a file of an artifact is to be read, whether a change of it has come to its end or not."""
    pending = folder / PENDING
    counts = (pending / name).is_file() and not (pending / CONFIG_FILE).exists()
    return pending / name if counts else folder / name


def names(folder: Path, pattern: str) -> set[str]:
    """The files of an artifact whose paths in it match, wherever they lie."""
    places = [folder] if (folder / PENDING / CONFIG_FILE).exists() else [folder, folder / PENDING]
    return {f.relative_to(p).as_posix() for p in places for f in p.glob(pattern)}


def stamp(folder: Path) -> Stamp:
    """What changes whenever one of an artifact's files is replaced."""
    found: list[tuple[int, int, int] | None] = []
    for name in (CONFIG_FILE, PAYLOAD_FILE, RESULTS_FILE, CARD_FILE, SIGNATURE_FILE):
        try:
            stat = current(folder, name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def replace(folder: Path, files: Mapping[str, Data]) -> None:
    """Replace files of a folder that is there, all of them or none; `config.json` is one of them.

    Raises:
        OSError: with the name of what could not be written, and a note that says what to do.
    """
    settle(folder)
    with scratch_folder(folder, CONFIG_FILE) as scratch:
        for name, data in files.items():
            write(scratch / name, data)
        pending = scratch.rename(folder / PENDING)
        try:
            (pending / CONFIG_FILE).replace(folder / CONFIG_FILE)
        except BaseException:
            if (pending / CONFIG_FILE).exists():
                pending.rename(scratch)  # and goes as every scratch folder does
            raise
    settle(folder)


def settle(folder: Path) -> None:
    """Finish the change that a killed process has begun, or remove what it had not begun with.

    Raises:
        OSError: what counts already cannot be put in its place yet.
        ArtifactError: it would go out of the folder.
    """
    pending = folder / PENDING
    if not pending.is_dir():
        return
    if (pending / CONFIG_FILE).exists():
        # Never file by file: without its config.json it would count.
        with scratch_folder(folder, PENDING) as scratch:
            pending.rename(scratch / "never")
        return
    for file in sorted(f for f in pending.rglob("*") if f.is_file() and not f.is_symlink()):
        target = folder / file.relative_to(pending)
        if target.parent.is_symlink() or pending.is_symlink():
            raise ArtifactError(f"{target.parent} or {pending} is a link; delete what is not meant to be there")
        try:
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
        except FileNotFoundError:
            continue  # another process has done it
        except OSError as error:
            error.add_note(f"{folder} is as you wanted it already; the next run puts {target.name} in its place")
            raise
    shutil.rmtree(pending, ignore_errors=True)
