"""The signatures of the experiment as artifacts with cards: `cards/resnet18-cifar10-<corruption>-s5`.

    python benchmarks/paper/cards.py --data FOLDER --work FOLDER

ResNet, seed 0, the default of `extract` (shallow layers), measured on its own clean model, on one of another
seed, on its own model trained further, and on a CIFAR-100 model; each under its own corruption and the next of
another kind, clean accuracy beside it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from lab import AS_IT_IS, MAIN, OTHER, Lab
from setting import SMALL
from zoo import Zoo

from rws_hub.contents import read_contents, write_folder
from rws_hub.evaluation.report import versions
from rws_hub.evaluation.variants import Variant
from rws_hub.results import OWN_CLEAN_MODEL, RESULTS_FORMAT, RESULTS_FORMAT_VERSION, Accuracy, Evaluation, Results
from rws_hub.signature import RobustWeightSignature

CARDS = Path(__file__).parent.parent.parent / "cards"


def main() -> None:
    """Make every card anew."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lab = Lab(Zoo(SMALL, "resnet", arguments.data, arguments.work))
    for corruption in SMALL.corruptions:
        signature = extract(lab, corruption)
        folder = CARDS / f"resnet18-{MAIN}-{corruption}-s{SMALL.severity}"
        shutil.rmtree(folder, ignore_errors=True)
        signature.save_pretrained(folder)
        saved = read_contents(folder)
        write_folder(folder, saved.config, saved.payload, measured(lab, corruption, signature), {})
        print(f"{folder.name}: {signature.nbytes:,} bytes", flush=True)


def extract(lab: Lab, corruption: str) -> RobustWeightSignature:
    """The published signature, described so that anyone can build its backbone."""
    zoo = lab.zoo
    channels = [round(c * SMALL.width) for c in (64, 128, 256, 512)]
    return RobustWeightSignature.extract(
        standard=zoo.standard(MAIN, 0),
        robust=zoo.robust(MAIN, corruption, 0),
        corruption=corruption,
        severity=SMALL.severity,
        dataset=MAIN,
        license="apache-2.0",
        description=(
            f"The backbone is timm.create_model('resnet18', num_classes=10, channels={channels}) for pictures of 32 "
            "pixels, normalised with ImageNet's mean and deviation; pretrained on 100 Tiny-ImageNet classes, then "
            "fine-tuned on CIFAR-10 (both re-encoded as JPEG of quality 75). Made by benchmarks/paper in rws-hub's "
            "repository; docs/EVIDENCE.md there has the whole experiment."
        ),
    )


def measured(lab: Lab, corruption: str, signature: RobustWeightSignature) -> Results:
    """`results.json`: four targets, two corruptions."""
    zoo = lab.zoo
    targets = {
        OWN_CLEAN_MODEL: (zoo.standard(MAIN, 0), MAIN),
        "fine-tuned from the same pretrained weights with another seed": (zoo.standard(MAIN, 1), MAIN),
        "the standard model, trained further": (zoo.further(MAIN, 0), MAIN),
        "fine-tuned from the same pretrained weights on CIFAR-100": (zoo.standard(OTHER, 0), OTHER),
    }
    others = SMALL.corruptions
    other = others[(others.index(corruption) + 2) % len(others)]
    wanted = [lab.condition(corruption), lab.condition(other)]
    evaluations = []
    for target, (folder, dataset) in targets.items():
        plain = lab.variant(folder, dataset)
        patched = Variant("", plain.model, plain.weights, ((signature, signature.config.recommended_alpha),))
        variants = {"unpatched": plain, "patched": patched}
        if target == OWN_CLEAN_MODEL:
            variants["robust"] = lab.variant(zoo.robust(MAIN, corruption, 0), MAIN)
        table = lab.table(dataset, variants, (AS_IT_IS, *wanted))
        for condition in wanted:
            clean, wrong = (
                Accuracy(
                    float(table["unpatched", c].mean()),
                    float(table["patched", c].mean()),
                    float(table["robust", c].mean()) if "robust" in variants else None,
                )
                for c in (AS_IT_IS, condition)
            )
            pictures = zoo.pictures(dataset, SMALL.split("test"))
            evaluations.append(
                Evaluation(
                    dataset=dataset,
                    dataset_id=None,
                    split=pictures.split,
                    metric="accuracy",
                    corruption=condition.corruption,
                    severity=condition.severity,
                    target=target,
                    alpha=signature.config.recommended_alpha,
                    images=len(pictures),
                    seed=0,
                    clean=clean,
                    corrupted=wrong,
                )
            )
    return Results(
        format=RESULTS_FORMAT,
        format_version=RESULTS_FORMAT_VERSION,
        payload_sha256=signature.config.payload.sha256,
        command="python benchmarks/paper/cards.py",
        versions=versions(),
        evaluations=tuple(evaluations),
    )


if __name__ == "__main__":
    main()
