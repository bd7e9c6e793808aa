"""Two processes, as `accelerate launch` starts them, end in the weights and the numbers of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from builders import perturbed, seeded, tiny_resnet
from patterns import parquet, timm_folder
from published import saved
from safetensors import safe_open
from test_cli import Run, rws

from rws_hub import RobustWeightSignature

__all__ = ["rws"]  # a fixture

# Every command of a list, one after the other, in each of the processes.
_COMMANDS = """
import json, sys
from rws_hub import cli
for command in json.loads(sys.argv[1]):
    assert cli.main(command) == 0
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tints`, a `model` with batch norm, a `vit` with dropout and an unused parameter, and a signature in `fog`."""
    root = tmp_path_factory.mktemp("processes")
    parquet(root / "tints", {"train": 320, "test": 300})
    model = tiny_resnet(num_classes=4)
    facts = {"corruption": "fog", "severity": 5, "license": "mit"}
    saved(root / "fog", RobustWeightSignature.extract(standard=model, robust=perturbed(model, 0.1, 1), **facts))  # type: ignore[arg-type]
    timm_folder(root / "model", model)
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16, mlp_ratio=2,
        hidden_dropout_prob=0.1, num_labels=4,
    )  # fmt: skip
    seeded(lambda: transformers.Dinov2ForImageClassification(config), 0).save_pretrained(root / "vit")
    return root


def commands(root: Path, out: Path) -> list[list[str]]:
    """Two trainings and a measurement that cover batch norm, dropout, re-estimation and several batches."""
    data = str(root / "tints")
    noisy = ["--corruption", "gaussian_noise", "--severity", "3", "--epochs", "2", "--lr", "0.05"]
    adamw = ["--optimizer", "adamw", "--lr", "0.001", "--epochs", "1"]
    signature = ["--signature", str(root / "fog"), "--bn-images", "40", "--corruption", "fog"]
    return [
        ["train", str(root / "model"), data, "-o", str(out / "resnet"), *noisy],
        ["train", str(root / "vit"), data, "-o", str(out / "vit"), *adamw],
        ["eval", str(root / "model"), data, "-o", str(out / "eval"), *signature],
    ]


def test_one_is_as_good_as_two(rws: Run, root: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = tmp_path / "commands.py"
    script.write_text(_COMMANDS)
    two = [*launch, str(script), json.dumps(commands(root, tmp_path / "two"))]
    paths = {"PYTHONPATH": str(Path(__file__).parent.parent), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(two, env=os.environ | paths, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(" was the best on ") == 2  # told once, by the main process
    for command in commands(root, tmp_path / "one"):
        assert rws(*command)[0] == 0
    for model in ("resnet", "vit"):
        one, other = (tmp_path / n / model for n in ("one", "two"))
        records = [json.loads((folder / "train.json").read_bytes()) | {"seconds": 0} for folder in (one, other)]
        assert records[0] == records[1]
        assert different(one / "model.safetensors", other / "model.safetensors") == set()
    measured = [json.loads((tmp_path / n / "eval" / "measured.json").read_bytes()) for n in ("one", "two")]
    assert measured[0] == measured[1] and len(measured[0]["variants"]) == 4
    cells = [{f.name: f.read_bytes() for f in (tmp_path / n / "eval" / "cells").iterdir()} for n in ("one", "two")]
    assert cells[0] == cells[1]


def different(one: Path, other: Path) -> set[str]:
    """Names of the tensors that are not the same to the last bit."""
    with safe_open(one, "np") as a, safe_open(other, "np") as b:
        assert set(a.keys()) == set(b.keys())
        return {n for n in a.keys() if a.get_tensor(n).tobytes() != b.get_tensor(n).tobytes()}
