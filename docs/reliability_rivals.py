"""The section of docs/RELIABILITY.md on other libraries, from benchmarks/results/trust-rivals.json.

The columns say what was found; what is said about who does better is decided by what was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
OURS = "rws-hub"
CYCLES = "after_100"


def section(results: dict[str, Any]) -> str:
    """What benchmarks/trust/side_by_side.py found, as Markdown."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [
        "## Side by side with PEFT and diffusers",
        "",
        f"`{results['command']}` (seed {results['seed']}, {results['seconds']:.0f} seconds) on {machine['cores']} "
        f"cores ({machine['architecture']}), Python {machine['python']}, {versions}. One small UNet of random weights "
        "stands for every base, so that all can take it; each library gets the same change of the same layers, in its "
        "own format, and is used as its documentation says: by default, and with the strictest switch that it has. "
        '"Digests made anew" is somebody who changes a file of ours and makes its unsigned digests fit again.',
        "",
        "Each cell: refused (an error, nothing was changed), warned, or taken without a word.",
        "",
        "### Another base",
        "",
        *_table("adapter put on", results["bases"]),
        "",
        "### A damaged file",
        "",
        *_table("what was done to it", results["files"]),
        "",
        "### On and off",
        "",
        *_table("what was tried", results["life"]),
        "",
        *_restored(results),
        "",
        "### Forward passes meanwhile",
        "",
        *_threads(results["threads"]),
        "",
        "### Where they do better",
        "",
        *_better(results),
        "",
        "<details><summary>First lines of what was said, where a stricter switch does not say the same</summary>",
        "",
        *_messages(results),
        "",
        "</details>",
    ]
    return "\n".join(lines)


def summary(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of claim and number."""
    labels = [label for label in results["cycles"] if "," not in label]
    stranger = next(case for case in results["bases"][OURS] if case.startswith("a stranger"))

    def each(cells: Sequence[str]) -> str:
        return "; ".join(f"{label} {cell}" for label, cell in zip(labels, cells, strict=True))

    damaged = [
        sum(r["outcome"] == "error" and not r["weights_changed"] for r in results["files"][n].values()) for n in labels
    ]
    count = len(results["files"][OURS])
    return [
        ("a stranger of the same shapes", each([_told(results["bases"][n][stranger]) for n in labels])),
        (f"of {count} damaged files refused, weights unchanged", each([str(n) for n in damaged])),
        (
            "touched weights not restored by taking off, fp32 / bf16 / fp16",
            each([" / ".join(_share(row["once"]) for row in results["cycles"][n].values()) for n in labels]),
        ),
    ]


def _told(row: Row) -> str:
    """What happened, in a few words."""
    if row["outcome"] == "error":
        if row["weights_changed"]:
            return "error, **half done**"
        return "error, layers stay wrapped" if row.get("names_changed") else "refused"
    word = "warned" if row["outcome"] == "warning" else "taken"
    if not row["weights_changed"]:
        return f"{word}, nothing done"
    return word if row.get("finite", True) else f"{word}, **not finite**"


def _table(what: str, found: Mapping[str, Mapping[str, Row]]) -> list[str]:
    cases = list(next(iter(found.values())))
    head = [f"| {what} | {' | '.join(found)} |", f"| --- |{' --- |' * len(found)}"]
    return [*head, *(f"| {c} | {' | '.join(_told(rows[c]) for rows in found.values())} |" for c in cases)]


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"


def _restored(results: Row) -> list[str]:
    head = ["fp32", "bf16", "fp16"]
    columns = [f"{kind}, {dtype}" for kind in ("once", "100 times") for dtype in head]
    columns += [f"{kind}, {dtype}" for kind in ("second left alone", "both off") for dtype in ("fp32", "bf16")]
    lines = [
        "Share of the touched weights that do not have the right bits: after putting on and taking off once and a "
        "hundred times; and where two were put on and the first was taken off first, against the second alone and, "
        "when both are off, against the clean weights.",
        "",
        f"| | {' | '.join(columns)} |",
        f"| --- |{' ---: |' * len(columns)}",
    ]
    for label, row in results["cycles"].items():
        cells = [row[dtype][key] for key in ("once", CYCLES) for dtype in head]
        two = results["two"][label]
        cells += [two[dtype][key] for key in ("second_alone", "both_off") for dtype in ("fp32", "bf16")]
        lines.append(f"| {label} | {' | '.join(_share(c) for c in cells)} |")
    return lines


def _threads(found: Mapping[str, Row]) -> list[str]:
    lines = [
        "One thread runs the model, another one puts on and takes off as fast as it can. A mixture is an output that "
        "is not near that of either state.",
        "",
        "| | forward passes | mixtures | errors | times on and off |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    keys = ("passes", "mixed", "errors", "rounds")
    return [*lines, *(f"| {label} | {' | '.join(str(row[k]) for k in keys)} |" for label, row in found.items())]


def _better(results: Row) -> list[str]:
    """Decided by what was found."""
    peers = [label for label in results["cycles"] if label != OURS and "," not in label]
    said: list[str] = []
    apart = [n for n in peers if (row := results["beside"][n]) and not row["weights_changed"] and row["output_back"]]
    if apart:
        said.append(
            f"- {' and '.join(apart)} can be used without merging: the weights stay as they are, and leaving the "
            "adapter behind gives the clean output, bit for bit. rws-hub always writes into the weights."
        )
    case = "taken off after a foreign change"
    ours = results["life"][OURS][case]
    kept = [n for n in peers if (row := results["life"][n][case])["outcome"] != "error" and row["foreign_change_kept"]]
    if kept and ours["outcome"] == "error":
        said.append(
            f"- {' and '.join(kept)} take an adapter off after somebody else has changed a weight, and the foreign "
            "change stays (as nearly as subtracting restores anything). rws-hub refuses, and if it is forced to, the "
            "clean values come back and the foreign change is lost."
        )
    rates = {n: row["mixed"] / max(1, row["passes"]) for n, row in results["threads"].items()}
    least = min(peers, key=lambda n: rates[n])
    if rates[least] < rates[OURS]:
        said.append(
            f"- Without `steady` rws-hub shows more mixtures ({_share(rates[OURS])} of the forward passes) than "
            f"{least} ({_share(rates[least])}): a change takes it longer."
        )
    case = "of a later version, with an unknown setting"
    used = [n for n in peers if results["files"][n][case]["outcome"] != "error"]
    if used:
        said.append(
            f"- An adapter of a later version is used by {' and '.join(used)} without the settings that are not known, "
            "with a warning; rws-hub asks for the later version."
        )
    return said or ["Nowhere in these cases."]


def _messages(results: Row) -> list[str]:
    lines = ["| | case | said |", "| --- | --- | --- |"]
    for part in ("bases", "files", "life"):
        for label, rows in results[part].items():
            default = results[part][label.partition(",")[0]]
            for case, row in rows.items():
                if row["message"] and (default is rows or row["message"] != default[case]["message"]):
                    kind = f"`{row['kind']}` " if row["kind"] else ""
                    text = row["message"].replace("|", "\\|").replace("<", "&lt;")
                    lines.append(f"| {label} | {case} | {kind}{text} |")
    return lines
