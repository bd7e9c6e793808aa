"""Publishing: one atomic commit, which keeps what people wrote and never overwrites what it cannot see."""

import json
from pathlib import Path
from typing import Any

import pytest
from hub import Hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RevisionNotFoundError
from published import FILES, REPO, fog, measured

from rws_hub import CardError, NotASignatureError, RobustWeightSignature
from rws_hub.contents import Contents
from rws_hub.errors import ArtifactError, CorruptArtifactError, FormatVersionError
from rws_hub.hub import push


@pytest.fixture(autouse=True)
def empty_cache(hub_cache: Path) -> None:
    """Nothing is cached when a test begins."""


def files(hub: Hub, revision: str = "main") -> set[str]:
    return set(hub.head(REPO, revision).files) - {".gitattributes"}


def card(hub: Hub) -> str:
    return hub.read(REPO, "README.md").decode()


def test_push_and_load(hub: Hub, xet: bool) -> None:
    url = fog().push_to_hub(REPO, token=hub.alice)
    assert url == f"{hub.url}/{REPO}/commit/{hub.head(REPO).oid}"
    assert files(hub) == FILES
    assert hub.read(REPO, "config.json").decode() == fog().config.to_text()
    assert hub.read(REPO, "rws.safetensors") == fog().payload
    loaded = RobustWeightSignature.from_pretrained(REPO, token=False)
    assert loaded.config == fog().config and loaded.payload == fog().payload
    assert bool(hub.log.matching("/v1/reconstructions/")) is xet
    assert "with patch(model, signature" in card(hub) and REPO in card(hub)


def test_push_is_one_commit_and_the_second_is_none(hub: Hub, xet: bool) -> None:
    fog().push_to_hub(REPO, token=hub.alice, commit_message="Fog")
    first = hub.head(REPO)
    assert first.title == "Fog" and len(HfApi(token=hub.alice).list_repo_commits(REPO)) == 2
    url = fog().push_to_hub(REPO, token=hub.alice)
    assert hub.head(REPO) is first and url.endswith(first.oid)


def test_what_people_wrote_survives(hub: Hub) -> None:
    fog().push_to_hub(REPO, token=hub.alice, results=measured(fog(), 0.6))
    text = card(hub).replace("library_name: rws-hub\n", "library_name: rws-hub\nthumbnail: fog.png\nlanguage: no\n")
    begin, inside, end = text.partition("## Usage\n")
    begin = begin.replace("<!-- rws-hub:begin", "Before: a person wrote this.\n\n<!-- rws-hub:begin")
    edited = f"{begin}{inside}\nInside: a person wrote this.\n{end}\nAfter: a person wrote this.\n"
    hub.put(REPO, {"README.md": edited.encode(), "notes.txt": b"mine"})
    fog().push_to_hub(REPO, token=hub.alice, results=measured(fog(), 0.65))
    now = card(hub)
    for place in ("Before", "Inside", "After"):
        assert now.count(f"{place}: a person wrote this.") == 1
    assert "thumbnail: fog.png\n" in now and "language: no\n" in now
    assert "65.0" in now and "60.0" not in now
    assert hub.read(REPO, "notes.txt") == b"mine"


def test_line_ends_of_a_card_survive(hub: Hub) -> None:
    hub.put(REPO, {"README.md": b"---\r\nlicense: apache-2.0\r\n---\r\n\r\nOurs.\r\n"})
    fog().push_to_hub(REPO, token=hub.alice)
    assert "Ours.\r\n" in card(hub) and "\n" not in card(hub).replace("\r\n", "")


def test_results_stay_with_their_payload(hub: Hub) -> None:
    figures = {"alpha.png": b"\x89PNG\r\n\x1a\n"}
    push(
        REPO,
        Contents(fog().config, fog().payload, measured(fog()), figures),
        local_card=None,
        token=hub.alice,
        commit_message="Fog",
    )
    first = hub.head(REPO)
    fog().push_to_hub(REPO, token=hub.alice)
    assert hub.head(REPO) is first, "the same signature without results keeps those that are there"
    fog(2).push_to_hub(REPO, token=hub.alice)
    assert files(hub) == FILES, "results and figures of another payload are gone"
    assert "Nothing was measured" in card(hub) and "alpha.png" not in card(hub)


def test_somebody_else_pushed_meanwhile(hub: Hub) -> None:
    fog().push_to_hub(REPO, token=hub.alice)
    hub.fault(r"/commit/main$", before=lambda: hub.put(REPO, {"README.md": b"theirs"}))
    with pytest.raises(HfHubHTTPError, match="412") as caught:
        fog(2).push_to_hub(REPO, token=hub.alice)
    assert "changed by somebody else" in caught.value.__notes__[0] and "push again" in caught.value.__notes__[0]
    assert hub.read(REPO, "README.md") == b"theirs"
    assert hub.read(REPO, "rws.safetensors") == fog().payload


@pytest.mark.parametrize(
    "config",
    [b'{"model_type": "vit"}', b'{"x": NaN}', b'{"a": 1, "a": 2}', b"not json", b"[1]", b"\xff"],
    ids=["transformers", "nan", "twice", "text", "list", "bytes"],
)
@pytest.mark.parametrize("revision", [None, "next"])
def test_another_kind_of_model_is_not_overwritten(hub: Hub, config: bytes, revision: str | None) -> None:
    before = hub.put(REPO, {"config.json": config})
    with pytest.raises((NotASignatureError, CorruptArtifactError), match=REPO):
        fog().push_to_hub(REPO, token=hub.alice, revision=revision)
    assert hub.head(REPO) is before
    assert "refs/heads/next" not in hub.repo(REPO).refs


def test_a_newer_format_is_not_overwritten_but_a_damaged_signature_is(hub: Hub) -> None:
    data = json.loads(fog().config.to_text())
    before = hub.put(REPO, {"config.json": json.dumps(data | {"format_version": 99}).encode()})
    with pytest.raises(FormatVersionError):
        fog().push_to_hub(REPO, token=hub.alice)
    assert hub.head(REPO) is before
    hub.put(REPO, {"config.json": json.dumps(data | {"recommended_alpha": 7.0}).encode()})
    fog().push_to_hub(REPO, token=hub.alice)
    assert hub.read(REPO, "config.json").decode() == fog().config.to_text()


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_card_that_cannot_be_seen_is_not_overwritten(hub: Hub, no_backoff: None, method: str) -> None:
    before = hub.put(REPO, {"README.md": b"# A person's"})
    fault = hub.fault(r"/resolve.*/README\.md$", method=method, status=503, times=100)
    with pytest.raises((HfHubHTTPError, LocalEntryNotFoundError)):
        fog().push_to_hub(REPO, token=hub.alice)
    assert fault.hits > 0 and not hub.log.matching("/commit/") and hub.head(REPO) is before


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"---\nlicense: [\n---\n", b"<!-- rws-hub:end -->"])
def test_a_card_that_cannot_be_read_is_not_overwritten(hub: Hub, content: bytes) -> None:
    before = hub.put(REPO, {"README.md": content})
    with pytest.raises(CardError):
        fog().push_to_hub(REPO, token=hub.alice)
    assert hub.head(REPO) is before


def test_a_failing_commit_leaves_nothing(hub: Hub, no_backoff: None) -> None:
    fog().push_to_hub(REPO, token=hub.alice)
    before = hub.head(REPO)
    hub.fault(r"/commit/main$", status=500, times=100)
    with pytest.raises(HfHubHTTPError):
        fog(2).push_to_hub(REPO, token=hub.alice)
    assert hub.head(REPO) is before


def test_pull_request_on_my_repository(hub: Hub) -> None:
    before = hub.put(REPO, {"README.md": b"# Mine"})
    url = fog().push_to_hub(REPO, token=hub.alice, create_pr=True, commit_message="Add fog")
    assert url == f"{hub.url}/{REPO}/discussions/1"
    assert hub.head(REPO) is before and files(hub, "refs/pr/1") == FILES
    fog(2).push_to_hub(REPO, token=hub.alice, revision="refs/pr/1")
    assert hub.read(REPO, "rws.safetensors", "refs/pr/1") == fog(2).payload and hub.head(REPO) is before


def test_pull_request_on_another_repository(hub: Hub) -> None:
    before = hub.put(REPO, {"README.md": b"# Hers"})
    url = fog().push_to_hub(REPO, token=hub.bob, create_pr=True)
    assert url == f"{hub.url}/{REPO}/discussions/1" and hub.head(REPO) is before
    assert b"# Hers" in hub.read(REPO, "README.md", "refs/pr/1")
    with pytest.raises(RevisionNotFoundError):
        fog().push_to_hub(REPO, token=hub.bob, create_pr=True, revision="missing")


@pytest.mark.parametrize("branch", ["next", "feat/fog"])
def test_a_branch(hub: Hub, branch: str) -> None:
    fog().push_to_hub(REPO, token=hub.alice)
    main = hub.head(REPO)
    for signature in (fog(2), fog(3)):
        fog_url = signature.push_to_hub(REPO, token=hub.alice, revision=branch)
        assert fog_url.endswith(hub.head(REPO, branch).oid) and hub.head(REPO) is main
        loaded = RobustWeightSignature.from_pretrained(REPO, revision=branch)
        assert loaded.payload == signature.payload
    assert [c.oid for c in hub.repo(REPO).history(hub.head(REPO, branch))][2] == main.oid


def test_tags_and_commits_cannot_be_pushed_to(hub: Hub) -> None:
    fog().push_to_hub(REPO, token=hub.alice)
    HfApi(token=hub.alice).create_tag(REPO, tag="v1")
    refs = dict(hub.repo(REPO).refs)
    with pytest.raises(HfHubHTTPError):
        fog(2).push_to_hub(REPO, token=hub.alice, revision="v1")
    with pytest.raises(ArtifactError, match="goes to a branch"):
        fog(2).push_to_hub(REPO, token=hub.alice, revision=hub.head(REPO).oid)
    assert hub.repo(REPO).refs == refs


def test_private(hub: Hub) -> None:
    fog().push_to_hub("acme/secret", token=hub.alice, private=True)
    assert hub.repo("acme/secret").private
    fog(2).push_to_hub("acme/secret", token=hub.alice, private=True)
    assert hub.read("acme/secret", "rws.safetensors") == fog(2).payload
    before = hub.put(REPO, {"README.md": b"# Public"})
    with pytest.raises(ArtifactError, match="is public; nothing was written"):
        fog().push_to_hub(REPO, token=hub.alice, private=True)
    assert hub.head(REPO) is before


@pytest.mark.parametrize("who", ["alice_read", "bob", "bad_token"])
@pytest.mark.parametrize("exists", [True, False])
def test_who_may_not_push(hub: Hub, who: str, exists: bool) -> None:
    if exists:
        hub.put(REPO, {})
    token = getattr(hub, who)
    with pytest.raises(HfHubHTTPError, match=r"40[13]") as caught:
        fog().push_to_hub(REPO, token=token)
    assert token not in "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert (hub.store.find(REPO) is not None) is exists
    if exists:
        assert not files(hub)


def test_the_library_names_itself(hub: Hub) -> None:
    fog().push_to_hub(REPO, token=hub.alice)
    fog().push_to_hub(REPO, token=hub.alice)
    named = [r for r in hub.log if r.origin == "hub" and "rws-hub/" in r.headers.get("user-agent", "")]
    assert {"/api/repos/create", f"/api/models/{REPO}/commit/main"} <= {r.path for r in named}
    assert any("/resolve/" in r.path for r in named)


@pytest.mark.parametrize("wrong", [{"commit_message": " "}, {"repo_id": "bare"}, {"local_card": "---\na: [\n---\n"}])
def test_a_push_that_cannot_be_leaves_no_repository(hub: Hub, wrong: dict[str, Any]) -> None:
    options: dict[str, Any] = {"repo_id": "alice/new", "local_card": None, "commit_message": "x", **wrong}
    with pytest.raises((ArtifactError, CardError)):
        push(contents=Contents(fog().config, fog().payload, None, {}), token=hub.alice, **options)
    assert len(hub.log) == 0


@pytest.mark.parametrize("name", ["rws.safetensors", "model.safetensors", "deep/pytorch_model.bin", "results.json"])
def test_a_repository_with_weights_of_something_else_is_left_alone(hub: Hub, name: str) -> None:
    hub.put(REPO, {name: b"precious", "README.md": b"# Hers\n"})
    before = hub.head(REPO)
    contents = Contents(fog().config, fog().payload, measured(fog()), {})
    with pytest.raises(NotASignatureError, match="holds another kind of model"):
        push(REPO, contents, local_card=None, token=hub.alice, commit_message="x")
    assert hub.head(REPO) is before


@pytest.mark.parametrize(
    "branch",
    ["", "a b", "a..b", "/a", "a/", "a//b", "-a", ".a", "a/.b", "a.lock", "a.", "a~1", "a^", "a:b", "@", "a@{b", "a\n"],
)
def test_a_branch_that_cannot_be_is_refused_before_any_request(hub: Hub, branch: str) -> None:
    with pytest.raises(ArtifactError, match="cannot be a branch"):
        fog().push_to_hub("alice/new", token=hub.alice, revision=branch)
    assert len(hub.log) == 0
