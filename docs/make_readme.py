"""Put the demo's measured numbers into README, between its markers: `python docs/make_readme.py`.

They come from benchmarks/results/demo.json (`python benchmarks/demo.py`) and from nowhere else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULT = ROOT / "benchmarks" / "results" / "demo.json"
_BLOCK = re.compile(r"(<!-- numbers:begin[^\n]*-->\n).*?(<!-- numbers:end -->)", re.S)
_ROWS = {"own": "the clean model it was made from", "user": "a user's model: trained further on other images"} | {
    "stranger": "a stranger: the same shape, trained from another start"
}


def numbers(found: dict[str, Any]) -> str:
    """The block of README that one run of the demo gives."""
    seeds, settings, sizes = found["seeds"], found["settings"], found["seeds"][0]["sizes"]
    artifact = sizes["config"] + sizes["payload"]
    lines = [
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
