"""Where weights come from: a module, a state dict, or safetensors files read tensor by tensor.

A `Weights` is only a layout and a way to read rows of one tensor. Walking through a checkpoint of any size,
block by block, keeps a few blocks in memory and no more.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from rws_hub import jsonio
from rws_hub.cells import Shape
from rws_hub.errors import CheckpointError, NameTableError
from rws_hub.names import Family
from rws_hub.recognise import Recognition, recognise, why_unexplained
from rws_hub.spelling import IDENTITY, Piece, flaw
from rws_hub.tensor_files import FLOATS, Entry, read_entries, read_rows

WeightsLike: TypeAlias = "nn.Module | Mapping[str, torch.Tensor] | str | Path"

# What PEFT calls the tensors of an adapter and the layer that it wraps.
_ADAPTER = re.compile(r"(^|\.)(lora_\w+|base_layer)\.")
INDEX_SUFFIX = ".safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Weights:
    """Floating tensors by name.

    Attributes:
        label: what to call this source in messages.
        layout: name -> shape; integer buffers and second names of shared tensors are left out.
        others: name -> what it is instead of a floating tensor.
        rows: returns rows [start, stop) of axis 0 of one tensor on the CPU, in its own dtype; a tensor without
            axes is returned whole.
    """

    label: str
    layout: Mapping[str, Shape]
    rows: Callable[[str, int, int], torch.Tensor]
    others: Mapping[str, str]


def open_weights(source: WeightsLike, label: str) -> Weights:
    """Open a module, a state dict or a path to (sharded) safetensors, reading nothing but names and shapes.

    Raises:
        CheckpointError: the path is not safetensors, or holds something that could be no parameter.
    """
    if isinstance(source, nn.Module):
        return _from_tensors(live_tensors(source), label)
    if isinstance(source, Mapping):
        return _from_tensors(source, label)
    files = checkpoint_files(Path(source))
    where: dict[str, tuple[Path, Entry]] = {}
    others: dict[str, str] = {}
    for file in files:
        for name, entry in read_entries(file).items():
            if name in where:
                raise CheckpointError(f"{label}: the tensor {name} is in {where[name][0].name} and in {file.name}")
            if entry.dtype in FLOATS:
                where[name] = (file, entry)
            else:
                others[name] = f"a tensor of {entry.dtype}"

    def rows(name: str, start: int, stop: int) -> torch.Tensor:
        return read_rows(*where[name], start, stop)

    return Weights(label, {name: entry.shape for name, (_, entry) in where.items()}, rows, others)


def live_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and persistent buffer of a module, the very objects, under every name they have."""
    found: dict[str, torch.Tensor] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        buffers = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
        for name, tensor in {**module._parameters, **buffers}.items():
            if tensor is not None:
                found[dot + name] = tensor
    return found


def checkpoint_files(path: Path) -> list[Path]:
    """The safetensors files behind a path: one file, an index, or a folder with either.

    Raises:
        CheckpointError: nothing usable there, a pickle, or an index that names a file elsewhere.
    """
    if path.is_dir():
        indices = sorted(path.glob("*" + INDEX_SUFFIX))
        singles = sorted(path.glob("*.safetensors"))
        if len(indices) > 1 or (not indices and len(singles) != 1):
            raise CheckpointError(
                f"{path}: expected one .safetensors file or one index, found {len(indices)} indices and "
                f"{len(singles)} files. Name the file itself."
            )
        path = (indices or singles)[0]
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file or folder")
    if path.name.endswith(INDEX_SUFFIX):
        return _index_files(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: only .safetensors is read (a pickle can run code). Load it with its own library and pass "
            "the model, or save it again with safetensors."
        )
    return [path]


def _index_files(index: Path) -> list[Path]:
    try:
        names = sorted(set(jsonio.parse(index.read_bytes(), index.name)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index}: not a safetensors index ({error})") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or len(name) > 255 or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: {jsonio.shown(name)} is not the name of a file beside it")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: the shard {jsonio.named(name)} is missing")
    return [index.parent / n for n in names]


def _from_tensors(tensors: Mapping[str, torch.Tensor], label: str) -> Weights:
    kept: dict[str, torch.Tensor] = {}
    seen: set[tuple[object, ...]] = set()
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{label}: tensors must go by names, found the key {name!r}")
        if not is_floating(tensor):
            continue
        if tensor.is_meta:
            raise CheckpointError(f"{label}: {name} is on the meta device and holds no values; load the weights first")
        key = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if key in seen:
            continue  # a second name of a shared tensor
        seen.add(key)
        kept[name] = tensor
    layout = {n: tuple(t.shape) for n, t in kept.items()}
    return Weights(label, layout, partial(tensor_rows, kept), what_else(tensors))


def is_floating(tensor: object) -> bool:
    """Whether something is a tensor of floating numbers, and holds any."""
    return isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel() > 0


def what_else(tensors: Mapping[str, object]) -> dict[str, str]:
    """What anything else is, in words, by name."""
    others = {n: t for n, t in tensors.items() if not is_floating(t)}
    return {
        n: type(t).__name__ if not isinstance(t, torch.Tensor) else f"a tensor of {t.dtype}" if t.numel() else "empty"
        for n, t in others.items()
    }


def tensor_rows(tensors: Mapping[str, torch.Tensor], name: str, start: int, stop: int) -> torch.Tensor:
    """`Weights.rows` of tensors in memory."""
    tensor = tensors[name].detach()
    return (tensor[start:stop] if tensor.ndim else tensor).cpu()


@dataclass(frozen=True, slots=True)
class CanonicalWeights:
    """Weights under canonical names (`recognition.body`): a fused tensor is put together row block by row block.

    `rows` is that of `Weights`.
    """

    label: str
    recognition: Recognition
    rows: Callable[[str, int, int], torch.Tensor]


def canonical_weights(weights: Weights, table: Family | None = None) -> CanonicalWeights:
    """Explain a source's names, by one table or by those of the package.

    Raises:
        CheckpointError: nothing floating in it, an adapter that is not merged, several backbones that could be
            meant, or a table that does not explain it.
        NameTableError: a table that loses or doubles a part of it in another column.
    """
    if not weights.layout:
        raise CheckpointError(f"{weights.label}: holds no floating tensors")
    if adapter := next((n for n in weights.layout if _ADAPTER.search(n)), None):
        raise CheckpointError(
            f"{weights.label}: {adapter} belongs to an adapter that is not merged into the layers; merge it first "
            "(PEFT: model.merge_and_unload())"
        )
    found = recognise(weights.layout, None if table is None else [table])
    if len(found) > 1:
        places = ", ".join(f"{r.family} under '{r.prefix}'" for r in found)
        raise CheckpointError(f"{weights.label}: several backbones could be meant ({places}); pass one of them alone")
    if table is not None and found[0].family == IDENTITY:
        raise CheckpointError(
            f"{weights.label}: the table {table.name} does not explain its names: it "
            f"{why_unexplained(weights.layout, table)}. Every tensor must have a row"
        )
    if table is not None and (problem := flaw(table, found[0].body)):
        raise NameTableError(f"the table {table.name} {problem}. Every number must have one place in every column")
    homes = by_canonical(found[0].pieces)
    body = found[0].body

    def rows(name: str, start: int, stop: int) -> torch.Tensor:
        return gather(weights, homes[name], body[name], start, stop)

    return CanonicalWeights(weights.label, found[0], rows)


def by_canonical(pieces: Iterable[Piece]) -> dict[str, list[Piece]]:
    """Pieces by the canonical tensor that they are parts of, in the order of their row blocks."""
    homes: dict[str, list[Piece]] = {}
    for piece in sorted(pieces, key=lambda p: p.part.start if p.part else 0):
        homes.setdefault(piece.canonical, []).append(piece)
    return homes


def gather(weights: Weights, pieces: Iterable[Piece], shape: Shape, start: int, stop: int) -> torch.Tensor:
    """Rows [start, stop) of a canonical tensor, put together from where the model keeps them.

    Pieces that are the same part of it are summed, in float64.
    """
    parts: dict[tuple[int, int], list[torch.Tensor]] = {}
    for piece in pieces:
        first, last = (piece.part.start, piece.part.stop) if piece.part else (0, shape[0] if shape else 1)
        if first < stop and last > start:
            own = (max(start, first) - first, min(stop, last) - first)
            parts.setdefault((first, last), []).append(
                _read(weights, piece, (last - first, *shape[1:]) if shape else (), *own)
            )
    summed = [p[0] if len(p) == 1 else functools.reduce(torch.add, (x.double() for x in p)) for p in parts.values()]
    return summed[0] if len(summed) == 1 else torch.cat(summed)


def _read(weights: Weights, piece: Piece, shape: Shape, start: int, stop: int) -> torch.Tensor:
    """Rows [start, stop) of one piece, whose canonical part has this shape."""
    found, home = weights.layout[piece.model], piece.model_part
    if home is not None and home.axis == 0:
        return weights.rows(piece.model, home.start + start, home.start + stop).reshape(stop - start, *shape[1:])
    if found[:1] != shape[:1]:  # axes of length 1 stand in front of one of the two: read it all
        return weights.rows(piece.model, 0, found[0] if found else 1).reshape(shape)[start:stop]
    block = weights.rows(piece.model, start, stop)
    block = block if home is None else block.narrow(home.axis, home.start, home.stop - home.start)
    return block.reshape(stop - start, *shape[1:])
