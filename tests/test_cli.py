"""The `rws` command, every verb: what it prints where, its exit codes, and no traceback for anyone."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import perturbed, tiny_resnet, tiny_vit
from hub import Hub
from published import FILES, REPO, files_of, fog, measured, saved
from safetensors.torch import save_file
from test_apply import save_sharded

from rws_hub import RobustWeightSignature, cli, commands
from rws_hub.spec import FORMAT_VERSION

Run = Callable[..., tuple[int, str, str]]
EXTRACT = ("extract", "--corruption", "fog", "--license", "mit")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a signature."""
    return saved(tmp_path / "fog")


@pytest.fixture
def alice(hub: Hub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub for someone who is logged in as alice."""
    monkeypatch.setenv("HF_TOKEN", hub.alice)
    return hub


@pytest.fixture
def rws(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            code = int(str(stop.code))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def checkpoint(path: Path, model: Any) -> Path:
    save_file(model.state_dict(), path, {"format": "pt"})
    return path


def twins(tmp_path: Path) -> tuple[Path, Path]:
    clean, robust = tmp_path / "clean.safetensors", tmp_path / "robust.safetensors"
    return checkpoint(clean, tiny_resnet()), checkpoint(robust, perturbed(tiny_resnet(), 0.01, 1))


def failed(ran: tuple[int, str, str]) -> str:
    """The message of a command that failed as it should."""
    code, out, err = ran
    assert code == 1 and out == "" and "Traceback" not in err
    (line,) = [part for part in err.splitlines() if part.startswith("error: ")]
    return line


# --- extract, info


def test_extract(rws: Run, tmp_path: Path) -> None:
    clean, robust = twins(tmp_path)
    more = ["--severity", 3, "--dataset", "cifar10", "--layers", "2", "--alpha", 0.8, "--bits", 6]
    code, out, err = rws(*EXTRACT, "--standard", clean, "--robust", robust, *more, "-o", tmp_path / "sig")
    assert code == 0 and out.endswith(f"saved to {tmp_path / 'sig'}\n") and "error" not in err
    made = RobustWeightSignature.from_pretrained(tmp_path / "sig")
    facts: dict[str, Any] = {"corruption": "fog", "license": "mit", "severity": 3, "dataset": "cifar10"}
    expected = RobustWeightSignature.extract(standard=clean, robust=robust, layers=2, alpha=0.8, bits=6, **facts)
    assert made.payload == expected.payload and made.config == expected.config
    assert "exists already" in failed(rws(*EXTRACT, "--standard", clean, "--robust", robust, "-o", tmp_path / "sig"))


def test_extract_from_shards_with_a_pretrained_model(rws: Run, tmp_path: Path) -> None:
    clean = save_sharded(tiny_resnet(), tmp_path / "clean")
    robust = save_sharded(perturbed(tiny_resnet(), 0.01, 1), tmp_path / "robust")
    before = checkpoint(tmp_path / "before.safetensors", perturbed(tiny_resnet(), 0.01, 2))
    more = ["--pretrained", before, "--layers", "conv1.weight,bn1.*", "--json", "-o", tmp_path / "sig"]
    code, out, err = rws(*EXTRACT, "--standard", clean, "--robust", robust, *more)
    found = json.loads(out)
    assert code == 0 and err == "" and found["method"] == "projection" and found["folder"] == str(tmp_path / "sig")
    made = RobustWeightSignature.from_pretrained(tmp_path / "sig")
    assert made.names and all(n.startswith(("conv1.", "bn1.")) for n in made.names)


def test_extract_what_does_not_work(rws: Run, tmp_path: Path) -> None:
    clean, robust = twins(tmp_path)
    other = checkpoint(tmp_path / "vit.safetensors", tiny_vit())
    out = ("-o", tmp_path / "sig")
    assert "family" in failed(rws(*EXTRACT, "--standard", clean, "--robust", other, *out))
    assert "no such file" in failed(rws(*EXTRACT, "--standard", clean, "--robust", tmp_path / "no", *out))
    assert "from 0.1 to 8" in failed(rws(*EXTRACT, "--bits", "16", "--standard", clean, "--robust", robust, *out))
    assert "cannot be met" in failed(
        rws(*EXTRACT, "--target-bytes", "999", "--standard", clean, "--robust", robust, *out)
    )
    both = rws(*EXTRACT, "--bits", "2", "--target-error", "0.1", "--standard", clean, "--robust", robust, *out)
    assert both[0] == 2 and "not allowed with argument --bits" in both[2]
    assert failed(rws(*EXTRACT, "--license", "a b", "--standard", clean, "--robust", robust, *out))
    assert failed(rws(*EXTRACT, "--layers", "nothing.*", "--standard", clean, "--robust", robust, *out))
    for wrong in (
        ("--severity", "6"),
        ("--bits", "x"),
        ("--target-bytes", "1.5"),
        ("--alpha", "nan"),
        ("--alpha", "x"),
    ):
        code, text, err = rws(*EXTRACT, *wrong, "--standard", clean, "--robust", robust, *out)
        assert code == 2 and text == "" and wrong[0] in err
    assert not (tmp_path / "sig").exists()


def test_extract_to_a_size_or_an_error(rws: Run, tmp_path: Path) -> None:
    clean, robust = twins(tmp_path)
    files = ("--standard", clean, "--robust", robust)
    assert rws(*EXTRACT, *files, "--target-error", "0.1", "-o", tmp_path / "a")[0] == 0
    assert RobustWeightSignature.from_pretrained(tmp_path / "a").config.relative_error == pytest.approx(0.1, rel=0.02)
    most = RobustWeightSignature.from_pretrained(tmp_path / "a").nbytes - 100
    assert rws(*EXTRACT, *files, "--target-bytes", most, "-o", tmp_path / "b")[0] == 0
    assert 0.95 * most < RobustWeightSignature.from_pretrained(tmp_path / "b").nbytes <= most
    assert rws(*EXTRACT, *files, "--bits", "1.5", "-o", tmp_path / "c")[0] == 0
    assert "entropy-coded, 1.5" in rws("info", tmp_path / "c")[1]


@pytest.mark.parametrize("columns", [80, 120])
def test_info(rws: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = rws("info", folder)
    lines = out.splitlines()
    assert code == 0 and err == "" and all(len(line) <= columns and line == line.rstrip() for line in lines)
    assert lines[0] == "corruption  fog, severity 5, on cifar10"
    size = sum(len(files_of(folder)[n]) for n in ("config.json", "rws.safetensors"))
    assert f"{size:,} bytes" in out and f"sha256      {fog().config.payload.sha256}" in out
    code, out, err = rws("info", folder, "--json")
    assert code == 0 and json.loads(out)["bytes"] == size == fog().nbytes


def test_info_from_the_hub(rws: Run, alice: Hub, tmp_path: Path) -> None:
    commit = alice.put(REPO, {f"sub/{n}": d for n, d in files_of(saved(tmp_path / "fog")).items()}).oid
    code, out, _ = rws("info", REPO, "--subfolder", "sub", "--revision", commit, "--json")
    assert code == 0 and json.loads(out)["sha256"] == fog().config.payload.sha256
    assert "404" in failed(rws("info", "alice/missing"))
    assert "no config.json" in failed(rws("info", REPO))


def test_info_of_what_does_not_hold(rws: Run, folder: Path, tmp_path: Path) -> None:
    assert "no config.json" in failed(rws("info", tmp_path))
    assert "neither a local folder nor a Hub id" in failed(rws("info", tmp_path / "missing"))
    assert "plain relative path" in failed(rws("info", tmp_path, "--subfolder", "../x"))
    assert "local folder" in failed(rws("info", folder, "--revision", "main"))
    payload = folder / "rws.safetensors"
    payload.write_bytes(payload.read_bytes()[:-1] + b"\xff")
    assert "sha256" in failed(rws("info", folder))
    payload.unlink()
    assert "missing" in failed(rws("info", folder, "--json"))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"format_version": 4', f'"format_version": {FORMAT_VERSION + 1}'))
    assert "pip install -U" in failed(rws("info", folder))


def test_info_does_not_steer_the_terminal(rws: Run, tmp_path: Path) -> None:
    config = fog().config
    backbone = dataclasses.replace(config.backbone, architecture="net\x1b[2J\x9b31m[bold]\u202e")
    config = dataclasses.replace(config, backbone=backbone).with_seal()
    (tmp_path / "config.json").write_text(config.to_text())
    (tmp_path / "rws.safetensors").write_bytes(fog().payload)
    _, out, err = rws("info", tmp_path)
    assert "[bold]" in out + err and not set("\x1b\x9b\u202e") & set(out + err)


# --- card, push, pull


def test_card(rws: Run, folder: Path, tmp_path: Path) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text("utf-8") + "\nA person's words.\n", "utf-8")
    (tmp_path / "r.json").write_text(measured(fog()).to_text(), "utf-8")
    code, out, _ = rws("card", folder, "--results", tmp_path / "r.json")
    text = card.read_text("utf-8")
    assert code == 0 and out == f"{card} written\n" and "A person's words." in text and "60.0" in text
    assert rws("card", folder, "--json")[1] and card.read_text("utf-8") == text
    assert (folder / "results.json").read_text("utf-8") == measured(fog()).to_text()
    (tmp_path / "r.json").write_text(measured(fog(2)).to_text(), "utf-8")
    assert "another signature" in failed(rws("card", folder, "--results", tmp_path / "r.json"))
    assert failed(rws("card", folder, "--results", tmp_path / "no")).endswith("no: No such file or directory")
    assert "no config.json" in failed(rws("card", tmp_path / "missing"))


def test_push_and_pull(rws: Run, alice: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "README.md").write_text((folder / "README.md").read_text("utf-8") + "\nMine.\n", "utf-8")
    code, out, _ = rws("push", folder, REPO, "--private", "--message", "Fog", "--json")
    assert code == 0 and json.loads(out)["url"].endswith(alice.head(REPO).oid)
    assert alice.repo(REPO).private and alice.head(REPO).title == "Fog"
    assert b"Mine." in alice.read(REPO, "README.md")
    monkeypatch.chdir(tmp_path)
    code, out, _ = rws("pull", REPO)
    pulled = files_of(tmp_path / "resnet-fog")
    assert code == 0 and out.startswith(f"resnet-fog: {REPO} at {alice.head(REPO).oid}")
    assert pulled == {n: alice.read(REPO, n) for n in FILES}
    assert "exists already" in failed(rws("pull", REPO))
    code, out, _ = rws("pull", REPO, "-o", "two", "--json")
    assert code == 0 and json.loads(out)["revision"] == alice.head(REPO).oid and files_of(tmp_path / "two") == pulled
    assert rws("push", "two", REPO, "--create-pr")[0] == 0 and alice.head(REPO).title == "Fog"
    assert "is not a Hub id" in failed(rws("pull", "./two", "-o", "three"))


def test_what_is_refused(rws: Run, alice: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no config.json" in failed(rws("push", tmp_path, REPO))
    assert failed(rws("push", folder, "bob/fog"))
    alice.put(REPO, {"config.json": b"{}"})
    assert "another kind of model" in failed(rws("push", folder, REPO))
    monkeypatch.setenv("HF_TOKEN", alice.bad_token)
    assert "401" in failed(rws("push", folder, "alice/other"))
    monkeypatch.setenv("HF_TOKEN", alice.alice)
    broken = files_of(folder) | {"rws.safetensors": fog().payload[:-1]}
    alice.put(REPO, broken)
    assert "truncated" in failed(rws("pull", REPO, "-o", tmp_path / "new"))
    assert failed(rws("push", folder, "not an id")) and not (tmp_path / "new").exists()


def test_a_concurrent_push_is_explained(rws: Run, alice: Hub, folder: Path) -> None:
    rws("push", folder, REPO)
    saved(folder, fog(2))
    alice.fault(r"/commit/main$", before=lambda: alice.put(REPO, {"x.txt": b"x"}))
    code, _, err = rws("push", folder, REPO)
    assert code == 1 and "412" in err and "note: " in err and "push again" in err


# --- the command itself


def test_wrong_usage(rws: Run) -> None:
    for arguments in ([], ["nothing"], ["info"], ["apply", "a", "b"], ["info", "a", "--no-such-option"]):
        code, out, err = rws(*arguments)
        assert code == 2 and out == "" and err.startswith("usage: rws")
    assert rws("--version")[1].startswith("rws ") and rws("--help")[0] == 0


@pytest.mark.parametrize("verb", ["demo", "extract", "info", "check", "apply", "card", "push", "pull"])
def test_help(rws: Run, verb: str) -> None:
    code, out, _ = rws(verb, "--help")
    assert code == 0 and out.startswith(f"usage: rws {verb}") and "--json" in out


def test_interrupted_and_unexpected(rws: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(arguments: object) -> None:
        raise KeyboardInterrupt

    def bug(arguments: object) -> None:
        raise LookupError("a bug of ours")

    monkeypatch.setattr(commands, "run", interrupt)
    assert rws("info", "x") == (130, "", "interrupted\n")
    monkeypatch.setattr(commands, "run", bug)
    with pytest.raises(LookupError):  # bugs keep their traceback
        rws("info", "x")


def test_the_installed_command(folder: Path) -> None:
    program = Path(sys.executable).parent / "rws"
    assert program.exists()
    ran = subprocess.run([program, "info", folder, "--json"], capture_output=True, text=True)
    assert ran.returncode == 0 and json.loads(ran.stdout)["corruption"] == "fog" and ran.stderr == ""
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run([program, "info", folder], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert ran.returncode == 1 and ran.stderr == ""
