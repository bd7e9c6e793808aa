"""The section of docs/RELIABILITY.md on the right base and on how much a patch may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]
NAMES = {"resnet": "ResNet-18, half width", "vgg": "VGG-16, quarter width", "vit": "ViT of width 128"}


def section(results: dict[str, Any]) -> str:
    """What benchmarks/trust/kin.py found, as Markdown."""
    found = [(backbone, row) for backbone, rows in results["similarity"].items() for row in rows]
    return "\n".join(
        [
            "## The right base",
            "",
            _asked(results),
            "",
            *_spread(found),
            "",
            *_errors(found, results["threshold"]),
            "",
            *_predicts(results),
            "",
            "## How much a patch may change",
            "",
            *_strengths(results),
        ]
    )


def _asked(results: Row) -> str:
    cost = results["cost"]
    return (
        "A signature carries the signs of 2048 weights of the clean model that it was made from (docs/SPEC.md, "
        "section 8). How similar are models that were grown from the same weights, and strangers, by these signs; and "
        "does it tell what the signature will do? Models of three architectures, trained here on Tiny ImageNet, "
        "CIFAR-10 and CIFAR-100; copies in fewer bits; random weights. Every pair is compared with as many of the "
        f"first kernels and matrices as a signature could touch: 1, 2, 4, 8, 16, all: `{results['command']}`. "
        f"A look at {cost['weights'] / 1e6:.1f} million touched weights takes {cost['ms']['signs']:.1f} ms; the sketch "
        f"of formats 1 to 3 took {cost['ms']['counts']:.0f} ms."
    )


def _spread(found: Sequence[tuple[str, Row]]) -> list[str]:
    """The table of similarities by kind of model."""
    kinds: dict[tuple[bool, str], list[Row]] = {}
    for _, row in found:
        kinds.setdefault((row["kin"], row["kind"]), []).append(row)
    lines = [
        "| | the model | pairs | similarity: least, mean, largest | mean of the true cosine | by the older sketch |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for (kin, kind), rows in sorted(kinds.items(), key=lambda kv: (not kv[0][0], -_mean(kv[1], "cosine"))):
        told = [r["similarity"] for r in rows if r["similarity"] is not None]
        counts = [r["count_sketch"] for r in rows]
        said = "-" if not told else f"{min(told):.2f}, {fmean(told):.2f}, {max(told):.2f}"
        lines.append(
            f"| {'kin' if kin else 'stranger'} | {kind} | {len(rows)} | {said} | {_mean(rows, 'cosine'):.2f} | "
            f"{min(counts):.2f}, {max(counts):.2f} |"
        )
    return lines


def _errors(found: Sequence[tuple[str, Row]], threshold: float) -> list[str]:
    """False verdicts at the threshold."""
    known = [row for _, row in found if row["similarity"] is not None]
    strangers = [r for r in known if not r["kin"]]
    kin = [r for r in known if r["kin"]]
    accepted = [r for r in strangers if r["similarity"] >= threshold]
    refused = [r for r in kin if r["similarity"] < threshold]
    highest = max(r["similarity"] for r in strangers)
    off = [abs(r["similarity"] - r["cosine"]) for r in strangers]
    lines = [
        f"At the threshold, {threshold:g}: {len(accepted)} of {len(strangers)} strangers were taken for kin (the most "
        f"similar one has {highest:.2f}; the estimates are off by {fmean(off):.3f} on average), and {len(refused)} "
        f"of {len(kin)} kin for strangers. Of {len(found) - len(known)} of {len(found)} pairs nothing is said, since "
        "the touched kernels have too few weights.",
    ]
    if refused:
        kinds = sorted({r["kind"] for r in refused})
        lines += ["", f"The kin that were refused: {'; '.join(kinds)}."]
    return lines


def _predicts(results: Row) -> list[str]:
    """Gain by similarity."""
    rows = [(b, r) for b, found in results["gain"].items() for r in found if r["similarity"] is not None]
    steps = (-1.0, 0.25, 0.5, 0.75, 0.9, 0.97, 1.01)
    lines = [
        "What the signature did, in points of top-1 on corrupted images (severity 5, "
        f"{results['images']:,} images): gain at strength 1, by similarity. Models of other classes are measured on "
        "their own images.",
        "",
        f"| similarity | {' | '.join(NAMES[b] for b in results['gain'])} | cases | gain above 1 point |",
        f"| --- |{' ---: |' * (len(results['gain']) + 2)}",
    ]
    for low, high in pairwise(steps):
        inside = [(b, r) for b, r in rows if low <= r["similarity"] < high]
        cells = []
        for backbone in results["gain"]:
            own = [100 * r["gain"] for b, r in inside if b == backbone]
            cells.append("-" if not own else f"{fmean(own):+.1f} ({min(own):+.1f} to {max(own):+.1f})")
        gained = sum(r["gain"] > 0.01 for _, r in inside)
        label = f"below {high:g}" if low < 0 else f"{low:g} to {min(high, 1):g}"
        lines.append(f"| {label} | {' | '.join(cells)} | {len(inside)} | {gained} of {len(inside)} |")
    below = [r for _, r in rows if r["similarity"] < results["threshold"]]
    above = [r for _, r in rows if r["similarity"] >= results["threshold"]]
    lines += [
        "",
        f"Below the threshold the mean gain is {100 * _mean(below, 'gain'):+.1f} points, above it "
        f"{100 * _mean(above, 'gain'):+.1f}; rank correlation of similarity and gain over all: {_rank(rows):.2f}. The "
        "similarity says whether weights are kin, not what a model has learned since: trained on for other classes, a "
        "model may be very similar and gain little. The sketch is its author's word: it keeps users from mistakes, not "
        "from an author who copies the sketch of a model that is to be attacked.",
    ]
    return lines


def _strengths(results: Row) -> list[str]:
    norms = results["norms"]
    total = sum(n["signatures"] for n in norms.values())
    largest = max(n["largest"] for n in norms.values())
    lines = [
        "The relative norm of a change (docs/SPEC.md, section 9), for the tensor that changes most. Of the "
        f"{total} signatures trained here, all layers, at strength 1 on their own model it is "
        + ", ".join(
            f"{n['median']:.2f} in the median and at most {n['largest']:.2f} ({NAMES[b]})" for b, n in norms.items()
        )
        + f"; the largest of all is {largest:.2f}, the limit {results['limit']:g}. Turned up, on the model that each "
        "was made from:",
        "",
        "| | strength | relative norm, worst tensor | all together | refused | corrupted images | clean images |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for backbone, rows in results["strength"].items():
        for alpha in sorted({r["alpha"] for r in rows}):
            own = [r for r in rows if r["alpha"] == alpha]
            worst = [r["relative_norm"] for r in own]
            refused = sum(r > results["limit"] for r in worst)
            gain = fmean(r["corrupted"] - r["unpatched"][0] for r in own)
            clean = fmean(r["clean"] - r["unpatched"][1] for r in own)
            lines.append(
                f"| {NAMES[backbone]} | {alpha:g} | {min(worst):.2f} to {max(worst):.2f} | {_mean(own, 'whole'):.2f} | "
                f"{refused} of {len(own)} | {100 * gain:+.1f} | {100 * clean:+.1f} |"
            )
    beyond = [r for rows in results["strength"].values() for r in rows if r["relative_norm"] > results["limit"]]
    within = [r for rows in results["strength"].values() for r in rows if r["relative_norm"] <= results["limit"]]
    useful = max(r["relative_norm"] for r in [*within, *beyond] if r["corrupted"] > r["unpatched"][0])
    lines += [
        "",
        f"Beyond the limit ({len(beyond)} cases) clean images lose {-100 * _lost(beyond):.1f} points on average, "
        f"within it ({len(within)}) {-100 * _lost(within):.1f}; the largest change that gained on corrupted images is "
        f"{useful:.2f}. The limit is no promise: a signature within it can still be useless or hostile.",
    ]
    return lines


def _lost(rows: Sequence[Row]) -> float:
    return fmean(r["clean"] - r["unpatched"][1] for r in rows) if rows else 0.0


def _mean(rows: Sequence[Row], key: str) -> float:
    return fmean(float(r[key]) for r in rows) if rows else 0.0


def _rank(rows: Sequence[tuple[str, Row]]) -> float:
    """Spearman's."""
    from scipy.stats import spearmanr

    found = spearmanr([r["similarity"] for _, r in rows], [r["gain"] for _, r in rows])
    return float(found.statistic)
