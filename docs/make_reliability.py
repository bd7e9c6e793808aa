"""Write docs/RELIABILITY.md from benchmarks/results/trust-*.json: `python docs/make_reliability.py`.

Every part has a module beside this one, docs/reliability_<part>.py, whose `section` makes Markdown of what was measured
and whose `summary`, where there is one, gives rows for the table on top. A part that was not measured is left out.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "RELIABILITY.md"
RESULTS = ROOT / "benchmarks" / "results"
PARTS = ("kin", "hostile", "sign", "faults", "load", "rivals")

HEAD = """# Reliability

Made by `make docs` from benchmarks/results/trust-*.json. What is promised, and what is not, is in
[SECURITY.md](../SECURITY.md).
"""


def page() -> str:
    """The whole page."""
    rows: list[tuple[str, str]] = []
    sections: list[str] = []
    for part in PARTS:
        file = RESULTS / f"trust-{part}.json"
        if not (file.is_file() and (ROOT / "docs" / f"reliability_{part}.py").is_file()):
            continue
        module = importlib.import_module(f"reliability_{part}")
        found = json.loads(file.read_text("utf-8"))
        rows += module.summary(found) if hasattr(module, "summary") else []
        sections.append(module.section(found).strip("\n") + "\n")
    table = "".join(f"| {what} | {number} |\n" for what, number in rows)
    return "\n".join([HEAD, *([f"| | |\n| --- | --- |\n{table}"] if rows else []), *sections])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
