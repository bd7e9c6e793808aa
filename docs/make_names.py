"""Put the measured numbers into docs/NAMES.md, between its markers: `python docs/make_names.py`.

They come from benchmarks/results/name_tables.json and infer_maps.json (the scripts of those names in benchmarks/)
and from nowhere else.
"""

from __future__ import annotations

import collections
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "NAMES.md"
RESULTS = ROOT / "benchmarks" / "results"
_BLOCK = re.compile(r"(<!-- numbers:begin[^\n]*-->\n).*?(<!-- numbers:end -->)", re.S)


def proofs(found: dict[str, Any]) -> list[str]:
    """One row per table: the twins it was tried on and the largest differences of all of them, both ways."""
    groups: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for proof in found["proofs"]:
        groups[proof["table"]].append(proof)
    lines = [
        "## Equal outputs",
        "",
        f"`{found['command']}`: small seeded models in float64, weights copied through the table both ways, then one "
        "signature of every tensor patched on both twins. Largest difference of the outputs, over all twins of "
        "a table; *unrelated* is the least difference before the copy, which shows that the test can fail.",
        "",
        "| table | twins | unrelated | weights copied | one signature on both |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for table, members in sorted(groups.items()):
        ways = [m[way] for m in members for way in ("a to b", "b to a")]
        names = ", ".join(m["name"] for m in members)
        cells = [f"{min(w['unrelated'] for w in ways):.1g}"]
        cells += [_zero(max(w[kind] for w in ways)) for kind in ("copied", "patched")]
        lines.append(f"| `{table}` | {names} | {' | '.join(cells)} |")
    return [*lines, ""]


def planning(found: dict[str, Any]) -> list[str]:
    """Milliseconds of a plan."""
    lines = [
        "## Planning time",
        "",
        "Median of 15 runs. *Names*: no weight is read. `patch`, `plan_patch` and `rws check` also read some weights "
        "to estimate kinship.",
        "",
        "| case | parameters | touched | names | with kinship |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in found["planning"]:
        sizes = f"{row['parameters'] / 1e6:.0f} M | {row['touched'] / 1e6:.0f} M"
        lines.append(f"| {row['case']} | {sizes} | {row['names_ms']:.0f} ms | {row['with_kinship_ms']:.0f} ms |")
    return [*lines, ""]


def coverage(found: dict[str, Any]) -> list[str]:
    """How much of timm the tables explain."""
    families = dict(found["coverage"]["families"])
    own = families.pop("identity")
    total = own + sum(families.values())
    listed = ", ".join(f"{name} {count}" for name, count in sorted(families.items(), key=lambda kv: -kv[1]))
    return [
        "## Coverage",
        "",
        f"Of {total:,} architectures in timm {found['versions']['timm']}, {total - own} are explained whole by a table "
        f"({listed}). The other {own:,} are patched by their own names, in timm and through transformers' TimmWrapper.",
        "",
    ]


def inference(found: dict[str, Any]) -> list[str]:
    """What could be inferred, what not and why, and whether anything wrong was proven."""
    twins = found["twins"]
    unseen = [t for t in twins if t["table"] is None]
    lines = [
        "## Inference",
        "",
        f"`{found['command']}`: {_share(twins)} pairs of twins were solved, {_share(unseen)} of those without a table "
        "here. The slowest took "
        f"{max(t['seconds'] for t in twins if t['solved']):.0f} s, the median "
        f"{sorted(t['seconds'] for t in twins if t['solved'])[sum(t['solved'] for t in twins) // 2]:.1f} s. "
        "Solved without a table: " + ", ".join(t["name"] for t in unseen if t["solved"]) + ". Refused:",
        "",
    ]
    lines += [f"- {t['name']}: {t['reason']}" for t in twins if not t["solved"]]
    strangers = found["strangers"]
    wrong = strangers["false_positives"]
    lines += [
        "",
        f'Of {strangers["tried"]} pairs that are no twins but of similar size, {len(wrong)} were "proven"'
        + (f": {', '.join(wrong)}." if wrong else "."),
        "",
        "Twins spoiled in one setting, with all names and shapes left as they were:",
        "",
        "| setting | twins | refused | proven nevertheless (largest relative difference) |",
        "| --- | ---: | ---: | --- |",
    ]
    groups: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row in found["spoiled"]:
        groups[row["change"]].append(row)
    for change, rows in groups.items():
        passed = [r for r in rows if r["solved"]]
        largest = max((r["difference"] / r["before"] for r in passed), default=0.0)
        told = f"{', '.join(r['name'] for r in passed)} ({_zero(largest)})" if passed else "none"
        lines.append(f"| {change} | {len(rows)} | {len(rows) - len(passed)} | {told} |")
    return [*lines, ""]


def _share(rows: list[dict[str, Any]]) -> str:
    return f"{sum(r['solved'] for r in rows)} of {len(rows)}"


def _zero(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def with_numbers(page: str, tables: dict[str, Any], maps: dict[str, Any]) -> str:
    """The page with its block made anew."""
    versions = ", ".join(f"{name} {number}" for name, number in tables["versions"].items())
    machine = tables["machine"]
    told = f"Measured on {machine['cores']} cores ({machine['architecture']}), Python {machine['python']}, {versions}."
    block = "\n".join([*proofs(tables), *inference(maps), *planning(tables), *coverage(tables), told, ""])
    return _BLOCK.sub(lambda m: m[1] + block + m[2], page)


def main() -> None:
    """Read, fill, write."""
    tables, maps = (json.loads((RESULTS / f"{n}.json").read_text("utf-8")) for n in ("name_tables", "infer_maps"))
    PAGE.write_text(with_numbers(PAGE.read_text("utf-8"), tables, maps), encoding="utf-8")


if __name__ == "__main__":
    main()
