"""The section on hostile files of docs/RELIABILITY.md, from benchmarks/results/trust-hostile.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TARGETS = {
    "config": "`config.json`: values, keys, spelling",
    "payload": "`rws.safetensors`: header, offsets, numbers",
    "frame": "compressed codes",
    "folder": "what lies in the folder",
    "card": "`README.md`",
    "results": "`results.json`",
    "table": "name tables",
    "checkpoint": "checkpoints and their indices",
}


def section(results: dict[str, Any]) -> str:
    """What was tried, how to repeat it, what came of it, and what failed."""
    machine = results["machine"]
    lines = [
        "## Hostile files",
        "",
        "What a stranger's file can do to whoever opens it. `python benchmarks/trust/hostile.py PART` repeats each "
        "part (`corpus`, `mutants`, `flips`, `claims`, `guided`); attacks, mutants and rules are those of "
        "`tests/hostile/`. "
        f"{machine['cores']} cores ({machine['architecture']}), Python {machine['python']}, "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
        + ".",
        "",
    ]
    parts = {
        "corpus": _corpus,
        "mutants": _mutants,
        "traced": _traced,
        "flips": _flips,
        "claims": _claims,
        "guided": _guided,
    }
    for name, tell in parts.items():
        if name in results:
            lines += tell(results[name])
    return "\n".join(lines)


def _corpus(found: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {TARGETS[target]} | {sum(counts.values()):,} | {counts.get('refused', 0):,} |"
        for target, counts in found["by_target"].items()
    ]
    wrong = "".join(f" Not refused: {w['name']} ({w['what']})." for w in found["not_refused"])
    return [
        f"**By hand:** {found['attacks']:,} attacks, of every format version, each sealed again so that only the check "
        f"it is meant for can refuse it; {found['refused']:,} were refused as they should be, by their class of error "
        f"and their message, which is one printable text of at most 1,000 characters.{wrong} The slowest took "
        f"{found['slowest'][0]:.2f} s of processor time ({found['slowest'][1]}), the largest "
        f"{found['largest_growth'][0] / 1e6:.0f} MB ({found['largest_growth'][1]}).",
        "",
        "| what is attacked | attacks | refused |",
        "| --- | ---: | ---: |",
        *rows,
        "",
    ]


def _mutants(found: Mapping[str, Any]) -> list[str]:
    verdicts = ("refused", "the same", "another", "violation")
    rows = [
        f"| {kind} | {sum(counts.values()):,} | " + " | ".join(f"{counts.get(v, 0):,}" for v in verdicts) + " |"
        for kind, counts in found["kinds"].items()
    ]
    total = {v: sum(c.get(v, 0) for c in found["kinds"].values()) for v in verdicts}
    limits, formats = found["limits"], " and ".join(map(str, found["versions_of_format"]))
    wrong = "".join(f" Seed {w['seed']}: {w['what']}." for w in found["violations"][:10])
    return [
        f"**At random:** {sum(total.values()):,} mutants of artifacts of formats {formats} (the published fixtures "
        f"and small "
        "ones), by seeds from 0 on. Bytes, tokens, JSON values, tensors, symbols and name tables are changed, alone or "
        "sealed again; a few mutants are of results and of cards. A mutant has to be *refused* in our own words; or "
        "be *the same*: equal config but for `description`, every delta bit for bit; or, if it was sealed again, "
        "*another* artifact that is whole in itself: its config is written and read back to the same values, every "
        "delta has "
        "its shape, is finite and decodes to the same bits twice. Anything else is a violation: another exception, "
        "more "
        "than "
        f"{limits['seconds']:g} s of processor time, memory of more than twice the mutant and "
        f"{limits['memory_beyond_twice_the_size'] / 2**20:.0f} MiB, or {limits['address_space'] / 2**30:.0f} GiB of "
        f"address space. Violations: **{total['violation']:,}**.{wrong} The slowest took {found['slowest']:.3f} s; the "
        f"process grew by at most {found['largest_growth'] / 1e6:.1f} MB in one, beyond what it had and had freed. "
        f"{found['seconds'] / 60:.0f} minutes "
        f"beside other work ({found['cpu_seconds'] / 60:.0f} of processor time).",
        "",
        *_not_made(found.get("not_made", [])),
        "| what was changed | mutants | refused | the same | another | violations |",
        "| --- |" + " ---: |" * 5,
        *rows,
        f"| together | {sum(total.values()):,} | " + " | ".join(f"{total[v]:,}" for v in verdicts) + " |",
        "",
    ]


def _not_made(seeds: Sequence[int]) -> list[str]:
    if not seeds:
        return []
    told = f"{len(seeds)} seeds gave" if len(seeds) > 1 else "One seed gave"
    return [f"{told} no file at all (an integer that Python cannot spell) and are not counted.", ""]


def _traced(found: Mapping[str, Any]) -> list[str]:
    return [
        f"Of the first {found['mutants']:,} of them, what Python and numpy held at once was traced, too (not torch's "
        f"own "
        f"memory): at most {found['largest'] / 1e3:.0f} KB while one was judged.",
        "",
    ]


def _flips(found: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {r['artifact']} (format {r['format']}) | {r['part']} | {r['bytes']:,} | "
        f"{'all 255 other values' if r['values_each'] == 255 else 'each of 8 bits'} | {r['flips']:,} | "
        f"{r.get('refused', 0):,} | {r.get('the same', 0):,} | "
        f"{r['flips'] - r.get('refused', 0) - r.get('the same', 0):,} |"
        for r in found["rows"]
    ]
    return [
        "**Every byte:** one byte of a small artifact at a time. What is accepted is the same but for `description`, "
        "the one text that is not sealed (or a blank between values): the parsed config is compared, and every delta.",
        "",
        "| artifact | file | bytes | set to | flips | refused | harmless | wrong |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |",
        *rows,
        "",
    ]


def _claims(found: Mapping[str, Any]) -> list[str]:
    rows: Sequence[Mapping[str, Any]] = sorted(found["rows"], key=lambda r: -r["above_the_start"])
    holds = [r for r in rows if "which it holds" in r["claims"]]
    claimed = [r for r in rows if r not in holds]
    slow, large = max(claimed, key=lambda r: r["milliseconds_least"]), claimed[0]
    small = [r for r in claimed if r["bytes"] < 8_192]
    return [
        f"**Claims:** {len(rows)} of the attacks are small files that claim much (a header, a shape, a pattern, a "
        "frame, a window, escapes, holes of a file: 2^26 bytes to beyond a terabyte). Counted is what the process "
        "grows by beyond interpreter, torch and what an honest artifact took before, at its highest, and the least "
        "wall time of "
        f"five. Refused: {sum(r['refused'] for r in rows)} of {len(rows)}. Most memory: "
        f"{large['above_the_start'] / 1e6:.1f} MB ({large['claims']}); most time: "
        f"{slow['milliseconds_least']:.1f} ms ({slow['claims']}, {slow['bytes']:,} bytes). Of the {len(small)} of "
        f"less than 8 KB, at most "
        f"{max(r['above_the_start'] for r in small) / 1e6:.1f} MB and "
        f"{max(r['milliseconds_least'] for r in small):.1f} ms. "
        + "".join(
            f"A file of {r['bytes']:,} bytes that does hold 2^26 bytes of symbols takes "
            f"{r['above_the_start'] / 1e6:.0f} MB and {r['milliseconds_least']:.0f} ms before it is refused. "
            for r in holds[:1]
        ),
        "",
    ]


def _guided(found: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {r['parser']} | {r['inputs']:,} | {r['covered_at_first']:,} | {r['covered_at_last']:,} | {r['found']} |"
        for r in found["rows"]
        if r["inputs"] is not None
    ]
    return [
        f"**Guided by coverage:** atheris {found['atheris']}, {found['seconds_each']} s for each parser, seed "
        f"{found['seed']}. What is found is kept in `tests/hostile/found/` and replayed by a test.",
        "",
        "| parser | inputs | branches at first | at last | found |",
        "| --- | ---: | ---: | ---: | ---: |",
        *rows,
        "",
    ]
