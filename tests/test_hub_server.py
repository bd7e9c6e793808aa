"""The test Hub itself, exercised by the real client."""

import multiprocessing
import random
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import huggingface_hub
import pytest
from hub import Hub
from hub.network import OutsideNetworkError
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    ModelCard,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

CLIENT = tuple(map(int, huggingface_hub.__version__.split(".")[:2]))
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


# --- revisions


def test_revisions(hub: Hub, api: HfApi, hub_cache: Path) -> None:
    first = hub.put(REPO, {"a.txt": b"1"})
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="feat/x")
    api.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id=REPO, revision="feat/x")
    request = api.upload_file(path_or_fileobj=b"3", path_in_repo="a.txt", repo_id=REPO, create_pr=True)
    assert request.pr_revision == "refs/pr/1"

    expected = {"main": b"1", "v1": b"1", "feat/x": b"2", "refs/pr/1": b"3", first.oid: b"1"}
    for revision, data in expected.items():
        assert Path(hf_hub_download(REPO, "a.txt", revision=revision)).read_bytes() == data
        assert "a.txt" in api.list_repo_files(REPO, revision=revision)
    refs = api.list_repo_refs(REPO, include_pull_requests=True)
    assert [ref.name for ref in refs.branches] == ["feat/x", "main"]
    assert [ref.name for ref in refs.tags] == ["v1"]
    assert refs.pull_requests is not None and [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]

    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch(REPO, branch="feat/x")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(REPO, tag="v1")
    with pytest.raises(BadRequestError):
        api.create_branch(REPO, branch="no good")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.delete_branch(REPO, branch="main")
    api.delete_branch(REPO, branch="feat/x")
    api.delete_tag(REPO, tag="v1")
    assert set(hub.repo(REPO).refs) == {"refs/heads/main", "refs/pr/1"}


def test_pull_request_from_a_folder(hub: Hub, api: HfApi, xet: bool, tmp_path: Path) -> None:
    hub.put(REPO, {"a.txt": b"1", "b.txt": b"b"})
    folder = write_files(tmp_path / "model", {"a.txt": b"2", "model.safetensors": WEIGHTS})
    bob = HfApi(token=hub.bob)
    url = bob.upload_folder(repo_id=REPO, folder_path=folder, create_pr=True, commit_message="Better").pr_url
    assert url == f"{hub.url}/{REPO}/discussions/1"
    hub.put(REPO, {"b.txt": b"changed meanwhile"})

    (listed,) = api.get_repo_discussions(REPO, discussion_type="pull_request")
    assert (listed.num, listed.title, listed.author) == (1, "Better", "bob")
    details = api.get_discussion_details(REPO, 1)
    assert details.target_branch == "refs/heads/main" and "commit" in [event.type for event in details.events]
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.merge_pull_request(REPO, 1)
    api.merge_pull_request(REPO, 1)
    assert api.get_discussion_details(REPO, 1).status == "merged"
    merged = {name: hub.read(REPO, name) for name in ("a.txt", "b.txt", "model.safetensors")}
    assert merged == {"a.txt": b"2", "b.txt": b"changed meanwhile", "model.safetensors": WEIGHTS}


def test_listing_of_a_revision(hub: Hub, api: HfApi) -> None:
    first = hub.put(REPO, {"a/b/c.txt": b"c", "model.safetensors": WEIGHTS})
    hub.put(REPO, {"d.txt": b"d"})
    hub.page_size = 2
    tree = {item.path: item for item in api.list_repo_tree(REPO, recursive=True, expand=True)}
    assert set(tree) == {".gitattributes", "a", "a/b", "a/b/c.txt", "d.txt", "model.safetensors"}
    assert tree["a"].last_commit is not None and tree["a"].last_commit.oid == first.oid
    assert [item.path for item in api.list_repo_tree(REPO, "a/b")] == ["a/b/c.txt"]
    # Ids as git computes them: `git hash-object`, and `git mktree` for the folder.
    assert tree["d.txt"].blob_id == "c59d9b6344f1af00e504ba698129f07a34bbed8d"  # type: ignore[union-attr]
    paths = api.get_paths_info(REPO, ["a", "d.txt", "missing"])
    assert [item.path for item in paths] == ["a", "d.txt"]
    assert len(api.list_repo_commits(REPO)) == 3
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "missing"))


# --- refusals


def test_three_ways_to_be_missing(hub: Hub, api: HfApi, hub_cache: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("alice/missing", "a.txt")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("missing")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(REPO, ".gitattributes", revision="missing")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "missing.txt")
    assert list(hub_cache.glob("*/.no_exist/*/missing.txt"))


def test_concurrent_push(hub: Hub, api: HfApi) -> None:
    head = hub.head(REPO)

    def push_first() -> None:
        HfApi(token=hub.alice).upload_file(path_or_fileobj=b"theirs", path_in_repo="a.txt", repo_id=REPO)

    fault = hub.fault(r"/commit/main$", before=push_first)
    with pytest.raises(HfHubHTTPError, match="412"):
        api.upload_file(path_or_fileobj=b"mine", path_in_repo="a.txt", repo_id=REPO, parent_commit=head.oid)
    assert fault.hits == 1
    assert hub.read(REPO, "a.txt") == b"theirs"


def test_path_traversal(hub: Hub, api: HfApi) -> None:
    operations = [CommitOperationAdd("good.txt", b"x"), CommitOperationAdd("bad.txt", b"x")]
    operations[1].path_in_repo = "sub/../../bad.txt"  # past the client's own check
    with pytest.raises(HfHubHTTPError, match="422"):
        api.create_commit(REPO, operations, commit_message="Bad")
    assert set(hub.head(REPO).files) == {".gitattributes"}


def test_card_validation(hub: Hub, api: HfApi) -> None:
    bad = CARD.replace(b"apache-2.0", b"my-own")
    with pytest.raises(ValueError, match='"license" must be one of'):
        api.upload_file(path_or_fileobj=bad, path_in_repo="README.md", repo_id=REPO)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"# Bare", path_in_repo="README.md", repo_id=REPO)


@pytest.mark.skipif(CLIENT < (2, 2), reason="validates cards at a fixed host name")
def test_card_class(hub: Hub, api: HfApi) -> None:
    with pytest.raises(ValueError, match='- Error: "license" must be one of'):
        ModelCard(CARD.decode().replace("apache-2.0", "my-own")).validate()
    ModelCard(CARD.decode()).push_to_hub(REPO, token=hub.alice)
    assert ModelCard.load(REPO).data.license == "apache-2.0"


def test_unsupported_routes_say_so(hub: Hub, api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match="does not support POST /api/repos/move"):
        api.move_repo(REPO, "alice/elsewhere")


# --- faults, guard


def test_retry_after_a_server_error(hub: Hub, api: HfApi, no_backoff: None) -> None:
    fault = hub.fault(r"/preupload/", method="POST", status=503, times=2)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=REPO)
    assert fault.hits == 2
    assert [r.status for r in hub.log.matching("/preupload/")] == [503, 503, 200]
    assert hub.read(REPO, "a.txt") == b"x"


def test_cut_download(hub: Hub, hub_cache: Path, no_backoff: None) -> None:
    hub.put(REPO, {"model.safetensors": WEIGHTS})
    fault = hub.fault(r"^/files/", method="GET", cut=1000)
    assert Path(hf_hub_download(REPO, "model.safetensors")).read_bytes() == WEIGHTS
    assert fault.hits == 1
    assert len(hub.log.matching(r"^/files/", "GET")) == 2


def test_failing_hub_with_and_without_a_cached_copy(hub: Hub, hub_cache: Path, no_backoff: None) -> None:
    hub.put(REPO, {"a.txt": b"a", "b.txt": b"b"})
    cached = hf_hub_download(REPO, "a.txt")
    fault = hub.fault("/resolve/", status=500, times=100)
    assert hf_hub_download(REPO, "a.txt") == cached
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download(REPO, "b.txt")
    assert fault.hits > 2


def read_as_alice(token: str) -> list[str]:
    """What another process finds in alice's repository."""
    return HfApi(token=token).list_repo_files(REPO)


def test_other_processes_use_the_same_hub(hub: Hub, api: HfApi) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_as_alice, (hub.alice,)) == [".gitattributes"]


def test_exceptions_in_the_server_are_kept(hub: Hub, api: HfApi) -> None:
    def fail() -> None:
        raise LookupError("in the test's own code")

    hub.fault("/api/models/", before=fail)
    with pytest.raises(HfHubHTTPError, match="500"):
        api.model_info(REPO)
    (crash,) = hub.crashes
    assert isinstance(crash, LookupError)
    hub.crashes.clear()


@pytest.mark.parametrize("address", [("192.0.2.1", 443), ("huggingface.co", 443), ("2001:db8::1", 80)])
def test_network_guard(address: tuple[str, int]) -> None:
    with pytest.raises(OutsideNetworkError, match=address[0]):
        socket.create_connection(address, timeout=1)
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as outside, pytest.raises(OutsideNetworkError, match=address[0]):
        outside.connect_ex(address)


def test_reset_is_cheap_and_complete(hub: Hub) -> None:
    hub.put(REPO, {"a.txt": b"a"})
    hub.fault("/", status=500)
    started = time.perf_counter()
    hub.reset()
    assert time.perf_counter() - started < 0.1
    assert not hub.store.repos and len(hub.log) == 0 and hub.next_fault("GET", "/") is None
