"""The lock file: strict, small, written whole; and pins of local folders."""

import json
import os
from pathlib import Path

import pytest
from keys import key_pair
from published import files_of, fog, measured, saved

from rws_hub import CorruptArtifactError, FormatVersionError, RobustWeightSignature, VerificationError
from rws_hub import lock as locks
from rws_hub.cli import main
from rws_hub.disk import locked
from rws_hub.lock import MAX_LOCK_BYTES, Pin, find_pin, read_lock, write_lock

load = RobustWeightSignature.from_pretrained
SHA = "ab" * 32
DIGESTS = {"config.json": SHA, "rws.safetensors": SHA}
PIN = {"repo": "alice/fog", "revision": "cd" * 20, "sha256": DIGESTS}


def lock(*pins, **top):
    return json.dumps({"version": 1, "signatures": list(pins)} | top)


def without(pin, key):
    return {k: v for k, v in pin.items() if k != key}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "rws.lock"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that holds `fog`, and is the current one."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "fog")
    return tmp_path


@pytest.fixture
def rws(capsys):
    def run(*arguments):
        code = main([str(a) for a in arguments])
        return code, "".join(capsys.readouterr())

    return run


def test_written_and_read_again(file):
    pins = [
        Pin(repo="bob/b", subfolder="deep/er", revision="0" * 40, sha256=DIGESTS),
        Pin(repo="alice/a", revision="1" * 40, sha256=DIGESTS | {"figures/a.png": SHA, "model.sig": SHA}),
        Pin(folder="../fog", sha256=DIGESTS),
    ]
    write_lock(file, pins)
    text = file.read_text()
    assert sorted(read_lock(file).signatures, key=str) == sorted(pins, key=str)
    write_lock(file, reversed(pins))
    assert file.read_text() == text and text.endswith("}\n") and "null" not in text, "the order of pins is its own"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"version": 1, "version": 1, "signatures": []}', "occurs twice"),
        ("[]", "expected an object"),
        ("{}", "missing"),
        (lock(version="1"), "version: expected int"),
        (lock(version=0), "was never written"),
        (lock(version=True), "version: expected int"),
        (lock(more=1), "unknown key 'more'"),
        (lock(PIN | {"branch": "main"}), "unknown key 'branch'"),
        (lock(without(PIN, "sha256")), "'sha256' is missing"),
        (lock(without(PIN, "repo")), "either repo or folder"),
        (lock(PIN | {"folder": "fog"}), "either repo or folder"),
        (lock(PIN | {"repo": "../fog"}), "expected a Hub id"),
        (lock(PIN | {"revision": "main"}), "40 hex digits of a commit"),
        (lock(without(PIN, "revision")), "40 hex digits of a commit"),
        (lock({"folder": "fog", "revision": "cd" * 20, "sha256": DIGESTS}), "a folder has"),
        (lock({"folder": "", "sha256": DIGESTS}), "a folder has"),
        (lock(PIN | {"subfolder": "../x"}), "plain relative path"),
        (lock(PIN | {"subfolder": ""}), "not spelled plainly"),
        (lock(PIN | {"subfolder": "a/./b"}), "not spelled plainly"),
        (lock(PIN | {"subfolder": None}), "is null"),
        (lock(PIN | {"sha256": {}}), "config.json is not pinned"),
        (lock(PIN | {"sha256": without(DIGESTS, "rws.safetensors")}), "rws.safetensors is not pinned"),
        (lock(PIN | {"sha256": DIGESTS | {"../../.ssh/id": SHA}}), "no file of a signature"),
        (lock(PIN | {"sha256": DIGESTS | {"config.json": SHA.upper()}}), "64 hex digits"),
        (lock(PIN, PIN | {"revision": "ef" * 20}), "two pins of one place"),
        (" " * (MAX_LOCK_BYTES + 1), "at most"),
    ],
)
def test_what_is_no_lock_file(file, text, message):
    file.write_text(text)
    with pytest.raises(CorruptArtifactError, match=message) as caught:
        read_lock(file)
    assert str(file) in str(caught.value)


def test_a_newer_lock_file(file):
    file.write_text(lock(version=2, what="ever"))
    with pytest.raises(FormatVersionError, match="version 2"):
        read_lock(file)


def test_nothing_is_found_that_is_not_there(file):
    file.write_text(lock(PIN, PIN | {"subfolder": "b"}))
    assert find_pin(file, "alice/fog", None, "./b/").subfolder == "b"
    assert find_pin(file, "alice/fog", "cd" * 20, None).subfolder is None
    for source, subfolder in (("alice/snow", None), ("Alice/fog", None), ("alice/fog", "c"), (Path("alice/fog"), None)):
        with pytest.raises(VerificationError, match=r"pins no .*only alice/fog, alice/fog/b\. `rws lock` adds it"):
            find_pin(file, source, None, subfolder)
    with pytest.raises(VerificationError, match=r"revision='main' asks for another.*rws lock alice/fog@main"):
        find_pin(file, "alice/fog", "main", None)
    with pytest.raises(VerificationError, match=r"pins no alice/fog@main: leave @main out"):
        find_pin(file, "alice/fog@main", None, None)
    with pytest.raises(FileNotFoundError):
        find_pin(file.with_name("none"), "alice/fog", None, None)


# --- local folders


def test_a_folder(here, rws):
    assert rws("lock", "fog") == (0, "rws.lock: fog, 3 files\n")
    assert json.loads(Path("rws.lock").read_text())["signatures"][0]["folder"] == "fog"
    for source in ("fog", Path("fog"), here / "fog", "./fog/"):
        assert load(source, lock="rws.lock") == fog()
    assert rws("pull", "--lock", "rws.lock") == (0, "fog: fog, as pinned\n")
    assert rws("info", "fog", "--lock", "rws.lock")[0] == 0


def test_the_lock_file_travels_with_its_folders(here, rws, monkeypatch):
    (here / "deploy").mkdir()
    assert rws("lock", "fog", "-o", "deploy/rws.lock")[0] == 0
    assert json.loads(Path("deploy/rws.lock").read_text())["signatures"][0]["folder"] == "../fog"
    here.rename(here.with_name("elsewhere"))
    monkeypatch.chdir(here.with_name("elsewhere"))
    assert load("fog", lock="deploy/rws.lock") == fog()
    monkeypatch.chdir("deploy")
    assert load("../fog", lock="rws.lock") == fog()
    assert rws("pull", "--lock", "rws.lock")[0] == 0


def test_a_subfolder_of_a_folder(here, rws):
    saved(here / "many" / "snow", fog(2))
    assert rws("lock", "many", "--subfolder", "snow/")[0] == 0
    assert load("many", subfolder="snow", lock="rws.lock") == fog(2)
    assert rws("pull", "--lock", "rws.lock")[1].startswith("many/snow: many/snow, as pinned")
    with pytest.raises(VerificationError, match="pins no many, only many/snow"):
        load("many", lock="rws.lock")


@pytest.mark.parametrize("name", ["config.json", "rws.safetensors"])
def test_changed_files_of_a_folder(here, rws, name):
    rws("lock", "fog")
    two = files_of(saved(here / "two", fog(2)))
    (here / "fog" / name).write_bytes(two[name])
    with pytest.raises((VerificationError, CorruptArtifactError)):
        load("fog", lock="rws.lock")
    for other, data in two.items():
        (here / "fog" / other).write_bytes(data)
    with pytest.raises(VerificationError, match=r"vouches for: config\.json differs"):
        load("fog", lock="rws.lock")
    code, text = rws("pull", "--lock", "rws.lock")
    assert code == 1 and "config.json differs" in text


def test_files_too_many_or_too_few(here, rws):
    rws("lock", "fog")
    (here / "fog" / "results.json").write_text(measured(fog()).to_text())
    assert "results.json is not covered" in rws("pull", "--lock", "rws.lock")[1]
    assert rws("lock", "fog") == (0, "rws.lock: fog, 4 files, was other bytes\n")
    (here / "fog" / "README.md").unlink()
    assert "README.md is missing" in rws("pull", "--lock", "rws.lock")[1]


def test_signed_and_pinned(here, rws):
    private, public = key_pair(here)
    assert "is not signed" in rws("lock", "fog", "--verify", public)[1] and not Path("rws.lock").exists()
    rws("sign", "fog", private)
    assert rws("lock", "fog", "--verify", public) == (0, f"rws.lock: fog, 4 files, signature verified with {public}\n")
    assert load("fog", public_key=public, lock="rws.lock") == fog()
    assert rws("pull", "--lock", "rws.lock", "--verify", public)[0] == 0
    mallory = key_pair(here, "mallory")[1]
    assert "names another key" in rws("pull", "--lock", "rws.lock", "--verify", mallory)[1]
    (here / "fog" / "results.json").write_text(measured(fog()).to_text())
    assert "results.json is not covered" in rws("lock", "fog", "--verify", public)[1]


def test_what_cannot_be_pinned(here, rws):
    assert "named twice" in rws("lock", "fog", "./fog")[1]
    assert "neither a local folder" in rws("lock", "nothing")[1]
    assert "names no revision" in rws("lock", "alice/fog@")[1]
    (here / "fog" / "rws.safetensors").write_bytes(fog(2).payload)
    assert rws("lock", "fog")[0] == 1 and not Path("rws.lock").exists()
    Path("rws.lock").write_text("{}")
    assert "rws.lock: the key 'version' is missing" in rws("lock", "fog")[1]
    assert Path("rws.lock").read_text() == "{}"


def test_an_interrupted_write_leaves_the_old_file(here, rws, monkeypatch):
    rws("lock", "fog")
    before = Path("rws.lock").read_bytes()
    saved(here / "two", fog(2))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, text = rws("lock", "two")
    assert code == 1 and "No space left" in text
    assert Path("rws.lock").read_bytes() == before and not list(here.glob(".rws.lock*"))


def test_wrong_usage(here, capsys):
    for words in (["pull"], ["pull", "a/b", "--lock", "x"], ["pull", "--lock", "x", "--revision", "main"], ["lock"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2 and capsys.readouterr().err.startswith("usage: rws")


# --- two processes at once


def test_what_another_process_pins_meanwhile_stays(here, rws, monkeypatch):
    saved(here / "two", fog(2))
    pin_folder = locks.pin_folder

    def slow(folder, *arguments):
        monkeypatch.setattr(locks, "pin_folder", pin_folder)
        assert rws("lock", "two")[0] == 0  # begins later, and is done earlier
        return pin_folder(folder, *arguments)

    monkeypatch.setattr(locks, "pin_folder", slow)
    assert rws("lock", "fog")[0] == 0
    assert [p.folder for p in read_lock(Path("rws.lock")).signatures] == ["fog", "two"]


def test_a_lock_file_that_another_process_is_writing(here, rws, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE", 0.0)
    with locked(here, 0.0) as alone:
        assert alone
        code, text = rws("lock", "fog")
    assert code == 1 and "another process has been writing" in text and "run it again" in text
    assert not Path("rws.lock").exists()
    assert rws("lock", "fog")[0] == 0


# --- what was compared


@pytest.mark.parametrize("name", ["results.json", "figures/a.png"])
def test_info_compares_every_file_of_a_folder(here, rws, name):
    private, public = key_pair(here)
    rws("sign", "fog", private)
    rws("lock", "fog")
    text = rws("info", "fog", "--verify", public, "--lock", "rws.lock")[1]
    assert f"verifiedwith{public}:everyfilebutthecard" in "".join(text.split())
    assert "pinned      by rws.lock: every file\n" in text
    found = json.loads(rws("info", "fog", "--lock", "rws.lock", "--json")[1])
    assert (found["verified"], found["pinned"], found["compared"]) == (None, "rws.lock", "every file")
    assert json.loads(rws("info", "fog", "--json")[1])["compared"] is None
    other = measured(fog()).to_text().encode() if name == "results.json" else b"\x89PNG\r\n\x1a\n"
    (here / "fog" / name).parent.mkdir(exist_ok=True)
    (here / "fog" / name).write_bytes(other)
    (here / "fog" / "notes.txt").write_text("none of the artifact's")
    for option, value in (("--verify", public), ("--lock", "rws.lock")):
        code, text = rws("info", "fog", option, value)
        assert code == 1 and f"{name} is not covered" in text
    assert load("fog", public_key=public, lock="rws.lock") == fog(), "which reads two files, both covered"
