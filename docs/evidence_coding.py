"""The sections of docs/EVIDENCE.md about coding: rate and robustness, other codings, bounds, sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evidence_plots import clouds
from evidence_read import BACKBONES, Found, cell, gained, section

LAYERS = ("all", "shallow")
# What was aimed at: fp32 checkpoint over artifact, the least; VGG against its kernels only.
WHOLE_GOAL = 14
SHALLOW_GOALS = {"resnet": 130, "vgg": 65, "vit": 45}
BITS_GOAL, ABOVE_BOUND_GOAL, SMALLER_GOAL = 2.1, 0.25, 0.25


def compact(found: Found) -> list[str]:
    """Bits and bytes."""
    lines: list[str] = []
    for backbone, answer in found.items():
        for layers in LAYERS:
            rows = answer[layers]
            lines += [
                f"### {BACKBONES[backbone]}, {layers} layers",
                "",
                "| error | artifact, bytes | fp32 checkpoint over it | fp16 checkpoint over it | bits per touched "
                "parameter | corrupted | against fp32 | clean, against fp32 |",
                "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            ]
            for error, row in rows.items():
                ratio = answer["checkpoint_bytes"] / row["bytes"]
                lines.append(
                    f"| {'fp32' if error == '0.0' else error} | {row['bytes']:,.0f} | {ratio:.1f} | {ratio / 2:.1f} | "
                    f"{row['bits']:.2f} | {cell(row['corrupted'])} | {gained(row, places=2)} | "
                    f"{gained(row, 'clean', places=2)} |"
                )
            lines.append("")
    return section(
        "(4a) How small? Error of the coded weights, bytes on disk, and robust accuracy", "bits", found, lines
    )


def sized(found: Found) -> list[str]:
    """The smallest file that loses nothing to speak of."""
    lines = [
        "The file with the coarsest codes whose mean accuracy on corrupted images is at most 0.1 points below that of "
        "the same layers in float32: everything on disk but README.md, mean over corruptions. To take the coarsest "
        "flatters by what is chance in these means; the interval says how much that is. Where a finer file lost more, "
        f"it is marked. Aimed at: at most {BITS_GOAL} bits per touched parameter; of whole bodies fp32 checkpoints at "
        f"least {WHOLE_GOAL} times larger, with shallow layers {SHALLOW_GOALS['resnet']} (ResNet), "
        f"{SHALLOW_GOALS['vgg']} (VGG, its kernels only counted) and {SHALLOW_GOALS['vit']} times (ViT).",
        "",
        "| backbone, layers | error | bytes | fp32 checkpoint over it | fp16 checkpoint over it | fp32 kernels over it "
        "| bits per touched parameter | corrupted, against fp32 | goals: size, bits |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for backbone, answer in found.items():
        for layers in LAYERS:
            row = answer[layers]
            if row["error"] == "0.0":
                lines.append(f"| {BACKBONES[backbone]}, {layers} | none measured | - | - | - | - | - | - | missed |")
                continue
            ratio, kernels = (answer[f"{k}_bytes"] / row["bytes"] for k in ("checkpoint", "kernel"))
            bits = 8 * row["bytes"] / row["touched"]
            told = ["met" if ok else "missed" for ok in (size_met(backbone, layers, ratio, kernels), bits <= BITS_GOAL)]
            lines.append(
                f"| {BACKBONES[backbone]}, {layers} | {row['error']}"
                f"{'' if row['every_finer_one_too'] else ' (a finer one lost more)'} | {row['bytes']:,.0f} | "
                f"{ratio:.1f} | {ratio / 2:.1f} | {'-' if backbone == 'vit' else f'{kernels:.1f}'} | {bits:.2f} | "
                f"{gained(row, places=2)} | {', '.join(told)} |"
            )
    return section("How small, in one line each", "sizes", found, [*lines, ""])


def size_met(backbone: str, layers: str, ratio: float, kernels: float) -> bool:
    """Whether a file is as small as was aimed at."""
    if layers == "all":
        return ratio >= WHOLE_GOAL
    return (kernels if backbone == "vgg" else ratio) >= SHALLOW_GOALS[backbone]


def rivalled(found: Found, images: Path) -> list[str]:
    """Other codings of the same matrices; the picture goes to `images`."""
    lines = [
        "The same float32 difference of the same layers, its matrices stored in other ways: one sign a weight and a "
        "scale for each tensor (BitDelta, its scales untrained); b-bit codes of the largest magnitude of a group or "
        "of a whole tensor (4 bits: deltatensors); a truncated singular value decomposition in float16 (LoRA "
        "extraction). Names, shapes and vectors are stored as ours are and counted for all; each rival has zstd on it "
        "wherever that is smaller. Beside it our largest file, of the errors measured, that is no larger; points are "
        "what ours is above the rival on the same images, with the paired interval. Last, how much smaller our "
        "smallest file is whose mean is no lower than the rival's. `benchmarks/paper/rivals.py` has all of them.",
        "",
    ]
    panels = {
        f"{BACKBONES[b]}, {layers} layers": _families(answer[layers])
        for layers in LAYERS
        for b, answer in found.items()
    }
    if panels:
        clouds(images / "evidence-rivals.png", panels, len(found), "artifact, kB")
        lines += ["![accuracy against bytes, ours and others](images/evidence-rivals.png)", ""]
    for backbone, answer in found.items():
        names = ", ".join(c.replace("_", " ") for c in answer["corruptions"])
        for layers in LAYERS:
            rows = answer[layers]
            lines += [
                f"### {BACKBONES[backbone]}, {layers} layers: {names}, one seed",
                "",
                f"In float32 {cell(rows['fp32']['corrupted'])}.",
                "",
                "| stored as | bytes | corrupted | against fp32 | ours: error, bytes | ours above it | "
                "| no worse, smaller by |",
                "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
            ]
            for label, row in rows.items():
                if label == "fp32" or label.startswith("ours"):
                    continue
                beside, told = row["ours"], "- | - | none is as small"
                if beside:
                    mean, low, high = (100 * v for v in beside["gain"])
                    told = f"{beside['error']}, {beside['bytes']:,.0f} | {mean:+.2f} [{low:+.2f}, {high:+.2f}] | "
                    told += verdict(beside)
                lines.append(
                    f"| {label} | {row['bytes']:,.0f} | {cell(row['corrupted'])} | {gained(row, places=2)} | {told} | "
                    f"{_smaller(rows, label)} |"
                )
            lines.append("")
    return section("Against other ways to store the same difference", "rivals", found, lines)


def verdict(beside: dict[str, Any]) -> str:
    """What the paired interval says."""
    _, low, high = beside["gain"]
    return "win" if low > 0 else "loss" if high < 0 else "equal within the interval"


def _smaller(rows: dict[str, Any], rival: str) -> str:
    """What our smallest file of no less mean accuracy saves."""
    least = rows[rival]["corrupted"]["mean"]
    near = [r["bytes"] for k, r in rows.items() if k.startswith("ours") and r["corrupted"]["mean"] >= least]
    return f"{1 - min(near) / rows[rival]['bytes']:.0%}" if near else "none is"


def _families(rows: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Kilobytes and percent, by way of storing; "float32" has no size of interest."""
    found: dict[str, list[tuple[float, float]]] = {}
    for label, row in rows.items():
        family = label.partition(",")[0]
        if label.startswith("absmax"):
            family = "absmax, tensors" if "whole" in label else f"absmax, {label.rpartition(', ')[2]}"
        elif label.startswith("rank"):
            family = "low rank"
        found.setdefault(family, []).append(((row["bytes"] or 0) / 1000, 100 * row["corrupted"]["mean"]))
    return {family: sorted(points) for family, points in found.items()}


def efficient(found: Found) -> list[str]:
    """Bounds, and group absmax at equal error."""
    lines = [
        "Bits of a coded weight in the file; the entropy of its codes, tensor by tensor, is what an ideal coder would "
        "make of them. The scalar bound is what the best uniform quantizer with a dead zone and an ideal order-0 "
        "coder would take at our error, tensor by tensor; Shannon's is what no coder of independent values can go "
        "below (`benchmarks/paper/bounds.py`). All of them know squared error alone. Our encoder does not aim at the "
        "least of it: it spends bits on the sums of kernels and on small tensors, which keep more robustness than "
        "their share of the squared error (docs/DECISIONS.md). Matrices of linear layers are not coded one by one "
        "but as factors, and so lie below all bounds of independent values; codes are then those of the factors, told "
        "for each weight. Aimed at: within "
        f"{ABOVE_BOUND_GOAL} bits of the scalar bound; {SMALLER_GOAL:.0%} smaller than group absmax at its error.",
        "",
    ]
    for backbone, answer in found.items():
        names = ", ".join(c.replace("_", " ") for c in answer["corruptions"])
        for layers in LAYERS:
            lines += [
                f"### {BACKBONES[backbone]}, {layers} layers: {names}, one seed",
                "",
                "| error | bits | entropy of its codes | scalar bound | above it | | Shannon's bound | above it |",
                "| ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
            ]
            for row in answer[layers]["bounds"].values():
                above = row["bits"] - row["scalar"]
                lines.append(
                    f"| {row['error']:.3f} | {row['bits']:.3f} | {row['codes']:.3f} | {row['scalar']:.3f} | "
                    f"{above:+.3f} | {'met' if above <= ABOVE_BOUND_GOAL else 'missed'} | {row['shannon']:.3f} | "
                    f"{row['bits'] - row['shannon']:+.3f} |"
                )
            lines += [
                "",
                "| group absmax | error | its bits | error of ours | our bits | smaller by | |",
                "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
            ]
            for label, row in answer[layers]["absmax"].items():
                saved = 1 - row["ours"] / row["bits"]
                lines.append(
                    f"| {label} | {row['error']:.3f} | {row['bits']:.3f} | {row['error of ours']:.3f} | "
                    f"{row['ours']:.3f} | {saved:.0%} | {'met' if saved >= SMALLER_GOAL else 'missed'} |"
                )
            lines.append("")
    return section("How near to what is possible?", "efficiency", found, lines)
