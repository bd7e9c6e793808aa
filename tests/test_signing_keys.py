"""Private keys that cannot sign or should not, and disks that fail while something is signed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from published import REPO, files_of, fog
from test_signing import folder, keys, load

from rws_hub import SigningError
from rws_hub.cli import main

__all__ = ["folder", "keys"]  # fixtures

_LIMITED = """
import resource, sys
from rws_hub.cli import main
import model_signing.signing
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), hard))
sys.exit(main(["sign", *sys.argv[2:]]))
"""


def test_a_key_from_a_pipe(tmp_path, keys):
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(keys[0].read_bytes())
    fog().save_pretrained(tmp_path / "piped", sign=f"/dev/fd/{reading}")
    os.close(reading)
    assert load(tmp_path / "piped", public_key=keys[1]) == fog()


def test_keys_that_cannot(folder, tmp_path, keys):
    other = ed25519.Ed25519PrivateKey.generate()
    how = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "ed.pem").write_bytes(other.private_bytes(*how, serialization.NoEncryption()))
    locked = serialization.load_pem_private_key(keys[0].read_bytes(), None)
    (tmp_path / "locked.pem").write_bytes(locked.private_bytes(*how, serialization.BestAvailableEncryption(b"x")))
    (tmp_path / "empty.pem").touch()
    for name, words in (("ed.pem", "P-256"), ("alice.pub", "private half"), ("locked.pem", "<\\(openssl pkey")):
        with pytest.raises(SigningError, match=words):
            fog().save_pretrained(tmp_path / "new", sign=tmp_path / name)
    rsa_key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "rsa.pem").write_bytes(rsa_key.private_bytes(*how, serialization.NoEncryption()))
    public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "rsa.pub").write_bytes(rsa_key.public_key().public_bytes(*public))
    for name, words in (("rsa.{}", "it is an RSA key; expected an elliptic curve key"), ("", "is a folder; name the")):
        with pytest.raises(SigningError, match=words):
            fog().save_pretrained(tmp_path / "new", sign=tmp_path / name.format("pem"))
        with pytest.raises(SigningError, match=words) as caught:
            load(folder, public_key=tmp_path / name.format("pub"))
        assert "attribute" not in str(caught.value)
    for name in ("alice.pem", "empty.pem", "fog/config.json"):
        with pytest.raises(SigningError, match="public half"):
            load(folder, public_key=tmp_path / name)
    for call in (lambda k: load(folder, public_key=k), lambda k: fog().save_pretrained(tmp_path / "new", sign=k)):
        with pytest.raises(FileNotFoundError):
            call(tmp_path / "missing.pem")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.name != "posix", reason="who may read a file is said otherwise there")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620])
def test_a_private_key_that_lies_open_is_refused(folder, keys, hub, capsys, tmp_path, mode):
    before = files_of(folder)
    keys[0].chmod(mode)
    for words in (("sign", folder, keys[0]), ("push", folder, REPO, "--sign", keys[0])):
        assert main(list(map(str, words))) == 1
        said = capsys.readouterr().err
        assert f"{keys[0]}: is open to others than its owner (mode 0{mode:o}, expected 0600)" in said
        assert f"chmod 600 {keys[0]}" in said
    with pytest.raises(SigningError, match="is open to others"):
        fog().save_pretrained(tmp_path / "new", sign=keys[0])
    assert files_of(folder) == before and not (tmp_path / "new").exists() and len(hub.log) == 0
    for fine in (0o600, 0o400):
        keys[0].chmod(fine)
        assert main(["sign", str(folder), str(keys[0])]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits what a process may write")
@pytest.mark.parametrize(("size", "named"), [(1000, "fog/config.json: File too"), (0, "a temporary folder: No usable")])
def test_a_disk_without_room_is_named_and_nothing_is_half_signed(folder, keys, tmp_path, size, named):
    before = files_of(folder)
    room = tmp_path / "room"
    room.mkdir()
    command = [sys.executable, "-c", _LIMITED, str(size), str(folder), str(keys[0])]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(room)})
    said, note = ran.stderr.splitlines()
    assert ran.returncode == 1 and named in said and (str(room) in said)
    assert note.startswith("note: nothing was signed or changed.") and "or set TMPDIR to another folder" in note
    assert files_of(folder) == before and not list(room.iterdir())


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file whose reading fails")
@pytest.mark.parametrize("part", ["key", "results.json", "config.json", "rws.safetensors"])
def test_a_file_that_cannot_be_read_is_named(folder, keys, capsys, monkeypatch, part):
    broken = keys[0] if part == "key" else folder / part
    before, real = files_of(folder), Path.open

    def opened(self, *arguments, **more):
        return real(Path("/proc/self/mem") if self == broken else self, *arguments, **more)

    monkeypatch.setattr(Path, "open", opened)
    assert main(["sign", str(folder), str(keys[0])]) == 1
    assert capsys.readouterr().err == f"error: {broken}: Input/output error\n"
    monkeypatch.undo()
    assert files_of(folder) == before
