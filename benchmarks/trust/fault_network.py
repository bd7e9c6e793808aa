"""Every request of push, pull and from_pretrained as a point where the network or the Hub fails."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import huggingface_hub.constants
from fault_cases import NEW, OLD, SAID, Case, command, files, last, small_signature
from fault_points import forked, fresh, temporary
from fault_server import FAULTS, REPO, THEIRS, Remote
from fault_told import Row, Told

from rws_hub import RobustWeightSignature
from rws_hub.errors import RWSError

ALWAYS = 1000
# Those that also go on until the operation has ended.
LASTING = ("connection dropped before the request is read", "503", "one bit of the answer is wrong")
# Requests beyond this many are taken for a retry without end.
_ENDLESS = 400


class Operations:
    """What talks to the Hub; the cache lies where the operation is done."""

    def __init__(self, remote: Remote, room: Path, *, xet: bool) -> None:
        small_signature(seed=2).save_pretrained(room / "local")
        older = small_signature(seed=1)
        card = f"---\nlicense: apache-2.0\n---\n\n# Mine\n\n{SAID}\n".encode()
        self._theirs = {"config.json": older.config.to_text().encode(), "rws.safetensors": older.payload}
        self._theirs["README.md"] = card
        self._local = files(room / "local")
        self._artifact = {n: self._local[n] for n in ("config.json", "rws.safetensors")}
        self._remote, self._room, self._xet = remote, room, xet

    def cases(self) -> list[Case]:
        """All of them."""
        over, local = self._holding(self._theirs), self._holding(self._local)
        found = [
            Case("push, new repository", self._holding({}), self._push, partial(self._published, "main", {})),
            Case("push, over another", over, self._push, partial(self._published, "main", self._theirs)),
            Case("push, pull request", over, partial(self._push, words=("--create-pr",)), self._requested),
            Case("from_pretrained", local, self._load, self._cached),
            Case("pull", local, self._pull, self._pulled, refuses=True),
        ]
        return found if self._xet else [replace(case, name=f"{case.name}, without Xet") for case in found]

    def _holding(self, there: dict[str, bytes]) -> Callable[[Path], object]:
        def prepare(root: Path) -> None:
            self._remote.ask("reset")
            if there:
                self._remote.ask("put", REPO, there)

        return prepare

    def _push(self, root: Path, words: tuple[str, ...] = ()) -> int:
        at_hand(root, self._xet)
        return int(command("push", self._room / "local", REPO, *words))

    def _load(self, root: Path) -> None:
        at_hand(root, self._xet)
        found = RobustWeightSignature.from_pretrained(REPO)
        assert found.payload == self._artifact["rws.safetensors"]

    def _pull(self, root: Path) -> int:
        at_hand(root, self._xet)
        return int(command("pull", REPO, "-o", root / "out"))

    def _published(self, revision: str, before: dict[str, bytes], root: Path) -> str:
        found = self._remote.ask("files", revision)
        if revision == "main" and self._remote.ask("wrote") and THEIRS.strip() not in found["README.md"]:
            return "what a second person wrote is lost"
        if found == before or (found and all(found[n] == before.get(n) for n in self._artifact)):
            return str(OLD) if not before or SAID.encode() in found["README.md"] else "the old card is changed"
        if any(found.get(n) != data for n, data in self._artifact.items()):
            return f"the repository holds {sorted(found)}"
        return str(NEW) if SAID.encode() in found["README.md"] or not before else "what a person wrote is lost"

    def _requested(self, root: Path) -> str:
        count = self._remote.ask("requested")
        if count > 1:
            return f"{count} pull requests"
        if not count:
            return self._published("main", self._theirs, root)
        return self._published("refs/pr/1", {}, root)

    def _cached(self, root: Path) -> str:
        at_hand(root, self._xet)
        try:
            found = RobustWeightSignature.from_pretrained(REPO, local_files_only=True)
        except RWSError as error:
            return f"{type(error).__name__}: {error}"
        except OSError:
            return str(OLD)
        return str(NEW) if found.payload == self._artifact["rws.safetensors"] else "another signature"

    def _pulled(self, root: Path) -> str:
        found = files(root / "out")
        return (
            str(OLD) if not (root / "out").exists() else str(NEW) if found == self._local else f"holds {sorted(found)}"
        )


def at_hand(root: Path, xet: bool) -> None:
    """This process has its cache below `root`, and no patience."""
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(float(seconds), 0.005))  # retries at once instead of after seconds
    huggingface_hub.constants.HF_HUB_DISABLE_XET = not xet
    huggingface_hub.constants.HF_HUB_CACHE = str(root / "cache")
    os.environ |= {"HF_XET_CACHE": str(root / "xet"), "HF_HUB_CACHE": str(root / "cache")}


def _ended(case: Case, root: Path) -> tuple[str, str]:
    """How an operation ended, and what a person reads."""
    last[:] = ["", ""]
    try:
        code = case.run(root)
    except (RWSError, OSError) as error:
        notes = getattr(error, "__notes__", [])
        return "refused", f"{type(error).__name__}: {error} {notes}"
    except Exception as error:
        module = type(error).__module__.partition(".")[0]
        through = any("huggingface_hub" in f.filename for f in traceback.extract_tb(error.__traceback__))
        if through or module in ("huggingface_hub", "httpx2", "httpx"):
            return "refused", f"{module}.{type(error).__name__}: {error} {getattr(error, '__notes__', [])}"
        return f"{module}.{type(error).__name__}: {error}", ""
    return ("refused" if code else "done"), last[1]


def _one(case: Case, remote: Remote, root: Path, arm: Callable[[int], object]) -> tuple[str, list[str]]:
    fresh(case, root)
    started = remote.ask("commits")

    def work() -> tuple[str, str]:
        arm(os.getpid())
        return _ended(case, root)

    told, said = forked(work) or ("killed", "")
    remote.ask("heal")
    state = forked(lambda: case.state(root))
    wrong = [] if state in (OLD, NEW) else [f"state: {state}"]
    if told not in ("done", "refused", "killed"):
        wrong.append(f"error: {told}")
    if told == "done" and state != NEW:
        wrong.append(f"said that it was done, and left {state}")
    if told == "refused" and not ("again" in said or "see whether" in said):
        wrong.append(f"says nothing to do: {said[-300:]}")
    again, now = forked(lambda: (_ended(case, root)[0], case.state(root)))
    if now != NEW or (again != "done" and not (case.refuses and state == NEW)):
        wrong.append(f"next run: {again}, {now}")
    if remote.ask("commits") - started > 2 + remote.ask("wrote"):
        wrong.append(f"{remote.ask('commits') - started} commits")
    if left := [n for n in temporary(root) if told != "killed" or "incomplete" not in n]:
        wrong.append(f"left after the next run: {left}")
    return told, wrong


def disturb(case: Case, remote: Remote, root: Path, chosen: str) -> list[Row]:
    """A row for every fault of the network."""
    fresh(case, root)
    remote.ask("forget")
    told, said = forked(lambda: _ended(case, root))
    count = len(remote.ask("requests"))
    if told != "done" or not 0 < count < _ENDLESS:
        raise SystemExit(f"{case.name}: undisturbed it ends in {told} after {count} requests: {said}")
    arms: dict[str, Callable[[int, int], object]] = {"kill -9": lambda k, pid: remote.ask("kill", pid, k)}

    def armed(label: str, times: int) -> Callable[[int, int], object]:
        return lambda k, pid: remote.ask("fault", label, k, times)

    for label in FAULTS:
        arms[label] = armed(label, 1)
        if label in LASTING:
            arms[f"{label}, from there on"] = armed(label, ALWAYS)
    if case.name.startswith("push, over"):
        arms["somebody else commits in between"] = lambda k, pid: remote.ask("come", k)
    rows = []
    for label, arm in arms.items():
        if chosen not in label:
            continue
        row = Told(case.name, label, count)
        for k in range(count):
            row.add(k + 1, *_one(case, remote, root, partial(arm, k)))
        if crashes := remote.ask("crashes"):
            raise SystemExit(f"the server itself failed: {crashes}")
        rows.append(row.row())
    return rows
