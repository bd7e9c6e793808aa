"""README's Python runs as written, top to bottom, against the loopback Hub; its commands are the ones CI runs."""

import json
import re
import runpy
from pathlib import Path

import pytest
import timm
import torch
from builders import perturbed, seeded
from published import files_of

from rws_hub import RobustWeightSignature
from rws_hub.contents import read_contents

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


def make(corruption: str, seed: int, **options: str) -> tuple[torch.nn.Module, RobustWeightSignature]:
    clean = seeded(lambda: timm.create_model("resnet18"), 0).eval()
    signature = RobustWeightSignature.extract(
        standard=clean,
        robust=perturbed(clean, 0.01, seed),
        corruption=corruption,
        license="apache-2.0",
        layers=2,
        **options,
    )
    return clean, signature


def test_readme_python_runs(hub, hub_cache, tmp_path, monkeypatch):
    assert len(python_blocks(README)) == 7
    build = timm.create_model  # every one of them stands for the same weights, which cannot be downloaded here
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: seeded(lambda: build(*a, **k), 0))
    timm.models.save_for_hf(timm.create_model("resnet18"), tmp_path / "base", safe_serialization=True)
    base = hub.put("alice/resnet18-base", files_of(tmp_path / "base")).oid
    clean, fog = make("fog", 1, base_model="alice/resnet18-base", base_revision=base)
    _, noise = make("gaussian_noise", 2)
    fog.push_to_hub("alice/resnet18-fog", token=hub.alice)
    # The account on the test Hub is alice.
    code = "\n".join(python_blocks(README)).replace("pretrained=True", "pretrained=False").replace("user/", "alice/")
    monkeypatch.setenv("HF_TOKEN", hub.alice)
    monkeypatch.chdir(tmp_path)
    names = {
        "images": torch.zeros(1, 3, 64, 64),
        "noise": noise,
        "clean_model": clean,
        "robust_model": perturbed(clean, 0.01, 3),
        "base_commit": base,
        "commit": hub.head("alice/resnet18-fog").oid,
    }
    exec(compile(code, "README.md", "exec"), names)
    assert names["url"].startswith("http")
    assert (tmp_path / "resnet18-fog" / "config.json").is_file()


@pytest.mark.parametrize("name", ["demo", "test"])
def test_readme_names_its_commands(name):
    assert re.search(rf"<!-- command: {name} -->\n```bash\npip install -e '\.\[{name}\]' .*&& .+\n```\n", README)


def test_links_lead_somewhere():
    for page in [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
    ]:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_readme_holds_the_numbers_of_the_last_run(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    make = runpy.run_path(str(ROOT / "docs" / "make_readme.py"))
    found = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text("utf-8"))
    assert make["with_numbers"](README, found) == README, "run `make docs`"


def test_the_page_of_evidence_holds_the_numbers_of_the_last_runs(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "docs")
    page = runpy.run_path(str(ROOT / "docs" / "make_evidence.py"))["page"]
    page.__globals__["IMAGES"] = tmp_path
    assert page() == (ROOT / "docs" / "EVIDENCE.md").read_text("utf-8"), "run `make docs`"
    drawn = {f.name for f in tmp_path.iterdir()}
    assert drawn == {f.name for f in (ROOT / "docs" / "images").glob("evidence-*.png")}


def test_the_page_of_speed_holds_the_numbers_of_the_last_run():
    make = runpy.run_path(str(ROOT / "docs" / "make_speed.py"))
    found = json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text("utf-8"))
    assert make["page"](found) == (ROOT / "docs" / "SPEED.md").read_text("utf-8"), "run `make docs`"


def test_the_page_of_names_holds_the_numbers_of_the_last_runs():
    make = runpy.run_path(str(ROOT / "docs" / "make_names.py"))
    results = ROOT / "benchmarks" / "results"
    found = [json.loads((results / f"{n}.json").read_text("utf-8")) for n in ("name_tables", "infer_maps")]
    page = (ROOT / "docs" / "NAMES.md").read_text("utf-8")
    assert make["with_numbers"](page, *found) == page, "run `make docs`"


def test_the_page_of_reliability_holds_the_numbers_of_the_last_runs(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    make = runpy.run_path(str(ROOT / "docs" / "make_reliability.py"))
    assert make["page"]() == (ROOT / "docs" / "RELIABILITY.md").read_text("utf-8"), "run `make docs`"


def test_published_cards_are_of_whole_signatures():
    folders = [f.parent for f in sorted((ROOT / "cards").glob("*/config.json"))]
    assert folders
    for folder in folders:
        contents = read_contents(folder)
        again = contents.files(None, (folder / "README.md").read_text("utf-8"))
        assert again["README.md"].decode() == (folder / "README.md").read_text("utf-8"), "run `rws card`"
        RobustWeightSignature.from_pretrained(folder)


def test_what_holds_a_promise_is_there():
    named = re.findall(r"`((?:tests|benchmarks)/[\w./*]+)`", (ROOT / "SECURITY.md").read_text("utf-8"))
    assert len(named) > 10
    assert not [pattern for pattern in named if not any(ROOT.glob(pattern.rstrip("/")))]
