"""Write docs/EVIDENCE.md and its pictures from benchmarks/results/paper/: `python docs/make_evidence.py`.

Every sentence that judges is decided by the numbers, whichever way they fall. What was not measured says so.
"""

from __future__ import annotations

import re
from itertools import pairwise

from evidence_coding import compact, efficient, rivalled, sized
from evidence_plots import curves, matrices, profiles
from evidence_read import BACKBONES, IMAGES, PAGE, Found, cell, points, read, section, table
from evidence_short import WHAT_WAS_DONE, in_short


def headline(found: Found, elsewhere: Found) -> list[str]:
    """Own model, against robust twin and controls."""
    lines: list[str] = []
    for backbone, title in BACKBONES.items():
        for dataset, answers in (("CIFAR-10", found), ("CIFAR-100", elsewhere)):
            if rows := answers.get(backbone):
                lines += [f"### {title}, {dataset}", "", *table(rows, [n for n in rows if n != "run"]), ""]
    return section("Does it work?", "headline elsewhere", {**elsewhere, **found}, lines)


def damaged(found: Found) -> list[str]:
    """Accuracy of a clean model at every severity."""
    lines: list[str] = []
    for backbone, answer in found.items():
        lines += [
            f"{BACKBONES[backbone]}, the clean model of seed 0, {100 * answer['clean']:.1f} on clean images. A rise of",
            "more than a point from one severity to the next is marked: there the published constants are not",
            "monotone, or the damage is below what these images show.",
            "",
            "| corruption | 1 | 2 | 3 | 4 | 5 | |",
            "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for name, values in answer["corruptions"].items():
            rises = any(b > a + 0.01 for a, b in pairwise([answer["clean"], *values]))
            cells = " | ".join(f"{100 * v:.1f}" for v in values)
            lines.append(f"| `{name}` | {cells} | {'rises' if rises else ''} |")
        lines.append("")
    return section("What the corruptions do", "damage", found, lines)


def shallow(found: Found, kept: Found) -> list[str]:
    """Profile by layer, and robustness by depth."""
    lines = []
    if found:
        profiles(IMAGES / "evidence-profile.png", {BACKBONES[b]: a for b, a in found.items()})
        lines += ["![relative difference by layer](images/evidence-profile.png)", ""]
    for backbone, answer in found.items():
        for label, values in answer["relative"].items():
            first = sum(values[: len(values) // 2]) / sum(values)
            lines.append(
                f"- {BACKBONES[backbone]}, {label}: the first half of the layers holds {first:.0%} of the summed "
                f"relative differences; first layer over last {values[0] / values[-1]:.1f}."
            )
    panels = {}
    for backbone, answer in kept.items():
        rows = {k: v for k, v in answer["rows"].items() if k != "unpatched"}
        panels[BACKBONES[backbone]] = {
            "x": [v["bytes"] / 1000 for v in rows.values()],
            "rows": list(rows.values()),
            "lines": {"unpatched, corrupted": answer["rows"]["unpatched"]},
        }
    if panels:
        curves(IMAGES / "evidence-depth.png", panels, "artifact, kB (first layer to all layers)", log=True)
        lines += ["", "![accuracy against artifact size](images/evidence-depth.png)", ""]
    for backbone, answer in kept.items():
        rows, layers = answer["rows"], answer["layers"]
        whole = points(rows, str(len(layers)))
        lines += [
            f"{BACKBONES[backbone]}, layers kept, one seed:",
            "",
            "| layers | artifact, bytes | corrupted | share of the gain |",
            "| --- | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {k} ({layers[k - 1]}) | {rows[str(k)]['bytes']:,.0f} | {cell(rows[str(k)]['corrupted'])} | "
            f"{points(rows, str(k)) / whole:.0%} |"
            for k in range(1, len(layers) + 1)
        ]
        lines.append("")
    return section(
        "(1) Are the differences shallow? Size against robustness by depth", "profile depth", {**found, **kept}, lines
    )


def discriminative(found: Found) -> list[str]:
    """Cosines and identification."""
    lines: list[str] = []
    if found:
        panels = {
            BACKBONES[b]: {
                name: dict(zip(a["corruptions"], row, strict=True))
                for name, row in zip(a["corruptions"], a["all"]["between"], strict=True)
            }
            for b, a in found.items()
        }
        matrices(IMAGES / "evidence-similarity.png", panels, "mean cosine between seeds")
        lines += ["![cosines between signatures of different seeds](images/evidence-similarity.png)", ""]
    for backbone, answer in found.items():
        lines += [f"{BACKBONES[backbone]}:", "", "| | all layers | shallow layers |", "| --- | ---: | ---: |"]
        for key in answer["all"]:
            if key == "between":
                continue
            a, b = answer["all"][key], answer["shallow"][key]
            told = [f"{x[0]} of {x[1]}" if isinstance(x, list) else f"{x:.3f}" for x in (a, b)]
            lines.append(f"| {'cosine: ' if not isinstance(a, list) else ''}{key} | {' | '.join(told)} |")
        lines += ["", f"By chance one in {len(answer['corruptions'])} would be identified.", ""]
    return section("(2) Are signatures discriminative? How much of one is seed noise?", "similarity", found, lines)


def transferable(found: Found) -> list[str]:
    """Other targets."""
    lines = [
        "Another seed is a model fine-tuned from the same pretrained weights in another order; another initialisation "
        "was pretrained from other random weights. Another corruption's signature is one of another kind; averaged "
        "over all corruptions, clean accuracy is that of the right ones, as they are the same signatures.",
        "",
    ]
    for backbone, answer in found.items():
        for target, rows in answer.items():
            if target != "run":
                lines += [f"### {BACKBONES[backbone]}: {target}", "", *table(rows, list(rows)), ""]
    return section(
        "(3) and (4d) Do they transfer? Another seed, data set, initialisation; a model trained further",
        "transfer",
        found,
        lines,
    )


def adjustable(found: Found) -> list[str]:
    """Alpha."""
    lines: list[str] = []
    panels = {}
    for backbone, answer in found.items():
        order = sorted(answer["rows"], key=float)
        panels[BACKBONES[backbone]] = {
            "x": [float(a) for a in order],
            "rows": [answer["rows"][a] for a in order],
            "lines": {},
        }
        lines.append(
            f"- {BACKBONES[backbone]}: patched weights are at most {answer['worst_ulp']:.2f} units in the last place "
            "(of the larger summand) from theta + alpha * delta; after taking off, "
            f"{answer['bytes_changed_after_removal']} bytes differ."
        )
    if panels:
        curves(IMAGES / "evidence-alpha.png", panels, "alpha")
        lines += ["", "![accuracy against alpha](images/evidence-alpha.png)"]
    return section("(4b) Is the strength adjustable, and removal exact?", "strength", found, lines)


def composable(found: Found) -> list[str]:
    """Several at once."""
    lines: list[str] = []
    for backbone, answer in found.items():
        lines += [
            f"{BACKBONES[backbone]}, mean over the corruptions of the set (clean accuracy in brackets):",
            "",
            "| signatures | unpatched | each alone | all, alpha 1 each | all, alpha 1/n each |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for made in answer["sets"]:
            members = made["members"]
            name = " + ".join(members) if len(members) <= 4 else f"all {len(members)}"
            cells = [
                "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in made[k]))
                + (f" ({100 * made[f'{k}, clean'][0]:.1f})" if f"{k}, clean" in made else "")
                for k in ("unpatched", "each alone", "1 each", "1/n each")
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return section("(4c) Do they compose?", "composition", found, lines)


def specific(found: Found) -> list[str]:
    """Gain and harm under other corruptions."""
    lines: list[str] = []
    panels = {}
    for backbone, answer in found.items():
        names = [n for n in answer if n != "run"]
        panels[BACKBONES[backbone]] = {n: {c: 100 * answer[n][c] for c in ("clean", *names)} for n in names}
        harm = [100 * answer[n][c] for n in names for c in names if c != n]
        lines.append(
            f"- {BACKBONES[backbone]}: on other corruptions a signature changes accuracy by "
            f"{sum(harm) / len(harm):+.1f} points on average, {min(harm):+.1f} at worst; "
            f"{sum(h < -1 for h in harm)} of {len(harm)} pairs lose more than a point."
        )
    if panels:
        matrices(IMAGES / "evidence-specificity.png", panels, "points gained by the row's signature")
        lines += ["", "![gain of each signature under each corruption](images/evidence-specificity.png)"]
    return section("Harm to other corruptions", "specificity", found, lines)


def normed(found: Found) -> list[str]:
    """Batch norm."""
    lines = [
        line for b, a in found.items() for line in (f"{BACKBONES[b]}:", "", *table(a, [n for n in a if n != "run"]), "")
    ]
    told = [
        "Re-estimated means: on so many unlabelled images, corrupted like those that are then measured; for the column "
        "of clean images, on clean ones. Which images are coming has to be known, and changes have to be noticed. "
        "`none` is a patch without batch norm, `delta` one that moves its statistics and affine parameters.",
        "",
    ]
    return section("Batch norm: left alone, moved with the patch, re-estimated", "batchnorm", found, told + lines)


def trained(found: Found) -> list[str]:
    """Recipes and the projection."""
    lines = [
        line
        for b, a in found.items()
        for line in (f"{BACKBONES[b]}, fp32, one seed:", "", *table(a, [n for n in a if n != "run"]), "")
    ]
    return section("Two-branch against from-clean at equal training cost, and the projection", "recipes", found, lines)


def page() -> str:
    """All of it."""
    names = (
        "headline",
        "damage",
        "elsewhere",
        "profile",
        "depth",
        "similarity",
        "transfer",
        "bits",
        "sizes",
        "rivals",
        "efficiency",
        "strength",
        "composition",
        "specificity",
        "batchnorm",
        "recipes",
    )
    found = {name: read(name) for name in names}
    IMAGES.mkdir(exist_ok=True)
    runs = [a["run"] for f in found.values() for a in f.values()]
    lines = [
        "# Evidence",
        "",
        "What robust weight signatures did in our hands, on real images and small models; where the answer is no, it "
        "says no.",
        "",
        *in_short(found),
        "## What was done",
        "",
        WHAT_WAS_DONE,
        "",
        *headline(found["headline"], found["elsewhere"]),
        *damaged(found["damage"]),
        *shallow(found["profile"], found["depth"]),
        *discriminative(found["similarity"]),
        *transferable(found["transfer"]),
        *compact(found["bits"]),
        *sized(found["sizes"]),
        *rivalled(found["rivals"], IMAGES),
        *efficient(found["efficiency"]),
        *adjustable(found["strength"]),
        *composable(found["composition"]),
        *specific(found["specificity"]),
        *normed(found["batchnorm"]),
        *trained(found["recipes"]),
    ]
    if runs:
        versions = ", ".join(f"{k} {v}" for k, v in runs[-1]["versions"].items())
        machine = runs[-1]["machine"]
        lines += [f"{machine['cores']} cores ({machine['architecture']}), one thread for each backbone, {versions}."]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
