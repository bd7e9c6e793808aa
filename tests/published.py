"""A signature ready to publish, results measured with it, and a folder with both."""

from functools import cache
from pathlib import Path

from builders import tiny_signature

from rws_hub import Accuracy, Evaluation, Results, RobustWeightSignature

REPO = "alice/resnet-fog"
# What push writes for a signature without results.
FILES = {"README.md", "config.json", "rws.safetensors"}


@cache
def fog(seed: int = 1) -> RobustWeightSignature:
    """One and the same signature for every test; another `seed` gives another payload."""
    return tiny_signature(seed=seed)


def measured(signature: RobustWeightSignature, patched: float = 0.6, images: int = 1000) -> Results:
    """Results of this very signature."""
    evaluation = Evaluation(
        dataset="CIFAR-10",
        dataset_id="uoft-cs/cifar10",
        split="test",
        metric="accuracy",
        corruption="fog",
        severity=5,
        target="standard",
        alpha=1.0,
        images=images,
        seed=0,
        clean=Accuracy(0.9, 0.88, 0.89),
        corrupted=Accuracy(0.3, patched, 0.7),
    )
    digest = signature.config.payload.sha256
    return Results("rws-results", 1, digest, "rws eval", {"rws-hub": "0.1.0"}, (evaluation,))


def saved(folder: Path, signature: RobustWeightSignature | None = None) -> Path:
    """A folder that holds a signature."""
    (signature or fog()).save_pretrained(folder)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
