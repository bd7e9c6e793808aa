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
from builders import seeded, tiny_resnet
from hub import Hub
from huggingface_hub import HfApi
from published import files_of, fog
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from test_apply import same_bits, save_sharded
from torch import nn

from rws_hub import CheckpointError, plan_patch
from rws_hub.backbones import build_model, checkpoint, example_input, load_model
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


def test_an_example_input_has_the_size_that_was_asked_for_or_the_model_s() -> None:
    model = tiny_resnet()
    assert [example_input(model, size).shape[2:] for size in (1, 40)] == [(1, 1), (40, 40)]
    assert example_input(model).shape == (1, *model.pretrained_cfg["input_size"])
    for size in (0, -5):
        with pytest.raises(ValueError, match=f"a side of at least 1 pixel, not {size}"):
            example_input(model, size)
