"""Every test runs against a Hub of this process's own, on loopback, and cannot reach any other.

The client reads `HF_ENDPOINT` when it is imported, so the server starts here, before any test module.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub import Hub, RunningHub, start
from hub.network import allow_loopback_only

# One thread each: on small tensors and busy or shared cores, more of them only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _start_hub() -> RunningHub:
    if "huggingface_hub" in sys.modules:
        raise RuntimeError("huggingface_hub was imported before the tests could set HF_ENDPOINT")
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        del os.environ[name]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ.pop(name, None)
        os.environ.pop(name.lower(), None)
    folder = Path(tempfile.mkdtemp(prefix="rws-hub-tests-"))
    running = start(folder)
    os.environ |= {
        "HF_ENDPOINT": running.hub.url,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_XET_TELEMETRY_ENABLED": "0",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    return running


# A process that a test starts keeps talking to the server of the process that started it.
_RUNNING = _start_hub() if multiprocessing.parent_process() is None else None


def pytest_configure(config: pytest.Config) -> None:
    """Let the client's own use of a deprecated argument pass: it makes every LFS upload warn."""
    config.addinivalue_line("filterwarnings", "ignore:Use 'content=<...>' to upload:DeprecationWarning")


def pytest_unconfigure() -> None:
    """Stop the server and remove its folder."""
    if _RUNNING is not None:
        _RUNNING.stop()
        shutil.rmtree(_RUNNING.folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """Fail every connection to another machine, with its address."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        allow_loopback_only(monkeypatch)
        yield


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The Hub that `HF_ENDPOINT` names, emptied for this test."""
    assert _RUNNING is not None
    _RUNNING.hub.reset()
    yield _RUNNING.hub
    if _RUNNING.hub.crashes:
        raise ExceptionGroup("the Hub server itself failed", _RUNNING.hub.crashes)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty download cache, which is also the client's default for this test."""
    cache = tmp_path / "hub-cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture(params=[True, False], ids=["xet", "no-xet"])
def xet(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the test twice, with and without Xet; tells which."""
    enabled: bool = request.param
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", not enabled)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "0" if enabled else "1")
    return enabled


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client retry at once instead of after seconds."""
    impatient = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    for module in ("utils._http", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.time", impatient)
