"""Pinned on the Hub: the same bytes tomorrow, offline, and after branches moved or repositories went."""

import json
import shutil
from pathlib import Path

import pytest
from hub import Hub
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from keys import key_pair
from published import FILES, REPO, files_of, fog, measured, saved

from rws_hub import ArtifactError, NotASignatureError, RobustWeightSignature, VerificationError, artifact
from rws_hub.cli import main
from rws_hub.hub import pull
from rws_hub.lock import read_lock

load = RobustWeightSignature.from_pretrained
LOCK = Path("rws.lock")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and nothing cached."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(seed: int = 1, **more: bytes) -> dict[str, bytes]:
    config = fog(seed).config.to_text().encode()
    return {"README.md": b"# Fog", "config.json": config, "rws.safetensors": fog(seed).payload} | more


def rws(*arguments: object, code: int = 0) -> None:
    assert main([str(a) for a in arguments]) == code


def test_lock_and_load(hub: Hub, xet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    commit = hub.put(REPO, files()).oid
    rws("lock", REPO)
    assert capsys.readouterr().out == f"rws.lock: {REPO} at {commit}, 3 files\n"
    (pin,) = read_lock(LOCK).signatures
    assert (pin.repo, pin.revision, set(pin.sha256)) == (REPO, commit, FILES)
    hub.put(REPO, files(2))
    assert load(REPO) == fog(2) and load(REPO, lock=LOCK) == load(REPO, lock=LOCK, revision=commit) == fog()
    with pytest.raises(VerificationError, match="asks for another"):
        load(REPO, lock=LOCK, revision="main")


def test_update(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    first = hub.put(REPO, files()).oid
    HfApi(token=hub.alice).create_tag(REPO, tag="v1")
    other = hub.put("bob/snow", files(3)).oid
    rws("lock", REPO, "bob/snow")
    second = hub.put(REPO, files(2)).oid
    hub.put("bob/snow", files(4))
    capsys.readouterr()
    rws("lock", REPO)
    assert capsys.readouterr().out == f"rws.lock: {REPO} at {second}, 3 files, was at {first}\n"
    assert {p.repo: p.revision for p in read_lock(LOCK).signatures} == {REPO: second, "bob/snow": other}
    for named, commit in ((f"{REPO}@v1", first), (f"{REPO}@{second}", second)):
        rws("lock", named)
        assert read_lock(LOCK).signatures[0].revision == commit
    before = LOCK.read_bytes()
    rws("lock", f"{REPO}@missing", code=1)
    rws("lock", "bob/snow", "alice/missing", code=1)
    assert LOCK.read_bytes() == before, "all of it, or nothing"


def test_a_deployment(hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put(REPO, files(results=b"no file of ours"))
    hub.put("bob/many", {f"snow/{n}": d for n, d in files(2).items()} | {"figures/a.png": b"not of the subfolder"})
    rws("lock", REPO)
    rws("lock", "bob/many", "--subfolder", "snow")
    rws("pull", "--lock", LOCK, "-o", "signatures")
    capsys.readouterr()
    written = files_of(Path("signatures"))
    expected = {f"{REPO}/{n}": d for n, d in files().items()} | {f"bob/many/snow/{n}": d for n, d in files(2).items()}
    assert written == expected
    hub.put(REPO, files(5))
    hub.log.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    rws("pull", "--lock", LOCK, "-o", "signatures", "--json")
    assert [s["state"] for s in json.loads(capsys.readouterr().out)["signatures"]] == ["as pinned"] * 2
    rws("pull", "--lock", LOCK, "-o", "again")
    assert files_of(Path("again")) == written
    assert load(REPO, lock=LOCK) == fog() and load("bob/many", subfolder="snow", lock=LOCK) == fog(2)
    assert len(hub.log) == 0


def test_a_folder_that_was_changed_is_not_written_over(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.put(REPO, files())
    rws("lock", REPO)
    rws("pull", "--lock", LOCK)
    card = Path(REPO, "README.md")
    card.write_text("# Mine")
    shutil.rmtree("out", ignore_errors=True)
    rws("pull", "--lock", LOCK, code=1)
    err = capsys.readouterr().err
    assert f"{REPO} is not what rws.lock vouches for: README.md differs" in err
    assert f"note: delete {REPO}, or name another folder with -o; it is fetched again" in err
    assert card.read_text() == "# Mine"
    shutil.rmtree(REPO)
    rws("pull", "--lock", LOCK)
    assert files_of(Path(REPO)) == files()


@pytest.mark.parametrize("mine", [False, True], ids=["as pinned", "something else"])
def test_two_pulls_of_one_lock_file_at_once(
    hub: Hub, mine: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(REPO, files())
    rws("lock", REPO)
    place, other = artifact.place, saved(Path("other"), fog(2))

    def quicker(scratch: Path, folder: Path) -> None:
        shutil.copytree(other if mine else scratch, folder)
        place(scratch, folder)

    capsys.readouterr()
    monkeypatch.setattr(artifact, "place", quicker)
    rws("pull", "--lock", LOCK, code=int(mine))
    out, err = capsys.readouterr()
    assert ("config.json differs" in err) if mine else out.endswith(", as pinned\n")
    assert load(REPO) == fog(2 if mine else 1)


def test_two_plain_pulls_at_once(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hub.put(REPO, files())
    place, other = artifact.place, saved(Path("other"), fog(2))

    def quicker(scratch: Path, folder: Path) -> None:
        shutil.copytree(other, folder)
        place(scratch, folder)

    monkeypatch.setattr(artifact, "place", quicker)
    rws("pull", REPO, "-o", "c5", code=1)
    err = capsys.readouterr().err
    assert err.startswith(
        "error: c5: somebody else made it meanwhile\nnote: c5 is as they made it: choose another name"
    )
    assert load("c5") == fog(2)


def test_a_folder_of_the_same_name_is_not_what_is_pinned(hub: Hub) -> None:
    hub.put(REPO, files())
    rws("lock", REPO)
    saved(Path(REPO), fog(2))
    assert load(REPO) == fog(2) and load(REPO, lock=LOCK) == fog()


def test_nothing_is_written_unless_all_is_well(hub: Hub) -> None:
    hub.put(REPO, files())
    hub.put("bob/snow", files(2))
    rws("lock", REPO, "bob/snow")
    data = json.loads(LOCK.read_text())
    data["signatures"][1]["sha256"]["README.md"] = "00" * 32
    LOCK.write_text(json.dumps(data))
    rws("pull", "--lock", LOCK, "-o", "out", code=1)
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["README.md", "config.json", "rws.safetensors"])
def test_other_bytes_at_the_pinned_commit(
    hub: Hub, hub_cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that lies about a commit; with a network it is fetched again."""
    hub.put(REPO, files())
    rws("lock", REPO)
    rws("pull", "--lock", LOCK)
    (snapshot,) = hub_cache.glob("models--*/snapshots/*")
    blob = (snapshot / name).resolve()
    blob.write_bytes(files(2, **{"README.md": b"# Fig"})[name])
    with monkeypatch.context() as offline:
        offline.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ValueError, match=r"differs|sha256|bytes, config"):
            pull(REPO, lock=LOCK)
        if name != "README.md":
            with pytest.raises(ValueError, match=r"differs|sha256|bytes, config"):
                load(REPO, lock=LOCK)
    assert load(REPO, lock=LOCK) == fog()
    assert files_of(Path(REPO)) == files()


def test_a_whole_other_signature_at_the_pinned_commit(
    hub: Hub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(REPO, files())
    rws("lock", REPO)
    (snapshot,) = hub_cache.glob("models--*/snapshots/*")
    for name in ("config.json", "rws.safetensors"):
        (snapshot / name).resolve().write_bytes(files(2)[name])
    with monkeypatch.context() as offline:
        offline.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert load(REPO) == fog(2)
        for fetch in (load, pull):
            with pytest.raises(VerificationError, match=r"config\.json differs"):
                fetch(REPO, lock=LOCK)
    assert load(REPO, lock=LOCK) == fog()


def test_nothing_is_parsed_before_it_was_compared(
    hub: Hub, tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a mirror names files by something else, so that only their own digests could vouch for them."""
    hub.put(REPO, files())
    public = key_pair(tmp_path)[1]
    rws("lock", REPO)
    data = json.loads(LOCK.read_text())
    data["signatures"][0]["sha256"]["config.json"] = "00" * 32
    LOCK.write_text(json.dumps(data))
    shutil.rmtree(hub_cache)
    monkeypatch.setattr("hub.store.FileEntry.etag", property(lambda entry: entry.oid[::-1]))
    parsed: list[object] = []
    monkeypatch.setattr(artifact, "parse_config", lambda *a: parsed.append(a))
    with pytest.raises(VerificationError, match="is not signed"):
        load(REPO, public_key=public)
    with pytest.raises(ArtifactError):
        load(REPO, lock=LOCK)
    with pytest.raises(ArtifactError):
        load(REPO, lock=LOCK, public_key=public)
    assert parsed == []


def test_results_are_not_parsed_before_they_were_compared(hub: Hub) -> None:
    hub.put(REPO, files() | {"results.json": measured(fog()).to_text().encode()})
    rws("lock", REPO)
    data = json.loads(LOCK.read_text())
    data["signatures"][0]["sha256"]["results.json"] = "00" * 32
    LOCK.write_text(json.dumps(data))
    with pytest.MonkeyPatch.context() as watched:
        watched.setattr("rws_hub.beside.parse_results", lambda *a: pytest.fail("parsed"))
        with pytest.raises(VerificationError, match=r"results\.json differs"):
            pull(REPO, lock=LOCK)


def test_a_repository_that_is_gone(hub: Hub, hub_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit = hub.put(REPO, files()).oid
    rws("lock", REPO)
    HfApi(token=hub.alice).delete_repo(REPO)
    assert load(REPO, lock=LOCK) == fog(), "what is cached, is there"
    rws("pull", "--lock", LOCK, "-o", "out")
    shutil.rmtree(hub_cache)
    with pytest.raises(RepositoryNotFoundError) as caught:
        load(REPO, lock=LOCK)
    assert f"rws.lock pins {REPO} at {commit}" in "; ".join(caught.value.__notes__)
    with pytest.raises(LocalEntryNotFoundError) as offline:
        load(REPO, lock=LOCK, local_files_only=True)
    assert offline.value.__notes__
    capsys.readouterr()
    rws("pull", "--lock", LOCK, "-o", "new", code=1)
    assert "note: rws.lock pins" in capsys.readouterr().err
    hub.put(REPO, files(2))  # somebody else takes the name
    rws("pull", "--lock", LOCK, "-o", "new", code=1)
    assert not Path("new").exists()


def test_what_is_not_pinned(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.put(REPO, files())
    hub.put("alice/other", files(2))
    rws("lock", REPO)
    hub.log.clear()
    for options in ({"pretrained_model_name_or_path": "alice/other"}, {"subfolder": "x"}):
        with pytest.raises(VerificationError, match=f"only {REPO}"):
            load(**{"pretrained_model_name_or_path": REPO, "lock": LOCK} | options)  # type: ignore[arg-type]
    rws("info", "alice/other", "--lock", LOCK, code=1)
    rws("info", REPO, "--lock", LOCK)
    assert "by rws.lock: config and payload" in capsys.readouterr().out
    assert not hub.log.matching("alice/other")
    hub.put("alice/model", {"config.json": b"{}"})
    rws("lock", "alice/model", code=1)
    with pytest.raises(NotASignatureError):
        load("alice/model")


def test_signed_and_pinned(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, public = key_pair(tmp_path)
    mallory, hers = key_pair(tmp_path, "mallory")
    fog().push_to_hub(REPO, token=hub.alice, sign=private, results=measured(fog()))
    rws("lock", REPO, "--verify", public)
    assert set(read_lock(LOCK).signatures[0].sha256) == FILES | {"model.sig", "results.json"}
    fog(2).push_to_hub(REPO, token=hub.alice, sign=mallory)
    rws("pull", "--lock", LOCK, "--verify", public, "-o", "out")
    assert load(REPO, lock=LOCK, public_key=public) == fog()
    rws("pull", "--lock", LOCK, "--verify", hers, "-o", "new", code=1)
    capsys.readouterr()
    before = LOCK.read_bytes()
    rws("lock", REPO, "--verify", public, code=1)
    assert "names another key" in capsys.readouterr().err and LOCK.read_bytes() == before
