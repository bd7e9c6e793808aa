"""Operations to be disturbed: what is there before, what is done, and how old, new and mixed are told apart."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from builders import perturbed, tiny_resnet
from forge import small_signature
from published import measured
from safetensors.torch import save_file

from rws_hub import RobustWeightSignature, cli, contents
from rws_hub.artifact import read_results
from rws_hub.errors import RWSError

OLD, NEW = "old", "new"
SAID = "Nobody shall lose this sentence."


@dataclass(frozen=True, slots=True)
class Case:
    """One operation.

    Attributes:
        name: for the table.
        prepare: makes what is there before in an empty folder.
        run: does it there; raises what a user would see, or returns an exit code.
        state: what is there: "old", "new", or what is wrong with it.
        refuses: whether a second run says that what it makes is there already.
        rivals: whether another process that does the same (and `other`) may come in between.
        other: what a second writer does, if not the same.
    """

    name: str
    prepare: Callable[[Path], object]
    run: Callable[[Path], int | None]
    state: Callable[[Path], str]
    refuses: bool = False
    other: Callable[[Path], int | None] | None = None


def command(*words: object) -> int:
    """A command line in this process, silent; what it says goes to `last`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    last[:] = [out.getvalue(), err.getvalue()]
    return code


last: list[str] = []


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for what is named as temporary."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {n: p.read_bytes() for p in found if ".rws-" not in (n := p.relative_to(folder).as_posix())}


@cache
def model() -> Any:
    """The clean model of every signature here."""
    return tiny_resnet(num_classes=4)


@cache
def fog() -> RobustWeightSignature:
    """A signature of `model`."""
    facts: dict[str, Any] = {"corruption": "fog", "severity": 5, "license": "mit", "layers": 2}
    return RobustWeightSignature.extract(standard=model(), robust=perturbed(model(), 0.01, 1), **facts)


# --- save


def _saved(folder: Path) -> None:
    """An artifact that a person has written into, and a file of theirs."""
    small_signature(seed=1).save_pretrained(folder)
    card = folder / "README.md"
    card.write_text(card.read_text("utf-8") + f"\n{SAID}\n", "utf-8")
    (folder / "notes.txt").write_text("mine")


def _told(folder: Path) -> tuple[object, ...]:
    found, card = contents.read_all(folder)
    RobustWeightSignature.from_pretrained(folder)
    return found.config.digest, bytes(found.payload), found.results, card


def _save(folder: Path, seed: int) -> None:
    signature = small_signature(seed=seed)
    signature.save_pretrained(folder, results=measured(signature))


def _compared(folder: Path, expected: dict[str, tuple[object, ...]]) -> str:
    try:
        found = _told(folder)
    except (RWSError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return next((name for name, told in expected.items() if told == found), "a mixture")


def save_new(scratch: Path) -> Case:
    """Save into a folder that is not there."""
    small_signature(seed=2).save_pretrained(scratch / "expected")
    expected = files(scratch / "expected")

    def state(root: Path) -> str:
        out = root / "fog"
        return OLD if not out.exists() else NEW if files(out) == expected else f"holds {sorted(files(out))}"

    def run(root: Path) -> None:
        small_signature(seed=2).save_pretrained(root / "fog")

    return Case("save, new folder", lambda root: None, run, state)


def save_over(scratch: Path) -> Case:
    """Save over another signature, with results."""
    expected = {}
    for name, seed in ((OLD, None), (NEW, 2), ("other", 3)):
        _saved(scratch / name)
        if seed is not None:
            _save(scratch / name, seed)
        expected[name] = _told(scratch / name)

    def state(root: Path) -> str:
        found = _compared(root / "fog", expected)
        return found if (root / "fog" / "notes.txt").exists() else "notes are lost"

    return Case(
        "save, over another",
        lambda root: _saved(root / "fog"),
        lambda root: _save(root / "fog", 2),
        state,
        other=lambda root: _save(root / "fog", 3),
    )


def card(scratch: Path) -> Case:
    """`rws card --results`: the card and results.json change together."""
    expected = {}

    def prepare(root: Path) -> None:
        _saved(root / "fog")
        (root / "results.json").write_text(measured(small_signature(seed=1)).to_text(), "utf-8")

    def run(root: Path) -> int:
        return command("card", root / "fog", "--results", root / "results.json")

    prepare(scratch)
    expected[OLD] = _told(scratch / "fog")
    run(scratch)
    expected[NEW] = _told(scratch / "fog")
    assert read_results(scratch / "fog") is not None
    return Case("card", prepare, run, lambda root: _compared(root / "fog", expected))


# --- apply


def _source(folder: Path, *, sharded: bool) -> None:
    tensors = {n: t.contiguous() for n, t in model().state_dict().items()}
    folder.mkdir(parents=True)
    fog().save_pretrained(folder.parent / "fog")
    if not sharded:
        save_file(tensors, folder / "model.safetensors")
        return
    names = sorted(tensors)
    parts = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, part in parts.items():
        save_file({n: tensors[n] for n in part}, folder / file)
    index = {"weight_map": {n: file for file, part in parts.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")


def apply(scratch: Path, *, sharded: bool) -> Case:
    """`rws apply` to one file, or to a folder of shards."""
    name = "patched" if sharded else "patched.safetensors"

    def run(root: Path) -> int:
        source = root / "model" if sharded else root / "model" / "model.safetensors"
        return command("apply", root / "fog", source, "-o", root / name, "--json")

    def prepare(root: Path) -> None:
        _source(root / "model", sharded=sharded)

    prepare(scratch)
    if run(scratch):
        raise SystemExit(last[1])
    expected = files(scratch)

    def state(root: Path) -> str:
        found = files(root)
        if found == expected:
            return NEW
        return OLD if not (root / name).exists() else f"differs in {sorted(expected.items() ^ found.items())[:1]}"

    return Case(f"apply, {'folder of shards' if sharded else 'file'}", prepare, run, state, refuses=True)
