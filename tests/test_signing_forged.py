"""Signature files that do not hold: forged, stale, partial, damaged, or of another key."""

import base64
import json
import shutil

import pytest
from keys import key_pair
from published import files_of, fog, saved
from test_signing import folder, keys, load, stock

from rws_hub import ArtifactError, VerificationError

__all__ = ["folder", "keys"]  # fixtures


def refused(folder, public_key, match):
    """The message of a refusal that left nothing behind."""
    with pytest.raises(VerificationError, match=match) as caught:
        load(folder, public_key=public_key)
    assert isinstance(caught.value, ArtifactError)
    return str(caught.value)


def test_not_signed(tmp_path, keys):
    refused(saved(tmp_path / "plain"), keys[1], "is not signed: no model.sig")
    (tmp_path / "plain" / "model.sig").mkdir()
    refused(tmp_path / "plain", keys[1], "is not signed")


def test_the_key_of_somebody_else(folder, tmp_path):
    refused(
        folder, key_pair(tmp_path, "mallory")[1], r"not made with the private key of .*mallory\.pub \(it names anoth"
    )


def test_a_key_that_only_claims_to_be_mine(tmp_path, keys):
    fog().save_pretrained(tmp_path / "fog", sign=key_pair(tmp_path, "mallory")[0])
    file = tmp_path / "fog" / "model.sig"
    mine = tmp_path / "mine"
    fog().save_pretrained(mine, sign=keys[0])
    forged = json.loads(file.read_text())
    forged["verificationMaterial"] = json.loads((mine / "model.sig").read_text())["verificationMaterial"]
    file.write_text(json.dumps(forged))
    refused(tmp_path / "fog", keys[1], "the signature does not hold")


def test_other_bytes(folder, keys):
    for name, data in files_of(folder).items():
        if name in ("config.json", "rws.safetensors"):
            (folder / name).write_bytes(files_of(saved(folder.parent / "two", fog(2)))[name])
            with pytest.raises(ArtifactError):
                load(folder, public_key=keys[1])
            (folder / name).write_bytes(data)
    assert load(folder, public_key=keys[1]) == fog()


def test_another_whole_signature_under_it(folder, keys):
    for name in ("config.json", "rws.safetensors"):
        (folder / name).write_bytes(files_of(saved(folder.parent / "two", fog(2)))[name])
    assert load(folder) == fog(2), "without a key nobody is asked"
    refused(folder, keys[1], r"vouches for: config\.json differs")


def test_the_description_is_covered_too(folder, keys):
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"description": ""', '"description": "safe"'))
    load(folder)
    refused(folder, keys[1], "config.json differs")


def test_nothing_is_decoded_before_it_is_verified(folder, keys):
    (folder / "config.json").write_bytes(b"\xff not even JSON")
    refused(folder, keys[1], "config.json differs")


def test_signatures_of_something_else(folder, keys, tmp_path):
    fog(2).save_pretrained(tmp_path / "two", sign=keys[0])
    shutil.copy(tmp_path / "two" / "model.sig", folder / "model.sig")
    refused(folder, keys[1], "config.json differs")


@pytest.mark.parametrize("left_out", ["config.json", "rws.safetensors"])
def test_a_signature_of_a_part(folder, keys, left_out, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(folder, part)
    (part / left_out).unlink()
    (part / "model.sig").unlink()
    made = stock("sign", "key", part, "--signature", tmp_path / "part.sig", "--private_key", keys[0])
    assert made.returncode == 0
    shutil.copy(tmp_path / "part.sig", folder / "model.sig")
    refused(folder, keys[1], f"does not cover {left_out}")


def test_a_signature_that_asks_to_ignore(folder, keys, tmp_path):
    (folder / "model.sig").unlink()
    ignored = ("--ignore-paths", folder / "config.json", "--ignore-paths", folder / "rws.safetensors")
    made = stock("sign", "key", folder, "--signature", tmp_path / "s", "--private_key", keys[0], *ignored)
    assert made.returncode == 0, made.stdout + made.stderr
    shutil.copy(tmp_path / "s", folder / "model.sig")
    refused(folder, keys[1], "does not cover config.json")


@pytest.mark.parametrize("end", [0, 1, 100, -1])
def test_a_truncated_signature(folder, keys, end):
    file = folder / "model.sig"
    file.write_bytes(file.read_bytes()[:end])
    refused(folder, keys[1], "was refused: model.sig")


def test_every_byte_of_a_signature_counts(folder, keys):
    """A flipped bit is refused, or what is verified is the very same statement (spaces, upper-case keys of JSON...)."""
    file = folder / "model.sig"
    data = file.read_bytes()
    accepted = 0
    for i in range(0, len(data), 7):
        file.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        try:
            assert load(folder, public_key=keys[1]) == fog()
            accepted += 1
        except VerificationError:
            pass
    assert accepted <= 2, "the unused bits at the end of base64, and the unused key id"


def test_changed_statements(folder, keys):
    file = folder / "model.sig"
    data = json.loads(file.read_text())
    payload = json.loads(base64.b64decode(data["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"][0]["digest"] = "00" * 32
    data["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    file.write_text(json.dumps(data))
    refused(folder, keys[1], "the signature does not hold")
    for signatures in ([], None, [{"sig": ""}], [{"sig": "AA=="}]):
        data["dsseEnvelope"]["signatures"] = signatures
        file.write_text(json.dumps(data))
        refused(folder, keys[1], "not made with the private key")


@pytest.mark.parametrize("material", [{}, {"certificate": {"rawBytes": "AA=="}}, {"publicKey": {"rawBytes": "AA=="}}])
def test_a_signature_by_other_means(folder, keys, material):
    file = folder / "model.sig"
    data = json.loads(file.read_text())
    file.write_text(json.dumps(data | {"verificationMaterial": material}))
    refused(folder, keys[1], "not made with a bare key")


def test_a_huge_signature_file_is_not_read(folder, keys):
    with (folder / "model.sig").open("wb") as file:
        file.truncate(10**12)
    refused(folder, keys[1], "1,000,000,000,000 bytes")
