"""Tables of one's own that lose, double or miss something."""

import dataclasses

import pytest
import torch
from builders import tiny_signature, tiny_vit
from test_own_table import BARE, TABLE, extract, mine, same, table, theirs
from torch import nn

from rws_hub import CheckpointError, IncompatibleModelError, NameTableError, patch, plan_patch
from rws_hub.names import families

__all__ = ["table"]  # a fixture

WRONG = {
    "a part without a row": (
        BARE.replace("blocks.{i}.a[1/2]  | layers.{i}.right\n", ""),
        "the table has no row for blocks.0.a[4:8] in its column 'theirs'",
    ),
    "two into one": (
        BARE.replace("layers.{i}.right", "layers.{i}.left"),
        "sends blocks.0.a[0:4] and blocks.0.a[4:8] to the same rows of layers.0.left in its column 'theirs'",
    ),
    "one part twice": (
        BARE.replace("[1/2]", "[0/2]"),
        "has no row for blocks.0.a[4:8], and two for blocks.0.a[0:4], in its column 'theirs'",
    ),
    "half of theirs": (
        BARE.replace("layers.{i}.right", "layers.{i}.both[0/2]"),
        "has no row for layers.0.both[4:8] in its column 'theirs'",
    ),
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


@pytest.mark.parametrize("case", ["a part without a row", "two into one", "one part twice", "half of theirs"])
def test_a_table_that_loses_or_doubles_numbers_is_stored_in_no_signature(case, tmp_path):
    text, message = WRONG[case]
    (tmp_path / "wrong.map").write_text(text)
    with pytest.raises(NameTableError) as caught:
        extract(mine(), table=tmp_path / "wrong.map")
    assert message.removeprefix("the table ") in str(caught.value)


def test_a_tensor_that_a_family_never_has_is_refused_even_if_a_row_takes_it(table):
    table.write_text(TABLE + "never: stem.bias | embed.bias\n")
    with pytest.raises(
        CheckpointError, match=r"says of stem\.bias that such a backbone never has it in its column 'mine'"
    ):
        extract(mine(), table=table)
    bare = mine()
    bare.stem.bias = None
    signature = extract(bare, table=table)
    (plan,) = plan_patch(mine(), signature).signatures
    assert [(r.reason, r.model) for r in plan.rejected] == [("unexpected", "stem.bias")]


@pytest.mark.parametrize("row", ["norm.{wb}", "pos_embed", "blocks.{i}.norm1.{wb}"])
def test_the_row_that_a_table_lacks_is_named(row, tmp_path):
    text = families()["vit"].text
    (tmp_path / "short.map").write_text("".join(x for x in text.splitlines(True) if not x.startswith(row)))
    missing = row.replace("{i}", "0").replace("{wb}", "bias")
    with pytest.raises(
        NameTableError, match=rf"the signature 'fog': it has no row for {missing}.* in its column 'timm'"
    ):
        plan_patch(tiny_vit(), tiny_signature("vit", layers=1), table=tmp_path / "short.map")


def test_an_empty_path_is_no_table(table):
    with pytest.raises(NameTableError, match="table='' names no file; pass the path of a name table"):
        plan_patch(mine(), extract(mine()), table="")


def test_two_columns_that_read_one_model_in_two_ways_are_refused(tmp_path):
    """The names are the same, but not what they mean."""
    file = tmp_path / "t.map"
    file.write_text("columns: a | b\nx | y\ny | x\nz{i} | =\n")
    model = nn.ParameterDict({name: torch.randn(4, 33) for name in ("x", "y", "z0")})
    with pytest.raises(CheckpointError, match="several backbones could be meant"):
        extract(model, table=file)
    signature = extract(model)
    with pytest.raises(NameTableError, match="explains only a part of it, or more than one backbone"):
        patch(model, signature, table=file)
    backbone = dataclasses.replace(signature.config.backbone, family="t", table=file.read_text())
    config = dataclasses.replace(signature.config, backbone=backbone, format_version=2).with_seal()
    with pytest.raises(IncompatibleModelError, match="the backbone occurs under '', ''"):
        patch(model, dataclasses.replace(signature, config=config))
