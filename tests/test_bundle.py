"""What a signature file says that it covers, read without any library, and strictly."""

import base64
import json

import pytest

from rws_hub import CorruptArtifactError
from rws_hub.bundle import names_key, read_bundle, statement, why_stale
from rws_hub.spec import MAX_SIGNATURE_BYTES

RESOURCES = [{"name": "config.json", "algorithm": "sha256", "digest": "ab"}]
HOW = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}


def bundle(resources=RESOURCES, how=HOW, material=None, **envelope):
    text = json.dumps({"predicate": {"resources": resources, "serialization": how}})
    envelope = {"payload": base64.b64encode(text.encode()).decode()} | envelope
    material = {"publicKey": {"hint": "00"}} if material is None else material
    return json.dumps({"verificationMaterial": material, "dsseEnvelope": envelope}).encode()


def test_what_it_covers():
    found = statement(bundle(), "model.sig")
    assert found.sha256 == {"config.json": "ab"} and "README.md" in found.optional
    assert why_stale(bundle(), "model.sig", {"config.json": b""}).startswith("config.json differs")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (bundle()[:-9], "not valid JSON"),
        (b'{"a": 1, "a": 2}', "occurs twice"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not a signature"),
        (b"{}", "not a signature"),
        (bundle(payload="***"), "not a signature"),
        (bundle(payload=base64.b64encode(b"[1, ").decode()), "dsseEnvelope.payload: not valid JSON"),
        (bundle(payload=7), "not a signature"),
        (bundle(how=HOW | {"method": "shards"}), "not a signature"),
        (bundle([RESOURCES[0] | {"algorithm": "blake3"}]), "not a signature"),
        (bundle([RESOURCES[0] | {"name": 1}]), "not a signature"),
        (bundle([RESOURCES[0] | {"name": "\x1b[2Jconfig.json"}]), "not a signature"),
        (bundle(["config.json"]), "not a signature"),
        (bundle(RESOURCES * 2), "occurs twice"),
        (b" " * (MAX_SIGNATURE_BYTES + 1), "at most 1,048,576"),
    ],
)
def test_what_is_no_signature_file(data, message):
    with pytest.raises(CorruptArtifactError, match=f"model.sig.*{message}"):
        statement(data, "model.sig")
    assert message in why_stale(data, "model.sig", {})


@pytest.mark.parametrize(
    "material", [{}, [], {"publicKey": {"rawBytes": "AA=="}}, {"certificate": {}}, {"publicKey": 1}]
)
def test_signatures_that_name_no_key(material):
    assert names_key(bundle()) and not names_key(bundle(material=material))
    assert statement(bundle(material=material), "").sha256, "whoever made it, what it covers can be read"


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "model.sig").open("wb") as file:
        file.truncate(10**12)  # a hole: no disk is taken, but reading it would never end
    with pytest.raises(CorruptArtifactError, match="1,000,000,000,000 bytes"):
        read_bundle(tmp_path / "model.sig")
