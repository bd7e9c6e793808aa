"""What signing and pinning cost, and what they stop: `python benchmarks/trust/sign.py`.

Signatures of seeded noise are signed, loaded, loaded with a key and loaded with a lock file. Then one is attacked in
every way of a list, and by flipping every bit of its config and of its signature file and cutting both at every byte;
each time it is loaded as it is, with the key, and with a lock file that pins the honest one. A load counts as right if
it refuses, or gives the very same signature. Nothing leaves the machine. Writes benchmarks/results/trust-sign.json.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from packaging.requirements import Requirement

from rws_hub import RobustWeightSignature, RWSError
from rws_hub.cli import main as rws
from rws_hub.contents import read_contents

RESULT = Path(__file__).parent.parent / "results" / "trust-sign.json"
SEED = 0
SIDES = (128, 512, 1600, 5056)
REPEATS = 7
load = RobustWeightSignature.from_pretrained
Files = dict[str, bytes]


def make(side: int, seed: int, bits: float | None = 32) -> RobustWeightSignature:
    """A signature of one square matrix of noise."""
    generator = torch.Generator().manual_seed(seed)
    standard = {"layer.weight": torch.randn(side, side, generator=generator)}
    robust = {"layer.weight": standard["layer.weight"] + 0.01 * torch.randn(side, side, generator=generator)}
    return RobustWeightSignature.extract(
        standard=standard, robust=robust, corruption="fog", license="apache-2.0", layers=["*"], bits=bits
    )


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Files with a fresh P-256 key; the only thing here that no seed repeats."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    encoding = serialization.Encoding.PEM
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def done(*words: object) -> bool:
    """Whether a command of `rws`, run in this process and silently, does what it is asked for."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return rws([str(w) for w in words]) == 0


def milliseconds(call: Callable[[], object]) -> float:
    """Median over repeats, after one that is not counted."""
    call()
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(taken), 3)


def cost(side: int, scratch: Path, keys: tuple[Path, Path]) -> dict[str, Any]:
    """Time and bytes of one artifact."""
    folder, lock = scratch / "cost", scratch / "cost.lock"
    signature = make(side, SEED)
    signature.save_pretrained(folder, sign=keys[0])
    if not done("lock", folder, "-o", lock):
        raise SystemExit("rws lock failed")
    contents = read_contents(folder)
    found = {
        "bytes": signature.nbytes,
        "signature_bytes": (folder / "model.sig").stat().st_size,
        "lock_bytes": lock.stat().st_size,
        "sign_ms": milliseconds(lambda: contents.signed(keys[0])),
        "load_ms": milliseconds(lambda: load(folder)),
        "load_with_key_ms": milliseconds(lambda: load(folder, public_key=keys[1])),
        "load_with_lock_ms": milliseconds(lambda: load(folder, lock=lock)),
    }
    shutil.rmtree(folder)
    lock.unlink()
    return found


def start_up(folder: Path, public_key: Path) -> dict[str, float]:
    """CPU seconds of `rws info` in a fresh process, without and with a key: the least of five."""
    code = "import sys, time; from rws_hub.cli import main; main(sys.argv[1:]); print(time.process_time())"

    def seconds(*words: object) -> float:
        ran = [sys.executable, "-c", code, "info", "--json", *map(str, words)]
        return min(float(subprocess.check_output(ran, text=True).splitlines()[-1]) for _ in range(5))

    return {"info": round(seconds(folder), 3), "info_with_key": round(seconds(folder, "--verify", public_key), 3)}


def weight() -> dict[str, int]:
    """What the extra adds to an installation that has the package without it."""
    base = closure([r for r in distribution("rws-hub").requires or [] if "extra ==" not in r])
    found = closure(["model-signing", "pyopenssl"]) - base
    files = [f for name in found for f in distribution(name).files or []]
    here = [Path(str(f.locate())) for f in files]
    return {"packages": len(found), "bytes": sum(f.stat().st_size for f in here if f.is_file())}


def closure(wanted: list[str]) -> set[str]:
    """Names of all distributions that requirements bring along."""
    found: set[str] = set()
    todo = [Requirement(w) for w in wanted]
    while todo:
        need = todo.pop()
        name = need.name.lower().replace("_", "-")
        if name in found or (need.marker is not None and not need.marker.evaluate({"extra": ""})):
            continue
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        todo += map(Requirement, requires)
    return found


def attacks(mine: Files, older: Files, hers: Files, other: Files) -> Iterator[tuple[str, Files]]:
    """What somebody without the key could put in place of an artifact that alice signed and a deployment pinned."""
    body = ("config.json", "rws.safetensors")
    sig = "model.sig"

    def without(files: Files, name: str) -> Files:
        return {n: d for n, d in files.items() if n != name}

    yield "nothing changed", mine
    yield "the card edited", mine | {"README.md": b"# Edited\n"}
    yield "an unsigned file beside it (results.json)", mine | {"results.json": b"{}"}
    yield "payload of another signature", mine | {"rws.safetensors": other["rws.safetensors"]}
    yield "config of another signature", mine | {"config.json": other["config.json"]}
    yield "a whole other signature under the signature file", mine | {n: other[n] for n in body}
    yield (
        "the description in the config edited",
        mine | {"config.json": mine["config.json"].replace(b'"description": ""', b'"description": "x"')},
    )
    yield "signature file removed", without(mine, sig)
    yield "signature file of another artifact of the same key", mine | {sig: older[sig]}
    yield "an older signature file under newer files", other | {sig: older[sig]}
    yield "a whole artifact signed with another key", hers
    yield "signature file of another key", mine | {sig: hers[sig]}
    forged = json.loads(hers[sig]) | {"verificationMaterial": json.loads(mine[sig])["verificationMaterial"]}
    yield "signed with another key that claims to be hers", mine | {sig: json.dumps(forged).encode()}
    yield "signature file empty", mine | {sig: b""}
    yield "signature file cut in half", mine | {sig: mine[sig][: len(mine[sig]) // 2]}
    yield "signature file of 2 MiB", mine | {sig: mine[sig] + b" " * 2**21}
    yield "signature file of 100,000 brackets", mine | {sig: b"[" * 100_000}
    yield (
        "signature file without signatures",
        mine | {sig: mine[sig].replace(b'"signatures":[', b'"signatures":[],"x":[')},
    )
    yield "an older artifact with its own signature file (replay)", older


def write(folder: Path, files: Files) -> None:
    """Make a folder hold exactly these files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def verdict(honest: RobustWeightSignature, **options: Any) -> str:
    """What a load does: "refused", "loaded" the honest signature, or "another" one."""
    try:
        return "loaded" if load(**options) == honest else "another"
    except RWSError:
        return "refused"


def attacked(scratch: Path, keys: tuple[Path, Path], honest: RobustWeightSignature) -> dict[str, Any]:
    """The verdicts on every attack, and the counts of every flipped bit and every cut."""
    hers = key_pair(scratch, "mallory")[0]
    made: dict[str, tuple[RobustWeightSignature, Path | None]] = {
        "mine": (honest, keys[0]),
        "older": (make(32, 1, None), keys[0]),
    }
    made |= {"hers": (make(32, 2, None), hers), "other": (make(32, 2, None), None)}
    files: dict[str, Files] = {}
    for name, (signature, key) in made.items():
        signature.save_pretrained(scratch / name, sign=key)
        files[name] = {f.name: f.read_bytes() for f in (scratch / name).iterdir()}
    place, lock = scratch / "place", scratch / "rws.lock"
    write(place, files["mine"])
    if not done("lock", place, "-o", lock):
        raise SystemExit("rws lock failed")
    ways: dict[str, dict[str, Any]] = {"plain": {}, "key": {"public_key": keys[1]}, "lock": {"lock": lock}}
    table = []
    for name, files_now in attacks(**files):
        write(place, files_now)
        found = {way: verdict(honest, pretrained_model_name_or_path=place, **o) for way, o in ways.items()}
        found["pull"] = "loaded" if done("pull", "--lock", lock, "--verify", keys[1]) else "refused"
        table.append({"attack": name, **found})
    counts = {}
    for name in ("config.json", "model.sig"):
        data = files["mine"][name]
        flips = (data[:i] + bytes([data[i] ^ (1 << bit)]) + data[i + 1 :] for i in range(len(data)) for bit in range(8))
        cuts = (data[:i] for i in range(len(data)))
        for what, mutants in (("flipped bits", flips), ("cuts", cuts)):
            write(place, files["mine"])
            tally = {"refused": 0, "loaded": 0, "another": 0}
            for mutant in mutants:
                (place / name).write_bytes(mutant)
                tally[verdict(honest, pretrained_model_name_or_path=place, public_key=keys[1])] += 1
            counts[f"{name}: {what}"] = tally
            print(name, what, tally, file=sys.stderr)
    return {"attacks": table, "mutants": counts}


def main() -> None:
    """Measure, and write."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        keys = key_pair(scratch, "alice")
        honest = make(32, SEED, None)
        found = attacked(scratch, keys, honest)
        found["start_up_cpu_s"] = start_up(scratch / "mine", keys[1])
        found["costs"] = [cost(side, scratch, keys) for side in SIDES]
    versions = {n: version(n) for n in ("rws-hub", "model-signing", "cryptography", "torch")}
    machine = {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}
    head = {"command": "python benchmarks/trust/sign.py", "seed": SEED, "versions": versions, "machine": machine}
    RESULT.write_text(json.dumps(head | {"extra": weight()} | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
