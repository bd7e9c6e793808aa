"""The section of docs/RELIABILITY.md on threads and processes, from benchmarks/results/trust-load.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
# What was found while these tests and this load were written, and what holds it now.
RACES = (
    ("a block of `steady` within another one, of a wrapper of the same model, while a change waited: a dead lock, "
     "whether the wrapper was new or known", "test_gates.py"),
    ("a fork while another thread changed a patch: the child was locked out, or had half of it", "test_forks.py"),
    ("a fork while another thread was inside of `steady`: the child waited for a thread that it does not have",
     "test_forks.py"),
    ("a fork while another thread loaded a signature, in Python 3.11, whose `cached_property` holds a lock: the child "
     "could never load one", "test_forks.py"),
    ("a signal handler or a finalizer that took a patch off in the middle of a change lost weights",
     "test_gates_signals.py"),
    ("a handle that was read during an exchange: it carried nothing for a moment", "test_gates_threads.py"),
)  # fmt: skip


def section(results: dict[str, Any]) -> str:
    """What benchmarks/trust/load.py found, as Markdown."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [
        "## Threads and processes",
        "",
        f"`{results['command']}`: {results['seconds']:,.0f} seconds on {machine['cores']} cores "
        f"({machine['architecture']}), Python {machine['python']}, {versions}. Threads change one model of 12 layers "
        "and others run it; every output within `steady` is compared, bit for bit, with those of the states that there "
        "can be, and after each part every weight has to have the bits that it had. Processes fork meanwhile, share a "
        "model's memory, and pull into one cache from a Hub on loopback.",
        "",
        "| part | seconds | done | wrong | every bit back |",
        "| --- | ---: | --- | ---: | --- |",
        *(_row(name, row) for name, row in results["parts"].items()),
        "",
        "Wrong: a mixture of states, an error in a thread, a child that was locked out or found another state, a "
        "signature that is not the published one, or something that is kept of a model that was dropped. Without "
        "`steady` a forward pass may see a mixture, and is not compared.",
        "",
        f"Found on the way and mended, each with a test: {len(RACES)}.",
        "",
        *(f"- {what} (`tests/{test}`)" for what, test in RACES),
        "",
        "What stays: a change in one process and a forward pass in another one on shared memory are not kept apart "
        "(`steady` knows the threads of its own process), and two processes that patch one shared model at the same "
        "time are not either. A forked child can hang in torch itself, such as in `torch.manual_seed` if another "
        "thread was in it at the fork; spawn where you can. Python without its global lock has not been tried.",
    ]
    return "\n".join(lines)


def summary(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of claim and number."""
    parts = results["parts"]
    passes = sum(row["passes"] for row in parts.values() if "mixed" in row)
    mixed = sum(row["mixed"] for row in parts.values() if "mixed" in row)
    exact = [row["exact"] for row in parts.values() if "exact" in row]
    forks = parts["forks"]
    return [
        ("seconds under concurrent load", f"{sum(r['seconds'] for r in parts.values() if 'models' not in r):,.0f}"),
        ("forward passes within `steady` that saw a mixture of states", f"{mixed} of {passes:,}"),
        ("forked children that were locked out or found half of a change",
         f"{forks['locked'] + forks['wrong']} of {forks['forks']:,}"),
        ("parts under load after which every weight had its bits", f"{sum(exact)} of {len(exact)}"),
        ("races and dead locks found and mended", str(len(RACES))),
    ]  # fmt: skip


def _row(name: str, row: Row) -> str:
    units = {"changes": "changes", "passes": "forward passes", "loads": "loads", "forks": "forks", "pulls": "pulls"}
    done = [f"{row[key]:,} {unit}" for key, unit in units.items() if key in row]
    done += [f"{row['models']:,} models"] if "models" in row else []
    done += [f"{row['states_seen']} of {row['states']} states seen"] if "mixed" in row else []
    wrong = sum(row.get(key, 0) for key in ("mixed", "wrong", "locked", "left")) + len(row.get("errors", ()))
    back = {True: "yes", False: "**no**", None: "-"}[row.get("exact")]
    return f"| {name} | {row['seconds']:,.0f} | {', '.join(done)} | {wrong} | {back} |"
