"""Which bytes files have to have: every way to differ has its words."""

import hashlib

import pytest

from rws_hub import VerificationError
from rws_hub.manifest import Manifest

FILES = {"config.json": b"{}", "rws.safetensors": b"abc"}


def manifest(files=FILES, optional=frozenset()):
    return Manifest("rws.lock", {n: hashlib.sha256(d).hexdigest() for n, d in files.items()}, optional)


def test_the_same_files():
    assert manifest().difference(FILES) is None
    manifest().require_all("here", FILES)
    manifest().require("here", "config.json", hashlib.sha256(b"{}").hexdigest())


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (FILES | {"config.json": b"{ }"}, "config.json differs"),
        (FILES | {"results.json": b"{}"}, "results.json is not covered"),
        ({"config.json": b"{}"}, "rws.safetensors is missing"),
        ({}, "config.json is missing"),
    ],
)
def test_other_files(files, reason):
    with pytest.raises(VerificationError, match=rf"^here is not what rws\.lock vouches for: {reason}"):
        manifest().require_all("here", files)


def test_what_need_not_be_listed_has_to_be_equal_where_it_is():
    card = {"README.md": b"# Fog"}
    free = frozenset(card)
    assert manifest(optional=free).difference(FILES | card) is None
    assert manifest(FILES | card, free).difference(FILES | card) is None
    assert "README.md differs" in manifest(FILES | card, free).difference(FILES | {"README.md": b"#"})
    assert "README.md is missing" in manifest(FILES | card, free).difference(FILES)
