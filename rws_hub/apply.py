"""Patch a checkpoint on disk: `rws apply`. One shard in memory at a time; the input is never written to."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from rws_hub.anchors import Delta, compose
from rws_hub.artifact import scratch_folder
from rws_hub.errors import CheckpointError, PatchStateError
from rws_hub.plan import PatchPlan
from rws_hub.planner import plan_patch
from rws_hub.signature import RobustWeightSignature
from rws_hub.sources import INDEX_SUFFIX, checkpoint_files


def apply_to_checkpoint(
    source: Path,
    signatures: Sequence[RobustWeightSignature],
    alphas: Sequence[float],
    out: Path,
    progress: bool = False,
) -> PatchPlan:
    """Write a patched copy of a (sharded) safetensors checkpoint.

    Every tensor keeps its name, dtype and shard; untouched ones keep their bytes.

    Args:
        source: a .safetensors file, an index, or a folder with one of them.
        signatures: what to add.
        alphas: one finite strength for each.
        out: a file to write if the source is one file, otherwise a folder; must not exist yet.
        progress: show a progress bar on stderr.

    Returns:
        The plan that was carried out.

    Raises:
        CheckpointError: the source is not safetensors, or `out` exists.
        IncompatibleModelError: a signature does not fit; nothing was written.
        PatchStateError: one signature twice, or a strength that overflows the weights; nothing was written.
        ValueError: a strength that is not a finite number.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists already; choose another name (nothing is ever overwritten)")
    if bad := [a for a in alphas if not math.isfinite(a)]:
        raise ValueError(f"alpha must be a finite number, found {bad[0]}")
    if len({s.config.digest for s in signatures}) < len(signatures):
        raise PatchStateError("the same signature is given twice; give it once, with the sum of both strengths")
    plan = plan_patch(source, *signatures).require()
    deltas: dict[str, dict[str, Delta]] = {}
    for signature, alpha, planned in zip(signatures, alphas, plan.signatures, strict=True):
        for binding in planned.bindings:
            order = signature.config.digest
            deltas.setdefault(binding.model, {})[order] = Delta(order, binding.model, signature, binding.pieces, alpha)
    files = checkpoint_files(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out.parent, out.name) as scratch:
        for file in tqdm(files, desc="patching", unit="file", disable=not progress, leave=False):
            _patch_file(file, deltas, scratch / file.name)
        if source.is_file() and not source.name.endswith(INDEX_SUFFIX):
            (scratch / source.name).rename(out)
        else:
            _copy_companions(source if source.is_dir() else source.parent, scratch)
            scratch.rename(out)
    return plan


def _patch_file(file: Path, deltas: dict[str, dict[str, Delta]], target: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    with safe_open(file, framework="pt", backend="pread") as handle:
        metadata = handle.metadata()
        for name in handle.keys():
            tensor = handle.get_tensor(name)
            tensors[name] = compose(tensor, deltas[name], name) if name in deltas else tensor
    save_file(tensors, target, metadata)


def _copy_companions(folder: Path, target: Path) -> None:
    """The index and other JSON beside the shards (config, preprocessing), so that the copy loads as the original."""
    for file in sorted(folder.glob("*.json")):
        shutil.copyfile(file, target / file.name)
