"""Commands and patched models that take only what is signed and pinned."""

import json
from pathlib import Path

import pytest
import timm
from builders import tiny_resnet, tiny_signature
from hub import Hub
from keys import key_pair
from published import FILES, REPO, files_of, fog, saved
from safetensors.torch import save_file
from test_hub_signed import SIGNED, Keys, empty_cache, files, keys

from rws_hub import ArtifactError, VerificationError, active_patches, load_patched
from rws_hub.cli import main

__all__ = ["empty_cache", "keys"]  # fixtures


def test_commands(
    hub: Hub, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rws(*arguments: object) -> tuple[int, str]:
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out + err

    monkeypatch.setenv("HF_TOKEN", hub.alice)
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "fog")
    other = key_pair(tmp_path, "mallory")[1]
    assert rws("push", "fog", REPO, "--sign", keys[0])[0] == 0 and files(hub) == SIGNED
    assert not Path("fog/model.sig").exists(), "a push does not write locally"
    code, text = rws("pull", REPO, "-o", "got", "--verify", keys[1])
    assert code == 0 and "signature verified with" in text and set(files_of(tmp_path / "got")) == SIGNED
    assert json.loads(rws("pull", REPO, "-o", "json", "--verify", keys[1], "--json")[1])["verified"] == str(keys[1])
    code, text = rws("pull", REPO, "-o", "new", "--verify", other)
    assert code == 1 and "names another key" in text and not Path("new").exists()
    assert "model.sig is there" in rws("info", REPO)[1]
    assert rws("info", REPO, "--verify", keys[1])[0] == 0 and rws("info", REPO, "--verify", other)[0] == 1
    assert rws("push", "got", REPO)[0] == 0, "a pulled folder brings its signature along"
    saved(tmp_path / "two", fog(2))
    code, text = rws("push", "two", REPO)
    assert code == 1 and "--sign KEY" in text and "--no-sign" in text
    assert rws("push", "two", REPO, "--no-sign")[0] == 0 and files(hub) == FILES
    assert "signed      no" in rws("info", REPO)[1]
    code, text = rws("push", "got", REPO, "--no-sign")
    assert code == 1 and "delete its model.sig" in text
    with pytest.raises(SystemExit):
        rws("push", "--help")
    assert "delete the model.sig in the repository; a folder that has one is refused" in " ".join(
        capsys.readouterr().out.split()
    )
    assert rws("pull", REPO, "-o", "new", "--verify", keys[1]) == (
        1,
        f"error: {REPO} is not signed: no model.sig there to verify with {keys[1]}\n",
    )


def test_a_patched_model_only_of_what_is_signed_and_pinned(hub: Hub, keys: Keys, tmp_path: Path) -> None:
    facts = {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64]}
    timm.models.save_for_hf(tiny_resnet(), tmp_path / "base", model_args=facts, safe_serialization=True)
    commit = hub.put("alice/base", files_of(tmp_path / "base")).oid
    signature = tiny_signature(base_model="alice/base", base_revision=commit)
    signature.push_to_hub(REPO, token=hub.alice)
    with pytest.raises(VerificationError, match="is not signed"):
        load_patched(REPO, public_key=keys[1])
    signature.push_to_hub(REPO, token=hub.alice, sign=keys[0])
    lock = tmp_path / "rws.lock"
    assert main(["lock", REPO, "-o", str(lock)]) == 0
    assert active_patches(load_patched(REPO, public_key=keys[1], lock=lock))
    for asked in ({"public_key": keys[1]}, {"lock": lock}):
        with pytest.raises(ArtifactError, match="loaded already"):
            load_patched(signature, **asked)


def test_a_patched_copy_only_of_what_is_signed(keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(tiny_resnet().state_dict(), tmp_path / "clean.safetensors")
    saved(tmp_path / "fog")
    words = [
        "apply",
        tmp_path / "fog",
        tmp_path / "clean.safetensors",
        "-o",
        tmp_path / "out.safetensors",
        "--public-key",
        keys[1],
    ]
    assert main([str(w) for w in words]) == 1 and "is not signed" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()
    fog().save_pretrained(tmp_path / "fog", sign=keys[0])
    assert main([str(w) for w in words]) == 0 and (tmp_path / "out.safetensors").exists()
