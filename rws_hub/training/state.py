"""How far a training is: one safetensors file, replaced as a whole, from which it goes on as if never interrupted."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rws_hub import jsonio
from rws_hub.artifact import write_files
from rws_hub.errors import TrainingError
from rws_hub.training.settings import EpochRecord

STATE_FILE = "state.safetensors"
BEST_FILE = "best.safetensors"

_MODEL, _OPTIMIZER, _KEY = "model/", "optimizer/", "training"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is.

    Attributes:
        identity: what it is a training of, a flat table of words and numbers.
        epoch: the one that is going on, counted from 0.
        step: how many of its steps are done.
        loss: sum of their losses, nats.
        done: the finished epochs.
        best: the best of them so far; -1 before the first.
        seconds: spent so far.
    """

    identity: dict[str, str]
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    done: tuple[EpochRecord, ...] = ()
    best: int = -1
    seconds: float = 0.0


def save(out: Path, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Replace the state of a training, whole or not at all."""
    tensors = {_MODEL + n: t for n, t in weights(model).items()}
    for number, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if value is not None:
                tensors[f"{_OPTIMIZER}{number}/{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    text = jsonio.canonical(jsonio.to_json(progress)).decode()
    write_files(out, {STATE_FILE: safetensors.torch.save(tensors, {_KEY: text})})


def load(out: Path, identity: Mapping[str, str], model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put model and optimizer where they were, and tell where that is; None if nothing was begun.

    Raises:
        TrainingError: the state is of another training, or cannot be read.
    """
    file = out / STATE_FILE
    if not file.exists():
        return None
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get(_KEY, "")
            tensors = {n: opened.get_tensor(n) for n in opened.keys()}
        progress = jsonio.decode(Progress, jsonio.parse(text, str(file)), str(file))
    except (safetensors.SafetensorError, ValueError) as error:
        raise TrainingError(f"{file} cannot be read ({error}); delete the folder to begin anew") from error
    if different := [k for k in {**identity, **progress.identity} if identity.get(k) != progress.identity.get(k)]:
        key = different[0]
        raise TrainingError(
            f"{out} holds an unfinished training with {key} {progress.identity.get(key, 'not stated')!r}; now it is "
            f"{identity.get(key, 'not stated')!r}. Go on with the same settings, or choose another folder"
        )
    put(model, {n.removeprefix(_MODEL): t for n, t in tensors.items() if n.startswith(_MODEL)})
    found: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMIZER):
            number, _, key = name.removeprefix(_OPTIMIZER).partition("/")
            found.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": found})
    return progress


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors on the CPU, each once where several names share one."""
    seen: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if tensor.numel() and place in seen:
            continue
        seen[place] = name
        found[name] = tensor.detach().cpu().contiguous()
    return found


def put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The opposite of `weights`."""
    missing, unexpected = model.load_state_dict(dict(tensors), strict=False)
    expected = set(weights(model))
    if lost := [n for n in missing if n in expected] + list(unexpected):
        raise TrainingError(f"the saved weights are those of another model: {lost[0]} is missing or unexpected")


def digest(model: nn.Module) -> str:
    """sha256 over names and bytes of a model's weights."""
    total = hashlib.sha256()
    for name, tensor in sorted(weights(model).items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()


def flat(value: object, prefix: str = "") -> dict[str, str]:
    """A nested dataclass as a flat table of words."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found: dict[str, str] = {}
        for field in dataclasses.fields(value):
            found |= flat(getattr(value, field.name), f"{prefix}.{field.name}".lstrip("."))
        return found
    return {prefix: str(value)}
