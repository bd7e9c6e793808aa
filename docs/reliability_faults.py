"""The section on faults of docs/RELIABILITY.md, from benchmarks/results/trust-faults.json."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]

# What no test shows, since it is not so.
LIMITS = """\
Not promised: on Windows, and on file systems without `flock`, what a killed process left is not removed by the next
one, and two writers of one folder are not kept apart; where `flock` is one machine's own, two machines are not. A card
that somebody edits by hand in the very moment in which a writer replaces it loses that edit. Power cuts: the contents
of files are flushed before they get their names, the order of names is the file system's. A killed download leaves a
file `*.incomplete` in the cache of the Hub client, and a killed `rws apply` of a model from the Hub a folder of links
in the system's folder for temporary files. A push that fails may leave a repository or a branch that it has made,
without a signature in it. What the Hub client fetches of a model (not of a signature) is not compared with what the
Hub announced.
"""
# What a row's kind of fault begins with -> how it is called in the table.
KINDS = {
    "kill -9": "killed",
    "ENOSPC": "disk full",
    "EDQUOT": "disk full",
    "EIO": "disk fails",
    "EACCES": "may not write",
    "EROFS": "may not write",
    "connection": "connection dropped",
    "429": "429, 5xx, 404",
    "500": "429, 5xx, 404",
    "503": "429, 5xx, 404",
    "404": "429, 5xx, 404",
    "one bit": "wrong or short answer",
    "half": "wrong or short answer",
    "slow": "slow",
    "another": "somebody else in between",
    "somebody": "somebody else in between",
}


def section(results: dict[str, Any]) -> str:
    """What was done, a table of operations and kinds of faults, and what failed."""
    rows, observers = results["rows"], results["observers"]
    kinds = list(dict.fromkeys(KINDS.values()))
    operations = list(dict.fromkeys(row["operation"] for row in rows))
    otherwise = sum(".incomplete" not in failure for row in rows for failure in row["failures"])
    points, survived = (sum(row[key] for row in rows) for key in ("points", "survived"))
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    machine = results["machine"]
    lines = [
        "## Faults at every step",
        "",
        f"At {points - otherwise:,} of {points:,} points there was afterwards what had been there before or what was "
        "to be made, an error was one that says what to do, and the next run succeeded. Where nothing temporary was "
        f"left either, a point has survived in the table: {survived:,}. The "
        "points are counted, not chosen: every call of the C library that changes the disk (in whatever language the "
        "library is written that makes it), and every request to a Hub on loopback. Faults of the disk come once, or "
        "go on until the process ends; those of the network come once, and three of them go on as well. Somebody else "
        "who comes in between is another process that reads what is there, or that does the same at the same place.",
        "",
        f"`{results['command']}` on {machine['cores']} cores ({machine['architecture']}), Python {machine['python']}, "
        f"{versions}.",
        "",
        f"| survived of points | {' | '.join(kinds)} |",
        f"| --- |{' ---: |' * len(kinds)}",
    ]
    for operation in operations:
        mine = [row for row in rows if row["operation"] == operation]
        lines.append(f"| {operation} | {' | '.join(_cell(mine, kind) for kind in kinds)} |")
    counted = [o for o in observers if o["strace"] is not None]
    same = [o for o in counted if o["strace"] == o["calls"]]
    lines += [
        "",
        f"strace counted the calls of {len(counted)} operations, too; the numbers are the same in {len(same)} of them.",
        "",
        *_failures(rows),
        LIMITS,
    ]
    return "\n".join(lines)


def _cell(rows: Iterable[Row], kind: str) -> str:
    mine = [row for row in rows if _kind(row["fault"]) == kind]
    return f"{sum(r['survived'] for r in mine)} of {sum(r['points'] for r in mine)}" if mine else "-"


def _kind(fault: str) -> str:
    return next(kind for begin, kind in KINDS.items() if fault.startswith(begin))


def _failures(rows: Iterable[Row]) -> list[str]:
    bad = [row for row in rows if row["failures"]]
    if not bad:
        return ["Nothing failed.", ""]
    lines = ["What did not survive:", ""]
    for row in bad:
        left = all(".incomplete" in f for f in row["failures"])
        what = "the Hub client's own `*.incomplete` stayed in its cache" if left else row["failures"][0].splitlines()[0]
        lines.append(f"- {row['operation']}, {row['fault']}: {row['points'] - row['survived']} points, {what}")
    return [*lines, ""]
