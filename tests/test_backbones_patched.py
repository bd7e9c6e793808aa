"""A patched model in one call: the recorded base at its recorded commit, or another."""

from pathlib import Path
from typing import Any

import pytest
from builders import perturbed, tiny_resnet, tiny_signature
from hub import Hub
from huggingface_hub.errors import RepositoryNotFoundError
from published import files_of, fog, saved
from test_apply import same_bits
from test_backbones import HF, TIMM, empty_cache, folders, put, same, tiny_hf_vit

from rws_hub import (
    ArtifactError,
    CheckpointError,
    IncompatibleModelError,
    NameTableError,
    RobustWeightSignature,
    active_patches,
    load_patched,
    patch,
)
from rws_hub.names import families

__all__ = ["empty_cache", "folders"]  # fixtures


def made(kind: str, commit: str | None, repo_id: str | None) -> RobustWeightSignature:
    facts: dict[str, Any] = {"base_model": repo_id, "base_revision": commit}
    if kind == "timm":
        return tiny_signature(**facts)
    standard = tiny_hf_vit()
    return RobustWeightSignature.extract(
        standard=standard,
        robust=perturbed(standard, 0.01, 1),
        corruption="fog",
        license="mit",
        layers=2,
        alpha=0.7,
        **facts,
    )


@pytest.mark.parametrize("kind", ["timm", "hf"])
@pytest.mark.parametrize("alpha", [None, 0.5])
def test_load_patched(hub: Hub, folders: Path, tmp_path: Path, kind: str, alpha: float | None) -> None:
    repo_id = {"timm": TIMM, "hf": HF}[kind]
    commit = put(hub, repo_id, folders / f"{kind}0")
    signature = made(kind, commit, repo_id)
    put(hub, "alice/fog", saved(tmp_path / "fog", signature))
    put(hub, repo_id, folders / f"{kind}1")  # the branch goes on; the recorded commit counts
    by_hand = tiny_resnet() if kind == "timm" else tiny_hf_vit()
    expected = by_hand.state_dict()
    with patch(by_hand, signature, alpha=alpha):
        for source in ("alice/fog", tmp_path / "fog", signature):
            model = load_patched(source, alpha=alpha)
            assert same(model, by_hand) and not model.training
            (handle,) = active_patches(model)
            handle.unpatch()
    assert same_bits(dict(model.state_dict()), dict(expected))
    hub.log.clear()
    load_patched("alice/fog", local_files_only=True)
    assert len(hub.log) == 0


def test_load_patched_onto_another_base(hub: Hub, folders: Path) -> None:
    signature = made("timm", None, None)
    with pytest.raises(CheckpointError, match=r"does not say which published model.*timm resnet18\): pass base="):
        load_patched(signature)
    by_hand = tiny_resnet(1)
    put(hub, TIMM, folders / "timm1")
    anyway = {"verify": "architecture"}
    patch(by_hand, signature, **anyway)
    with pytest.raises(IncompatibleModelError, match="stranger"):
        load_patched(signature, base=str(folders / "timm1"))
    for base in (str(folders / "timm1"), TIMM, f"{TIMM}@main"):
        assert same(load_patched(signature, base=base, **anyway), by_hand)
    assert same(load_patched(made("timm", "0" * 40, "alice/gone"), base=TIMM, **anyway), by_hand)
    assert same(load_patched(made("timm", None, TIMM), **anyway), by_hand)  # without a commit: as the branch is now
    with pytest.raises(IncompatibleModelError):
        load_patched(signature, base=str(folders / "hf0"))


def test_load_patched_by_a_table_of_ones_own(folders: Path, tmp_path: Path) -> None:
    resnet = families()["resnet"].text
    (tmp_path / "mine.map").write_text(resnet.replace("conv1.weight     ", "first.weight     "))
    (tmp_path / "same.map").write_text(resnet)
    base, signature = str(folders / "timm0"), made("timm", None, None)
    by_hand = tiny_resnet(0)
    with patch(by_hand, signature):
        assert same(load_patched(signature, base=base, table=tmp_path / "same.map"), by_hand)
    with pytest.raises(
        NameTableError, match=r"mine\.map: the table does not explain .* no row for conv1\.weight in its"
    ):
        load_patched(signature, base=base, table=tmp_path / "mine.map")


def test_a_recorded_base_is_never_a_local_folder(
    hub: Hub, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = put(hub, TIMM, folders / "timm0")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alice").mkdir()
    (tmp_path / TIMM).symlink_to(folders / "timm1")
    model = load_patched(made("timm", commit, TIMM), alpha=0)
    assert same(model, tiny_resnet(0))


def test_load_patched_from_a_place(hub: Hub, tmp_path: Path, folders: Path) -> None:
    commit = hub.put("alice/fog", {f"sub/{n}": d for n, d in files_of(saved(tmp_path / "fog")).items()}).oid
    base = str(folders / "timm0")
    assert active_patches(load_patched("alice/fog", base=base, revision=commit, subfolder="sub"))
    for place in ({"revision": commit}, {"subfolder": "sub"}):
        with pytest.raises(ArtifactError, match="loaded already"):
            load_patched(fog(), base=base, **place)  # type: ignore[arg-type]
    with pytest.raises(RepositoryNotFoundError):
        load_patched("alice/nothing")
