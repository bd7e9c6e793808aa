"""Weights from a module, a state dict, a file or shards are the same weights."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from builders import perturbed, seeded, tiny_resnet, tiny_vit
from safetensors.torch import save_file
from torch import nn
from twin_weights import copy_body

from rws_hub import CheckpointError, RobustWeightSignature
from rws_hub.sources import canonical_weights, live_tensors, open_weights


def extract(**sources):
    return RobustWeightSignature.extract(**sources, corruption="fog", license="mit", layers=2, bits=4)


def tensors(model):
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def save_shards(model, folder: Path) -> Path:
    """Two shards and their index."""
    folder.mkdir()
    everything = tensors(model)
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(everything)}
    for shard in sorted(set(where.values())):
        save_file({n: everything[n] for n in everything if where[n] == shard}, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return index


def in_every_form(model, folder: Path) -> dict:
    folder.mkdir()
    save_file(tensors(model), folder / "model.safetensors")
    index = save_shards(model, folder / "shards")
    return {
        "module": model,
        "state dict": model.state_dict(),
        "file": str(folder / "model.safetensors"),
        "folder": folder,
        "sharded folder": index.parent,
        "index": index,
        "wrapped": nn.DataParallel(model),
    }


def test_every_form_of_a_source_gives_the_same_bytes(tmp_path):
    standard = tiny_resnet()
    models = {"standard": standard, "robust": perturbed(standard, 0.02, 1), "pretrained": perturbed(standard, 0.02, 2)}
    forms = {role: in_every_form(model, tmp_path / role) for role, model in models.items()}
    reference = extract(**models)
    for form in forms["standard"]:
        signature = extract(**{role: forms[role][form] for role in models})
        assert signature.payload == reference.payload, form
        a, b = signature.config, reference.config
        assert (a.sources, a.sketch, a.tensors, a.extraction) == (b.sources, b.sketch, b.tensors, b.extraction), form
        assert (a.backbone.family, a.backbone.layout) == (b.backbone.family, b.backbone.layout), form
    mixed = extract(
        standard=forms["standard"]["index"], robust=forms["robust"]["module"], pretrained=forms["pretrained"]["file"]
    )
    assert mixed.payload == reference.payload


def hf_vit() -> nn.Module:
    """The transformers twin of `tiny_vit`, with its own random weights."""
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192, image_size=32, patch_size=8
    )
    return seeded(lambda: transformers.ViTForImageClassification(config), 7)


def hf_resnet() -> nn.Module:
    """The transformers twin of `tiny_resnet`."""
    config = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], layer_type="basic"
    )
    return seeded(lambda: transformers.ResNetForImageClassification(config), 7)


@pytest.mark.parametrize(("timm_twin", "hf_twin"), [(tiny_resnet, hf_resnet), (tiny_vit, hf_vit)])
def test_the_transformers_twin_gives_the_same_tensors(timm_twin, hf_twin, tmp_path):
    models = {"standard": timm_twin(), "robust": perturbed(timm_twin(), 0.02, 1)}
    reference = extract(**models)
    twins = {role: hf_twin() for role in models}
    for role, model in models.items():
        copy_body(model, twins[role])
    for role, twin in twins.items():
        twin.save_pretrained(tmp_path / role)
    for sources in (twins, {role: tmp_path / role for role in twins}, {**twins, "robust": models["robust"]}):
        signature = extract(**sources)
        assert signature.payload == reference.payload
        assert signature.config.backbone.layout == reference.config.backbone.layout
        assert signature.config.sketch == reference.config.sketch
        assert [s.sha256 for s in signature.config.sources] == [s.sha256 for s in reference.config.sources]


def test_integers_metadata_and_second_names_are_left_out():
    model = tiny_resnet()
    model.again = model.conv1
    state = {**model.state_dict(), "epoch": 3, "step": torch.tensor(4)}
    assert set(open_weights(model, "x").layout) == set(open_weights(state, "x").layout)
    assert set(open_weights(model, "x").layout) == {n for n, t in tiny_resnet().state_dict().items() if t.ndim}
    assert {"again.weight", "conv1.weight", "bn1.num_batches_tracked"} <= set(live_tensors(model))


def test_buffers_that_are_not_saved_are_no_weights():
    model = nn.Linear(2, 2)
    model.register_buffer("cache", torch.zeros(3), persistent=False)
    assert set(live_tensors(model)) == {"weight", "bias"}


def test_half_precision_files(tmp_path):
    models = {"standard": tiny_resnet().half(), "robust": perturbed(tiny_resnet(), 0.1, 1).bfloat16()}
    for role, model in models.items():
        save_file(tensors(model), tmp_path / f"{role}.safetensors")
    files = {role: tmp_path / f"{role}.safetensors" for role in models}
    assert extract(**files).payload == extract(**models).payload


def broken_index(folder: Path, weight_map: object) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path


def two_files(folder: Path) -> Path:
    for name in ("a", "b"):
        save_file({"w": torch.zeros(2)}, folder / f"{name}.safetensors")
    return folder


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "nowhere", "no such file or folder"),
        (lambda d: d, "found 0 indices and 0 files"),
        (two_files, "found 0 indices and 2 files. Name the file itself"),
        (lambda d: written(d / "model.pt", b"x"), "a pickle can run code"),
        (lambda d: written(d / "model.safetensors", b"x"), "not a readable safetensors file"),
        (lambda d: written(d / "model.safetensors", bytes([255] * 8) + b"{}"), "not a readable safetensors file"),
        (lambda d: written(d / "m.safetensors.index.json", b"{"), "not a safetensors index"),
        (lambda d: broken_index(d, ["a"]), "not a safetensors index"),
        (lambda d: broken_index(d, {"w": "../a.safetensors"}), r"'\.\./a\.safetensors' is not the name of a file"),
        (lambda d: broken_index(d, {"w": "/etc/passwd"}), "'/etc/passwd' is not the name of a file beside it"),
        (lambda d: broken_index(d, {"w": "a.pt"}), r"'a\.pt' is not the name of a file beside it"),
        (lambda d: broken_index(d, {"w": "a.safetensors"}), r"the shard a\.safetensors is missing"),
        (lambda d: broken_index(two_files(d), {"w": "a.safetensors", "v": "b.safetensors"}), "the tensor w is in"),
        (lambda d: {}, "holds no floating tensors"),
        (lambda d: {"step": torch.tensor(1)}, "holds no floating tensors"),
        (lambda d: tiny_resnet().to("meta"), "is on the meta device and holds no values"),
        (
            lambda d: {"a.base_layer.weight": torch.ones(2, 2), "a.lora_A.default.weight": torch.ones(1, 2)},
            r"standard: a\.base_layer\.weight belongs to an adapter that is not merged .*merge_and_unload",
        ),
        (lambda d: nn.ModuleDict({"a": tiny_resnet(), "b": tiny_resnet()}), "several backbones could be meant"),
    ],
)
def test_what_cannot_be_read_as_weights_is_refused(make, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        extract(standard=make(tmp_path), robust=tiny_resnet())


@pytest.mark.parametrize("prefix", ["model.", "module.", "module.backbone."])
def test_a_head_is_found_behind_any_prefix(prefix):
    state = {f"{prefix}{n}": torch.ones(2, 2) for n in ("stem.weight", "deep.weight", "classifier.weight")}
    found = canonical_weights(open_weights(state, "it")).recognition
    assert (found.prefix, set(found.body), set(found.head)) == (
        prefix,
        {"stem.weight", "deep.weight"},
        {"classifier.weight"},
    )
