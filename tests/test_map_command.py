"""`rws map` and `--table`: where tensors go by name, and tables found for two models."""

import json
from pathlib import Path

import pytest
import timm
import transformers
from builders import perturbed, seeded, tiny_resnet, tiny_signature
from hub import Hub
from published import files_of
from safetensors.torch import load_file, save_file
from test_cli import Run, alice, failed, rws
from test_own_table import TABLE, extract, mine, theirs

from rws_hub.names import read_table

__all__ = ["alice", "rws"]  # fixtures


def hf_resnet(folder: Path, **options: object) -> Path:
    """The transformers twin of `tiny_resnet`, saved; its weights are its own."""
    config = transformers.ResNetConfig(
        embedding_size=64,
        hidden_sizes=[8, 16, 32, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        num_labels=10,
        **options,
    )
    seeded(lambda: transformers.ResNetForImageClassification(config), 7).save_pretrained(folder)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny ResNet as timm and as transformers save it."""
    arguments = {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64]}
    timm.models.save_for_hf(tiny_resnet(), tmp_path / "ours", model_args=arguments, safe_serialization=True)
    return tmp_path / "ours", hf_resnet(tmp_path / "theirs")


@pytest.fixture
def fog(tmp_path: Path) -> Path:
    tiny_signature(layers=1).save_pretrained(tmp_path / "fog")
    return tmp_path / "fog"


def test_a_plan_by_name_of_a_local_model(rws: Run, fog: Path, folders: tuple[Path, Path]) -> None:
    code, out, _ = rws("map", fog, folders[1])
    assert code == 0 and "fog: fits, resnet in hf names under 'resnet.'" in out
    assert "conv1.weight" in out and "| resnet.embedder.embedder.convolution.weight" in out
    code, out, _ = rws("map", fog, folders[0], "--json")
    (plan,) = json.loads(out)["signatures"]
    assert code == 0 and plan["ok"] and plan["dialect"] == "timm" and plan["diagnosis"] == ""
    assert plan["pieces"][0] == {"canonical": "bn1.bias", "part": None, "model": "bn1.bias", "model_part": None}


def test_a_plan_by_name_of_a_model_on_the_hub_fetches_its_config_alone(
    rws: Run, alice: Hub, fog: Path, folders: tuple[Path, Path], hub_cache: Path
) -> None:
    alice.put("alice/theirs", files_of(folders[1]))
    code, out, _ = rws("map", fog, "alice/theirs")
    assert code == 0 and "plan for alice/theirs" in out and "kinship" not in out
    assert [f.name for f in hub_cache.rglob("snapshots/*/*")] == ["config.json"]
    code, out, err = rws("map", fog, "timm/vit_tiny_patch16_224")
    assert code == 1 and "another architecture: this model is named like 'vit' (timm names)" in out
    assert "error: the signature does not fit timm/vit_tiny_patch16_224" in err


def test_a_table_is_found_and_written(rws: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "found.map"
    code, out, err = rws("map", "infer", *folders, "--size", 64, "-o", file)
    assert code == 0 and out == f"{file}: written\n" and "proven: the outputs differ by 0.0e+00" in err
    rows = [" | ".join(r.text.split(" | ")) for r in read_table(file).rows]
    assert "layer{i}.0.downsample.0.weight | encoder.stages.{i-1}.layers.0.shortcut.convolution.weight" in rows
    assert "exists; choose another name" in failed(rws("map", "infer", *folders, "-o", file))
    code, out, err = rws("map", "infer", *folders, "--size", 64)
    assert code == 0 and out == file.read_text()
    code, out, _ = rws("map", "infer", *folders, "--size", 64, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["table"] == file.read_text() and facts["difference"] < 1e-12 < 1e-3 < facts["before"]


def test_what_cannot_be_proven_is_an_error(rws: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = hf_resnet(tmp_path / "other", hidden_act="tanh")
    message = failed(rws("map", "infer", folders[0], other, "--size", 64, "-o", tmp_path / "x.map"))
    assert "run apart at" in message and not (tmp_path / "x.map").exists()
    _, _, err = rws("map", "infer", folders[0], other, "--size", 64)
    assert err == f"{message}\n"  # no progress bar before it where nobody watches


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["infer", "a"], []])
def test_wrong_numbers_of_names_are_wrong_usage(rws: Run, names: list[str]) -> None:
    code, _, err = rws("map", *names)
    assert code == 2 and "usage: rws map" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["infer", "a", "b", "--size", -5], "argument --size: '-5' is not a whole number"),
        (["infer", "a", "b", "--size", 0], "argument --size: '0' is not a whole number"),
        (["infer", "a", "b", "--table", "t.map"], "argument --table: only without infer"),
        (["infer", "a", "b", "--revision", "main"], "argument --revision: only without infer"),
        (["signature", "a", "-o", "x.map"], "argument --out: only with infer"),
        (["signature", "a", "--size", 3], "argument --size: only with infer"),
    ],
)
def test_an_option_without_meaning_is_wrong_usage(rws: Run, words: list[object], told: str) -> None:
    code, out, err = rws("map", *words)
    assert code == 2 and out == "" and f"\nrws map: error: {told}" in err
    assert "[--table FILE]" in err and "[--size PIXELS]" in err  # the usage


def test_a_table_of_ones_own_for_every_verb(rws: Run, tmp_path: Path) -> None:
    table, a, b = tmp_path / "mine.map", mine(), theirs(mine())
    table.write_text(TABLE)
    for name, model in (("a", a), ("b", b), ("robust", perturbed(a, 0.1, 5))):
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    extract(a).save_pretrained(tmp_path / "snow")
    target = tmp_path / "b.safetensors"
    assert rws("check", tmp_path / "snow", target)[0] == 1
    for verb in ("check", "map"):
        code, out, _ = rws(verb, tmp_path / "snow", target, "--table", table)
        assert code == 0 and "fits, mine in theirs names under 'body.'" in out
    code, _, _ = rws("apply", tmp_path / "snow", target, "--table", table, "-o", tmp_path / "out.safetensors")
    assert code == 0 and set(load_file(tmp_path / "out.safetensors")) == set(load_file(target))
    options = (
        "--corruption",
        "snow",
        "--license",
        "mit",
        "--layers",
        "stem.*",
        "--table",
        table,
        "-o",
        tmp_path / "own",
    )
    twins = ("--standard", tmp_path / "a.safetensors", "--robust", tmp_path / "robust.safetensors")
    assert rws("extract", *twins, *options)[0] == 0
    assert rws("check", tmp_path / "own", target)[0] == 0
    assert "no name table" in failed(rws("check", tmp_path / "snow", target, "--table", tmp_path / "none.map"))
