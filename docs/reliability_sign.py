"""The section of docs/RELIABILITY.md on signatures and lock files, from benchmarks/results/trust-sign.json."""

from __future__ import annotations

from typing import Any

_WAYS = {
    "plain": "load",
    "key": "load with `public_key`",
    "lock": "load with `lock`",
    "pull": "`rws pull --lock --verify`",
}
_HEAD = """## Signatures and lock files

An artifact is signed with a key and pinned in a lock file; then somebody without the key changes it, and it is loaded
from its folder in four ways. Repeat it with `{command}`.
The same attacks and more go through a Hub in `tests/test_hub_signed.py` and `tests/test_hub_lock.py`.
"""
_COSTS = """
What it costs, in milliseconds (medians, files in the page cache, float32 signatures of one matrix):

| artifact | `model.sig` | `rws.lock` | sign | load | load with key | load with lock |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""
_FOOT = """
`rws info` of a folder takes {info:.2f} s of processor time, with `--verify` {info_with_key:.2f} s: importing the
libraries. `rws-hub[sign]` adds {packages} packages and {megabytes:.0f} MB to an installation. Measured on {cores} cores
({architecture}), {versions}.

Not tried: signing by identity (Sigstore), which needs a network; stolen keys, which nothing here revokes.
"""


def section(results: dict[str, Any]) -> str:
    """The section as Markdown."""
    facts = results["machine"] | results["start_up_cpu_s"] | {"packages": results["extra"]["packages"]}
    facts["megabytes"] = results["extra"]["bytes"] / 1e6
    facts["versions"] = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    parts = [
        _HEAD.format(command=results["command"]),
        _attacks(results["attacks"]),
        _mutants(results["mutants"]),
        _COSTS + "".join(_cost(row) for row in results["costs"]).rstrip("\n"),
        _FOOT.format(**facts),
    ]
    return "\n".join(parts)


def _attacks(attacks: list[dict[str, str]]) -> str:
    """What each way of loading made of each attack, and how many got through."""
    rows = [[a["attack"], *(a[w].replace("another", "**another**") for w in _WAYS)] for a in attacks]
    table = [["what was done to it", *_WAYS.values()], ["---"] * (1 + len(_WAYS)), *rows]
    count = [sum(a[w] == "another" for a in attacks) for w in _WAYS]
    past = "; ".join(a["attack"] for a in attacks if a["key"] == "another") or "nothing"
    words = (
        "\n\n**Another** is a signature that is not the one that was signed and pinned. A plain load took it "
        f"{count[0]}\ntimes, a key {count[1]}, a lock file {count[2]}, both together {count[3]}. Past the key went: "
        f"{past}.\n"
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in table) + words


def _mutants(mutants: dict[str, dict[str, int]]) -> str:
    """Flipped bits and cuts, counted."""
    lines = [
        "Every bit of two files flipped, and both cut at every byte, loaded with the key:",
        "",
        "| | refused | the very same signature loaded | another one loaded |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, found in mutants.items():
        file, what = name.split(": ")
        lines.append(f"| `{file}`, {what} | {found['refused']:,} | {found['loaded']:,} | {found['another']:,} |")
    return "\n".join(lines)


def _cost(row: dict[str, Any]) -> str:
    times = (row["sign_ms"], row["load_ms"], row["load_with_key_ms"], row["load_with_lock_ms"])
    sizes = f"| {row['bytes'] / 1e6:,.2f} MB | {row['signature_bytes']:,} B | {row['lock_bytes']:,} B |"
    return sizes + "".join(f" {t:,.1f} |" for t in times) + "\n"
