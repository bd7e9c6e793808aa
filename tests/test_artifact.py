"""The files of an artifact, one by one."""

import errno
import os
from pathlib import Path

import pytest
from forge import small_signature

from rws_hub import RobustWeightSignature, artifact
from rws_hub.errors import (
    ArtifactError,
    CardError,
    CorruptArtifactError,
    FormatVersionError,
    NotASignatureError,
)
from rws_hub.spec import CARD_FILE, CONFIG_FILE, MAX_CONFIG_BYTES, PAYLOAD_FILE

SMALL = small_signature()


@pytest.fixture
def folder(tmp_path):
    """A folder with nothing but config and payload."""
    home = tmp_path / "fog"
    artifact.write_files(home, {CONFIG_FILE: SMALL.config.to_text().encode(), PAYLOAD_FILE: SMALL.payload})
    return home


def test_config_and_payload_are_all_a_reader_needs(folder):
    assert artifact.read_config(folder) == SMALL.config
    assert artifact.verify_payload(folder, SMALL.config) == SMALL.payload
    assert artifact.read_results(folder) is None
    assert artifact.read_card(folder) is None
    assert RobustWeightSignature.from_pretrained(folder).config == SMALL.config


def remove(name):
    return lambda folder: (folder / name).unlink()


def replace(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


DAMAGES = {
    "no config": (remove(CONFIG_FILE), NotASignatureError, "no config.json there"),
    "config of another library": (
        replace(CONFIG_FILE, lambda b: b'{"model_type": "vit"}'),
        NotASignatureError,
        "is not that of a robust weight signature",
    ),
    "half a config": (replace(CONFIG_FILE, lambda b: b[: len(b) // 2]), CorruptArtifactError, "not valid JSON"),
    "config of a newer format": (
        replace(CONFIG_FILE, lambda b: b.replace(b'"format_version": 4', b'"format_version": 7')),
        FormatVersionError,
        "is of format 7",
    ),
    "huge config": (
        lambda folder: os.truncate(folder / CONFIG_FILE, MAX_CONFIG_BYTES + 1),
        CorruptArtifactError,
        "16,777,217 bytes; at most 16,777,216 are allowed",
    ),
    "changed licence": (
        replace(CONFIG_FILE, lambda b: b.replace(b"apache-2.0", b"mit")),
        CorruptArtifactError,
        "the digest does not hold",
    ),
    "no payload": (remove(PAYLOAD_FILE), CorruptArtifactError, "rws.safetensors is missing"),
    "half a payload": (replace(PAYLOAD_FILE, lambda b: b[: len(b) // 2]), CorruptArtifactError, "is truncated"),
    "too much payload": (replace(PAYLOAD_FILE, lambda b: b + b"x"), CorruptArtifactError, "is too long"),
    "another last byte": (
        replace(PAYLOAD_FILE, lambda b: b[:-1] + bytes([b[-1] ^ 1])),
        CorruptArtifactError,
        "the file was damaged or replaced",
    ),
    "folders for files": (
        lambda folder: [(folder / PAYLOAD_FILE).unlink(), (folder / PAYLOAD_FILE).mkdir()],
        CorruptArtifactError,
        "rws.safetensors is missing",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_folder_is_refused_and_named(case, folder):
    damage, kind, message = DAMAGES[case]
    damage(folder)
    with pytest.raises(ArtifactError) as caught:
        artifact.verify_payload(folder, artifact.read_config(folder))
    assert type(caught.value) is kind
    assert message in str(caught.value)
    with pytest.raises(kind):
        RobustWeightSignature.from_pretrained(folder)


def test_an_error_is_also_the_built_in_one_that_a_caller_would_catch(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        artifact.read_config(tmp_path)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(f"{tmp_path}: no config.json")


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (b"{}", NotASignatureError),
        (b'{"model_type": "vit"}', NotASignatureError),
        (b'{"rope": Infinity}', NotASignatureError),
        (b'{"a": 1, "a": 2}', NotASignatureError),
        (b"\xff", NotASignatureError),
        (b"[" * 100_000, NotASignatureError),
        (b'{"format": "rws", "format_version": 6}', FormatVersionError),
    ],
)
def test_what_may_not_be_written_over(config, kind):
    with pytest.raises(kind):
        artifact.require_replaceable(config, "config.json")


@pytest.mark.parametrize(
    "config", [SMALL.config.to_text().encode(), b'{"format": "rws"}', b'{"format": "rws", "format_version": 1}']
)
def test_signatures_may_be_written_over_even_damaged_ones(config):
    artifact.require_replaceable(config, "config.json")


def test_local_folders(folder):
    parent = folder.parent
    assert artifact.local_folder(folder, None, None) == folder
    assert artifact.local_folder(str(parent), None, "fog") == folder
    assert artifact.local_folder(parent / "nowhere", None, None) is None
    assert artifact.local_folder("", None, None) is None
    assert artifact.local_folder("a" * 5000, None, None) is None
    assert artifact.local_folder(folder, None, "") == folder
    with pytest.raises(NotASignatureError, match="is a file; name the folder that holds it"):
        artifact.local_folder(folder / CONFIG_FILE, None, None)
    with pytest.raises(ArtifactError, match="has no meaning there"):
        artifact.local_folder(folder, "main", None)


@pytest.mark.parametrize("subfolder", ["..", "../fog", "/fog", "a/../..", "a\\b", "."])
def test_a_subfolder_never_points_elsewhere(folder, subfolder):
    with pytest.raises(ArtifactError, match="must be a plain relative path"):
        artifact.local_folder(folder, None, subfolder)


def test_files_that_are_the_same_are_not_touched_and_nothing_else_is_left(folder):
    before = {f.name: f.stat() for f in folder.iterdir()}
    artifact.write_files(folder, {PAYLOAD_FILE: SMALL.payload, CONFIG_FILE: b"{}", "figures/a.png": b"png"})
    assert (folder / CONFIG_FILE).read_bytes() == b"{}"
    assert (folder / "figures" / "a.png").read_bytes() == b"png"
    after = (folder / PAYLOAD_FILE).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before[PAYLOAD_FILE].st_ino, before[PAYLOAD_FILE].st_mtime_ns)
    assert sorted(f.name for f in folder.iterdir()) == sorted([CONFIG_FILE, PAYLOAD_FILE, "figures"])
    assert [f.name for f in folder.parent.iterdir()] == ["fog"]


@pytest.mark.parametrize("failing", range(2))
def test_a_new_folder_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int):
    calls = iter(range(9))

    def fsync(descriptor):
        if next(calls) == failing:
            raise OSError("no space left")

    monkeypatch.setattr("rws_hub.disk.os.fsync", fsync)
    with pytest.raises(OSError, match="no space left"):
        artifact.write_files(tmp_path / "new", {"a": b"1", "b": b"2"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("known", [True, False], ids=["folder", "new folder"])
def test_a_full_disk_is_named(known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("rws_hub.disk.os.fsync", fsync)
    with pytest.raises(OSError, match="No space left") as caught:
        artifact.write_files(tmp_path if known else tmp_path / "new", {"a": b"1"})
    named = tmp_path / ("a" if known else "new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(named))
    assert caught.value.__notes__ == [
        f"{named} is as it was: make room there, or choose another place, and run it again"
    ]


def test_a_card_keeps_its_line_ends_and_must_be_text(folder):
    (folder / CARD_FILE).write_bytes("é\r\n".encode())
    assert artifact.read_card(folder) == "é\r\n"
    (folder / CARD_FILE).write_bytes(b"\xff")
    with pytest.raises(CardError, match=r"README\.md is not UTF-8"):
        artifact.read_card(folder)
