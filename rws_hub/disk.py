"""Changing a disk so that a kill, a full disk or another process at any moment leaves the old state or the new one.

Everything is written into a scratch folder beside its place and renamed from there. A scratch folder is locked by the
process that fills it; one that nobody holds any more is what a killed process left, and the next one removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rws_hub.spec import Data

# Locks belong to an open folder and end with the process, however it ends. Windows has none of this kind: there,
# what a killed process left stays, and two writers of one folder are not kept apart.
try:
    import fcntl
except ModuleNotFoundError:
    fcntl = None  # type: ignore[assignment]

_OURS = re.compile(r"\..{1,100}\.rws-[a-z0-9_]{8}")
# How long another process may take to find out that it must not remove a scratch folder.
_SWEEPING = 10.0
_MEANWHILE = "somebody else made it meanwhile"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder beside `parent / name` (same file system, so that a rename is atomic), removed if it is still there.

    Raises:
        OSError: with the name of what was to be written, and a note that says what to do.
    """
    with _explained(parent / name), present(parent), contextlib.ExitStack() as until:
        sweep(parent)
        scratch = _locked_scratch(parent, name, until)
        until.callback(shutil.rmtree, scratch, ignore_errors=True)
        scratch.chmod(0o777 & ~_umask())
        yield scratch


@contextlib.contextmanager
def present(folder: Path) -> Iterator[None]:
    """A folder is there inside of this block; missing ones are made, and go again if nothing was put into them."""
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it holds what was written
                path.rmdir()


def sweep(folder: Path) -> None:
    """Remove the scratch folders in a folder that were left there by processes that are no more."""
    with contextlib.suppress(OSError):
        for found in [p for p in folder.iterdir() if is_scratch(p)]:
            with contextlib.suppress(OSError), locked(found, 0.0) as alone:
                if alone:
                    shutil.rmtree(found, ignore_errors=True)


def is_scratch(path: Path) -> bool:
    """Whether a path is that of a scratch folder, by its name alone."""
    return _OURS.fullmatch(path.name) is not None and not path.is_symlink()


@contextlib.contextmanager
def locked(folder: Path, seconds: float) -> Iterator[bool | None]:
    """Whether this process has a folder for itself inside of this block; None where no lock can be had.

    Args:
        folder: there already; nothing is written into it.
        seconds: how long to wait for somebody else, and then go on with False.
    """
    try:
        handle = None if fcntl is None else os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder that may be written but not read
        handle = None
    if handle is None:
        yield None
        return
    try:
        yield _lock(handle, seconds)
    finally:
        os.close(handle)


def write(file: Path, data: Data) -> None:
    """Write a file in a scratch folder, down to the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def place(file: Path, target: Path) -> None:
    """Give a finished file or folder its name, which nothing else may have by now.

    Raises:
        FileExistsError: somebody else has made it meanwhile; it is left as it is.
    """
    if file.is_dir():
        try:
            file.rename(target)  # over a folder only if that is empty
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
    else:
        try:
            target.hardlink_to(file)
            return
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not os.path.lexists(target):
                file.rename(target)
                return
    raise FileExistsError(errno.EEXIST, _MEANWHILE, str(target))


@contextlib.contextmanager
def naming(file: str | Path) -> Iterator[None]:
    """An error of the disk inside of this block names this file where the system names none, as of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(file)
        raise


def reason(error: OSError) -> str:
    """What to do about an error of the disk."""
    if error.errno in _FULL:
        return "make room there, or choose another place, and run it again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a place that may be written to"
    if error.errno == errno.EEXIST:
        return "choose another name (nothing is ever overwritten)"
    return "look at that disk, or choose another place, and run it again"


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        named = Path(str(error.filename or ""))
        if error.filename is None or any(map(is_scratch, (named, *named.parents))):
            error.filename, error.filename2 = str(target), None  # a full disk does not say where
        state = "is as they made it" if error.strerror == _MEANWHILE else "is as it was"
        error.add_note(f"{target} {state}: {reason(error)}")
        raise


def _locked_scratch(parent: Path, name: str, until: contextlib.ExitStack) -> Path:
    while True:
        scratch = Path(tempfile.mkdtemp(prefix=f".{name[:100]}.rws-", dir=parent))
        with contextlib.suppress(FileNotFoundError):
            until.enter_context(locked(scratch, _SWEEPING))
            if scratch.exists():
                return scratch
        # Between those two lines another process took it for one that nobody holds.


def _lock(handle: int, seconds: float) -> bool | None:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.01)
        except OSError:  # a file system without locks
            return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
