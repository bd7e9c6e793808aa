"""The house rules that a machine can hold: one way of imports, small rooms, few prints, no paths of ours."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import rws_hub

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rws_hub"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Each module imports from those before it only, whether at its top or inside a function.
ORDER = [
    "_version",
    "errors",
    "cells",
    "numbering",
    "names",
    "jsonio",
    "compact",
    "spec",
    "promises",
    "config",
    "spelling",
    "resolve",
    "recognise",
    "diagnosis",
    "report",
    "results",
    "disk",
    "pending",
    "beside",
    "card_metadata",
    "card_merge",
    "card",
    "manifest",
    "artifact",
    "bundle",
    "signing",
    "contents",
    "merging",
    "lock",
    "downloads",
    "places",
    "commits",
    "hub",
    "corruptions",
    "bits",
    "symbols",
    "factors",
    "rounding",
    "factoring",
    "rate",
    "frames",
    "codec",
    "pools",
    "payload",
    "tensor_files",
    "sources",
    "kinship",
    "storage",
    "layers",
    "trio",
    "measuring",
    "extract",
    "making",
    "identity",
    "signature",
    "comparison",
    "plan",
    "shards",
    "writable",
    "planner",
    "stored",
    "gates",
    "deltas",
    "bounds",
    "ledger",
    "removal",
    "writing",
    "anchors",
    "clean",
    "subjects",
    "judging",
    "handle",
    "patching",
    "apply",
    "pairing",
    "lockstep",
    "trials",
    "proof",
    "symmetry",
    "folding",
    "infer",
    "libraries",
    "references",
    "checkpoints",
    "backbones",
    "pictures",
    "classifier",
    "batchnorm",
    "training",
    "evaluation",
    "demo",
    "show",
    "compare_tables",
    "compare_plots",
    "compare_command",
    "data_commands",
    "words",
    "train_command",
    "eval_command",
    "pinned",
    "hub_commands",
    "check_command",
    "commands",
    "parser",
    "cli",
]
TORCHLESS = set(ORDER[: ORDER.index("hub") + 1]) | set(ORDER[ORDER.index("show") :])
PRINTING = {
    "show",
    "compare_tables",
    "compare_command",
    "check_command",
    "eval_command",
    "train_command",
    "data_commands",
    "hub_commands",
    "commands",
    "cli",
    "demo",
}


def room(file: Path) -> str:
    """Where a module stands in ORDER; the modules of a subpackage stand together."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path, *, types_too: bool = False) -> Iterator[str]:
    """Full dotted names that a module imports, with those inside functions; without type-checking imports."""
    tree = ast.parse(file.read_text("utf-8"))
    hidden: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types_too:
            hidden |= set(ast.walk(node))
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ids(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def test_every_module_has_a_place() -> None:
    rooms = {room(file) for file in MODULES} - {"__init__"}
    assert rooms == set(ORDER) and len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_imports_go_one_way(file: Path) -> None:
    if room(file) == "__init__":
        allowed = {"_version"}  # everything else is imported when it is used
    else:
        allowed = set(ORDER[: ORDER.index(room(file))]) | ({room(file)} if file.parent != PACKAGE else set())
    ours = [name.split(".")[1] for name in imports(file) if name.startswith("rws_hub.")]
    ours = [rws_hub._HOME.get(name, name) for name in ours]  # the public names, where they live
    assert set(ours) <= allowed


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_who_may_import_what(file: Path) -> None:
    packages = {name.partition(".")[0] for name in imports(file, types_too=True)}
    if room(file) not in {"libraries", "demo"}:
        assert not packages & {"timm", "transformers"}
    if room(file) not in {"compare_plots", "demo"}:
        assert "matplotlib" not in packages
    if room(file) != "demo":
        assert not packages & {"sklearn", "plotext"}
    if room(file) != "signing":
        assert not packages & {"model_signing", "cryptography", "sigstore"}
    if room(file) not in {"commits", "downloads", "hub", "places", "card", "card_merge", "checkpoints", "demo"}:
        assert "huggingface_hub" not in packages
    if room(file) in TORCHLESS:
        assert not {n.partition(".")[0] for n in imports(file)} & {"torch", "numpy", "safetensors"}
    assert not packages & {"pickle", "requests", "httpx", "httpx2", "urllib"}


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_no_lock_is_held_that_a_forked_child_never_gets(file: Path) -> None:
    """Python 3.11's `cached_property` holds one for all instances while it computes."""
    assert "functools.cached_property" not in set(imports(file))


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_who_may_print(file: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
    names = {ast.unparse(call.func) for call in calls}
    if room(file) not in PRINTING:
        assert not names & {"print", "sys.stdout.write", "sys.stderr.write"}
    assert not names & {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "os.system"}


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_modules_are_small_and_open(file: Path) -> None:
    text = file.read_text("utf-8")
    assert text.count("\n") <= 300
    assert not re.search(r"#\s*type:\s*ignore(?!\[)", text), "say which error is ignored"
    assert not re.search(r"#\s*noqa(?!:)", text), "say which rule is not followed"


def test_the_tree_holds_no_path_of_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    path = re.compile(rb"/(?:home|Users|root|work|workspace)/[a-z_][\w-]*|[A-Z]:\\Users\\", re.ASCII)
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if file.is_file() and file.suffix not in {".png", ".safetensors"}:
            found = path.search(file.read_bytes())
            assert found is None, f"{name}: {found and found[0]!r}"
