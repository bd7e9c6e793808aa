"""Models by reference: every spelling, one commit, no pickle, and a patched model in one call, in both libraries."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from builders import perturbed, seeded, tiny_resnet, tiny_signature
from hub import Hub
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from published import files_of, fog, saved
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from test_apply import same_bits, save_sharded
from torch import nn

from rws_hub import (
    ArtifactError,
    CheckpointError,
    IncompatibleModelError,
    NameTableError,
    RobustWeightSignature,
    active_patches,
    load_patched,
    patch,
    plan_patch,
)
from rws_hub.backbones import build_model, checkpoint, example_input, load_model, open_model
from rws_hub.names import families
from rws_hub.references import parse

TIMM, HF = "alice/resnet", "alice/vit"
CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def empty_cache(hub_cache: Path) -> Path:
    """Nothing is cached when a test begins."""
    return hub_cache


def tiny_hf_vit(seed: int = 0) -> Any:
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, image_size=32, patch_size=8
    )
    return seeded(lambda: transformers.ViTForImageClassification(config), seed).eval()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as the libraries write them: `timm0`, `timm1`, `hf0`, `hf1` and `shards`, numbered by seed."""
    root = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        arguments = {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64]}
        timm.models.save_for_hf(
            tiny_resnet(seed), root / f"timm{seed}", model_args=arguments, safe_serialization="both"
        )
        tiny_hf_vit(seed).save_pretrained(root / f"hf{seed}")
    tiny_hf_vit().save_pretrained(root / "shards", max_shard_size="100KB")
    return root


def put(hub: Hub, repo_id: str, folder: Path) -> str:
    """Publish a folder; the commit."""
    return hub.put(repo_id, files_of(folder)).oid


def same(found: nn.Module, expected: nn.Module) -> bool:
    return same_bits(dict(found.state_dict()), dict(expected.state_dict()))


def without(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """As if it were not installed."""
    monkeypatch.setitem(sys.modules, library, None)


# --- what a reference is


@pytest.mark.parametrize(
    ("text", "repo_id", "revision"),
    [
        ("alice/vit", "alice/vit", None),
        ("alice/vit@v1.0", "alice/vit", "v1.0"),
        ("alice/vit@feat/x", "alice/vit", "feat/x"),
        ("alice/vit@refs/pr/1", "alice/vit", "refs/pr/1"),
        ("timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k", None),
        ("timm/resnet18.a1_in1k@main", "timm/resnet18.a1_in1k", "main"),
        ("timm/resnet18", "timm/resnet18.a1_in1k", None),
        ("timm/resnet18@main", "timm/resnet18.a1_in1k", "main"),
        ("timm/ViT-B-16-SigLIP", "timm/ViT-B-16-SigLIP", None),
        ("hf-hub:timm/resnet18", "timm/resnet18", None),
        ("hf_hub:alice/vit@x", "alice/vit", "x"),
        ("hf-hub:alice/vit.pt", "alice/vit.pt", None),
    ],
)
def test_forms(text: str, repo_id: str, revision: str | None) -> None:
    found = parse(text)
    assert (found.path, found.repo_id, found.revision) == (None, repo_id, revision)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./x", "no such file or folder"),
        ("/nowhere/x", "no such file or folder"),
        ("~/x", "no such file or folder"),
        ("..x", "Hub id is namespace/name"),
        ("a/b/c", "no such file or folder"),
        ("a\\b", "no such file or folder"),
        ("x.safetensors", "no such file or folder"),
        ("alice/x.safetensors", "no such file or folder"),
        ("alice/model.bin", "no such file or folder"),
        (Path("alice/vit"), "no such file or folder"),
        (Path("hf-hub:alice/vit"), "no such file or folder"),
        ("resnet18.a1_in1k", r"timm/resnet18\.a1_in1k for a model of timm"),
        ("", "namespace/name"),
        ("x" * 5000, "no such file or folder"),
        ("https://huggingface.co/alice/vit", "not its address"),
        ("hf-hub:", "namespace/name"),
        ("hf-hub:vit", "namespace/name"),
        ("alice/vit@", "no revision after the @"),
        ("timm/gcvit_tiny", "no default weights"),
    ],
)
def test_no_reference(hub: Hub, text: str, message: str) -> None:
    for use in (checkpoint, load_model):
        with pytest.raises(CheckpointError, match=message) as caught:
            use(text)
        assert len(str(caught.value)) < 400
    assert len(hub.log) == 0


def test_two_revisions(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="another revision"):
        load_model("alice/vit@a", revision="b")
    assert parse("alice/vit@a", "a").revision == parse("alice/vit", "a").revision == "a"
    with pytest.raises(CheckpointError, match="no meaning"):
        load_model(tmp_path, revision="a")


def test_what_is_here_wins(hub: Hub, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice" / "resnet@x").symlink_to(folders / "timm1")
    (tmp_path / "timm").symlink_to(tmp_path / "alice")
    assert checkpoint("alice/resnet@x") == Path("alice/resnet@x")
    for reference in ("alice/resnet@x", Path("timm/resnet@x"), f"alice/resnet@x/{SINGLE}"):
        assert same(load_model(reference), tiny_resnet(1))
    assert len(hub.log) == 0


# --- checkpoints


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


# --- live models


def test_load_as_by_hand(hub: Hub, folders: Path) -> None:
    put(hub, TIMM, folders / "timm0")
    put(hub, HF, folders / "hf0")
    before = torch.get_rng_state()
    ours, vit = load_model(TIMM), load_model(HF)
    assert torch.equal(torch.get_rng_state(), before) and not ours.training and not vit.training
    theirs = timm.create_model(f"hf-hub:{TIMM}", pretrained=True).eval()
    assert same(ours, theirs) and type(ours) is type(theirs)
    by_hand = transformers.AutoModelForImageClassification.from_pretrained(folders / "hf0")
    assert same(vit, by_hand) and type(vit) is type(by_hand)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
        assert torch.equal(vit(images).logits, by_hand(images).logits)


def test_timm_reads_the_very_file(hub: Hub, folders: Path) -> None:
    """Whatever the config says about where its weights are."""
    config = json.loads((folders / "timm0" / CONFIG).read_text())
    config["pretrained_cfg"] |= {
        "state_dict": {"conv1.weight": [1]},
        "hf_hub_filename": "pytorch_model.bin",
        "url": "http://127.0.0.1:1/x.pth",
        "file": "pytorch_model.bin",
        "custom_load": True,
    }
    hub.put(TIMM, files_of(folders / "timm0") | {CONFIG: json.dumps(config).encode()})
    HfApi().hf_hub_download(TIMM, "pytorch_model.bin")
    hub.log.clear()
    assert same(load_model(TIMM), tiny_resnet())
    assert not hub.log.matching("bin")


def test_a_backbone_of_transformers_without_a_head(hub: Hub, folders: Path) -> None:
    bare = {**json.loads((folders / "hf0" / CONFIG).read_text()), "architectures": ["ViTModel"]}
    hub.put(HF, files_of(folders / "hf0") | {CONFIG: json.dumps(bare).encode()})
    model, again = load_model(HF), load_model(HF)
    assert isinstance(model, transformers.ViTModel) and same(model, again)  # its pooler is random, but not by chance


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"{}", "neither an architecture of timm nor a model_type"),
        (b"[]", "not a JSON object"),
        (b"{", "is not JSON"),
        (b'{"architecture": "no_such_net"}', "knows no 'no_such_net'.*pip install -U timm"),
        (b'{"model_type": "no_such_type"}', "knows no model_type 'no_such_type'.*pip install -U transformers"),
        (b'{"model_type": []}', "knows no model_type"),
        (b'{"model_type": "no", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}', "is not run"),
    ],
)
@pytest.mark.parametrize("use", [load_model, build_model])
def test_what_no_library_knows(
    hub: Hub, folders: Path, config: bytes, message: str, use: Callable[[str], nn.Module]
) -> None:
    hub.put(TIMM, {CONFIG: config, SINGLE: files_of(folders / "timm0")[SINGLE], "evil.py": b"raise SystemExit(9)"})
    with pytest.raises(CheckpointError, match=message):
        use(TIMM)
    assert not hub.log.matching(r"evil\.py")


def test_code_that_comes_with_a_model_is_not_run(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even asked for: transformers would ask the terminal."""
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("asked"))
    config = json.loads((folders / "hf0" / CONFIG).read_text())
    config["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModelForImageClassification"), "evil.Evil")
    (tmp_path / "evil.py").write_text("raise SystemExit(9)")
    (tmp_path / CONFIG).write_text(json.dumps(config))
    (tmp_path / SINGLE).write_bytes((folders / "hf0" / SINGLE).read_bytes())
    assert same(load_model(tmp_path), tiny_hf_vit()) and build_model(tmp_path) is not None
    (tmp_path / CONFIG).write_text(json.dumps(config | {"model_type": "roberta"}))
    for use in (load_model, build_model):
        with pytest.raises(
            CheckpointError, match=r"ImageClassification of transformers .* knows no model_type 'roberta'"
        ):
            use(tmp_path)


def test_weights_that_are_not_all_there(folders: Path, tmp_path: Path) -> None:
    tensors = load_file(folders / "hf0" / SINGLE)
    tensors.pop("classifier.weight")
    (tmp_path / CONFIG).write_bytes((folders / "hf0" / CONFIG).read_bytes())
    (tmp_path / SINGLE).write_bytes(to_bytes(tensors, {"format": "pt"}))
    with pytest.raises(CheckpointError, match=r"lack classifier\.weight \(1 tensors"):
        load_model(tmp_path)


def test_shards_are_not_for_timm(tmp_path: Path) -> None:
    folder = save_sharded(tiny_resnet(), tmp_path / "shards")
    assert checkpoint(folder) == folder
    with pytest.raises(CheckpointError, match="has 3 shards; timm reads one file"):
        load_model(folder)


def test_part_of_a_model_is_not_for_transformers(folders: Path) -> None:
    with pytest.raises(CheckpointError, match="transformers reads"):
        load_model(next((folders / "shards").glob("*00001-of*")))
    assert same(load_model(folders / "shards" / INDEX), tiny_hf_vit())


def test_missing_libraries(hub: Hub, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(hub, TIMM, folders / "timm0")
    put(hub, HF, folders / "hf0")
    without(monkeypatch, "timm")
    without(monkeypatch, "transformers")
    assert plan_patch(checkpoint(TIMM), fog()).ok and parse("timm/resnet18.a1_in1k").repo_id
    for use in (load_model, build_model):
        with pytest.raises(CheckpointError, match=r"timm, which is not installed: pip install 'rws-hub\[timm\]'"):
            use(TIMM)
        with pytest.raises(CheckpointError, match=r"pip install 'rws-hub\[transformers\]'"):
            use(HF)
    with pytest.raises(CheckpointError, match=r"with their tag, as in timm/resnet18\.a1_in1k"):
        checkpoint("timm/resnet18")


def test_a_library_that_lacks_something_itself(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing it again would not help."""
    missing = ModuleNotFoundError("No module named 'httpx'", name="httpx")

    class Broken:
        def find_spec(self, name: str, *rest: object) -> None:
            if name in ("timm", "transformers"):
                raise missing

    for name, folder in (("timm", "timm0"), ("transformers", "hf0")):
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
        with pytest.raises(ModuleNotFoundError, match="httpx"):
            load_model(folders / folder)
        monkeypatch.undo()


# --- random weights


def test_build(hub: Hub, folders: Path) -> None:
    put(hub, TIMM, folders / "timm0")
    put(hub, HF, folders / "shards")
    before = torch.get_rng_state()
    for reference in (TIMM, HF, str(folders / "timm0"), folders / "hf0"):
        model, twin, other = (build_model(reference, seed=seed) for seed in (1, 1, 2))
        assert same(model, twin) and not same(model, other) and not model.training
        shapes = {n: t.shape for n, t in model.state_dict().items()}
        assert shapes == {n: t.shape for n, t in load_model(reference).state_dict().items()}
        hub.log.clear()
    assert torch.equal(torch.get_rng_state(), before)
    hub.reset()
    put(hub, HF, folders / "hf1")
    build_model(HF)
    assert not hub.log.matching("safetensors")


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "gcvit_xxtiny"])
def test_build_from_timm_alone(hub: Hub, name: str) -> None:
    model = build_model(f"timm/{name}", seed=3)
    assert same(model, seeded(lambda: timm.create_model(name), 3)) and not model.training
    assert len(hub.log) == 0


def test_build_what_this_timm_does_not_know(hub: Hub, folders: Path) -> None:
    for name in ("timm/resnet18.from_the_future", "timm/a-repository"):
        put(hub, name, folders / "timm0")
        assert len(build_model(name).state_dict()) == len(tiny_resnet().state_dict())


def test_build_of_a_tag_has_its_classes(hub: Hub) -> None:
    assert build_model("timm/mixer_b16_224.goog_in21k").num_classes == 21843


# --- patched


def made(kind: str, commit: str | None, repo_id: str | None) -> RobustWeightSignature:
    facts: dict[str, Any] = {"base_model": repo_id, "base_revision": commit}
    if kind == "timm":
        return tiny_signature(**facts)
    standard = tiny_hf_vit()
    return RobustWeightSignature.extract(
        standard=standard,
        robust=perturbed(standard, 0.01, 1),
        corruption="fog",
        license="mit",
        layers=2,
        alpha=0.7,
        **facts,
    )


@pytest.mark.parametrize("kind", ["timm", "hf"])
@pytest.mark.parametrize("alpha", [None, 0.5])
def test_load_patched(hub: Hub, folders: Path, tmp_path: Path, kind: str, alpha: float | None) -> None:
    repo_id = {"timm": TIMM, "hf": HF}[kind]
    commit = put(hub, repo_id, folders / f"{kind}0")
    signature = made(kind, commit, repo_id)
    put(hub, "alice/fog", saved(tmp_path / "fog", signature))
    put(hub, repo_id, folders / f"{kind}1")  # the branch goes on; the recorded commit counts
    by_hand = tiny_resnet() if kind == "timm" else tiny_hf_vit()
    expected = by_hand.state_dict()
    with patch(by_hand, signature, alpha=alpha):
        for source in ("alice/fog", tmp_path / "fog", signature):
            model = load_patched(source, alpha=alpha)
            assert same(model, by_hand) and not model.training
            (handle,) = active_patches(model)
            handle.unpatch()
    assert same_bits(dict(model.state_dict()), dict(expected))
    hub.log.clear()
    load_patched("alice/fog", local_files_only=True)
    assert len(hub.log) == 0


def test_load_patched_onto_another_base(hub: Hub, folders: Path) -> None:
    signature = made("timm", None, None)
    with pytest.raises(CheckpointError, match=r"does not say which published model.*timm resnet18\): pass base="):
        load_patched(signature)
    by_hand = tiny_resnet(1)
    put(hub, TIMM, folders / "timm1")
    anyway = {"verify": "architecture"}
    patch(by_hand, signature, **anyway)
    with pytest.raises(IncompatibleModelError, match="stranger"):
        load_patched(signature, base=str(folders / "timm1"))
    for base in (str(folders / "timm1"), TIMM, f"{TIMM}@main"):
        assert same(load_patched(signature, base=base, **anyway), by_hand)
    assert same(load_patched(made("timm", "0" * 40, "alice/gone"), base=TIMM, **anyway), by_hand)
    assert same(load_patched(made("timm", None, TIMM), **anyway), by_hand)  # without a commit: as the branch is now
    with pytest.raises(IncompatibleModelError):
        load_patched(signature, base=str(folders / "hf0"))


def test_load_patched_by_a_table_of_ones_own(folders: Path, tmp_path: Path) -> None:
    resnet = families()["resnet"].text
    (tmp_path / "mine.map").write_text(resnet.replace("conv1.weight     ", "first.weight     "))
    (tmp_path / "same.map").write_text(resnet)
    base, signature = str(folders / "timm0"), made("timm", None, None)
    by_hand = tiny_resnet(0)
    with patch(by_hand, signature):
        assert same(load_patched(signature, base=base, table=tmp_path / "same.map"), by_hand)
    with pytest.raises(
        NameTableError, match=r"mine\.map: the table does not explain .* no row for conv1\.weight in its"
    ):
        load_patched(signature, base=base, table=tmp_path / "mine.map")


def test_a_recorded_base_is_never_a_local_folder(
    hub: Hub, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = put(hub, TIMM, folders / "timm0")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alice").mkdir()
    (tmp_path / TIMM).symlink_to(folders / "timm1")
    model = load_patched(made("timm", commit, TIMM), alpha=0)
    assert same(model, tiny_resnet(0))


def test_load_patched_from_a_place(hub: Hub, tmp_path: Path, folders: Path) -> None:
    commit = hub.put("alice/fog", {f"sub/{n}": d for n, d in files_of(saved(tmp_path / "fog")).items()}).oid
    base = str(folders / "timm0")
    assert active_patches(load_patched("alice/fog", base=base, revision=commit, subfolder="sub"))
    for place in ({"revision": commit}, {"subfolder": "sub"}):
        with pytest.raises(ArtifactError, match="loaded already"):
            load_patched(fog(), base=base, **place)  # type: ignore[arg-type]
    with pytest.raises(RepositoryNotFoundError):
        load_patched("alice/nothing")


def test_an_example_input_has_the_size_that_was_asked_for_or_the_model_s() -> None:
    model = tiny_resnet()
    assert [example_input(model, size).shape[2:] for size in (1, 40)] == [(1, 1), (40, 40)]
    assert example_input(model).shape == (1, *model.pretrained_cfg["input_size"])
    for size in (0, -5):
        with pytest.raises(ValueError, match=f"a side of at least 1 pixel, not {size}"):
            example_input(model, size)


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
