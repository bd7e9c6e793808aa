"""`rws check` and `rws apply` on strangers, and on more than is good for a model."""

import json
from pathlib import Path

import pytest
from builders import perturbed, tiny_resnet
from test_cli import Run, checkpoint, failed, folder, rws

__all__ = ["folder", "rws"]  # fixtures


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """The base of the signature, kin, and a stranger."""
    made = {"base": tiny_resnet(), "kin": perturbed(tiny_resnet(), 0.002, 9), "stranger": tiny_resnet(seed=1)}
    return {name: checkpoint(tmp_path / f"{name}.safetensors", model) for name, model in made.items()}


def test_check_tells_base_kin_and_stranger(rws: Run, folder: Path, models: dict[str, Path]) -> None:
    said = {
        "base": "kinship: same base",
        "kin": "kinship: kin (similarity ",
        "stranger": "kinship: stranger (similarity ",
    }
    for name, file in models.items():
        code, out, err = rws("check", folder, file)
        assert code == (name == "stranger") and said[name] in out and "fog: fits" in out
        assert ("refused: it is a stranger" in out) is bool(err) is (name == "stranger")
    assert err == "error: the signature fits stranger.safetensors, and is refused: see above\n"
    assert rws("check", folder, models["stranger"], "--verify", "architecture")[0] == 0
    code, out, _ = rws("check", folder, models["kin"], "--verify", "exact", "--json")
    (found,) = json.loads(out)["signatures"]
    assert code == 1 and not found["ok"] and found["same_base"] is False and found["similarity"] > 0.9
    assert "not bit for bit" in found["refused"] and found["rejected"] == []


def test_check_tells_what_would_change(rws: Run, folder: Path, models: dict[str, Path]) -> None:
    code, out, _ = rws("check", folder, models["base"], "--alpha", "9")
    assert code == 1 and "Changes most" in out and "refused: conv1.weight: fog=9 would change it by " in out
    code, out, _ = rws("check", folder, models["base"], "--alpha", "-9", "--max-relative-norm", "inf", "--json")
    found = json.loads(out)
    assert code == 0 and found["ok"] and found["refused"] == "" and found["relative_norm"] > 0.5
    assert found["changes"][0]["names"] == ["conv1.weight"] and found["changes"][0]["relative_norm"] > 3
    assert {c["factor"] is None for c in found["changes"]} == {True, False}


def test_apply_refuses_both_and_can_be_told_to(rws: Run, folder: Path, models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    said = failed(rws("apply", folder, models["stranger"], "-o", out))
    assert "cannot patch stranger.safetensors with 'fog': it is a stranger" in said and "--verify architecture" in said
    assert "not bit for bit" in failed(rws("apply", folder, models["kin"], "--verify", "exact", "-o", out))
    assert "max_relative_norm is 1 " in failed(rws("apply", folder, models["base"], "--alpha", "9", "-o", out))
    assert not out.exists()
    far = ("--verify", "architecture", "--alpha", "9", "--max-relative-norm", "50")
    assert rws("apply", folder, models["stranger"], *far, "-o", out)[0] == 0 and out.exists()


@pytest.mark.parametrize("words", [("--max-relative-norm", "0"), ("--max-relative-norm", "nan"), ("--verify", "base")])
def test_words_that_are_none(rws: Run, folder: Path, models: dict[str, Path], words: tuple[str, str]) -> None:
    code, _, err = rws("check", folder, models["base"], *words)
    assert code == 2 and f"argument {words[0]}" in err
