"""The card as its readers and the Hub see it. New golden files: RWS_UPDATE_GOLDEN=1 pytest tests/test_card.py"""

import base64
import dataclasses
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index

from rws_hub.card import front_matter, render_card
from rws_hub.results import Accuracy, Evaluation, Results
from rws_hub.spec import (
    Backbone,
    Codec,
    Corruption,
    Extraction,
    Payload,
    SignatureConfig,
    Sketch,
    Source,
    TensorFacts,
    UnitProfile,
)

GOLDEN = Path(__file__).parent / "golden"
REVISION = "0123456789abcdef0123456789abcdef01234567"
LAYOUT = {
    "conv1.weight": (64, 3, 7, 7),
    "bn1.weight": (64,),
    "bn1.bias": (64,),
    "bn1.running_mean": (64,),
    "bn1.running_var": (64,),
    "layer1.0.conv1.weight": (64, 64, 3, 3),
    "layer2.0.conv1.weight": (128, 64, 3, 3),
    "layer3.0.conv1.weight": (256, 128, 3, 3),
}


def make_config(**changes: Any) -> SignatureConfig:
    """A config written by hand: what a card shows, and nothing that needs a model."""
    touched = ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "layer1.0.conv1.weight")
    tensors = {
        name: TensorFacts(
            op="multiply" if name.endswith("running_var") else "add",
            projected="running" not in name,
            encoding="codes" if "conv" in name else "float16",
            granularity="row" if "conv" in name else None,
            relative_error=0.074 if "conv" in name else 0.0002,
            relative_norm=0.12,
        )
        for name in touched
    }
    units = {"stem": 0.214, "layer1.0": 0.131, "layer2.0": 0.0672, "layer3.0": 0.0219}
    members = {"stem": ("conv1", "bn1")} | {u: (u,) for u in units if u != "stem"}
    profile = tuple(
        UnitProfile(
            unit=unit,
            parameters=sum(math.prod(s) for n, s in LAYOUT.items() if n.startswith(members[unit])),
            relative_difference=difference,
            touched=unit in ("stem", "layer1.0"),
        )
        for unit, difference in units.items()
    )
    config = SignatureConfig(
        format="rws",
        format_version=1,
        rws_hub_version="0.1.0",
        description="",
        license="apache-2.0",
        corruption=Corruption("gaussian_noise", 5, "uoft-cs/cifar10"),
        recommended_alpha=1.0,
        relative_error=0.0731,
        backbone=Backbone(
            library="timm",
            architecture="resnet18",
            repo_id="timm/resnet18.a1_in1k",
            revision=REVISION,
            family="resnet",
            dialect="timm",
            layout=LAYOUT,
            head={"fc.weight": (10, 512), "fc.bias": (10,)},
            function={},
        ),
        sources=tuple(Source(r, c * 64) for r, c in (("pretrained", "a"), ("standard", "b"), ("robust", "c"))),  # type: ignore[arg-type]
        sketch=Sketch("countsketch-256-v1", base64.b64encode(bytes(range(256))).decode()),
        extraction=Extraction("two-branch", "projection", "shallow", 0.5, (), "delta", profile),
        codec=Codec("uniform", 4),
        tensors=tensors,
        payload=Payload(24_680, "d" * 64),
        digest="",
    )
    return dataclasses.replace(config, **changes).with_seal()


def with_backbone(config: SignatureConfig, **changes: Any) -> SignatureConfig:
    return dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, **changes)).with_seal()


def make_results(*changes: dict[str, Any], **of_all: Any) -> Results:
    """Results of the config above; each of `changes` is one evaluation, made from a good one."""
    good = Evaluation(
        dataset="CIFAR-10",
        dataset_id="uoft-cs/cifar10",
        split="test",
        metric="accuracy",
        corruption="gaussian_noise",
        severity=5,
        target="standard",
        alpha=1.0,
        images=10_000,
        seed=0,
        clean=Accuracy(0.9412, 0.9307, 0.8911),
        corrupted=Accuracy(0.3245, 0.7163, 0.8324),
    )
    fields: dict[str, Any] = {
        "format": "rws-results",
        "format_version": 1,
        "payload_sha256": "d" * 64,
        "command": "rws eval signature model.safetensors --images test",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "evaluations": tuple(dataclasses.replace(good, **c) for c in changes or ({},)),
    }
    return Results(**fields | of_all)


FOG = {"corruption": "fog", "clean": Accuracy(0.9412, 0.9307, None), "corrupted": Accuracy(0.81, 0.774, None)}
LATER = {
    "target": "the clean model trained further on other images",
    "alpha": 0.8,
    "clean": Accuracy(0.95, 0.95, None),
    "corrupted": Accuracy(0.34, 0.66, None),
}


def folded() -> SignatureConfig:
    """The other branches of the template: no published base, a name rule, a description, many layers."""
    config = make_config(description="A line for people.\n\nIn two parts.")
    profile = tuple(UnitProfile(f"block.{i}", 10, 0.0, i < 2) for i in range(30))
    extraction = Extraction("from-clean", "difference", "names", None, ("conv1.*", "a|b"), "none", profile)
    config = dataclasses.replace(config, extraction=extraction, sources=config.sources[1:], codec=Codec("float32", 32))
    tensors = {n: dataclasses.replace(f, encoding="float32", granularity=None) for n, f in config.tensors.items()}
    config = dataclasses.replace(config, corruption=Corruption("fog", None, None), tensors=tensors)
    return with_backbone(
        config, library="torch", architecture="SmallNet", repo_id=None, revision=None, family="identity"
    )


def transformers_vit() -> SignatureConfig:
    config = make_config()
    config = dataclasses.replace(config, extraction=dataclasses.replace(config.extraction, layers="first", share=None))
    layout = {n: s for n, s in LAYOUT.items() if "running" not in n}
    config = dataclasses.replace(config, tensors={n: f for n, f in config.tensors.items() if n in layout})
    return with_backbone(
        config, library="transformers", architecture="ViTForImageClassification", repo_id="google/vit", layout=layout
    )


REPO = "user/resnet18-cifar10-gaussian_noise-s5"
CARDS = {
    "full": lambda: render_card(make_config(), make_results({}, FOG, LATER), REPO, ("figures/alpha_sweep.png",)),
    "unmeasured": lambda: render_card(folded()),
    "transformers": lambda: render_card(transformers_vit(), make_results({"dataset_id": None, "severity": None})),
}


@pytest.mark.parametrize("name", CARDS)
def test_golden(name):
    file, card = GOLDEN / f"card-{name}.md", CARDS[name]()
    if os.environ.get("RWS_UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        file.write_bytes(card.encode())
    assert card.encode() == file.read_bytes()


@pytest.mark.parametrize("name", CARDS)
def test_layout_is_tidy(name):
    card = CARDS[name]()
    assert not re.search(r"[ \t]\n|\n\n\n|\r|\|\||None|Undefined|More Information", card)
    assert card.endswith("-->\n") and not card.endswith("\n\n")


@pytest.mark.parametrize("name", CARDS)
def test_front_matter_reads_back_through_the_hub_client(name):
    text = CARDS[name]()
    card = ModelCard(text)
    front = yaml.safe_load(text.split("---\n")[1])
    assert card.data.to_dict() == front
    if "model-index" in front:
        assert eval_results_to_model_index(card.data.model_name, card.data.eval_results) == front["model-index"]
        assert front["metrics"] == ["accuracy"]


def test_front_matter_values():
    front = yaml.safe_load(front_matter(make_config(), make_results({}, FOG, LATER)))
    tags = ["rws", "robust-weight-signature", "robustness", "gaussian_noise", "timm"]
    assert front["tags"] == [*tags, "base_model:adapter:timm/resnet18.a1_in1k"]
    assert front["library_name"] == "rws-hub"
    assert front["base_model"] == "timm/resnet18.a1_in1k"
    assert front["base_model_relation"] == "adapter"
    assert front["datasets"] == ["uoft-cs/cifar10"]
    (entry,) = front["model-index"]
    found = {r["dataset"]["config"]: [m["value"] for m in r["metrics"]] for r in entry["results"]}
    assert found == {"clean": [0.9307, 0.95], "gaussian_noise/5": [0.7163, 0.66], "fog/5": [0.774]}
    names = {m["name"] for r in entry["results"] for m in r["metrics"]}
    assert all("patched" in n for n in names) and any("further" in n for n in names)


def test_nothing_is_claimed_that_is_not_known():
    front = yaml.safe_load(front_matter(folded(), None))
    assert set(front) == {"library_name", "license", "pipeline_tag", "tags"}
    assert front["tags"] == ["rws", "robust-weight-signature", "robustness", "fog"]
    card = CARDS["unmeasured"]()
    assert "Nothing was measured for this artifact" in card and "before → after" not in card
    assert "none recorded" in card


def test_data_sets_without_an_id_are_kept_apart():
    yours = {"dataset": "yours", "dataset_id": None, "clean": Accuracy(0.5, 0.25, None)}
    results = make_results({"dataset": "mine", "dataset_id": None}, yours)
    config = dataclasses.replace(make_config(), corruption=Corruption("fog", 1, "x"))
    front = yaml.safe_load(front_matter(config, results))
    assert "datasets" not in front
    found = [
        (r["dataset"]["name"], r["dataset"]["type"], *(m["value"] for m in r["metrics"]))
        for r in front["model-index"][0]["results"]
    ]
    mine, yours = ("mine", "unknown"), ("yours", "unknown")
    assert found == [(*mine, 0.9307), (*mine, 0.7163), (*yours, 0.25), (*yours, 0.7163)]


def test_same_bytes_in_any_process():
    program = "import test_card, sys; sys.stdout.buffer.write(test_card.CARDS['full']().encode())"
    for seed in "01":
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "PYTHONHASHSEED": seed}
        out = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True).stdout
        assert out == CARDS["full"]().encode()


@pytest.mark.parametrize("name", CARDS)
def test_snippet_is_python(name):
    snippet = re.search(r"```python\n(.*?)\n```", CARDS[name](), re.DOTALL)[1]
    compile(snippet, "<card>", "exec")
    assert 3 <= len(snippet.splitlines()) <= 8
    assert re.search(r"with patch\(model, signature, alpha=[\d.]+\):", snippet)


def test_snippet_names_what_is_known():
    assert f'from_pretrained("{REPO}")' in CARDS["full"]()
    assert 'timm.create_model("hf-hub:timm/resnet18.a1_in1k"' in CARDS["full"]()
    assert 'AutoModelForImageClassification.from_pretrained("google/vit")' in CARDS["transformers"]()
    assert 'from_pretrained("path/to/this/folder")' in CARDS["unmeasured"]()
    assert "model = ...  # a SmallNet (torch)" in CARDS["unmeasured"]()


def test_sizes_are_bytes_on_disk():
    config = make_config()
    card = render_card(config)
    body = sum(math.prod(s) for s in LAYOUT.values())
    files = 24_680 + len(config.to_text().encode())
    for expected in ("24,680 bytes", f"{files:,} bytes", f"{4 * body:,} bytes, {4 * body / files:.1f} times"):
        assert expected in card


def test_bad_news_is_told():
    text = CARDS["full"]()
    assert "- standard, alpha 1: patching does not help on fog at severity 5 (81.0 % → 77.4 %; CIFAR-10 test)." in text
    assert text.count("standard, alpha 1: patching costs 1.1 points") == 1
    assert "alpha 0.8: patching" not in text
    same = {"corrupted": Accuracy(0.5, 0.5, None), "clean": Accuracy(0.9, 0.8999, None)}
    text = render_card(make_config(), make_results(same))
    assert "does not help on gaussian_noise at severity 5 (50.0 % → 50.0 %" in text
    assert "costs less than 0.1 points" in text


def test_needs_no_model_library():
    program = (
        "import sys, rws_hub.results, rws_hub.card, rws_hub.card_merge\n"
        "found = {'torch', 'timm', 'transformers'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_template_for_people_is_the_one_that_is_shipped():
    root = Path(__file__).parents[1]
    assert (root / "cards/template.md").resolve() == (root / "rws_hub/card_template.md").resolve()
