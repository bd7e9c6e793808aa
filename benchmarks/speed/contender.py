"""What is measured: one way to put a delta on a model and to take it off, and the floor below all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from subject import Subject
from torch import nn

from rws_hub import Patch, RobustWeightSignature, patch

# What a contender does, in the order in which it does it: load into memory and patch with what was loaded, or both in
# one (`from file`); another strength; take off.
STEPS = ("load", "patch", "from file", "swap", "remove")
SWAPPED = 0.5


@dataclass(frozen=True)
class Contender:
    """Timed steps on a model of its own. `disk` is in bytes; `tidy` follows every round and is not timed."""

    label: str
    model: nn.Module
    steps: Mapping[str, Callable[[], object]]
    disk: int | None = None
    tidy: Callable[[], object] = lambda: None


def size(*files: Path) -> int:
    """Bytes on disk."""
    return sum(file.stat().st_size for file in files)


def floor(subject: Subject) -> Contender:
    """Reading and writing the touched bytes once: nothing that changes every touched weight does less."""
    model = subject.model()
    live = model.state_dict()
    source = {name: live[name].clone() for name in subject.delta}

    def copy() -> None:
        for name, value in source.items():
            live[name].copy_(value)

    return Contender("copy", model, {"patch": copy})


def rws_hub(
    subject: Subject, label: str, put: Callable[[nn.Module, RobustWeightSignature], Patch] = patch
) -> Contender:
    """This package; `put` says with which settings."""
    model, folder = subject.model(), subject.folder / "signature"
    loaded: list[RobustWeightSignature] = []
    handles: list[Patch] = []

    def load() -> None:
        loaded.append(RobustWeightSignature.from_pretrained(folder))

    def on() -> None:
        handles.append(put(model, loaded[0]))

    steps = {
        "load": load,
        "patch": on,
        "swap": lambda: handles[0].set_alpha(**{loaded[0].config.corruption.name: SWAPPED}),
        "remove": lambda: handles[0].unpatch(),
    }

    def forget() -> None:
        loaded.clear()
        handles.clear()

    return Contender(label, model, steps, size(folder / "config.json", folder / "rws.safetensors"), forget)


def dense(subject: Subject, label: str, read: Callable[[], dict[str, torch.Tensor]], disk: int) -> Contender:
    """A dense delta in float32, held in memory, added and subtracted in place."""
    model = subject.model()
    live = model.state_dict()
    held: dict[str, torch.Tensor] = {}
    strength = [0.0]

    def to(wanted: float) -> None:
        for name, delta in held.items():
            live[name].add_(delta, alpha=wanted - strength[0])
        strength[0] = wanted

    steps = {
        "load": lambda: held.update(read()),
        "patch": lambda: to(1),
        "swap": lambda: to(SWAPPED),
        "remove": lambda: to(0),
    }
    return Contender(label, model, steps, disk, held.clear)


def task_vector(subject: Subject) -> Contender:
    """The delta of the touched tensors from a file of its own."""
    file = subject.file("delta")
    return dense(subject, "dense", lambda: {n: t.clone() for n, t in load_file(file).items()}, size(file))


def mapped_task_vector(subject: Subject) -> Contender:
    """The same, added straight from the mapped file and not kept."""
    model, file = subject.model(), subject.file("delta")
    live = model.state_dict()

    def add(times: float) -> None:
        for name, delta in load_file(file).items():
            live[name].add_(delta, alpha=times)

    return Contender("dense, mapped", model, {"from file": lambda: add(1), "remove": lambda: add(-1)}, size(file))


def fake_quantized(subject: Subject) -> Contender:
    """As the paper's code does it: the whole model's delta, rounded to 15 levels per tensor but kept in float32.

    It writes no file of its own; what has to be sent is the robust checkpoint. It takes nothing off either, so the
    subtraction here is what a user of it could do.
    """

    def read() -> dict[str, torch.Tensor]:
        robust, clean = load_file(subject.file("robust")), load_file(subject.file("clean"))
        deltas = {name: robust[name].float() - clean[name].float() for name in clean}
        steps = {name: delta.abs().max().clamp_min(1e-12) / 7 for name, delta in deltas.items()}
        return {name: (delta / steps[name]).round_() * steps[name] for name, delta in deltas.items()}

    return dense(subject, "fake quantized", read, size(subject.file("robust")))


def checkpoint(subject: Subject) -> Contender:
    """The whole robust checkpoint, and the whole clean one to come back."""
    model = subject.model()

    def load(name: str) -> None:
        model.load_state_dict(load_file(subject.file(name)))

    steps = {"from file": lambda: load("robust"), "remove": lambda: load("clean")}
    return Contender("checkpoint", model, steps, size(subject.file("robust")))


def contenders(subject: Subject) -> list[Contender]:
    """All that need no other package than ours."""
    return [
        floor(subject),
        rws_hub(subject, "rws-hub"),
        rws_hub(subject, "rws-hub, ledger", lambda m, s: patch(m, s, removal="ledger")),
        rws_hub(subject, "rws-hub, reload", lambda m, s: patch(m, s, checkpoint=subject.file("clean"))),
        task_vector(subject),
        mapped_task_vector(subject),
        fake_quantized(subject),
        checkpoint(subject),
    ]
