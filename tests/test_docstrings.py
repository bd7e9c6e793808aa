"""Every example in the docstring of a public name runs and prints what it says."""

import doctest
import inspect

import pytest
import torch
from test_docs import make

import rws_hub

PUBLIC = [n for n in rws_hub.__all__ if n != "__version__"]


@pytest.fixture(scope="module")
def models():
    model, fog = make("fog", 1)
    return {"model": model, "fog": fog, "noise": make("gaussian_noise", 2)[1], "images": torch.zeros(1, 3, 64, 64)}


def examples(name: str) -> list[doctest.Example]:
    text = inspect.getdoc(getattr(rws_hub, name)) or ""
    # The account on the test Hub is alice.
    return doctest.DocTestParser().get_examples(text.replace("user/", "alice/"))


@pytest.mark.parametrize("name", [n for n in PUBLIC if examples(n)])
def test_docstring_example_runs(name, models, hub, hub_cache, monkeypatch):
    if name == "RobustWeightSignature":
        models["fog"].push_to_hub("alice/resnet18-fog", token=hub.alice)
    names = {n: getattr(rws_hub, n) for n in PUBLIC} | models
    test = doctest.DocTest(examples(name), names, name, None, None, None)
    failures: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=failures.append).failed == 0, "".join(failures)


def test_the_main_names_have_examples():
    assert {n for n in PUBLIC if examples(n)} >= {"RobustWeightSignature", "active_patches", "patch", "plan_patch"}
