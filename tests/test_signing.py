"""Who made it: signatures of folders, by the real library, and that they never stay beside other files."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from keys import key_pair
from published import files_of, fog, measured, saved

from rws_hub import ArtifactError, RobustWeightSignature, signing
from rws_hub.bundle import statement
from rws_hub.cli import main
from rws_hub.contents import write_folder
from rws_hub.lock import read_lock
from rws_hub.parser import build_parser

load = RobustWeightSignature.from_pretrained
ROOT = Path(__file__).parent.parent


@pytest.fixture
def keys(tmp_path):
    return key_pair(tmp_path)


@pytest.fixture
def folder(tmp_path, keys):
    fog().save_pretrained(tmp_path / "fog", results=measured(fog()), sign=keys[0])
    return tmp_path / "fog"


def stock(*arguments):
    """The library's own command line."""
    return subprocess.run([sys.executable, "-m", "model_signing", *map(str, arguments)], capture_output=True, text=True)


# --- what holds


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_sign_and_verify(tmp_path, curve):
    private, public = key_pair(tmp_path, curve.name, curve)
    fog().save_pretrained(tmp_path / "fog", sign=private)
    assert load(tmp_path / "fog", public_key=public) == fog()
    assert set(statement((tmp_path / "fog/model.sig").read_bytes(), "").sha256) == {"config.json", "rws.safetensors"}


def test_everything_is_covered_but_the_card(folder, keys):
    covered = statement((folder / "model.sig").read_bytes(), "").sha256
    assert set(covered) == set(files_of(folder)) - {"README.md", "model.sig"} >= {"results.json"}
    (folder / "README.md").write_text("# Mine")
    assert load(folder, public_key=str(keys[1])) == fog()


def test_links_and_hidden_files_do_not_matter(folder, keys, tmp_path):
    cache, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    shutil.copytree(folder, blobs)
    cache.mkdir()
    for name in files_of(folder):
        (cache / name).symlink_to(blobs / name)
    (cache / ".git").mkdir()
    (cache / ".hidden").write_text("x")
    assert load(cache, public_key=keys[1]) == fog()
    (cache / "rws.safetensors").unlink()
    (cache / "rws.safetensors").symlink_to(tmp_path / "other")
    (tmp_path / "other").write_bytes(fog(2).payload)
    with pytest.raises(ArtifactError):
        load(cache, public_key=keys[1])


def test_the_librarys_own_command_agrees(folder, keys, tmp_path):
    ran = stock("verify", "key", folder, "--signature", folder / "model.sig", "--public_key", keys[1])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    theirs = saved(tmp_path / "theirs")
    ran = stock("sign", "key", theirs, "--signature", tmp_path / "out.sig", "--private_key", keys[0])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shutil.move(tmp_path / "out.sig", theirs / "model.sig")
    assert load(theirs, public_key=keys[1]) == fog()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the page's commands need openssl")
def test_the_pages_commands_make_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/SIGNING.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("openssl ")]
    assert len(lines) == 2
    for line in lines:
        subprocess.run(line.split(" #")[0].split(), check=True, capture_output=True)
    fog().save_pretrained("fog", sign="fog.key")
    assert load("fog", public_key="fog.pub") == fog()


def test_the_pages_commands_are_commands():
    lines = (ROOT / "docs/SIGNING.md").read_text("utf-8").splitlines()
    found = [re.sub(r"<\(.*\)", "KEY", line).partition("#")[0].split()[1:] for line in lines if line.startswith("rws ")]
    assert {words[0] for words in found} == {"info", "pull", "apply", "push", "sign", "lock"}
    for words in found:
        assert build_parser().parse_args(words).command == words[0]


def test_without_the_library(folder, keys):
    code = f"""
import sys
sys.modules["model_signing"] = sys.modules["model_signing._signing"] = None
from rws_hub.cli import main
print([main(["info", {str(folder)!r}, *more]) for more in ([], ["--verify", {str(keys[1])!r}])])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.endswith("[0, 1]\n") and "pip install 'rws-hub[sign]'" in ran.stderr, ran


# --- a signature never stays beside files that it does not cover


def test_saving_beside_a_signature(folder, keys):
    before = files_of(folder)
    fog().save_pretrained(folder)
    assert files_of(folder) == before, "the same files keep it"
    with pytest.raises(ArtifactError, match=r"results\.json was measured on another signature"):
        fog(2).save_pretrained(folder)
    (folder / "results.json").unlink()
    with pytest.raises(ArtifactError, match=r"model\.sig is not of the files to be written .*Sign again .*or delete"):
        fog(2).save_pretrained(folder)
    fog(2).save_pretrained(folder, sign=keys[0])
    assert load(folder, public_key=keys[1]) == fog(2)
    (folder / "model.sig").unlink()
    fog().save_pretrained(folder)
    assert load(folder) == fog() and not (folder / "model.sig").exists()


@pytest.mark.parametrize("sign", [True, False])
def test_sign_takes_a_key(folder, tmp_path, sign):
    before = files_of(folder)
    for there in (folder, tmp_path / "new"):
        with pytest.raises(TypeError, match=rf"sign={sign}: expected the file of a private key.* delete model\.sig"):
            fog().save_pretrained(there, sign=sign)
    with pytest.raises(TypeError, match="expected the file of a private key"):
        fog().push_to_hub("alice/fog", sign=True)
    assert files_of(folder) == before and not (tmp_path / "new").exists()


def test_results_that_come_later(folder, keys, tmp_path, capsys):
    new = tmp_path / "new.json"
    new.write_text(measured(fog(), 0.65).to_text(), "utf-8")
    assert main(["card", str(folder), "--results", str(new)]) == 1
    assert "results.json differs" in capsys.readouterr().err
    (folder / "model.sig").unlink()
    assert main(["card", str(folder), "--results", str(new)]) == 0
    assert main(["sign", str(folder), str(keys[0])]) == 0
    assert load(folder, public_key=keys[1]) == fog()
    assert "model.sig written" in capsys.readouterr().out


def test_a_killed_signing_leaves_the_old_state(folder, keys, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    monkeypatch.setattr("rws_hub.pending.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, fog().config, fog().payload, None, {"new.png": b"\x89PNG\r\n\x1a\n"}, sign=keys[0])
    assert {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()} == before
    assert load(folder, public_key=keys[1]) == fog()


@pytest.mark.parametrize("way", ["load", "info", "lock"])
def test_a_folder_that_is_signed_anew_while_it_is_read(keys, tmp_path, monkeypatch, capsys, way):
    folder, times = tmp_path / "two", []
    fog().save_pretrained(folder, sign=keys[0])
    verified = signing.verified

    def meanwhile(*arguments):
        found = verified(*arguments)
        if not times:  # another process, just after the old signature was verified
            fog(2).save_pretrained(folder, sign=keys[0])
        times.append(1)
        return found

    monkeypatch.setattr(signing, "verified", meanwhile)
    expected = fog(2).config.payload.sha256
    if way == "load":
        assert load(folder, public_key=keys[1]) == fog(2)
    elif way == "info":
        assert main(["info", str(folder), "--verify", str(keys[1]), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["sha256"] == expected
    else:
        lock = tmp_path / "rws.lock"
        assert main(["lock", str(folder), "--verify", str(keys[1]), "-o", str(lock)]) == 0
        assert read_lock(lock).signatures[0].sha256["rws.safetensors"] == expected
    assert len(times) == 2


def test_info_says_that_it_is_there(folder, keys, tmp_path, capsys):
    def info(*arguments):
        assert main(["info", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    assert "signed      model.sig is there" in info(folder)
    assert "signed      verified with" in info(folder, "--verify", keys[1])
    assert "signed      no" in info(saved(tmp_path / "plain"))
    found = json.loads(info(folder, "--json", "--verify", keys[1]))
    assert (found["signed"], found["verified"]) == (True, str(keys[1]))
    assert main(["info", str(folder), "--verify", str(key_pair(tmp_path, "mallory")[1])]) == 1
