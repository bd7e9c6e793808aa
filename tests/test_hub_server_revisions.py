"""Branches, tags, commits and pull requests of the test Hub, by the real client."""

from pathlib import Path

import pytest
from hub import Hub
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RemoteEntryNotFoundError
from test_hub_server import REPO, WEIGHTS, api, write_files

__all__ = ["api"]  # a fixture


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
