"""Every fault at every step of save, card, apply, train, eval, push and pull.

    python benchmarks/trust/faults.py                     # all of it, into benchmarks/results/trust-faults.json
    python benchmarks/trust/faults.py --only "save|card"  # operations whose name holds this; the other rows stay
    python benchmarks/trust/faults.py --faults "kill"     # faults whose name holds this; printed only

The steps are counted, not chosen: every call of the C library that changes the disk, and every request to the Hub. At
each of them a process is killed, the disk is full or fails, a connection is dropped, an answer is wrong, or another
process comes in between. Afterwards there has to be what was there before or what was to be made, and the next run has
to succeed and to leave nothing temporary. Needs gcc and Linux; strace, where there is one, counts the same calls.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))
RESULT = HERE.parent / "results" / "trust-faults.json"
SEED = 0
# What takes seconds each time meets fewer kinds of faults; of the client's own work on its cache, too.
_SLOW = (
    "train",
    "eval, over another",
    "from_pretrained, without Xet",
    "pull, without Xet",
    "push, over another, without Xet",
)
_CALLS = "mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,chmod,fchmod,"
_CALLS += "fchmodat,truncate,ftruncate,fallocate,fsync,fdatasync,utimensat,write,writev,pwrite64,sendfile,open,openat"


def preloaded() -> None:
    """Start again with the library that counts, compiled now."""
    if "FAULT_ROOM" in os.environ:
        return
    with tempfile.TemporaryDirectory(prefix="rws-faults-") as room:
        shim = Path(room) / "shim.so"
        build = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(shim), str(HERE / "fault_shim.c")]
        subprocess.run([*build, "-ldl"], check=True)
        ours = {"FAULT_ROOM": room, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        hub = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": f"{room}/home"}
        hub |= {
            "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_VERBOSITY": "critical",
        }
        command = [sys.executable, __file__, *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env=os.environ | ours | hub).returncode)


def counted_by_strace(name: str, room: Path) -> int | None:
    """How many changing calls another observer sees in one undisturbed run; None without strace."""
    if shutil.which("strace") is None:
        return None
    log = room / "strace"
    root = room / "traced"
    command = ["strace", "-f", "-y", "-qq", "-o", str(log), "-e", f"trace={_CALLS}", sys.executable, __file__]
    subprocess.run([*command, "--once", name, str(root)], check=True)
    count, begun = 0, False
    for line in log.read_text("utf-8", "replace").splitlines():
        begun = begun or "/fault-begins" in line
        if "/fault-ends" in line:
            break
        opens = re.search(r" open(at)?\(", line) and not re.search(r"O_CREAT|O_WRONLY|O_RDWR|O_TRUNC", line)
        if begun and f"{root}" in line and not opens and "resumed" not in line and "/fault-begins" not in line:
            count += 1
    return count


def cases(room: Path) -> dict[str, Any]:
    """Everything that is disturbed on the disk, by name; made when it is asked for."""
    import fault_cases as made
    import fault_training

    return {
        "save, new folder": made.save_new,
        "save, over another": made.save_over,
        "card": made.card,
        "apply, file": lambda scratch: made.apply(scratch, sharded=False),
        "apply, folder of shards": lambda scratch: made.apply(scratch, sharded=True),
        "eval, over another": fault_training.evaluate,
        "train": fault_training.train,
    }


def once(name: str, room: Path, root: Path) -> None:
    """One undisturbed run between two marks, for strace."""
    import fault_points

    scratch = Path(tempfile.mkdtemp(dir=room))
    case = cases(room)[name](scratch)
    fault_points.fresh(case, root)

    def work() -> None:
        Path("/fault-begins").exists()
        (root / "fault-begins").unlink(missing_ok=True)
        fault_points.outcome(case, root)
        (root / "fault-ends").unlink(missing_ok=True)

    fault_points.forked(work)


def main() -> None:
    """Disturb, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="operations whose name matches; the rows of others stay")
    parser.add_argument("--faults", default="", help="faults whose name holds this; nothing is kept then")
    parser.add_argument("--once", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    preloaded()
    room = Path(os.environ["FAULT_ROOM"])
    if given.once:
        once(given.once[0], room, Path(given.once[1]))
        return
    from fault_server import served

    remote = served(room / "hub")  # the client reads HF_ENDPOINT when it is imported
    os.environ |= {"HF_ENDPOINT": remote.ask("url"), "HF_TOKEN": "hf_alice"}
    import fault_disk
    import fault_network

    shim, total = fault_disk.Shim(), 0
    for name, make in cases(room).items():
        if not re.search(given.only, name):
            continue
        scratch = room / re.sub(r"\W+", "-", name)
        scratch.mkdir()
        case, root = make(scratch), room / "root"
        seen = {
            "operation": name,
            "calls": fault_disk.points(case, root, shim),
            "strace": counted_by_strace(name, room),
        }
        slow = name in _SLOW
        rows = fault_disk.enumerate_faults(case, root, shim, faults(given.faults, few=slow))
        if given.faults in "in between":
            rows += [
                fault_disk.between(case, root, shim, reads=reads) for reads in ((False,) if slow else (True, False))
            ]
        total += keep(rows, seen, given.faults)
    (room / "remote").mkdir()
    for xet in (True, False):
        for case in fault_network.Operations(remote, room / "remote", xet=xet).cases():
            if not re.search(given.only, case.name):
                continue
            rows = fault_network.disturb(case, remote, room / "root", given.faults)
            if case.name in _SLOW:
                rows += fault_disk.enumerate_faults(case, room / "root", shim, faults(given.faults, few=True))
            total += keep(rows, None, given.faults)
    print(f"{total:,} points")


def keep(rows: list[dict[str, Any]], seen: dict[str, Any] | None, chosen: str) -> int:
    """Put the rows of one operation in the place of those that it had; how many points they have."""
    count = int(sum(row["points"] for row in rows))
    if chosen or not rows:
        return count
    before = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"rows": [], "observers": []}
    name = rows[0]["operation"]
    versions = {name: version_of(name) for name in ("rws-hub", "torch", "safetensors", "huggingface_hub", "hf_xet")}
    machine = {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}
    found = {
        "command": "python benchmarks/trust/faults.py",
        "seed": SEED,
        "versions": versions,
        "machine": machine,
        "observers": [row for row in before["observers"] if row["operation"] != name] + ([seen] if seen else []),
        "rows": [row for row in before["rows"] if row["operation"] != name] + rows,
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return count


def faults(chosen: str, *, few: bool) -> dict[str, tuple[int, int]]:
    """Faults of the disk; the few are those that differ most."""
    import fault_disk

    return {n: f for n, f in fault_disk.FAULTS.items() if chosen in n and (not few or n in fault_disk.FEW)}


def version_of(name: str) -> str:
    """Of an installed package."""
    from importlib.metadata import version

    return str(version(name))


if __name__ == "__main__":
    main()
