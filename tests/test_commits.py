"""A commit whose answer is lost is found, and not made twice."""

import pytest
from hub import Hub
from huggingface_hub.errors import HfHubHTTPError
from published import REPO, fog


@pytest.fixture(autouse=True)
def mine(hub: Hub, hub_cache: object) -> None:
    """A repository with a card that a person wrote."""
    hub.put(REPO, {"README.md": b"# Mine\n"})


@pytest.mark.parametrize("fault", [{"drop": "after"}, {"cut": 5}], ids=["no answer", "half an answer"])
@pytest.mark.parametrize("create_pr", [False, True])
def test_the_commit_was_made_and_nobody_heard_of_it(hub: Hub, fault: dict[str, object], create_pr: bool) -> None:
    hit = hub.fault("/commit/", **fault)  # type: ignore[arg-type]
    url = fog().push_to_hub(REPO, token=hub.alice, create_pr=create_pr)
    where = f"{REPO}/discussions/1" if create_pr else f"{REPO}/commit/{hub.head(REPO).oid}"
    assert hit.hits == 1 and url == f"{hub.url}/{where}"
    revision = "refs/pr/1" if create_pr else "main"
    assert hub.read(REPO, "rws.safetensors", revision) == fog().payload
    assert b"# Mine" in hub.read(REPO, "README.md", revision)
    assert fog().push_to_hub(REPO, token=hub.alice, create_pr=create_pr) == url
    assert len(hub.repo(REPO).commits) == 3 and len(hub.repo(REPO).discussions) == create_pr


def test_the_commit_was_not_made(hub: Hub) -> None:
    before = hub.head(REPO)
    hub.fault("/commit/", drop="before")
    with pytest.raises(Exception, match="disconnected") as caught:
        fog().push_to_hub(REPO, token=hub.alice)
    assert caught.value.__notes__ == [f"{REPO} is as it was; push again in a moment"] and hub.head(REPO) is before


def test_nobody_knows(hub: Hub) -> None:
    hub.fault("/commit/", drop="after")
    hub.fault(f"/api/models/{REPO}$", skip=1, status=503, times=100)
    with pytest.raises(Exception, match="disconnected") as caught:
        fog().push_to_hub(REPO, token=hub.alice)
    assert "is not known: the Hub does not answer (HfHubHTTPError)" in caught.value.__notes__[0]


def test_an_open_pull_request_of_another_content_is_another_one(hub: Hub) -> None:
    for number, seed in enumerate((1, 2, 1), start=1):
        url = fog(seed).push_to_hub(REPO, token=hub.alice, create_pr=True)
        assert url == f"{hub.url}/{REPO}/discussions/{min(number, 2) if seed == 2 or number < 3 else 1}"


def test_a_card_that_is_listed_and_then_is_not_there(hub: Hub) -> None:
    before = hub.head(REPO)
    hub.fault("README.md", status=404, headers={"X-Error-Code": "EntryNotFound"}, times=100)
    with pytest.raises(HfHubHTTPError, match="404") as caught:
        fog().push_to_hub(REPO, token=hub.alice)
    assert caught.value.__notes__[0].startswith(f"nothing was published in {REPO}; ") and hub.head(REPO) is before


def test_a_card_that_arrives_damaged_is_not_put_together_with_ours(hub: Hub) -> None:
    before = hub.head(REPO)
    hub.fault("resolve-cache.*README.md", change=lambda body: body[:-2] + b"!\n", method="GET", times=100)
    with pytest.raises(Exception, match=r"README\.md: twice other bytes arrived than those"):
        fog().push_to_hub(REPO, token=hub.alice)
    assert hub.head(REPO) is before
