"""A name table of one's own: given when patching, or made part of a signature when extracting."""

import dataclasses
import math
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
    ExtractionError,
    IncompatibleModelError,
    NameTableError,
    RobustWeightSignature,
    patch,
    plan_patch,
)
from rws_hub.apply import apply_to_checkpoint
from rws_hub.config import check_config
from rws_hub.names import parse_family
from rws_hub.resolve import match

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
        assert signature.config.backbone.family == "identity" and signature.config.backbone.table is None
        assert not plan_patch(other, signature).ok
        clean = bits(other)
        with pytest.raises(IncompatibleModelError, match="rws map infer"):
            patch(other, signature)
        with patch(a, signature, table=table), patch(b, signature, table=str(table)):
            assert plan_patch(other, signature, table=table).signatures[0].family == "mine"
            assert same(a, b) and changed(clean, other)
        assert same(a, b) and changed(clean, other) == set()
    p = patch(a, extract(a), table=table, max_relative_norm=math.inf)
    p.add(extract(b), name="again", table=table)


def test_a_table_given_when_extracting_travels_with_the_signature(table, tmp_path):
    a, b = mine(), theirs(mine())
    ours, of_theirs = extract(a, table=table), extract(b, table=table)
    assert set(ours.names) == set(of_theirs.names) == {"stem.weight", "stem.bias", "blocks.0.a", "blocks.1.a"}
    assert ours.config.backbone.table == TABLE and ours.config.format_version == 4
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
    with pytest.raises(
        CheckpointError, match=r"the table mine does not explain its names: it has no row for .* in its column 'mine'"
    ):
        extract(resnet, table=table)
    with pytest.raises(
        NameTableError, match=r"mine\.map: the table does not explain the names of the signature 'fog': it"
    ):
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
    old = dataclasses.replace(extract(mine(), table=table, bits=32).config, format_version=1).with_seal()
    with pytest.raises(CorruptArtifactError, match="format_version is 1, but its keys are those of format 4"):
        check_config(old)


def test_a_built_in_table_is_not_copied_into_the_config():
    assert tiny_signature(layers=1).config.backbone.table is None


def test_a_signature_of_before_there_was_a_table_finds_it_now():
    """Its own names are one dialect of a table that came later."""
    signature = tiny_signature("vit", layers=["blocks.0.*"])
    backbone = dataclasses.replace(signature.config.backbone, family="identity")
    older = dataclasses.replace(signature, config=dataclasses.replace(signature.config, backbone=backbone).with_seal())
    from test_resolve import hf_vit

    plan = plan_patch(hf_vit(), older, verify="architecture")
    assert plan.ok and plan.signatures[0].dialect in {"hf5", "hf4"}


BARE = "columns: mine | theirs\n" + TABLE.partition("unit blocks.{i}: blocks.{i}\n")[2]


def test_a_tensor_that_theirs_never_has_is_no_mistake(tmp_path):
    """`-` says so: such a backbone does not occur in that column."""
    (tmp_path / "mine.map").write_text(TABLE.replace("embed.{wb}", "-"))
    assert extract(mine(), table=tmp_path / "mine.map").config.backbone.dialect == "mine"


def test_the_parts_of_a_tensor_may_stand_in_any_order():
    """A library that keeps k, q and v in one tensor."""
    parts = [f"blocks.{{i}}.qkv[{ours}/3] | layers.{{i}}.kqv[{theirs}/3]\n" for theirs, ours in enumerate((1, 0, 2))]
    table = parse_family("t", "columns: a | b\nstem | =\n" + "".join(parts))
    body = {f"blocks.{i}.qkv": (9, 4) for i in range(2)} | {"stem": (4,)}
    target = {f"layers.{i}.kqv": (9, 4) for i in range(2)} | {"stem": (4,)}
    (best,) = [m for m in match(table, body, body, target) if m.fits]
    starts = sorted((p.part.start, p.model_part.start) for p in best.pieces if p.model == "layers.0.kqv")
    assert starts == [(0, 3), (3, 0), (6, 6)]


def test_the_parts_of_an_alternative_stand_together():
    rows = ["stem | =", "x.{i}[1/2] | u.{i}", "x.{i}[0/2] | v.{i}", "x.{i}[1/2] | w.{i}", "x.{i}[0/2] | y.{i}"]
    table, body = parse_family("t", "\n".join(["columns: a | b", *rows])), {"stem": (4,), "x.0": (4, 2)}
    for first, second in (("v", "u"), ("y", "w")):
        target = {"stem": (4,), f"{first}.0": (2, 2), f"{second}.0": (2, 2)}
        (best,) = [m for m in match(table, body, body, target) if m.fits]
        found = {p.model: p.part.start for p in best.pieces if p.part}
        assert found == {f"{first}.0": 0, f"{second}.0": 2}


def test_a_table_without_layers_states_no_order(tmp_path):
    """Nor does one that leaves a tensor out: "shallow" is refused as it is without a table."""
    model = mine()
    twins = {"standard": model, "robust": perturbed(model, 0.1, 5), "corruption": "snow", "license": "mit"}
    for text in (BARE, TABLE.replace("unit stem: stem\n", "")):
        (tmp_path / "mine.map").write_text(text)
        for layers in ("shallow", 1):
            with pytest.raises(ExtractionError, match=r"needs the execution order, .*`unit` lines for every tensor"):
                RobustWeightSignature.extract(**twins, layers=layers, table=tmp_path / "mine.map")
    named = RobustWeightSignature.extract(**twins, layers=["blocks.0.*"], table=tmp_path / "mine.map")
    assert named.names == ("blocks.0.a",)


class Running(nn.Module):
    """Defines its two layers the other way round than it runs them; any names."""

    def __init__(self, first, second):
        super().__init__()
        self.order = (first, second)
        self.add_module(second, nn.Sequential(nn.Conv2d(4, 4, 1)))
        self.add_module(first, nn.Sequential(nn.Conv2d(3, 4, 1)))

    def forward(self, x):
        for name in self.order:
            x = getattr(self, name)(x)
        return x


def test_where_a_table_states_no_order_the_model_is_followed(tmp_path):
    (tmp_path / "t.map").write_text("columns: a | b\nz.{i}.{wb} | c.{i}.{wb}\ny.0.{wb} | d.0.{wb}\n")
    for names in (("z", "y"), ("c", "d")):
        model = seeded(lambda names=names: Running(*names), 1)
        signature = RobustWeightSignature.extract(
            standard=model,
            robust=perturbed(model, 0.1, 5),
            corruption="snow",
            license="mit",
            layers=1,
            table=tmp_path / "t.map",
        )
        assert set(signature.names) == {"z.0.weight", "z.0.bias"}
        assert [u.unit for u in signature.config.extraction.profile] == ["z.0", "y.0"]
