"""Files from the Hub that were damaged on the way or in the cache, and what errors of the network say."""

from pathlib import Path

import pytest
from hub import Hub
from published import REPO, fog

from rws_hub import CorruptArtifactError, RobustWeightSignature
from rws_hub.cli import main
from rws_hub.downloads import is_whole

load = RobustWeightSignature.from_pretrained


@pytest.fixture(autouse=True)
def published(hub: Hub, hub_cache: Path) -> None:
    """A signature on the Hub, and an empty cache."""
    config = fog().config.to_text().encode()
    hub.put(REPO, {"config.json": config, "rws.safetensors": fog().payload, "README.md": b"# Fog\n"})


def flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize("name", ["config.json", "rws.safetensors"])
def test_what_was_damaged_on_the_way_is_fetched_again(hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    digest = hub.head(REPO).files[name].sha256
    fault = hub.fault(name if digest is None else f"/files/{digest}", method="GET", change=flipped)
    assert load(REPO).payload == fog().payload and fault.hits == 1


@pytest.mark.parametrize("name", ["config.json", "rws.safetensors"])
def test_what_is_damaged_in_the_cache_is_fetched_again(name: str, xet: bool, hub_cache: Path) -> None:
    load(REPO)
    (file,) = hub_cache.rglob(f"snapshots/*/{name}")
    file.resolve().write_bytes(flipped(file.read_bytes()))
    assert not is_whole(file)
    with pytest.raises(CorruptArtifactError):
        load(REPO, local_files_only=True)
    assert load(REPO).payload == fog().payload and is_whole(file)
    assert load(REPO, local_files_only=True).payload == fog().payload


def test_always_wrong_and_never_the_same(hub: Hub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    count = iter(range(256))
    hub.fault("/files/", method="GET", change=lambda body: body[:-1] + bytes([next(count)]), times=100)
    with pytest.raises(CorruptArtifactError, match="twice other bytes arrived than those that the Hub announced"):
        load(REPO)
    assert not list(hub_cache.rglob("snapshots/*/rws.safetensors"))


def test_a_mirror_that_names_files_by_something_else(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digests of the artifact itself hold, so that it can be used."""
    monkeypatch.setattr("hub.store.FileEntry.etag", property(lambda entry: entry.oid[::-1]))
    assert load(REPO).payload == fog().payload


@pytest.mark.parametrize(
    ("status", "note"),
    [
        (503, "nothing of it is used; run it again in a moment"),
        (404, "nothing of it is used; see whether the name, the revision and the token are right"),
    ],
)
def test_what_to_do(
    hub: Hub, status: int, note: str, no_backoff: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fault("/tree/|/revision/", status=status, times=100)
    assert main(["pull", REPO, "-o", str(tmp_path / "fog")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.endswith(f"note: {note}\n") and "Traceback" not in err
    assert not (tmp_path / "fog").exists()
