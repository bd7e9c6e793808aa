"""Scratch folders, locks and names: what a process leaves that ends at any moment, and what the next one does."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rws_hub import disk

_KILLED = """
import os, signal, sys
from pathlib import Path
from rws_hub.disk import scratch_folder, write
with scratch_folder(Path(sys.argv[1]), "fog") as scratch:
    write(scratch / "half", b"x")
    if sys.argv[2] == "wait":
        print("now", flush=True)
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def process(folder: Path, what: str) -> "subprocess.Popen[bytes]":
    paths = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", _KILLED, str(folder), what]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=paths)


def test_what_a_killed_process_left_goes_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    theirs = tmp_path / ".fog.backup"
    theirs.mkdir()
    with process(tmp_path, "die") as dead:
        dead.wait()
    (left,) = filter(disk.is_scratch, tmp_path.iterdir())
    with process(tmp_path, "wait") as living:
        assert living.stdout is not None and living.stdout.readline() == b"now\n"
        (held,) = set(filter(disk.is_scratch, tmp_path.iterdir())) - {left}
        disk.sweep(tmp_path)
        assert held.exists() and not left.exists() and theirs.exists()
        living.kill()
    with disk.scratch_folder(tmp_path, "snow"):
        pass
    assert list(tmp_path.iterdir()) == [theirs]


def test_parents_are_made_and_go_again(tmp_path: Path) -> None:
    with disk.scratch_folder(tmp_path / "a" / "b", "fog") as scratch:
        assert scratch.parent == tmp_path / "a" / "b"
    assert not list(tmp_path.iterdir())


def test_an_error_names_what_was_to_be_written_and_says_what_to_do(tmp_path: Path) -> None:
    target = tmp_path / "fog"
    for number, advice in {
        errno.ENOSPC: "make room there, or choose another place, and run it again",
        errno.EDQUOT: "make room there, or choose another place, and run it again",
        errno.EROFS: "choose a place that may be written to",
        errno.EIO: "look at that disk, or choose another place, and run it again",
    }.items():
        with pytest.raises(OSError) as caught, disk.scratch_folder(tmp_path, "fog") as scratch:
            raise OSError(number, os.strerror(number), str(scratch / "deep" / "file"))
        assert (caught.value.errno, caught.value.filename) == (number, str(target))
        assert caught.value.__notes__ == [f"{target} is as it was: {advice}"]
    with pytest.raises(FileNotFoundError) as other, disk.scratch_folder(tmp_path, "fog"):
        (tmp_path / "elsewhere").read_bytes()
    assert other.value.filename == str(tmp_path / "elsewhere")


def test_a_folder_for_one(tmp_path: Path) -> None:
    with disk.locked(tmp_path, 0.0) as first, disk.locked(tmp_path, 0.05) as second:
        assert first is True and second is False
    with disk.locked(tmp_path, 0.0) as again:
        assert again is True


def test_somebody_waits_for_the_other(tmp_path: Path) -> None:
    found: list[bool | None] = []

    def wait() -> None:
        with disk.locked(tmp_path, 60.0) as alone:
            found.append(alone)

    thread = threading.Thread(target=wait)
    with disk.locked(tmp_path, 0.0):
        thread.start()
        time.sleep(0.05)
        assert not found
    thread.join()
    assert found == [True]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_name_is_given_once(tmp_path: Path, kind: str) -> None:
    def make(name: str) -> Path:
        path = tmp_path / name
        if kind == "folder":
            path.mkdir()
        file = path / "content" if kind == "folder" else path
        file.write_text(name)
        return path

    disk.place(make("one"), tmp_path / "taken")
    with pytest.raises(FileExistsError, match="somebody else made it meanwhile"):
        disk.place(make("other"), tmp_path / "taken")
    taken = tmp_path / "taken"
    assert (taken / "content" if kind == "folder" else taken).read_text() == "one"


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(self: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_link)
    for name in ("one", "other"):
        (tmp_path / name).write_text(name)
    disk.place(tmp_path / "one", tmp_path / "taken")
    with pytest.raises(FileExistsError):
        disk.place(tmp_path / "other", tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "one"


def test_without_locks_nothing_is_swept_and_all_else_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with process(tmp_path, "die") as dead:
        dead.wait()
    monkeypatch.setattr(disk, "fcntl", None)
    (left,) = tmp_path.iterdir()
    with disk.scratch_folder(tmp_path, "fog") as scratch, disk.locked(tmp_path, 0.0) as alone:
        assert alone is None and scratch.is_dir()
    assert list(tmp_path.iterdir()) == [left]
