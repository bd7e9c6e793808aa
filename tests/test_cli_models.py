"""`rws check` and `rws apply`: on files, on models of the Hub, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import transformers
from builders import perturbed, tiny_resnet, tiny_vit
from hub import Hub
from huggingface_hub import HfApi
from published import files_of, fog, saved
from safetensors.torch import load_file
from test_apply import same_bits, save_sharded
from test_cli import Run, alice, checkpoint, failed, folder, rws, twins

from rws_hub import RobustWeightSignature, patch

__all__ = ["alice", "folder", "rws"]  # fixtures


def test_check(rws: Run, folder: Path, tmp_path: Path) -> None:
    clean, _ = twins(tmp_path)
    code, out, err = rws("check", folder, clean)
    assert code == 0 and err == "" and "fog: fits" in out and "kinship: same base" in out
    code, out, _ = rws("check", folder, save_sharded(tiny_resnet(), tmp_path / "shards"), "--json")
    (found,) = json.loads(out)["signatures"]
    assert code == 0 and found["ok"] and {p["canonical"] for p in found["pieces"]} == set(fog().names)


def test_check_that_finds_no_fit(rws: Run, folder: Path, tmp_path: Path) -> None:
    vit = checkpoint(tmp_path / "vit.safetensors", tiny_vit())
    code, out, err = rws("check", folder, vit)
    assert code == 1 and "fog: does not fit" in out and "missing" in out
    assert err.startswith("error: the signature does not fit") and err.count("\n") == 1
    code, out, err = rws("check", folder, vit, "--json")
    assert code == 1 and json.loads(out)["ok"] is False and err.startswith("error: ")
    assert "no such file" in failed(rws("check", folder, tmp_path / "missing"))


@pytest.mark.parametrize("as_json", [True, False])
def test_apply(rws: Run, folder: Path, tmp_path: Path, as_json: bool) -> None:
    clean, _ = twins(tmp_path)
    out = tmp_path / "out.safetensors"
    code, text, _ = rws("apply", folder, clean, "-o", out, "--alpha", "-0.5", *["--json"] * as_json)
    assert code == 0
    if as_json:
        assert json.loads(text)["alpha"] == -0.5 and json.loads(text)["out"] == str(out)
    else:
        assert text.startswith(f"{out}: patched with fog at alpha -0.5") and text.count("\n") == 1
    model = tiny_resnet()
    with patch(model, fog(), alpha=-0.5):
        assert same_bits(load_file(out), model.state_dict())
    before = out.read_bytes()
    assert "exists already" in failed(rws("apply", folder, clean, "-o", out))
    assert out.read_bytes() == before
    assert rws("apply", folder, clean, "-o", tmp_path / "x", "--alpha", "nan")[0] == 2
    vit = checkpoint(tmp_path / "vit.safetensors", tiny_vit())
    assert "cannot patch" in failed(rws("apply", folder, vit, "-o", tmp_path / "x.safetensors"))
    assert "give it a name in .safetensors" in failed(rws("apply", folder, clean, "-o", tmp_path / "x"))
    assert not list(tmp_path.glob("x*"))


@pytest.fixture
def models(alice: Hub, tmp_path: Path) -> Hub:
    """The Hub with a ResNet as timm saves it (and a pickle), and a ViT as transformers does, in shards."""
    arguments = {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64]}
    timm.models.save_for_hf(tiny_resnet(), tmp_path / "a", model_args=arguments, safe_serialization="both")
    alice.put("alice/resnet", files_of(tmp_path / "a") | {"notes.txt": b"x", "other.safetensors": b"x"})
    size = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    config = transformers.ViTConfig(image_size=32, patch_size=8, **size)  # type: ignore[arg-type]
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "b", max_shard_size="100KB")
    alice.put("alice/vit", files_of(tmp_path / "b"))
    alice.log.clear()
    return alice


def test_check_a_model_on_the_hub(rws: Run, models: Hub, folder: Path, tmp_path: Path) -> None:
    commit = models.head("alice/resnet").oid
    for reference in ("alice/resnet", "hf-hub:alice/resnet@main", f"alice/resnet@{commit}"):
        code, out, _ = rws("check", folder, reference)
        assert code == 0 and out.startswith(f"plan for alice/resnet@{commit}\n") and "fog: fits" in out
    found = json.loads(rws("check", folder, "alice/resnet", "--json")[1])
    assert found["revision"] == commit and found["target"] == f"alice/resnet@{commit}" and found["ok"]
    assert json.loads(rws("check", folder, tmp_path / "a", "--json")[1])["revision"] is None
    code, out, err = rws("check", folder, "alice/vit")
    assert code == 1 and "does not fit" in out and f"fit alice/vit@{models.head('alice/vit').oid}" in err
    assert not models.log.matching(r"pytorch_model|notes|other")


@pytest.mark.parametrize("as_json", [True, False])
def test_apply_to_a_model_on_the_hub(rws: Run, models: Hub, folder: Path, tmp_path: Path, as_json: bool) -> None:
    commit, out = models.head("alice/resnet").oid, tmp_path / "out"
    code, text, _ = rws("apply", folder, "alice/resnet", "-o", out, *["--json"] * as_json)
    assert code == 0
    if as_json:
        found = json.loads(text)
        assert found["revision"] == commit and found["target"] == f"alice/resnet@{commit}" and found["changed"]
    else:
        assert text.startswith(f"{out}: patched with fog") and text.endswith(f" in alice/resnet@{commit}\n")
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    assert not any(p.is_symlink() for p in out.iterdir())
    model = tiny_resnet()
    with patch(model, fog()):
        loaded = timm.create_model(f"local-dir:{out}", pretrained=True)
        assert same_bits(dict(loaded.state_dict()), dict(model.state_dict()))
    # What else lies in the cache makes no difference.
    for name in ("other.safetensors", "pytorch_model.bin", "notes.txt"):
        HfApi().hf_hub_download("alice/resnet", name)
    assert rws("apply", folder, "alice/resnet", "-o", tmp_path / "again")[0] == 0
    assert files_of(tmp_path / "again") == files_of(out)


def test_apply_to_shards_on_the_hub(rws: Run, models: Hub, tmp_path: Path) -> None:
    vit = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "b")
    facts: dict[str, Any] = {"corruption": "fog", "license": "mit", "layers": 2}
    saved(
        tmp_path / "sig",
        signature := RobustWeightSignature.extract(standard=vit, robust=perturbed(vit, 0.01, 1), **facts),
    )
    assert rws("apply", tmp_path / "sig", "alice/vit", "-o", tmp_path / "out")[0] == 0
    assert files_of(tmp_path / "out").keys() == files_of(tmp_path / "b").keys()
    loaded = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    with patch(vit, signature):
        assert same_bits(dict(loaded.state_dict()), dict(vit.state_dict()))


def test_apply_to_a_model_on_the_hub_that_does_not_work(rws: Run, models: Hub, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert "exists already" in failed(rws("apply", folder, "alice/resnet", "-o", tmp_path / "there"))
    assert "is a folder" in failed(rws("apply", folder, "alice/resnet", "-o", tmp_path / "out.safetensors"))
    assert len(models.log) == 0
    message = failed(rws("apply", folder, "alice/vit", "-o", tmp_path / "out"))
    assert f"cannot patch alice/vit@{models.head('alice/vit').oid}" in message
    assert "404" in failed(rws("apply", folder, "alice/missing", "-o", tmp_path / "out"))
    assert "404" in failed(rws("check", folder, "alice/resnet@missing"))
    assert "timm/resnet18 for a model of timm" in failed(rws("check", folder, "resnet18"))
    saved(tmp_path / "sig")
    models.put("alice/fog", files_of(tmp_path / "sig"))
    assert "signature, not a model" in failed(rws("check", folder, "alice/fog"))
    assert "signature, not a model" in failed(rws("check", folder, tmp_path / "sig"))
    models.put("alice/pickle", {"pytorch_model.bin": b"x"})
    assert "a pickle can run code" in failed(rws("check", folder, "alice/pickle"))
    assert not (tmp_path / "out").exists()
