"""What a user's word for a model means: a place on the Hub, a local path, or an error that says which."""

from pathlib import Path

import pytest
from builders import tiny_resnet
from hub import Hub
from test_backbones import SINGLE, empty_cache, folders, same

from rws_hub import CheckpointError
from rws_hub.backbones import checkpoint, load_model
from rws_hub.references import parse

__all__ = ["empty_cache", "folders"]  # fixtures


@pytest.mark.parametrize(
    ("text", "repo_id", "revision"),
    [
        ("alice/vit", "alice/vit", None),
        ("alice/vit@v1.0", "alice/vit", "v1.0"),
        ("alice/vit@feat/x", "alice/vit", "feat/x"),
        ("alice/vit@refs/pr/1", "alice/vit", "refs/pr/1"),
        ("timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k", None),
        ("timm/resnet18.a1_in1k@main", "timm/resnet18.a1_in1k", "main"),
        ("timm/resnet18", "timm/resnet18.a1_in1k", None),
        ("timm/resnet18@main", "timm/resnet18.a1_in1k", "main"),
        ("timm/ViT-B-16-SigLIP", "timm/ViT-B-16-SigLIP", None),
        ("hf-hub:timm/resnet18", "timm/resnet18", None),
        ("hf_hub:alice/vit@x", "alice/vit", "x"),
        ("hf-hub:alice/vit.pt", "alice/vit.pt", None),
    ],
)
def test_forms(text: str, repo_id: str, revision: str | None) -> None:
    found = parse(text)
    assert (found.path, found.repo_id, found.revision) == (None, repo_id, revision)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./x", "no such file or folder"),
        ("/nowhere/x", "no such file or folder"),
        ("~/x", "no such file or folder"),
        ("..x", "Hub id is namespace/name"),
        ("a/b/c", "no such file or folder"),
        ("a\\b", "no such file or folder"),
        ("x.safetensors", "no such file or folder"),
        ("alice/x.safetensors", "no such file or folder"),
        ("alice/model.bin", "no such file or folder"),
        (Path("alice/vit"), "no such file or folder"),
        (Path("hf-hub:alice/vit"), "no such file or folder"),
        ("resnet18.a1_in1k", r"timm/resnet18\.a1_in1k for a model of timm"),
        ("", "namespace/name"),
        ("x" * 5000, "no such file or folder"),
        ("https://huggingface.co/alice/vit", "not its address"),
        ("hf-hub:", "namespace/name"),
        ("hf-hub:vit", "namespace/name"),
        ("alice/vit@", "no revision after the @"),
        ("timm/gcvit_tiny", "no default weights"),
    ],
)
def test_no_reference(hub: Hub, text: str, message: str) -> None:
    for use in (checkpoint, load_model):
        with pytest.raises(CheckpointError, match=message) as caught:
            use(text)
        assert len(str(caught.value)) < 400
    assert len(hub.log) == 0


def test_two_revisions(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="another revision"):
        load_model("alice/vit@a", revision="b")
    assert parse("alice/vit@a", "a").revision == parse("alice/vit", "a").revision == "a"
    with pytest.raises(CheckpointError, match="no meaning"):
        load_model(tmp_path, revision="a")


def test_what_is_here_wins(hub: Hub, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice" / "resnet@x").symlink_to(folders / "timm1")
    (tmp_path / "timm").symlink_to(tmp_path / "alice")
    assert checkpoint("alice/resnet@x") == Path("alice/resnet@x")
    for reference in ("alice/resnet@x", Path("timm/resnet@x"), f"alice/resnet@x/{SINGLE}"):
        assert same(load_model(reference), tiny_resnet(1))
    assert len(hub.log) == 0
