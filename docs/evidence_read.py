"""The results in benchmarks/results/paper/, and how a number of theirs is spelled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "EVIDENCE.md"
IMAGES = ROOT / "docs" / "images"
RESULTS = ROOT / "benchmarks" / "results" / "paper"
BACKBONES = {
    "resnet": "ResNet-18, half width",
    "vgg": "VGG-16 without batch norm, quarter width",
    "vit": "ViT, 12 blocks of width 128",
}

Answer = dict[str, Any]
Found = dict[str, Answer]  # by backbone


def read(question: str) -> Found:
    """The answers to one question, by backbone, with the record of the run under "run"."""
    found: Found = {}
    for backbone in BACKBONES:
        file = RESULTS / f"small-{backbone}-{question}.json"
        if file.exists():
            data = json.loads(file.read_text("utf-8"))
            found[backbone] = {**data["answer"], "run": data}
    return found


def section(title: str, question: str, found: Found, lines: Sequence[str]) -> list[str]:
    """A heading, what is known, and the commands that made it."""
    missing = [BACKBONES[b] for b in BACKBONES if b not in found]
    told = f" Not measured: {', '.join(missing)}." if missing else ""
    command = f"python benchmarks/paper/run.py --data FOLDER --work FOLDER {question}"
    return [f"## {title}", "", *lines, "", f"Made by `{command}`.{told}", ""]


def cell(estimate: dict[str, Any]) -> str:
    """Percent, with the interval over images and the spread over seeds."""
    text = f"{100 * estimate['mean']:.1f} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"
    return text if estimate.get("sd") is None else f"{text} ± {100 * estimate['sd']:.1f}"


def gained(row: dict[str, Any], kind: str = "corrupted", *, places: int = 1) -> str:
    """Points over the first row of the same question, with the paired interval."""
    mean, low, high = (f"{100 * row['gain'][kind][k]:+.{places}f}" for k in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def table(rows: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Corrupted and clean accuracy of some rows, and what was gained over the first."""
    lines = ["| model | corrupted | gained | clean | gained |", "| --- | ---: | ---: | ---: | ---: |"]
    count = rows[names[0]]
    basis = f"{len(count['each'])} corruptions, {count['seeds']} seed{'s' if count['seeds'] > 1 else ''}."
    lines += [
        f"| {n} | {cell(rows[n]['corrupted'])} | {gained(rows[n])} | {cell(rows[n]['clean'])} | "
        f"{gained(rows[n], 'clean')} |"
        for n in names
        if n in rows
    ]
    return [*lines, "", basis]


def points(rows: dict[str, Any], name: str, against: str = "unpatched", kind: str = "corrupted") -> float:
    """How many percentage points one row is above another."""
    return 100 * float(rows[name][kind]["mean"] - rows[against][kind]["mean"])
