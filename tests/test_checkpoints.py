"""A model's files: one commit of them, no pickle, and what cannot be fetched or read as a model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import tiny_resnet
from hub import Hub
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from published import files_of, fog, saved
from test_backbones import CONFIG, HF, INDEX, SINGLE, TIMM, empty_cache, folders, put, same, tiny_hf_vit

from rws_hub import CheckpointError, plan_patch
from rws_hub.backbones import build_model, checkpoint, load_model, open_model

__all__ = ["empty_cache", "folders"]  # fixtures


@pytest.mark.parametrize("form", ["alice/resnet", "hf-hub:alice/resnet", "hf_hub:alice/resnet@main"])
def test_checkpoint(hub: Hub, folders: Path, form: str) -> None:
    commit = put(hub, TIMM, folders / "timm0")
    found = checkpoint(form)
    assert found.name == commit and sorted(files_of(found)) == [CONFIG, SINGLE]
    assert not hub.log.matching(r"pytorch_model\.bin") and plan_patch(found, fog()).ok


def test_bare_names_of_timm(hub: Hub, folders: Path) -> None:
    put(hub, "timm/resnet18.a1_in1k", folders / "timm1")
    assert same(load_model("timm/resnet18"), tiny_resnet(1))
    assert same(load_model("timm/resnet18.a1_in1k"), tiny_resnet(1))


def test_shards(hub: Hub, folders: Path) -> None:
    put(hub, HF, folders / "shards")
    found = checkpoint(HF)
    assert sorted(files_of(found)) == sorted(files_of(folders / "shards")) and len(files_of(found)) > 3
    assert same(load_model(HF), tiny_hf_vit())


def test_revisions(hub: Hub, folders: Path) -> None:
    first = put(hub, TIMM, folders / "timm0")
    api = HfApi(token=hub.alice)
    api.create_tag(TIMM, tag="v1")
    api.create_branch(TIMM, branch="feat/x")
    second = put(hub, TIMM, folders / "timm1")
    for revision, commit in {"v1": first, first: first, "feat/x": first, "main": second, second: second}.items():
        assert checkpoint(f"{TIMM}@{revision}").name == commit
    assert checkpoint(TIMM).name == second
    assert same(load_model(TIMM), tiny_resnet(1))
    assert same(load_model(f"{TIMM}@v1"), tiny_resnet(0)) and same(load_model(TIMM, revision=first), tiny_resnet(0))


@pytest.mark.parametrize("moved_before", [r"resolve/.*model\.safetensors", r"resolve/.*00002-of"])
def test_one_commit_even_if_the_branch_moves(hub: Hub, folders: Path, moved_before: str) -> None:
    sharded = "of" in moved_before
    repo_id, before, after = (HF, "shards", "hf1") if sharded else (TIMM, "timm0", "timm1")
    commit = put(hub, repo_id, folders / before)
    moved = hub.fault(moved_before, before=lambda: put(hub, repo_id, folders / after))
    model = load_model(repo_id)
    assert moved.hits == 1 and hub.head(repo_id).oid != commit
    assert same(model, tiny_hf_vit(0) if sharded else tiny_resnet(0))


def test_one_commit_even_if_a_config_appears(hub: Hub, folders: Path) -> None:
    files = files_of(folders / "timm0")
    hub.put(TIMM, {SINGLE: files[SINGLE]})
    hub.fault(r"resolve/.*model\.safetensors", before=lambda: put(hub, TIMM, folders / "timm1"))
    assert same(load_model(TIMM), tiny_resnet(1))


def test_a_repository_without_config(hub: Hub, folders: Path) -> None:
    commit = hub.put(TIMM, {SINGLE: files_of(folders / "timm0")[SINGLE]}).oid
    for offline in (False, True):
        found = checkpoint(TIMM, local_files_only=offline)
        assert found.name == commit and list(files_of(found)) == [SINGLE]
    with pytest.raises(CheckpointError, match=rf"{TIMM}@{commit} has no config\.json.*patch\(model, signature\)"):
        load_model(TIMM)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        build_model(TIMM)


def test_one_file_of_another_name(hub: Hub, folders: Path) -> None:
    files = files_of(folders / "timm0")
    odd = {"weights.safetensors": files[SINGLE], "pytorch_model.bin": b"pickle", CONFIG: files[CONFIG]}
    commit = hub.put(TIMM, odd).oid
    assert checkpoint(TIMM) == checkpoint(TIMM, local_files_only=True)
    assert same(load_model(TIMM, local_files_only=True), tiny_resnet(0))
    hub.put(TIMM, {CONFIG: None})
    assert list(files_of(checkpoint(TIMM))) == ["weights.safetensors"]
    with pytest.raises(CheckpointError, match="usual name"):
        checkpoint(TIMM, local_files_only=True)
    hub.put(TIMM, {CONFIG: files_of(folders / "hf0")[CONFIG]})
    with pytest.raises(CheckpointError, match="transformers reads"):
        load_model(TIMM)
    assert same(load_model(f"{TIMM}@{commit}"), tiny_resnet(0))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pytorch_model.bin": b"x"}, r"only pytorch_model\.bin: a pickle can run code.*save_pretrained"),
        ({"a.safetensors": b"x", "b.safetensors": b"x"}, r"several checkpoints.*a\.safetensors, b\.safetensors"),
        ({f"{i}.safetensors": b"x" for i in range(30)}, r"several checkpoints.* \.\.\.\. Download"),
        ({"sub/model.safetensors": b"x"}, r"holds no \.safetensors file"),
        ({"README.md": b"x"}, r"holds no \.safetensors file"),
        ({SINGLE: b"x"}, "not a readable safetensors file|HeaderTooSmall|header"),
        ({INDEX: b"{"}, "not a safetensors index"),
        ({INDEX: b'{"weight_map": {"a": "gone.safetensors"}}'}, r"shard gone\.safetensors is missing"),
        ({INDEX: b'{"weight_map": {"a": "../x.safetensors"}}'}, "not the name of a file beside it"),
        ({INDEX: b'{"weight_map": {"a": 1}}'}, "not the name of a file beside it|not a safetensors index"),
    ],
)
def test_what_is_no_checkpoint(hub: Hub, files: dict[str, bytes], message: str) -> None:
    hub.put(HF, files | {CONFIG: b'{"architecture": "resnet18"}'})
    with pytest.raises(CheckpointError, match=message):
        plan_patch(checkpoint(HF), fog())
    assert not hub.log.matching(r"/resolve/.*\.bin")


@pytest.mark.parametrize("use", [checkpoint, load_model, build_model])
def test_a_signature_is_no_model(hub: Hub, tmp_path: Path, use: Callable[[str], object]) -> None:
    put(hub, "alice/fog", saved(tmp_path / "fog"))
    for reference in ("alice/fog", str(tmp_path / "fog")):
        with pytest.raises(CheckpointError, match=r"fog.* is a robust weight signature, not a model"):
            use(reference)
    assert not hub.log.matching("safetensors")


def test_other_weights_in_the_cache_make_no_difference(hub: Hub, folders: Path) -> None:
    extra = {"open_clip_model.safetensors": b"x", "x.safetensors.index.json": b"{}"}
    hub.put(TIMM, files_of(folders / "timm0") | extra)
    hub.put(HF, files_of(folders / "shards") | extra | {"pytorch_model.bin": b"x"})
    for repo_id, name, expected in ((TIMM, SINGLE, tiny_resnet()), (HF, INDEX, tiny_hf_vit())):
        assert checkpoint(repo_id).is_dir()
        for other in [*extra, "pytorch_model.bin"]:
            HfApi().hf_hub_download(repo_id, other)
        assert checkpoint(repo_id).name == name
        assert same(load_model(repo_id), expected)


# --- access


def test_offline(hub: Hub, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(hub, TIMM, folders / "timm0")
    commit = put(hub, HF, folders / "shards")
    other = tmp_path / "other"
    expected = {TIMM: tiny_resnet(), HF: tiny_hf_vit()}
    for repo_id, model in expected.items():
        assert same(load_model(repo_id), model) and same(load_model(repo_id, cache_dir=other), model)
    hub.log.clear()
    assert same(load_model(HF, revision=commit), tiny_hf_vit())  # a commit that is cached needs no network
    for _ in range(2):
        for repo_id, model in expected.items():
            assert same(load_model(repo_id, local_files_only=True), model)
            assert same(load_model(repo_id, cache_dir=other, local_files_only=True), model)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert same(load_model(TIMM), tiny_resnet()) and checkpoint(HF).name == commit
    assert len(hub.log) == 0


@pytest.mark.parametrize("cached", [[], [CONFIG], [CONFIG, INDEX]])
def test_offline_without_it(hub: Hub, folders: Path, monkeypatch: pytest.MonkeyPatch, cached: list[str]) -> None:
    put(hub, HF, folders / "shards")
    for name in cached:
        HfApi(token=False).hf_hub_download(HF, name)
    hub.log.clear()
    for _ in range(2):
        with pytest.raises(LocalEntryNotFoundError):
            checkpoint(HF, local_files_only=True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert len(hub.log) == 0


def test_the_clients_errors_pass(hub: Hub, folders: Path, no_backoff: None) -> None:
    with pytest.raises(RepositoryNotFoundError):
        checkpoint("alice/missing")
    put(hub, TIMM, folders / "timm0")
    with pytest.raises(RevisionNotFoundError):
        load_model(f"{TIMM}@missing")
    HfApi(token=hub.alice).update_repo_settings(TIMM, gated="manual")
    with pytest.raises(GatedRepoError):
        load_model(TIMM, token=hub.bob)
    HfApi(token=hub.alice).update_repo_settings(TIMM, gated=False, private=True)
    with pytest.raises(RepositoryNotFoundError):
        load_model(TIMM, token=False)
    assert same(load_model(TIMM, token=hub.alice), tiny_resnet())


def test_a_failing_hub_is_not_taken_for_a_missing_file(hub: Hub, folders: Path, no_backoff: None) -> None:
    put(hub, TIMM, folders / "timm0")
    hub.fault(r"resolve/.*model\.safetensors", status=503, times=1000)
    with pytest.raises(LocalEntryNotFoundError):
        checkpoint(TIMM)


# --- with what lay beside it


def test_what_lay_beside_a_model(hub: Hub, folders: Path) -> None:
    files, said = files_of(folders / "hf0"), {"size": {"height": 32, "width": 32}}
    commit = hub.put(HF, files | {"preprocessor_config.json": json.dumps(said).encode()}).oid
    opened = open_model(f"{HF}@{commit}")
    assert same(opened.model, tiny_hf_vit()) and not opened.model.training
    assert opened.processor == said and opened.config == json.loads(files[CONFIG])
    assert HF in opened.label and commit in opened.label
    fresh = open_model(HF, seed=1)
    assert same(fresh.model, build_model(HF, seed=1)) and fresh.processor == said
    assert fresh.label.endswith("with random weights of seed 1")


def test_a_local_model_with_nothing_beside_it(folders: Path) -> None:
    opened = open_model(folders / "timm1")
    assert same(opened.model, tiny_resnet(1)) and opened.processor is None and opened.label == "timm1"
    assert opened.config["architecture"] == "resnet18"
