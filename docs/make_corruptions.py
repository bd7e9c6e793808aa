"""Put throughput and picture into docs/CORRUPTIONS.md: `python docs/make_corruptions.py`.

The numbers come from benchmarks/results/corruptions.json (`benchmarks/corruptions.py`) and from nowhere else, the
picture from a photograph that comes with scikit-learn.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "CORRUPTIONS.md"
PICTURE = ROOT / "docs" / "images" / "corruptions.jpg"
RESULT = ROOT / "benchmarks" / "results" / "corruptions.json"
PHOTOGRAPH = "flower.jpg"
WIDTH = 806  # half of what a sheet of 224 pixels has
_BLOCK = re.compile(r"(<!-- numbers:begin[^\n]*-->\n).*?(<!-- numbers:end -->)", re.S)


def numbers(found: dict[str, Any]) -> str:
    """The block of the page that one run gives."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        "| corruption | 32 px | imagecorruptions | 64 px | imagecorruptions | 224 px |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in found["rows"]:
        small, middle, large = (row[side] for side in ("32", "64", "224"))
        cells = [small["mean"], small["theirs"], middle["mean"], middle["theirs"], large["mean"]]
        lines.append(f"| `{row['name']}` | {' | '.join(_short(cell) for cell in cells)} |")
    totals = [sum(row[side][whose] for row in found["rows"]) for side in ("32", "64") for whose in ("mean", "theirs")]
    totals.append(sum(row["224"]["mean"] for row in found["rows"]))
    lines += [
        f"| all 19 | {' | '.join(_short(total) for total in totals)} |",
        "",
        f"`{found['command']}`: mean of the five severities, batches of "
        f"{', '.join(str(count) for count in found['batch'].values())} images, on one core of a machine with "
        f"{machine['cores']} ({machine['architecture']}), Python {machine['python']}, {versions}.",
        "",
    ]
    return "\n".join(lines)


def with_numbers(page: str, found: dict[str, Any]) -> str:
    """The page with its block made anew."""
    return _BLOCK.sub(lambda m: m[1] + "\n" + numbers(found) + "\n" + m[2], page)


def draw() -> None:
    """The sheet of one photograph, at half its size."""
    import numpy as np
    from PIL import Image, ImageOps
    from sklearn.datasets import load_sample_image

    from rws_hub.corruptions.sheet import contact_sheet

    photograph = Image.fromarray(load_sample_image(PHOTOGRAPH))
    sheet = contact_sheet(np.array(ImageOps.fit(photograph, (224, 224), Image.Resampling.BOX)))
    small = sheet.resize((WIDTH, round(sheet.height * WIDTH / sheet.width)), Image.Resampling.LANCZOS)
    PICTURE.parent.mkdir(exist_ok=True)
    small.save(PICTURE, quality=72, optimize=True)


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.2g}" if milliseconds < 10 else f"{milliseconds:.0f}"


if __name__ == "__main__":
    draw()
    PAGE.write_text(with_numbers(PAGE.read_text("utf-8"), json.loads(RESULT.read_text("utf-8"))), encoding="utf-8")
