"""The test Hub itself, exercised by the real client."""

import random
from collections.abc import Mapping
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from hub import Hub
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError

REPO = "alice/model"
CARD = b"---\nlicense: apache-2.0\nlibrary_name: rws\npipeline_tag: image-classification\ntags: [robust]\n---\n"
# Large enough for several chunks; repeats itself, like weights that are mostly zero.
WEIGHTS = bytes(range(256)) * 800 + bytes(300_000) + bytes(range(256)) * 800


@pytest.fixture
def api(hub: Hub) -> HfApi:
    """The client as alice, who owns an empty repository."""
    api = HfApi(token=hub.alice)
    api.create_repo(REPO)
    return api


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


# --- repositories and users


def test_create_and_delete(hub: Hub) -> None:
    api = HfApi(token=hub.alice)
    assert api.create_repo(REPO).repo_id == REPO
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(REPO)
    assert [c.title for c in api.list_repo_commits(REPO)] == ["initial commit"]
    assert api.create_repo("acme/model", private=True).repo_id == "acme/model"
    assert hub.repo("acme/model").private
    api.delete_repo(REPO)
    assert not api.repo_exists(REPO)
    api.delete_repo(REPO, missing_ok=True)


def test_who_may_write(hub: Hub, api: HfApi) -> None:
    assert api.whoami()["name"] == "alice"
    assert [org["name"] for org in api.whoami()["orgs"]] == ["acme"]
    for token, repo in ((hub.alice_read, "alice/other"), (hub.bob, "alice/other"), (hub.bob, "acme/model")):
        with pytest.raises(HfHubHTTPError, match="403"):
            HfApi(token=token).create_repo(repo)
    for token in (hub.alice_read, hub.bob):
        with pytest.raises(HfHubHTTPError, match="403"):
            HfApi(token=token).upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO)
    api.auth_check(REPO, write=True)
    assert set(hub.head(REPO).files) == {".gitattributes"}


def test_private(hub: Hub, api: HfApi, hub_cache: Path) -> None:
    api.update_repo_settings(REPO, private=True)
    assert api.model_info(REPO).private
    assert HfApi(token=hub.alice_read).model_info(REPO).private
    for token in (hub.bob, False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info(REPO)
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download(REPO, ".gitattributes", token=token)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as caught:
        HfApi(token=hub.bad_token).model_info(REPO)
    assert not isinstance(caught.value, RepositoryNotFoundError)


def test_gated(hub: Hub, api: HfApi, hub_cache: Path) -> None:
    hub.put(REPO, {"config.json": b"{}"})
    api.update_repo_settings(REPO, gated="manual")
    assert HfApi(token=False).model_info(REPO).gated == "manual"
    for token in (hub.bob, False):
        with pytest.raises(GatedRepoError):
            hf_hub_download(REPO, "config.json", token=token)
    api.grant_access(REPO, "bob")
    HfApi(token=hub.bob).auth_check(REPO)
    assert Path(hf_hub_download(REPO, "config.json", token=hub.bob)).read_bytes() == b"{}"


def test_list_models(hub: Hub, api: HfApi) -> None:
    hub.put(REPO, {"README.md": CARD})
    hub.put("acme/robust-net", {"README.md": CARD.replace(b"[robust]", b"[robust, rws-patch]")})
    hub.put("bob/thing", {})
    hub.repo("acme/robust-net").private = True
    everyone = HfApi(token=False)

    def ids(api: HfApi, **query: object) -> set[str]:
        return {model.id for model in api.list_models(**query)}  # type: ignore[arg-type]

    assert ids(everyone) == {REPO, "bob/thing"}
    assert ids(api, author="acme") == {"acme/robust-net"}
    assert ids(api, search="THING") == {"bob/thing"}
    assert ids(api, filter="robust") == {REPO, "acme/robust-net"}
    assert ids(api, filter=["robust", "rws-patch"]) == {"acme/robust-net"}
    assert ids(everyone, filter="license:apache-2.0", pipeline_tag="image-classification") == {REPO}
    hub.page_size = 1
    assert [m.id for m in api.list_models(sort="created_at", limit=2)] == ["bob/thing", "acme/robust-net"]
    (found,) = api.list_models(author="alice", cardData=True)
    assert found.card_data is not None and found.card_data.license == "apache-2.0"


# --- push and pull


def test_push_and_pull(hub: Hub, api: HfApi, xet: bool, hub_cache: Path, tmp_path: Path) -> None:
    files = {"README.md": CARD, "model.safetensors": WEIGHTS, "sub/notes.txt": b"n", "empty.txt": b""}
    folder = write_files(tmp_path / "model", files)
    pushed = api.upload_folder(repo_id=REPO, folder_path=folder)
    assert bool(hub.log.matching("/v1/xorbs/|/v1/shards")) is xet
    assert bool(hub.log.matching("/uploads/")) is not xet
    assert {name: hub.read(REPO, name) for name in files} == files

    info = api.model_info(REPO, files_metadata=True)
    assert info.sha == hub.head(REPO).oid
    assert info.siblings is not None and info.card_data is not None
    assert {s.rfilename for s in info.siblings} == {*files, ".gitattributes"}
    assert {"rws", "robust", "safetensors", "license:apache-2.0"} <= set(info.tags or ())
    assert info.card_data.pipeline_tag == info.pipeline_tag == "image-classification"

    hub.log.clear()
    for name, data in files.items():
        path = Path(hf_hub_download(REPO, name, token=hub.alice))
        assert path.read_bytes() == data
        assert path.readlink().name == hub.head(REPO).files[name].etag
    assert bool(hub.log.matching("/v1/reconstructions/")) is xet
    sent = [r.headers.get("authorization", "") for r in hub.log if r.origin == "cdn"]
    assert sent and not any(hub.alice in header for header in sent)

    again = api.upload_folder(repo_id=REPO, folder_path=folder)
    assert len(api.list_repo_commits(REPO)) == 2
    assert again.oid == pushed.oid == hub.head(REPO).oid


def test_content_survives_a_reset(hub: Hub, api: HfApi, xet: bool, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "model", {"model.safetensors": WEIGHTS})
    for _ in range(2):
        api.upload_folder(repo_id=REPO, folder_path=folder)
        assert hub.read(REPO, "model.safetensors") == WEIGHTS
        hub.reset()
        api.create_repo(REPO)


def test_xet_content_kinds(hub: Hub, api: HfApi, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    noise = random.Random(0)
    floats = b"".join(bytes((noise.randrange(256), noise.randrange(8), 60, 63)) for _ in range(60_000))
    kinds = {"zeros.bin": bytes(1_000_000), "floats.bin": floats, "noise.bin": noise.randbytes(300_000)}
    operations = [CommitOperationAdd(name, data) for name, data in kinds.items()]
    api.create_commit(REPO, operations, commit_message="Add every kind")
    assert {name: hub.read(REPO, name) for name in kinds} == kinds
    for name, data in kinds.items():
        assert Path(hf_hub_download(REPO, name)).read_bytes() == data


def test_multipart_upload(
    hub: Hub, api: HfApi, hub_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    hub.part_size = 200_000
    weights = write_files(tmp_path, {"weights.bin": WEIGHTS}) / "weights.bin"
    api.upload_file(path_or_fileobj=weights, path_in_repo="model.safetensors", repo_id=REPO)
    assert len(hub.log.matching("/uploads/", "PUT")) == -(-len(WEIGHTS) // 200_000)
    assert len(hub.log.matching("/uploads/", "POST")) == 1
    assert Path(hf_hub_download(REPO, "model.safetensors")).read_bytes() == WEIGHTS


def test_snapshot_by_commit_is_offline_the_second_time(
    hub: Hub, api: HfApi, xet: bool, hub_cache: Path, tmp_path: Path
) -> None:
    files = {"README.md": CARD, "model.safetensors": WEIGHTS, "a/b.txt": b"b"}
    api.upload_folder(repo_id=REPO, folder_path=write_files(tmp_path / "model", files))
    commit = hub.head(REPO).oid
    first = snapshot_download(REPO, revision=commit)
    assert {name: (Path(first) / name).read_bytes() for name in files} == files
    hub.log.clear()
    assert snapshot_download(REPO, revision=commit) == first
    assert len(hub.log) == 0, str(hub.log)


def test_delete_and_copy(hub: Hub, api: HfApi) -> None:
    hub.put(REPO, {"a/one.bin": WEIGHTS, "a/two.txt": b"2", "b.txt": b"b"})
    api.create_commit(REPO, [CommitOperationCopy("a/one.bin", "c.bin")], commit_message="Copy")
    api.create_commit(REPO, [CommitOperationDelete("a/"), CommitOperationDelete("b.txt")], commit_message="Delete")
    assert set(hub.head(REPO).files) == {".gitattributes", "c.bin"}
    assert hub.read(REPO, "c.bin") == WEIGHTS
    with pytest.raises(RemoteEntryNotFoundError, match="doesn't exist"):
        api.delete_file("b.txt", REPO)


def test_range(hub: Hub, api: HfApi) -> None:
    hub.put(REPO, {"model.safetensors": WEIGHTS, "a.txt": b"0123456789"})
    files = HfFileSystem(token=hub.alice, skip_instance_cache=True)
    assert files.cat_file(f"{REPO}/a.txt", start=2, end=5) == b"234"
    assert files.cat_file(f"{REPO}/model.safetensors", start=100, end=900) == WEIGHTS[100:900]
    assert {r.status for r in hub.log if "range" in r.headers and r.status // 100 == 2} == {206}


def test_cdn(hub: Hub) -> None:
    digest = hub.put(REPO, {"model.safetensors": WEIGHTS}).files["model.safetensors"].sha256
    url = hub.signed_url(f"/files/{digest}")
    with urlopen(url) as answer:
        assert answer.read() == WEIGHTS
    refused = {
        400: Request(url, headers={"Authorization": f"Bearer {hub.alice}"}),
        403: Request(url.partition("?")[0]),
        416: Request(url, headers={"Range": "bytes=99999999-"}),
        501: Request(f"{hub.cdn_url}/elsewhere"),
    }
    for status, request in refused.items():
        with pytest.raises(HTTPError) as caught:
            urlopen(request)
        caught.value.close()
        assert caught.value.code == status
