"""Loading over a network that fails, is not there, or is not wanted."""

import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hub import Hub
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from published import REPO, files_of, fog, saved
from test_hub import artifact, empty_cache, load

from rws_hub import ArtifactError
from rws_hub.cli import main
from rws_hub.hub import pull

__all__ = ["empty_cache"]  # a fixture


def test_offline_from_the_cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.put(REPO, artifact()).oid
    other = tmp_path / "other-cache"
    assert load(REPO).payload == load(REPO, cache_dir=other).payload == fog().payload
    hub.log.clear()
    assert load(REPO, revision=commit).payload == fog().payload
    assert load(REPO, local_files_only=True).payload == fog().payload
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load(REPO).payload == load(REPO, revision=commit, cache_dir=other).payload == fog().payload
    assert len(hub.log) == 0


@pytest.mark.parametrize("cached", [set(), {"config.json"}])
def test_offline_without_it(hub: Hub, monkeypatch: pytest.MonkeyPatch, cached: set[str]) -> None:
    hub.put(REPO, artifact())
    for name in cached:
        HfApi(token=False).hf_hub_download(REPO, name)
    hub.log.clear()
    for only in (True, False):
        with pytest.raises(LocalEntryNotFoundError) as caught:
            load(REPO, local_files_only=only)
        (note,) = caught.value.__notes__
        assert "offline: fetch it once online, or pin the cached commit" in note and "in a moment" not in note
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert len(hub.log) == 0


def test_offline_on_purpose_says_so(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put(REPO, artifact())
    load(REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineModeIsEnabled) as pulled:
        pull(REPO)
    assert pulled.value.__notes__[0].startswith("nothing of it is used; offline: fetch it once online")
    with pytest.raises(OfflineModeIsEnabled) as pushed:
        fog().push_to_hub(REPO, token=hub.alice)
    assert pushed.value.__notes__ == [f"nothing was published in {REPO}; offline: unset HF_HUB_OFFLINE and push again"]


def test_a_failing_hub(hub: Hub, no_backoff: None) -> None:
    hub.put(REPO, artifact())
    hub.fault("/resolve/", status=503, times=1000)
    with pytest.raises(LocalEntryNotFoundError):
        load(REPO)


@pytest.mark.parametrize("command", [["info", REPO], ["pull", REPO], ["push", "fog", REPO]], ids=lambda c: c[0])
def test_no_network_at_all(tmp_path: Path, command: list[str]) -> None:
    saved(tmp_path / "fog")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        code = "import huggingface_hub.utils._http as h, types, time, sys; from rws_hub.cli import main\n"
        code += "h.time = types.SimpleNamespace(**vars(time) | {'sleep': lambda s: None})\n"
        code += f"sys.exit(main({command}))"
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{unused.getsockname()[1]}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN": "hf_x",
        }
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
    assert ran.returncode == 1 and not ran.stdout
    error, note = ran.stderr.splitlines()[-2:]
    assert re.match("error: .*(could not be reached|connection)", error), ran.stderr
    assert re.match("note: nothing .*; (run it|push) again in a moment", note), ran.stderr


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_download_that_breaks_off_is_retried(
    hub: Hub, no_backoff: None, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    hub.put(REPO, artifact())
    fault = hub.fault("^/files/", method="GET", cut=cut)
    assert load(REPO).payload == fog().payload and fault.hits == 1


def test_a_download_that_always_breaks_off(
    hub: Hub, no_backoff: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_cache: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    hub.put(REPO, artifact())
    hub.fault("^/files/", method="GET", cut=0, times=1000)
    with pytest.raises(Exception) as caught:
        load(REPO)
    assert not isinstance(caught.value, ArtifactError)
    assert not list(empty_cache.rglob("snapshots/*/rws.safetensors")), "half a file is never taken for one"
    assert files_of(tmp_path / "nothing") == {}


def test_the_library_names_itself_and_keeps_the_token(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "rws_hub")
    hub.put(REPO, artifact())
    load(REPO, token=hub.alice)
    asked = [r for r in hub.log if r.origin == "hub" and "/resolve/" in r.path]
    assert asked and all("rws-hub/" in r.headers["user-agent"] for r in asked)
    assert any(r.headers.get("authorization") == f"Bearer {hub.alice}" for r in asked)
    assert hub.alice not in caplog.text


def test_errors_of_xet_are_no_traceback(hub: Hub, empty_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fog().push_to_hub(REPO, token=hub.alice)
    shutil.rmtree(empty_cache)
    fault = hub.fault("/v1/reconstructions", status=403, times=100)
    assert main(["info", REPO]) == 1 and fault.hits
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"error: .*\nnote: nothing of it is used; run it again in a moment\n", err)
