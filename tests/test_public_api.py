"""What users import and call: names, signatures and the errors' family tree, as docs and README promise."""

import inspect
import subprocess
import sys

import pytest

import rws_hub
from rws_hub import errors

KEYWORD, POSITIONAL, SEVERAL = (
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def parameters(function: object) -> dict[str, object]:
    """Name -> default ("required" if there is none), in order; `*` before the first keyword-only one."""
    found: dict[str, object] = {}
    for name, parameter in inspect.signature(function).parameters.items():  # type: ignore[arg-type]
        if name in ("self", "cls"):
            continue
        if parameter.kind is KEYWORD and not any(n.startswith("*") for n in found):
            found["*"] = None
        star = "*" if parameter.kind is SEVERAL else ""
        found[star + name] = "required" if parameter.default is inspect.Parameter.empty else parameter.default
    return found


def test_all() -> None:
    assert rws_hub.__all__ == sorted(set(rws_hub.__all__)) == dir(rws_hub)
    assert {"RobustWeightSignature", "patch", "plan_patch", "active_patches", "RWSError"} <= set(rws_hub.__all__)


@pytest.mark.parametrize("name", rws_hub.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(rws_hub, name)
    if name == "__version__":
        assert isinstance(value, str)
        return
    doc = inspect.getdoc(value)
    assert doc and doc[0] in "`ABCDEFGHIJKLMNOPQRSTUVWXYZ" and doc.splitlines()[0].rstrip().endswith((".", ":"))
    assert value.__module__.startswith("rws_hub.") and value.__name__ == name
    for member, thing in vars(value).items() if inspect.isclass(value) else ():
        if not member.startswith("_") and callable(thing):
            assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Robust'"):
        _ = rws_hub.Robust  # type: ignore[attr-defined]
    assert not hasattr(rws_hub, "_HOMES")


def test_star_import_and_type_checkers_see_the_same() -> None:
    code = "from rws_hub import *; import rws_hub; assert set(rws_hub.__all__) <= set(globals())"
    subprocess.run([sys.executable, "-c", code], check=True)
    source = inspect.getsource(rws_hub)
    for name in rws_hub.__all__:
        assert f" import {name} as {name}\n" in source


def test_errors() -> None:
    mine = [e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, Exception)]
    assert {e.__name__ for e in mine} == {n for n in rws_hub.__all__ if n.endswith("Error")}
    for error in mine:
        assert issubclass(error, rws_hub.RWSError)
        assert error is rws_hub.RWSError or issubclass(error, (ValueError, RuntimeError))
    assert issubclass(rws_hub.NotASignatureError, FileNotFoundError)
    assert str(rws_hub.NotASignatureError("one sentence")) == "one sentence"


def test_from_pretrained() -> None:
    assert parameters(rws_hub.RobustWeightSignature.from_pretrained) == {
        "pretrained_model_name_or_path": "required",
        "*": None,
        "revision": None,
        "token": None,
        "cache_dir": None,
        "force_download": False,
        "local_files_only": False,
        "subfolder": None,
        "public_key": None,
        "lock": None,
    }


def test_load_patched() -> None:
    found = parameters(rws_hub.load_patched)
    assert list(found)[:2] == ["signature", "*"] and found.pop("signature") == "required"
    assert found.pop("local_files_only") is False
    assert found.pop("verify") == "kin" and found.pop("max_relative_norm") == 1.0 and set(found.values()) == {None}
    assert found.keys() >= {"alpha", "base", "table", "token", "cache_dir", "revision", "subfolder"}


def test_push_to_hub() -> None:
    found = parameters(rws_hub.RobustWeightSignature.push_to_hub)
    assert isinstance(found.pop("commit_message"), str)
    expected = {"repo_id": "required", "*": None, "private": None, "token": None, "revision": None}
    assert found == expected | {"create_pr": False, "results": None, "sign": None}


def test_save_pretrained() -> None:
    found = parameters(rws_hub.RobustWeightSignature.save_pretrained)
    assert list(found)[:2] == ["save_directory", "*"] and found["results"] is None


def test_extract() -> None:
    found = parameters(rws_hub.RobustWeightSignature.extract)
    required = {name for name, default in found.items() if default == "required"}
    assert next(iter(found)) == "*" and required == {"standard", "robust", "corruption", "license"}
    expected = {"pretrained": None, "severity": None, "dataset": None, "layers": "shallow", "alpha": 1.0}
    expected |= {"bits": None, "error": None, "max_bytes": None}
    assert {name: found[name] for name in expected} == expected


def test_patch_and_plan() -> None:
    found = parameters(rws_hub.patch)
    assert list(found)[:2] == ["model", "*signatures"] and found["alpha"] is None
    assert found["verify"] == "kin" and found["max_relative_norm"] == 1.0
    planned = parameters(rws_hub.plan_patch)
    assert list(planned)[1:] == ["*signatures", "alpha", "verify", "max_relative_norm", "table"]
    assert all(planned[n] == found[n] for n in ("alpha", "verify", "max_relative_norm", "table"))
    patch = rws_hub.Patch
    assert next(iter(parameters(patch.add))) == "signature" and parameters(patch.add)["alpha"] is None
    assert callable(patch.set_alpha) and callable(patch.remove) and callable(patch.unpatch)
    assert callable(patch.__enter__) and callable(patch.__exit__) and callable(rws_hub.PatchPlan.explain)
    for member in ("delta", "names", "nbytes", "config"):
        assert hasattr(rws_hub.RobustWeightSignature, member)
