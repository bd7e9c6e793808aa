"""Write docs/SPEED.md and its picture from benchmarks/results/speed.json: `python docs/make_speed.py`.

Peers stand where the numbers put them; the line that says who is fastest is decided by the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "speed.json"
PAGE = ROOT / "docs" / "SPEED.md"
PICTURE = ROOT / "docs" / "images" / "speed.png"

Row = Mapping[str, Any]
LABELS = {
    "copy": "plain copy of the touched weights: the floor",
    "rws-hub": "rws-hub, a copy kept",
    "rws-hub, ledger": "rws-hub, a ledger kept",
    "rws-hub, reload": "rws-hub, back from the checkpoint",
    "peft": "PEFT: LoRA of rank 16, merged and unmerged",
    "dense": "dense fp32 delta in memory, added and subtracted",
    "dense, mapped": "dense fp32 delta, straight from its mapped file",
    "fake quantized": "as in the paper's code: rounded, kept in fp32, whole model",
    "checkpoint": "the whole robust checkpoint, then the clean one again",
    "zstd": "zstd --patch-from the clean checkpoint",
    "deltatensors": "deltatensors, int4",
}
STEPS = {
    "from file": "read and put on",
    "patch": "put on, once read",
    "swap": "other strength",
    "remove": "take off",
}
DTYPES = {"float32": "fp32", "bfloat16": "bf16"}


def size(count: int) -> str:
    """Bytes in thousands or millions."""
    return (
        f"{count / 1e3:.0f} kB"
        if count < 1e6
        else f"{count / 1e6:,.4g} MB"
        if count < 1e9
        else f"{count / 1e6:,.0f} MB"
    )


def number(value: float) -> str:
    """Milliseconds, or a ratio of them."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(value: float) -> str:
    """How many times."""
    return f"{value:.0f}x" if value >= 10 else f"{value:.1f}x"


def times(row: Row, threads: str, step: str, kind: str, floor: float) -> str:
    """One cell: milliseconds, and times the floor."""
    found = row["ms"][threads].get(step)
    return f"{number(found[kind])} ({ratio(found[kind] / floor)})" if found else "-"


def lost(rows: Sequence[Row], label: str) -> str:
    """Share of the weights that a removal does not bring back."""
    found = [row["different"] for row in rows if row["label"] == label]
    return f"{100 * found[0]['once']:.3g} %" if found and found[0] else "-"


def fastest(rows: Sequence[Row], threads: str) -> str:
    """Who needs least, step by step, and how many times as much rws-hub takes."""
    told = []
    ours = next(row for row in rows if row["label"] == "rws-hub")["ms"][threads]
    for step, name in STEPS.items():
        taken = {
            r["label"]: r["ms"][threads][step]["median"]
            for r in rows
            if r["label"] != "copy" and step in r["ms"][threads]
        }
        best = min(taken, key=lambda label: taken[label])
        how = "" if best == "rws-hub" else f" (rws-hub: {ratio(ours[step]['median'] / taken[best])} that)"
        told.append(f"{name}, {LABELS[best].split(':')[0].split(',')[0]}{how}")
    return f"Least time: {'; '.join(told)}."


def short(found: Row) -> list[str]:
    """The table of README: fp32, one thread."""
    rows, halves, subject = found["runs"]["float32"], found["runs"]["bfloat16"], found["subject"]
    by = {row["label"]: row for row in rows}
    floor = by["copy"]["ms"]["1"]["patch"]["median"]
    # One row for the dense delta: read from its mapped file, put on from memory, each as fast as it can be.
    mapped = by["dense, mapped"]["ms"]["1"]["from file"]
    by["dense"] = by["dense"] | {"ms": {"1": by["dense"]["ms"]["1"] | {"from file": mapped}}}
    lines = [
        f"Speed: {subject['touched_weights'] / 1e6:.1f} of {subject['weights'] / 1e6:.1f} million weights of a "
        f"ViT-B/16 in fp32, CPU milliseconds on one thread (in brackets: times a plain copy of these "
        f"weights, which takes {number(floor)}), medians.",
        "",
        f"| | on disk | {' | '.join(STEPS.values())} | held in memory | not restored, fp32, bf16 |",
        f"| --- |{' ---: |' * (len(STEPS) + 3)}",
    ]
    for label in (
        "rws-hub",
        "rws-hub, ledger",
        "rws-hub, reload",
        "peft",
        "dense",
        "checkpoint",
        "zstd",
        "deltatensors",
        "fake quantized",
    ):
        row = by[label]
        cells = [times(row, "1", step, "median", floor) for step in STEPS]
        wrong = f"{lost(rows, label)}, {lost(halves, label)}" if row["different"] else "-"
        held = size(max(0, row["memory"]["held"]))
        name = LABELS[label].replace(" in memory", "")
        lines.append(f"| {name} | {size(row['disk'])} | {' | '.join(cells)} | {held} | {wrong} |")
    return [
        *lines,
        "",
        fastest(rows, "1") + " The weights are noise, so a trained twin's signature is smaller; an adapter of rank 16 "
        "cannot hold this delta at all. Two threads, bf16, memory, many signatures, making and start-up: "
        "[docs/SPEED.md](docs/SPEED.md).",
        "",
    ]


def full(rows: Sequence[Row], threads: str) -> list[str]:
    """Every contender and step of one run."""
    floor = next(row for row in rows if row["label"] == "copy")["ms"][threads]["patch"]
    kind, beside = ("median", "low") if threads == "1" else ("least", "median")
    lines = [f"| | {' | '.join(STEPS.values())} |", f"| --- |{' ---: |' * len(STEPS)}"]
    for row in rows:
        cells = []
        for step in STEPS:
            told = row["ms"][threads].get(step)
            spread = "" if not told else f" [{number(told[beside])}, {number(told['high'])}]"
            cells.append(times(row, threads, step, kind, floor[kind]) + spread)
        lines.append(f"| {LABELS[row['label']]} | {' | '.join(cells)} |")
    return [*lines, "", fastest(rows, threads), ""]


def beyond(runs: Mapping[str, Sequence[Row]]) -> list[str]:
    """Disk, memory and what is not restored."""
    lines = [
        "| | dtype | on disk | held while on | highest on the way | left | not restored, once | after all rounds |",
        f"| --- | --- |{' ---: |' * 6}",
    ]
    for dtype, rows in runs.items():
        for row in (r for r in rows if r["label"] != "copy"):
            memory = [size(max(0, row["memory"][key])) for key in ("held", "highest", "left")]
            found = row["different"]
            wrong = [f"{100 * v:.3g} %" for v in found.values()] if found else ["-", "-"]
            cells = [DTYPES[dtype], size(row["disk"]), *memory, *wrong]
            lines.append(f"| {LABELS[row['label']]} | {' | '.join(cells)} |")
    return [*lines, ""]


def growth(rows: Sequence[Row]) -> list[str]:
    """Times against touched bytes or number of signatures."""
    steps = {"patch": "put all on", "swap one": "other strength of one", "remove": "take all off"}
    lines = [
        f"| signatures | on disk | touched | copy | {' | '.join(steps.values())} | held while on | left | restored |",
        f"| ---: |{' ---: |' * 8} --- |",
    ]
    for row in rows:
        floor = row["ms"]["copy"]["median"]
        cells = [f"{number(row['ms'][s]['median'])} ({ratio(row['ms'][s]['median'] / floor)})" for s in steps]
        sizes = [size(row[key]) for key in ("disk", "touched_bytes")]
        memory = [size(max(0, row[key])) for key in ("held", "left")]
        told = [*sizes, number(floor), *cells, *memory, "every bit" if row["restored"] else "no"]
        lines.append(f"| {row['signatures']} | {' | '.join(told)} |")
    return [*lines, ""]


def page(found: Row) -> str:
    """The whole page."""
    subject, machine = found["subject"], found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        "# Speed",
        "",
        "Made by `make docs` from benchmarks/results/speed.json.",
        "",
        f"`{found['command']}` on {machine['cores']} cores ({machine['architecture']}), Python {machine['python']}, "
        f"{versions}; load average {found['load'][0]} at the start and {found['load'][1]} at the end.",
        "",
        f"{subject['touched_weights']:,} of {subject['weights']:,} weights of a `{subject['architecture']}` (patch and "
        f"position embedding and four of twelve blocks), random from seed {subject['seed']}. The delta is noise of "
        f"{subject['noise']:g} of every tensor's spread, which has the most entropy, so a trained twin's signature is "
        f"smaller; ours is stored at an error of 0.5. {found['turns']} rounds, in which all take turns in random "
        "order, after one that does not count. "
        "Files are read from a warm page cache.",
        "",
        f"- PEFT's adapter is of rank {subject['lora_rank']} on the linear layers of the four blocks: it cannot hold "
        "this delta, and leaves the embeddings alone. What it does not restore is told as a share of the same weights.",
        "- zstd and deltatensors take nothing off; their way back is that of the checkpoint. deltatensors computes in "
        "numpy, which has no bf16.",
        "- The paper's code writes no file and takes nothing off: what has to be sent is the checkpoint, and the "
        "subtraction is what a user of it could do.",
        "",
        "![CPU time of every step, and against touched bytes](images/speed.png)",
        "",
    ]
    for dtype, rows in found["runs"].items():
        name = DTYPES[dtype]
        lines += [f"## {name}, one thread", "", "CPU milliseconds: median (times the floor) [quartiles].", ""]
        lines += [*full(rows, "1"), f"## {name}, two threads", ""]
        lines += [
            "Wall milliseconds: least (times the floor) [median, upper quartile]. Where the load average was above 2, "
            "other work went on beside, and two threads that wait for each other suffer from it most.",
            "",
            *full(rows, "2"),
        ]
    lines += [
        "## Size, memory, restored weights",
        "",
        "One cycle: put on, take off. A round also sets another strength.",
    ]
    lines += ["", *beyond(found["runs"]), "## More bytes", "", "One signature of 1, 2 and 4 blocks; CPU milliseconds."]
    lines += ["", *growth(found["by_bytes"]), "## More signatures", ""]
    lines += ["On one ViT-Ti, each of one layer, block by block and round again; CPU milliseconds.", ""]
    lines += [*growth(found["by_number"]), "## Making one", "", "| | CPU seconds |", "| --- | ---: |"]
    lines += [f"| {LABELS[name]} | {taken:.2f} |" for name, taken in found["making_cpu_s"].items()]
    lines += ["", "## Start-up", "", "| a fresh interpreter | CPU s | wall s |", "| --- | ---: | ---: |"]
    lines += [f"| `{name}` | {t['cpu_s']:.3f} | {t['wall_s']:.3f} |" for name, t in found["startup"].items()]
    return "\n".join([*lines, ""])


def draw(found: Row) -> None:
    """Every step of every contender, and time against touched bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in found["runs"]["float32"] if row["label"] != "copy"][::-1]
    floor = next(r for r in found["runs"]["float32"] if r["label"] == "copy")["ms"]["1"]["patch"]["median"]
    figure = Figure(figsize=(10.5, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    bars, line = figure.subplots(1, 2, width_ratios=[2, 1])
    # Okabe and Ito's: far apart for colour-blind eyes.
    for i, (step, colour) in enumerate(zip(STEPS, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True)):
        at = [y - 0.2 * (i - 1.5) for y, row in enumerate(rows) if step in row["ms"]["1"]]
        long = [row["ms"]["1"][step]["median"] for row in rows if step in row["ms"]["1"]]
        bars.barh(at, long, height=0.18, color=colour, label=STEPS[step])
    bars.axvline(floor, color="black", linestyle="--", linewidth=1, label="plain copy")
    bars.set_yticks(range(len(rows)), [row["label"] for row in rows], fontsize=8)
    bars.set_title("fp32, one thread", fontsize=10)
    bars.set_xlabel("CPU ms", fontsize=9)
    bars.set_xscale("log")
    bars.set_xlim(left=1)
    bars.set_ylim(-0.6, len(rows) - 0.4)
    figure.legend(*bars.get_legend_handles_labels(), loc="outside upper left", ncols=5, fontsize=7.5)
    touched = [row["touched_bytes"] / 1e6 for row in found["by_bytes"]]
    for step, colour in (("patch", "#D55E00"), ("swap one", "#009E73"), ("remove", "#CC79A7"), ("copy", "black")):
        line.plot(touched, [r["ms"][step]["median"] for r in found["by_bytes"]], color=colour, marker="o", label=step)
    line.set_title("rws-hub against touched bytes", fontsize=10)
    line.set_xlabel("touched MB", fontsize=9)
    line.set_yscale("log")
    line.legend(fontsize=7.5)
    for axes in (bars, line):
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, format="png")


if __name__ == "__main__":
    result = json.loads(RESULT.read_text("utf-8"))
    PAGE.write_text(page(result), "utf-8")
    draw(result)
