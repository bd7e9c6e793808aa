"""What the test Hub refuses, and how it fails when it is told to."""

import multiprocessing
import socket
import time
from pathlib import Path

import huggingface_hub
import pytest
from hub import Hub
from hub.network import OutsideNetworkError
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from test_hub_server import CARD, REPO, WEIGHTS, api

__all__ = ["api"]  # a fixture

CLIENT = tuple(map(int, huggingface_hub.__version__.split(".")[:2]))


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
