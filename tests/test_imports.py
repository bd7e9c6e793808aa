"""What starts quickly must stay so: the imports behind each command, and the time they take."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from published import saved

HEAVY = {"torch", "numpy", "timm", "transformers", "huggingface_hub", "safetensors", "jinja2", "yaml", "rich", "tqdm"}
MODELS = {"timm", "transformers", "torchvision"}

# Runs in a fresh interpreter: what a piece of code imports, and its CPU time with that of the start.
PROBE = """
import sys, time
before = set(sys.modules)
{code}
print("\\n" + __import__("json").dumps([sorted(set(sys.modules) - before), time.process_time()]))
"""


def probe(code: str) -> tuple[set[str], float]:
    """Top-level packages that `code` imports, and CPU seconds of the whole process."""
    ran = subprocess.run([sys.executable, "-c", PROBE.format(code=code)], capture_output=True, text=True, check=True)
    names, seconds = json.loads(ran.stdout.splitlines()[-1])
    return {name.partition(".")[0] for name in names}, seconds


def fastest(code: str) -> float:
    """The least CPU time of five runs: what other processes do to this machine does not count."""
    return min(probe(code)[1] for _ in range(5))


def command(*arguments: object) -> str:
    return f"from rws_hub.cli import main; assert main({[str(a) for a in arguments]!r}) == 0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a signature."""
    return saved(tmp_path_factory.mktemp("imports") / "fog")


@pytest.mark.parametrize("code", ["import rws_hub", "import rws_hub; dir(rws_hub)", "import rws_hub.cli"])
def test_import_is_light(code: str) -> None:
    assert not probe(code)[0] & HEAVY


@pytest.mark.parametrize("name", ["RWSError", "SignatureConfig", "Results"])
def test_light_names_are_light(name: str) -> None:
    assert not probe(f"from rws_hub import {name}")[0] & HEAVY


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_info_of_a_folder_is_light(folder: Path, options: list[str]) -> None:
    imported, _ = probe(command("info", folder, *options))
    assert not imported & HEAVY


def test_card_needs_no_torch(folder: Path) -> None:
    imported, _ = probe(command("card", folder))
    assert not imported & {"torch", "numpy", "safetensors", *MODELS}


def test_push_needs_no_torch() -> None:
    imported, _ = probe("import rws_hub.hub")
    assert not imported & {"torch", *MODELS}


def test_patching_needs_no_model_library() -> None:
    imported, _ = probe("from rws_hub import RobustWeightSignature, patch, plan_patch; import rws_hub.apply")
    assert "torch" in imported and not imported & MODELS


def test_start_up_takes_little_time(folder: Path) -> None:
    bare = fastest("pass")
    assert fastest("import rws_hub") - bare < 0.2
    assert fastest(command("info", folder)) < 0.4


def test_modules_are_found_without_the_source_tree(tmp_path: Path) -> None:
    code = "import rws_hub.names, rws_hub.card; assert rws_hub.names.families(); assert rws_hub.card._template()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=dict(os.environ), check=True)
