"""Put measured numbers into README, between its markers: `python docs/make_readme.py`.

They come from benchmarks/results/paper (`python benchmarks/paper/run.py`), benchmarks/results/speed.json (`python
benchmarks/speed/measure.py`) and benchmarks/results/demo.json (`python benchmarks/demo.py`), and from nowhere else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from evidence_read import BACKBONES, cell, read
from make_speed import RESULT as SPEED
from make_speed import short

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULT = ROOT / "benchmarks" / "results" / "demo.json"
_BLOCK = re.compile(r"(<!-- numbers:begin[^\n]*-->\n).*?(<!-- numbers:end -->)", re.S)
# Row of the table -> row of the results.
_MAIN = {
    "corrupted images, unpatched": "unpatched",
    "patched, all layers": "patched, all layers",
    "patched, shallow layers (the default)": "patched, shallow layers",
    "the robust twin itself": "robust twin",
    "instead: batch norm re-estimated on 1,000 such images": "batch norm re-estimated",
    "instead: noise of the same size": "noise of the same norm",
}
_ROWS = {"own": "the clean model it was made from", "user": "a user's model: trained further on other images"} | {
    "stranger": "a stranger: the same shape, trained from another start"
}


def evidence() -> list[str]:
    """The main result on real images, backbone by backbone."""
    answers, sizes = read("headline"), read("bits")
    lines = [
        "On real images, CIFAR-10 under corruptions of all four kinds at severity 5, with small models trained for it: "
        "top-1 in percent, mean over corruptions and seeds [95 % interval over images] ± sd over seeds.",
        "",
        f"| model | {' | '.join(BACKBONES[b] for b in answers)} |",
        f"| --- |{' ---: |' * len(answers)}",
    ]
    for label, name in _MAIN.items():
        cells = [cell(answers[b][name]["corrupted"]) if name in answers[b] else "has none" for b in answers]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for label, name in (("clean images, unpatched", "unpatched"), ("clean images, patched", "patched, all layers")):
        lines.append(f"| {label} | {' | '.join(cell(answers[b][name]['clean']) for b in answers)} |")
    for layers in ("all", "shallow"):
        small = [(sizes[b][layers]["default"], sizes[b]["checkpoint_bytes"]) for b in answers]
        told = [f"{row['bytes']:,.0f} bytes, 1/{whole / row['bytes']:.0f} of the checkpoint" for row, whole in small]
        lines.append(f"| signature on disk, {layers} layers | {' | '.join(told)} |")
    return [
        *lines,
        "",
        "What it does to other corruptions, other models and other data sets, how small it can be, what re-estimating "
        "batch norm does instead, and where the answer is no: [docs/EVIDENCE.md](docs/EVIDENCE.md).",
        "",
    ]


def numbers(found: dict[str, Any]) -> str:
    """The block of README that one run of the demo gives."""
    seeds, settings, sizes = found["seeds"], found["settings"], found["seeds"][0]["sizes"]
    artifact = sizes["config"] + sizes["payload"]
    lines = [
        *evidence(),
        *short(json.loads(SPEED.read_text("utf-8"))),
        f"`{found['command']}`: {settings['test_images']} test images of scikit-learn's handwritten digits, "
        f"{found['corruption']} at severity {found['severity']}, a small ResNet. Top-1 accuracy in percent, mean ± sd "
        f"of {len(seeds)} seeds.",
        "",
        "| model | images | as it is | patched | batch norm re-estimated instead, on "
        f"{settings['bn_images']} noisy images |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for who, label in _ROWS.items():
        for images in ("noisy", "clean"):
            cells = [_percent(found["summary"][who][column][images]) for column in ("before", "patched", "batchnorm")]
            lines.append(f"| {label if images == 'noisy' else ''} | {images} | {' | '.join(cells)} |")
    robust = found["summary"]["robust"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    restored = sum(t["restored"] for s in seeds for t in s["targets"])
    lines += [
        "",
        f"The robust twin itself has {_percent(robust['noisy'])} noisy and {_percent(robust['clean'])} clean. After "
        f"unpatching, {restored} of {sum(len(s['targets']) for s in seeds)} models had every bit back. The artifact is "
        f"{artifact:,} bytes for {sizes['touched']:,} touched parameters ({8 * artifact / sizes['touched']:.2f} bits "
        f"each): {sizes['float32_artifact'] / artifact:.2f} times smaller than itself in fp32, "
        f"{sizes['checkpoint'] / artifact:.1f} times smaller than the model's checkpoint in fp32, "
        f"{sizes['checkpoint'] / 2 / artifact:.1f} times than in fp16 (half of its bytes).",
        "",
        f"Measured on {found['machine']['cores']} cores ({found['machine']['architecture']}), Python "
        f"{found['machine']['python']}, {versions}. These are toy images and a toy model: they show that the loop "
        "works, not how well it works on yours.",
        "",
    ]
    return "\n".join(lines)


def with_numbers(readme: str, found: dict[str, Any]) -> str:
    """README with its block made anew."""
    return _BLOCK.sub(lambda m: m[1] + "\n" + numbers(found) + "\n" + m[2], readme)


def _percent(value: dict[str, float]) -> str:
    return f"{100 * value['mean']:.1f} ± {100 * value['sd']:.1f}"


if __name__ == "__main__":
    README.write_text(with_numbers(README.read_text("utf-8"), json.loads(RESULT.read_text("utf-8"))), "utf-8")
