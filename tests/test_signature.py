"""The signature as an object: what it says about itself, and what it is on disk."""

import copy
import pickle

import pytest
import timm
import torch
from builders import perturbed, seeded, tiny_resnet, tiny_signature

from rws_hub import RobustWeightSignature

FILES = ["README.md", "config.json", "rws.safetensors"]


def folder_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("bits", [2, 4, 7, 8, 32])
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_saved_signature_comes_back_whole(kind, bits, tmp_path):
    signature = tiny_signature(kind, bits=bits, layers=1, alpha=0.75, description="Trained on fog.")
    signature.save_pretrained(tmp_path)
    loaded = RobustWeightSignature.from_pretrained(tmp_path)
    assert loaded.config == signature.config and loaded.payload == signature.payload
    assert loaded.names == signature.names
    assert all(torch.equal(loaded.delta(n), signature.delta(n)) for n in signature.names)


def test_saving_twice_gives_the_same_bytes(tmp_path):
    signature = tiny_signature(layers=1)
    signature.save_pretrained(tmp_path / "a")
    signature.save_pretrained(tmp_path / "b")
    first = folder_bytes(tmp_path / "a")
    assert list(first) == FILES and first == folder_bytes(tmp_path / "b")
    signature.save_pretrained(tmp_path / "a")
    RobustWeightSignature.from_pretrained(tmp_path / "b").save_pretrained(tmp_path / "b")
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b") == first


@pytest.mark.parametrize("bits", [4, 32])
def test_the_size_is_bytes_on_disk(bits, tmp_path):
    signature = tiny_signature(layers=1, bits=bits)
    signature.save_pretrained(tmp_path)
    on_disk = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert signature.nbytes == on_disk["config.json"] + on_disk["rws.safetensors"]
    assert signature.config.payload.bytes == on_disk["rws.safetensors"]


def test_names_deltas_and_elements():
    signature = tiny_signature(layers=1)
    assert set(signature.names) == {
        "conv1.weight",
        *(f"bn1.{x}" for x in "weight bias running_mean running_var".split()),
    }
    for name, tensor in tiny_resnet().state_dict().items():
        if name in signature.names:
            delta = signature.delta(name)
            assert (delta.shape, delta.dtype) == (tensor.shape, torch.float32)
            assert signature.elements(name) == tensor.numel()
    for name in ("fc.weight", "layer4.0.conv1.weight", "nonsense"):
        with pytest.raises(KeyError):
            signature.delta(name)


def test_a_delta_handed_out_cannot_change_the_signature():
    for bits in (4, 32):
        signature = tiny_signature(layers=1, bits=bits)
        for name in signature.names:
            before = signature.delta(name).clone()
            signature.delta(name).add_(1)
            assert torch.equal(signature.delta(name), before), f"{name} at {bits} bits"


def test_more_bits_are_nearer():
    standard = tiny_resnet()
    robust = perturbed(standard, 0.01, 1)
    errors = {
        bits: RobustWeightSignature.extract(
            standard=standard, robust=robust, corruption="fog", license="mit", layers=1, bits=bits
        ).config.relative_error
        for bits in (2, 3, 4, 5, 6, 7, 8, 32)
    }
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert errors[4] < 0.15 and errors[8] < 0.01 and errors[32] == 0


def test_four_bits_take_at_most_a_seventh_of_single_precision(tmp_path):
    standard = seeded(lambda: timm.create_model("resnet18", num_classes=10), 0)
    robust = perturbed(standard, 0.01, 1)
    sizes = {}
    for bits in (4, 32):
        signature = RobustWeightSignature.extract(
            standard=standard, robust=robust, corruption="fog", license="mit", layers=5, bits=bits
        )
        signature.save_pretrained(tmp_path / str(bits))
        sizes[bits] = sum((tmp_path / str(bits) / file).stat().st_size for file in FILES[1:])
        assert sizes[bits] == signature.nbytes
    assert sizes[4] * 7 <= sizes[32]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_and_pickles_are_equal_and_share_no_memory(duplicate):
    signature = tiny_signature()
    other = duplicate(signature)
    assert other == signature and hash(other) == hash(signature) and other.payload == signature.payload
    name = signature.names[0]
    assert torch.equal(other.delta(name), signature.delta(name))
    assert other != tiny_signature(seed=7) and other != "fog"


def test_a_signature_prints_as_one_line():
    assert repr(tiny_signature()).startswith("<RobustWeightSignature fog for resnet18: ")
    assert len(repr(tiny_signature())) < 120
