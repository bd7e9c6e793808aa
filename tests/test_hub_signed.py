"""Signed on the Hub: what goes up, what stays, and every way in which somebody without the key could meddle."""

import shutil
from pathlib import Path

import pytest
from hub import Hub
from huggingface_hub.errors import LocalEntryNotFoundError
from keys import key_pair
from published import FILES, REPO, files_of, fog, measured, saved

from rws_hub import ArtifactError, NotASignatureError, RobustWeightSignature, VerificationError
from rws_hub.cli import main
from rws_hub.contents import Contents
from rws_hub.hub import pull, push

load = RobustWeightSignature.from_pretrained
SIGNED = FILES | {"model.sig"}
Keys = tuple[Path, Path]


@pytest.fixture(autouse=True)
def empty_cache(hub_cache: Path) -> Path:
    """Nothing is cached when a test begins."""
    return hub_cache


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """The two halves of alice's key."""
    return key_pair(tmp_path)


def files(hub: Hub, revision: str = "main") -> set[str]:
    return set(hub.head(REPO, revision).files) - {".gitattributes"}


def signed(folder: Path, key: Path, seed: int = 1) -> dict[str, bytes]:
    fog(seed).save_pretrained(folder, sign=key)
    return files_of(folder)


def refused(public_key: Path, match: str, **options: str) -> None:
    """Both ways to fetch refuse, and neither decodes anything."""
    for fetch in (load, pull):
        with pytest.raises(VerificationError, match=match):
            fetch(REPO, public_key=public_key, **options)


# --- what holds


def test_push_and_verify(hub: Hub, keys: Keys, xet: bool) -> None:
    fog().push_to_hub(REPO, token=hub.alice, sign=keys[0], results=measured(fog()))
    assert files(hub) == SIGNED | {"results.json"}
    assert load(REPO, public_key=keys[1]) == fog()
    assert set(pull(REPO, public_key=keys[1])[1]) == files(hub)
    hub.put(REPO, {"README.md": b"# A person's", "notes.txt": b"not ours"})
    assert load(REPO, public_key=keys[1]) == fog() and pull(REPO, public_key=keys[1])


def test_offline_from_the_cache(hub: Hub, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    fog().push_to_hub(REPO, token=hub.alice, sign=keys[0])
    load(REPO)
    with pytest.raises(LocalEntryNotFoundError):  # who did not ask for the signature does not have it
        load(REPO, public_key=keys[1], local_files_only=True)
    load(REPO, public_key=keys[1])
    hub.log.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load(REPO, public_key=keys[1]) == fog() and len(hub.log) == 0


def test_the_revision_is_resolved_once(hub: Hub, keys: Keys, tmp_path: Path) -> None:
    hub.put(REPO, signed(tmp_path / "one", keys[0]))
    moved = hub.fault(r"/resolve/.*model\.sig", before=lambda: hub.put(REPO, signed(tmp_path / "two", keys[0], 2)))
    assert load(REPO, public_key=keys[1]) == fog() and moved.hits == 1
    assert load(REPO, public_key=keys[1]) == fog(2)


def test_a_subfolder(hub: Hub, keys: Keys, tmp_path: Path) -> None:
    hub.put(REPO, {f"deep/er/{n}": data for n, data in signed(tmp_path / "fog", keys[0]).items()})
    assert load(REPO, subfolder="deep/er/", public_key=keys[1]) == fog()
    assert set(pull(REPO, subfolder="deep/er", public_key=keys[1])[1]) == SIGNED
    hub.put(REPO, files_of(saved(tmp_path / "two", fog(2))))
    refused(keys[1], f"{REPO} is not signed")


def test_pull_requests_and_branches(hub: Hub, keys: Keys) -> None:
    fog().push_to_hub(REPO, token=hub.alice, sign=keys[0])
    fog(2).push_to_hub(REPO, token=hub.alice, sign=keys[0], create_pr=True)
    fog(3).push_to_hub(REPO, token=hub.alice, sign=keys[0], revision="next")
    for revision, seed in (("main", 1), ("refs/pr/1", 2), ("next", 3)):
        assert load(REPO, revision=revision, public_key=keys[1]) == fog(seed)


# --- a signature never stays beside files that it does not cover


def test_a_push_over_an_older_signed_version(hub: Hub, keys: Keys) -> None:
    fog().push_to_hub(REPO, token=hub.alice, sign=keys[0], results=measured(fog()))
    fog(2).push_to_hub(REPO, token=hub.alice, sign=keys[0])
    assert files(hub) == SIGNED, "results of another payload went, and are not in the signature"
    assert load(REPO, public_key=keys[1]) == fog(2) and pull(REPO, public_key=keys[1])


def test_who_has_no_key_cannot_leave_a_stale_signature(hub: Hub, keys: Keys) -> None:
    fog().push_to_hub(REPO, token=hub.alice, sign=keys[0])
    before = hub.head(REPO)
    fog().push_to_hub(REPO, token=hub.alice)
    assert hub.head(REPO) is before, "the same files: it still covers them"
    for push_it in (
        lambda: fog(2).push_to_hub(REPO, token=hub.alice),
        lambda: fog().push_to_hub(REPO, token=hub.alice, results=measured(fog())),
        lambda: fog(2).push_to_hub(REPO, token=hub.bob, create_pr=True),
    ):
        with pytest.raises(ArtifactError, match=r"is signed, and its model\.sig is not of the files .*sign=False"):
            push_it()
    assert hub.head(REPO) is before and "refs/pr/1" not in hub.repo(REPO).refs
    fog(2).push_to_hub(REPO, token=hub.bob, create_pr=True, sign=False)
    assert files(hub, "refs/pr/1") == FILES and hub.head(REPO) is before
    fog(2).push_to_hub(REPO, token=hub.alice, sign=False)
    assert files(hub) == FILES
    refused(keys[1], "is not signed")


def test_nobody_signs_unseen_results(hub: Hub, keys: Keys) -> None:
    fog().push_to_hub(REPO, token=hub.alice, results=measured(fog(), 0.99))
    before = hub.head(REPO)
    with pytest.raises(ArtifactError, match=r"results\.json is not covered.*not signed unseen: pull it first"):
        fog().push_to_hub(REPO, token=hub.alice, sign=keys[0])
    assert hub.head(REPO) is before
    fog().push_to_hub(REPO, token=hub.alice, sign=keys[0], results=measured(fog()))
    assert pull(REPO, public_key=keys[1])


def test_a_stale_local_signature_is_not_pushed(hub: Hub, keys: Keys, tmp_path: Path) -> None:
    stale = signed(tmp_path / "fog", keys[0])["model.sig"]
    contents = Contents(fog(2).config, fog(2).payload, None, {}, stale)
    with pytest.raises(ArtifactError, match="is not of the files to be published"):
        push(REPO, contents, local_card=None, token=hub.alice, commit_message="x")
    assert len(hub.log) == 0


def test_somebody_elses_signature_of_something_else(hub: Hub, keys: Keys) -> None:
    before = hub.put(REPO, {"model.sig": b"{}", "README.md": b"# Hers"})
    with pytest.raises(NotASignatureError, match=r"another kind of model \(model\.sig"):
        fog().push_to_hub(REPO, token=hub.alice, sign=keys[0])
    assert hub.head(REPO) is before


# --- attacks


def test_attacks(hub: Hub, keys: Keys, tmp_path: Path) -> None:
    """Whoever can write to the repository, without the key."""
    mine = signed(tmp_path / "mine", keys[0])
    older = signed(tmp_path / "older", keys[0], 2)
    hers = signed(tmp_path / "hers", key_pair(tmp_path, "mallory")[0], 3)
    plain = files_of(saved(tmp_path / "plain", fog(3)))
    body = {"config.json", "rws.safetensors"}
    attacks: dict[str, tuple[dict[str, bytes | None], str]] = {
        "files swapped": (mine | {n: plain[n] for n in body}, "config.json differs"),
        "config swapped": (mine | {"config.json": plain["config.json"]}, "config.json differs"),
        "signature swapped": (mine | {"model.sig": hers["model.sig"]}, "names another key"),
        "signature of another artifact": (mine | {"model.sig": older["model.sig"]}, "config.json differs"),
        "older signature under new files": (hers | {"model.sig": older["model.sig"]}, "config.json differs"),
        "all of it, with her own key": (hers, "names another key"),
        "signature removed": (plain | {"model.sig": None}, "is not signed"),
        "signature emptied": (mine | {"model.sig": b""}, "was refused"),
        "signature cut": (mine | {"model.sig": mine["model.sig"][:-100]}, "was refused"),
        "signature of two megabytes": (mine | {"model.sig": b" " * 2**21}, "at most 1,048,576"),
        "signature nested": (mine | {"model.sig": b"[" * 10**6}, "was refused"),
    }
    hub.put(REPO, mine)
    for name, (attack, words) in attacks.items():
        hub.put(REPO, attack)
        refused(keys[1], words)
        hub.put(REPO, mine)
        assert load(REPO, public_key=keys[1]) == fog(), name
    hub.put(REPO, {"rws.safetensors": plain["rws.safetensors"]})  # the config itself says that this is another
    for fetch in (load, pull):
        with pytest.raises(ArtifactError):
            fetch(REPO, public_key=keys[1])


def test_files_that_nobody_signed(hub: Hub, keys: Keys, tmp_path: Path) -> None:
    lie = measured(fog(), 0.99).to_text().encode()
    hub.put(REPO, signed(tmp_path / "fog", keys[0]) | {"results.json": lie})
    with pytest.raises(VerificationError, match=r"results\.json is not covered"):
        pull(REPO, public_key=keys[1])
    assert load(REPO, public_key=keys[1]) == fog(), "which reads two files, both covered"
    fog().save_pretrained(tmp_path / "measured", results=measured(fog()), sign=keys[0])
    hub.put(REPO, files_of(tmp_path / "measured") | {"results.json": None})
    with pytest.raises(VerificationError, match=r"results\.json is missing"):
        pull(REPO, public_key=keys[1])


def test_a_replay_is_told_by_a_lock_only(hub: Hub, keys: Keys, tmp_path: Path) -> None:
    older = signed(tmp_path / "older", keys[0], 2)
    hub.put(REPO, older)
    hub.put(REPO, signed(tmp_path / "newer", keys[0]))
    assert main(["lock", REPO, "-o", str(tmp_path / "rws.lock")]) == 0
    hub.put(REPO, older)
    assert load(REPO, public_key=keys[1]) == fog(2), "it is validly signed"
    assert load(REPO, public_key=keys[1], lock=tmp_path / "rws.lock") == fog()


def test_a_damaged_cache(hub: Hub, keys: Keys, empty_cache: Path) -> None:
    fog().push_to_hub(REPO, token=hub.alice, sign=keys[0])
    load(REPO, public_key=keys[1])
    (snapshot,) = empty_cache.glob("models--*/snapshots/*")
    for name in ("config.json", "model.sig"):
        blob = (snapshot / name).resolve()
        data = blob.read_bytes()
        blob.write_bytes(data[:-30] + b" " * 30)
        with pytest.raises(VerificationError):
            load(REPO, public_key=keys[1], local_files_only=True)
        blob.write_bytes(data)
    (snapshot / "model.sig").unlink()
    shutil.copy(snapshot / "config.json", snapshot / "model.sig")
    refused(keys[1], "was refused", revision=snapshot.name)
