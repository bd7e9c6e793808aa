"""Loading from the Hub: one commit, verified, and the client's own errors."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hub import Hub
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from published import REPO, fog, saved

from rws_hub import ArtifactError, CorruptArtifactError, FormatVersionError, NotASignatureError, RobustWeightSignature
from rws_hub.hub import pull

load = RobustWeightSignature.from_pretrained


@pytest.fixture(autouse=True)
def empty_cache(hub_cache: Path) -> Path:
    """Nothing is cached when a test begins."""
    return hub_cache


def artifact(seed: int = 1, prefix: str = "") -> dict[str, bytes]:
    signature = fog(seed)
    config = signature.config.to_text().encode()
    return {f"{prefix}config.json": config, f"{prefix}rws.safetensors": signature.payload}


def changed(**values: object) -> bytes:
    return json.dumps(json.loads(fog().config.to_text()) | values).encode()


# --- which files


def test_revisions(hub: Hub) -> None:
    first = hub.put(REPO, artifact(1))
    api = HfApi(token=hub.alice)
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="feat/x")
    hub.put(REPO, artifact(2))
    hub.put(REPO, artifact(3), branch="feat/x")
    expected = {None: 2, "main": 2, "v1": 1, first.oid: 1, "feat/x": 3, "refs/heads/feat/x": 3}
    for revision, seed in expected.items():
        assert load(REPO, revision=revision).payload == fog(seed).payload, revision
    request = fog(4).push_to_hub(REPO, token=hub.alice, create_pr=True)
    assert request.endswith("/1") and load(REPO, revision="refs/pr/1").payload == fog(4).payload


@pytest.mark.parametrize("revision", [None, "main"])
def test_the_revision_is_resolved_once(hub: Hub, xet: bool, revision: str | None) -> None:
    hub.put(REPO, artifact(1))
    moved = hub.fault(r"/resolve/.*rws\.safetensors", before=lambda: hub.put(REPO, artifact(2)))
    loaded = load(REPO, revision=revision)
    assert moved.hits == 1 and loaded.payload == fog(1).payload and loaded.config == fog(1).config


@pytest.mark.parametrize("subfolder", ["fog", "deep/er", "fog/", "./fog"])
def test_subfolder(hub: Hub, tmp_path: Path, subfolder: str) -> None:
    place = subfolder.removeprefix("./").strip("/")
    hub.put(REPO, artifact(2) | artifact(1, f"{place}/") | {f"{place}/README.md": b"# Fog", "other.txt": b"x"})
    assert load(REPO, subfolder=subfolder).payload == fog(1).payload
    commit, files = pull(REPO, subfolder=subfolder)
    assert commit == hub.head(REPO).oid and files == artifact(1) | {"README.md": b"# Fog"}
    saved(tmp_path / "all" / place)
    assert load(tmp_path / "all", subfolder=subfolder).payload == fog(1).payload


@pytest.mark.parametrize("subfolder", ["..", "../other", "a/../../b", "/etc", "a\\..\\b", "."])
def test_subfolder_that_points_elsewhere(hub: Hub, tmp_path: Path, subfolder: str) -> None:
    hub.put(REPO, artifact())
    hub.log.clear()
    for source in (REPO, saved(tmp_path / "fog")):
        with pytest.raises(ArtifactError, match="plain relative path"):
            load(source, subfolder=subfolder)
    assert len(hub.log) == 0


def test_a_local_folder_makes_no_request(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "alice" / "fog")
    monkeypatch.chdir(tmp_path)
    for source in ("alice/fog", Path("alice/fog"), str(tmp_path / "alice/fog")):
        assert load(source).payload == fog().payload
    assert len(hub.log) == 0
    with pytest.raises(ArtifactError, match="local folder"):
        load("alice/fog", revision="main")


@pytest.mark.parametrize("source", ["nowhere", "./a/b", "a/b/c", Path("alice/missing"), "", "a/../b", "https://x/y"])
def test_neither_folder_nor_id(hub: Hub, source: str | Path) -> None:
    with pytest.raises(NotASignatureError, match="neither a local folder nor a Hub id"):
        load(source)
    assert len(hub.log) == 0


def test_pull_takes_what_belongs_to_it(hub: Hub) -> None:
    ours = artifact() | {"README.md": b"# Fog", "figures/alpha.png": b"\x89PNG\r\n\x1a\n"}
    hub.put(REPO, ours | {"model.bin": b"x", "figures/deep/a.png": b"x", "figures/a.svg": b"x"})
    assert pull(REPO)[1] == ours


# --- what is there is wrong


@pytest.mark.parametrize("other", [{}, {"config.json": b'{"model_type": "vit"}'}], ids=["none", "transformers"])
def test_not_a_signature(hub: Hub, other: Mapping[str, bytes]) -> None:
    hub.put(REPO, {"model.safetensors": b"weights"} | dict(other))
    with pytest.raises(NotASignatureError, match=REPO) as caught:
        load(REPO)
    assert isinstance(caught.value, FileNotFoundError)
    assert not hub.log.matching("safetensors")


def test_a_newer_format_is_refused_before_the_payload_is_fetched(hub: Hub) -> None:
    hub.put(REPO, artifact() | {"config.json": changed(format_version=9, rws_hub_version="3.1", new={"a": 1})})
    with pytest.raises(FormatVersionError, match=r"pip install -U 'rws-hub>=3\.1'"):
        load(REPO)
    assert hub.log.matching(r"config\.json") and not hub.log.matching("safetensors")


@pytest.mark.parametrize(
    "damage",
    [lambda p: p[:-1], lambda p: p + b"\0", lambda p: p[:-1] + bytes([p[-1] ^ 1]), lambda p: b""],
    ids=["short", "long", "flipped", "empty"],
)
def test_a_damaged_payload(hub: Hub, damage: Callable[[bytes], bytes]) -> None:
    hub.put(REPO, artifact() | {"rws.safetensors": damage(fog().payload)})
    for fetch in (load, pull):
        with pytest.raises(CorruptArtifactError, match=r"rws\.safetensors|payload"):
            fetch(REPO)


def test_a_changed_config(hub: Hub) -> None:
    hub.put(REPO, artifact() | {"config.json": changed(recommended_alpha=9.0)})
    with pytest.raises(CorruptArtifactError, match="digest does not hold"):
        load(REPO)
    hub.put(REPO, {"config.json": artifact()["config.json"], "rws.safetensors": None})
    with pytest.raises(HfHubHTTPError, match="404"):
        load(REPO)


# --- who may see it


def test_private(hub: Hub, empty_cache: Path) -> None:
    fog().push_to_hub(REPO, token=hub.alice, private=True)
    shutil.rmtree(empty_cache)  # else the client takes what an earlier user of the machine had fetched
    for token in (hub.bob, False, hub.bad_token):
        with pytest.raises(HfHubHTTPError) as caught:
            load(REPO, token=token)
        assert not isinstance(caught.value, ArtifactError) and str(token) not in str(caught.value)
        assert isinstance(caught.value, RepositoryNotFoundError) is (token != hub.bad_token)
    for token in (hub.alice, hub.alice_read):
        assert load(REPO, token=token, force_download=True).payload == fog().payload


def test_gated(hub: Hub) -> None:
    hub.put(REPO, artifact())
    HfApi(token=hub.alice).update_repo_settings(REPO, gated="manual")
    for token in (hub.bob, False):
        with pytest.raises(GatedRepoError):
            load(REPO, token=token)
    HfApi(token=hub.alice).grant_access(REPO, "bob")
    assert load(REPO, token=hub.bob).payload == fog().payload


def test_missing(hub: Hub) -> None:
    with pytest.raises(RepositoryNotFoundError):
        load("alice/missing")
    hub.put(REPO, artifact())
    with pytest.raises(RevisionNotFoundError):
        load(REPO, revision="missing")
