"""A name table of one's own: given when patching, or made part of a signature when extracting."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from bits import bits, changed
from builders import perturbed, seeded, tiny_resnet, tiny_signature
from safetensors.torch import load_file, save_file
from torch import nn

from rws_hub import (
    CheckpointError,
    CorruptArtifactError,
    IncompatibleModelError,
    NameTableError,
    RobustWeightSignature,
    patch,
    plan_patch,
)
from rws_hub.apply import apply_to_checkpoint
from rws_hub.config import check_config

sys.path.append(str(Path(__file__).parent / "fixtures"))
from make_v2 import TABLE, Mine


class Layer(nn.Module):
    """One block of `Theirs`."""

    def __init__(self):
        super().__init__()
        self.left, self.right = (nn.Parameter(torch.zeros(4, 33)) for _ in range(2))


class Theirs(nn.Module):
    """`Mine` in the names of another library."""

    def __init__(self):
        super().__init__()
        self.body = nn.Module()
        self.body.embed = nn.Conv2d(3, 4, 3)
        self.body.layers = nn.ModuleList(Layer() for _ in range(2))
        self.classifier = nn.Linear(4, 2)


def mine():
    return seeded(Mine, 4)


def theirs(model):
    """The other spelling of the same weights."""
    twin = Theirs()
    with torch.no_grad():
        twin.body.embed.weight.copy_(model.stem.weight)
        twin.body.embed.bias.copy_(model.stem.bias)
        for block, layer in zip(model.blocks, twin.body.layers, strict=True):
            layer.left.copy_(block["a"][:4])
            layer.right.copy_(block["a"][4:])
    return twin


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "mine.map"
    file.write_text(TABLE)
    return file


def extract(model, **options):
    return RobustWeightSignature.extract(
        standard=model, robust=perturbed(model, 0.1, 5), corruption="snow", license="mit", layers=["*"], **options
    )


def same(a, b):
    """Whether two models in the two spellings hold the same bits."""
    expected, found = theirs(a).state_dict(), b.state_dict()
    return all(torch.equal(found[n], expected[n]) for n in expected if not n.startswith("classifier"))


def test_a_table_given_when_patching_maps_both_ways(table):
    a, b = mine(), theirs(mine())
    for signature, other in ((extract(a), b), (extract(b), a)):
        assert signature.config.backbone.family == "identity" and signature.config.format_version == 1
        assert not plan_patch(other, signature).ok
        clean = bits(other)
        with pytest.raises(IncompatibleModelError, match="rws map infer"):
            patch(other, signature)
        with patch(a, signature, table=table), patch(b, signature, table=str(table)):
            assert plan_patch(other, signature, table=table).signatures[0].family == "mine"
            assert same(a, b) and changed(clean, other)
        assert same(a, b) and changed(clean, other) == set()
    p = patch(a, extract(a), table=table)
    p.add(extract(b), name="again", table=table)


def test_a_table_given_when_extracting_travels_with_the_signature(table, tmp_path):
    a, b = mine(), theirs(mine())
    ours, of_theirs = extract(a, table=table), extract(b, table=table)
    assert set(ours.names) == set(of_theirs.names) == {"stem.weight", "stem.bias", "blocks.0.a", "blocks.1.a"}
    assert ours.config.backbone.table == TABLE and ours.config.format_version == 2
    ours.save_pretrained(tmp_path / "saved")
    loaded = RobustWeightSignature.from_pretrained(tmp_path / "saved")
    assert loaded == ours
    with patch(a, loaded), patch(b, loaded):
        assert same(a, b) and not same(mine(), b)
    assert same(mine(), b)


def test_a_signature_with_a_table_patches_a_file(table, tmp_path):
    a, b = mine(), theirs(mine())
    signature = extract(a, table=table)
    save_file(b.state_dict(), tmp_path / "clean.safetensors")
    apply_to_checkpoint(tmp_path / "clean.safetensors", [signature], [1.0], tmp_path / "patched.safetensors")
    b.load_state_dict(load_file(tmp_path / "patched.safetensors"))
    with patch(a, signature):
        assert same(a, b)


def test_the_units_of_a_table_are_its_layers(table):
    model = mine()
    first = RobustWeightSignature.extract(
        standard=model, robust=perturbed(model, 0.1, 5), corruption="snow", license="mit", layers=2, table=table
    )
    assert [u.unit for u in first.config.extraction.profile] == ["stem", "blocks.0", "blocks.1"]
    assert set(first.names) == {"stem.weight", "stem.bias", "blocks.0.a"}


def test_a_table_that_does_not_explain_the_names_is_refused(table):
    resnet = tiny_resnet()
    with pytest.raises(CheckpointError, match="the table mine explains its names in none of its dialects"):
        extract(resnet, table=table)
    with pytest.raises(NameTableError, match=r"none of its columns \(mine, theirs\) explains every name .* bn1.bias"):
        plan_patch(resnet, tiny_signature(layers=1), table=table)
    with pytest.raises(NameTableError, match="no name table"):
        patch(resnet, tiny_signature(layers=1), table=table.with_name("none.map"))


def test_a_table_in_a_config_is_checked_and_sealed(table):
    config = extract(mine(), table=table).config
    for text, message in (("columns: a\nx", "expected a line"), ("#" * 70_000, "at most 65,536")):
        changed_config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, table=text))
        with pytest.raises(CorruptArtifactError, match="digest does not hold"):
            check_config(changed_config)
        with pytest.raises(CorruptArtifactError, match=message):
            check_config(dataclasses.replace(changed_config).with_seal())
    old = dataclasses.replace(config, format_version=1).with_seal()
    with pytest.raises(CorruptArtifactError, match="format_version is 1, but its keys are those of format 2"):
        check_config(old)


def test_a_built_in_table_is_not_copied_into_the_config():
    assert tiny_signature(layers=1).config.backbone.table is None


def test_a_signature_of_before_there_was_a_table_finds_it_now():
    """Its own names are one dialect of a table that came later."""
    signature = tiny_signature("vit", layers=["blocks.0.*"])
    backbone = dataclasses.replace(signature.config.backbone, family="identity")
    older = dataclasses.replace(signature, config=dataclasses.replace(signature.config, backbone=backbone).with_seal())
    from test_resolve import hf_vit

    plan = plan_patch(hf_vit(), older)
    assert plan.ok and plan.signatures[0].dialect in {"hf5", "hf4"}


BARE = "columns: mine | theirs\n" + TABLE.partition("unit blocks.{i}: blocks.{i}\n")[2]
WRONG = {
    "a part without a row": (BARE.replace("blocks.{i}.a[1/2]  | layers.{i}.right\n", ""), "another architecture"),
    "two into one": (BARE.replace("layers.{i}.right", "layers.{i}.left"), "to the same rows of layers.0.left"),
    "one part twice": (BARE.replace("[1/2]", "[0/2]"), "another architecture"),
    "two tensors into one": (BARE.replace("embed.{wb}", "layers.{i}.left.{wb}"), "the same fields"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_table_that_loses_or_doubles_numbers_is_refused(case, tmp_path):
    text, message = WRONG[case]
    a, b, file = mine(), theirs(mine()), tmp_path / "wrong.map"
    file.write_text(text)
    with pytest.raises((NameTableError, IncompatibleModelError)) as caught:
        patch(b, extract(a), table=file)
    assert message in str(caught.value) and same(a, b)
