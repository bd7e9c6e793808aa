"""Patch a checkpoint on disk: `rws apply`. One shard in memory at a time; the input is never written to."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from rws_hub.artifact import give_usual_mode, scratch_folder, why_not_new
from rws_hub.deltas import Delta, Scratch, moving, patch_block
from rws_hub.errors import CheckpointError, PatchStateError
from rws_hub.plan import PatchPlan
from rws_hub.planner import plan_patch
from rws_hub.signature import RobustWeightSignature
from rws_hub.sources import INDEX_SUFFIX, checkpoint_files, file_layout

# Elements worked on at a time.
_BLOCK = 2**16


def apply_to_checkpoint(
    source: Path,
    signatures: Sequence[RobustWeightSignature],
    alphas: Sequence[float],
    out: Path,
    table: str | Path | None = None,
    progress: bool = False,
) -> PatchPlan:
    """Write a patched copy of a (sharded) safetensors checkpoint.

    Every tensor keeps its name, dtype and shard; a file in which nothing changes keeps its bytes. Same source,
    signatures and strengths, same bytes.

    Args:
        source: a .safetensors file, an index, or a folder with one of them.
        signatures: what to add.
        alphas: one finite strength for each.
        out: a .safetensors file to write if the source is one file, otherwise a folder; must not exist yet.
        table: a name table of your own (docs/NAMES.md), used instead of those of the package.
        progress: show a progress bar on stderr.

    Returns:
        The plan that was carried out.

    Raises:
        CheckpointError: the source is not safetensors or cannot be read, or `out` exists or cannot be written.
        IncompatibleModelError: a signature does not fit; nothing was written.
        PatchStateError: one signature twice, or a strength that overflows the weights; nothing was written.
        ValueError: a strength that is not a finite number.
    """
    if reason := why_not_new(out):
        raise CheckpointError(f"{out} {reason}; choose another name (nothing is ever overwritten)")
    files = checkpoint_files(source)
    single = source in files
    if single and out.suffix != ".safetensors":
        raise CheckpointError(f"{out}: the patched copy of one file is one file; give it a name in .safetensors")
    if bad := [a for a in alphas if not math.isfinite(a)]:
        raise ValueError(f"alpha must be a finite number, found {bad[0]}")
    if len({s.config.digest for s in signatures}) < len(signatures):
        raise PatchStateError("the same signature is given twice; give it once, with the sum of both strengths")
    plan = plan_patch(source, *signatures, table=table).require()
    layout = {name: shape for file in files for name, (_, shape) in file_layout(file).items()}
    deltas: dict[str, list[Delta]] = {}
    for signature, alpha, planned in zip(signatures, alphas, plan.signatures, strict=True):
        for binding in planned.bindings:
            shape = layout[binding.model]
            deltas.setdefault(binding.model, []).append(Delta(binding.model, shape, signature, binding.pieces, alpha))
    with _explained(f"{out}: cannot be written"), scratch_folder(out.parent, out.name) as scratch:
        for file in tqdm(files, desc="patching", unit="file", disable=not progress, leave=False):
            _patch_file(file, deltas, scratch / file.name)
        if single:
            (scratch / source.name).rename(out)
        else:
            _copy_companions(source, scratch)
            scratch.rename(out)
    return plan


def _patch_file(file: Path, deltas: dict[str, list[Delta]], target: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    with _explained(f"{file}: cannot be read"), safe_open(file, framework="pt", backend="pread") as handle:
        metadata = handle.metadata()
        names = handle.keys()
        if any(d.alpha for name in names for d in deltas.get(name, ())):
            for name in names:
                tensors[name] = handle.get_tensor(name)
                _patch_tensor(tensors[name], moving(deltas.get(name, ())))
    if tensors:
        save_file(tensors, target, metadata)
        _settle(target)
    else:
        shutil.copyfile(file, target)


def _patch_tensor(tensor: torch.Tensor, on: list[Delta]) -> None:
    flat, scratch = tensor.view(-1), Scratch(min(_BLOCK, tensor.numel()), tensor.device)
    for start in range(0, len(flat) if on else 0, _BLOCK):
        patch_block(flat[start : start + _BLOCK], start, on, scratch)


def _settle(file: Path) -> None:
    """Put right what safetensors leaves open: the order of the metadata is random, the mode is 0600."""
    with file.open("r+b") as handle:
        size = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        handle.seek(8)
        handle.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size))
    give_usual_mode(file)


def _copy_companions(source: Path, target: Path) -> None:
    """The index and other JSON beside the shards (config, preprocessing), so that the copy loads as the original.

    An index of other shards stays behind: they are not in the copy.
    """
    for file in sorted((source if source.is_dir() else source.parent).glob("*.json")):
        other = file.name.endswith(INDEX_SUFFIX) and source.is_file() and file.name != source.name
        if file.is_file() and not other:
            shutil.copyfile(file, target / file.name)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{what} ({error})") from error
