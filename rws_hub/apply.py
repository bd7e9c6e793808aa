"""Patch a checkpoint on disk: `rws apply`. It is copied block by block; the input is never written to."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from rws_hub.artifact import why_not_new
from rws_hub.deltas import Delta, Scratch, moving, patch_block
from rws_hub.disk import place, reason, scratch_folder, write
from rws_hub.errors import CheckpointError, PatchStateError
from rws_hub.judging import Terms, plan_patch
from rws_hub.plan import PatchPlan
from rws_hub.signature import RobustWeightSignature
from rws_hub.sources import INDEX_SUFFIX, checkpoint_files
from rws_hub.tensor_files import Entry, read_elements, read_entries

# Elements of a touched tensor, and bytes of what is copied, at a time.
_BLOCK, _COPY = 2**16, 2**20
_DEFAULT = Terms()


def apply_to_checkpoint(
    source: Path,
    signatures: Sequence[RobustWeightSignature],
    alphas: Sequence[float],
    out: Path,
    table: str | Path | None = None,
    terms: Terms = _DEFAULT,
    progress: bool = False,
) -> PatchPlan:
    """Write a patched copy of a (sharded) safetensors checkpoint.

    Nothing but the values of touched tensors changes: every other byte of a file, its header too, is that of the
    source. Memory is the signatures' and a few blocks, whatever the size of files and tensors.

    Args:
        source: a .safetensors file, an index, or a folder with one of them.
        signatures: what to add.
        alphas: one finite strength for each.
        out: a .safetensors file to write if the source is one file, otherwise a folder; must not exist yet.
        table: a name table of your own (docs/NAMES.md), used instead of those of the package.
        terms: which models and changes are refused.
        progress: show a progress bar on stderr.

    Returns:
        The plan that was carried out.

    Raises:
        CheckpointError: the source is not safetensors or cannot be read, or `out` exists or cannot be written.
        IncompatibleModelError: a signature does not fit, is of a stranger, or changes too much; nothing was written.
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
    verify, limit = terms.verify, terms.max_relative_norm
    plan = plan_patch(
        source, *signatures, alpha=tuple(alphas), verify=verify, max_relative_norm=limit, table=table
    ).require()
    entries = {file: read_entries(file) for file in files}
    layout = {name: entry.shape for found in entries.values() for name, entry in found.items()}
    deltas: dict[str, list[Delta]] = {}
    for signature, alpha, planned in zip(signatures, alphas, plan.signatures, strict=True):
        for binding in planned.bindings:
            shape = layout[binding.model]
            deltas.setdefault(binding.model, []).append(Delta(binding.model, shape, signature, binding.pieces, alpha))
    with _explained(f"{out}: cannot be written"), scratch_folder(out.parent, out.name) as scratch:
        for file in tqdm(files, desc="patching", unit="file", disable=None if progress else True, leave=False):
            with (scratch / file.name).open("xb") as target:
                target.writelines(_patched(file, entries[file], deltas))
                target.flush()
                os.fsync(target.fileno())
        if single:
            place(scratch / source.name, out)
        else:
            _copy_companions(source, scratch)
            place(scratch, out)
    return plan


def _patched(file: Path, entries: Mapping[str, Entry], deltas: Mapping[str, list[Delta]]) -> Iterator[memoryview]:
    """The bytes of a patched file, in order."""
    done, end = 0, max((entry.stop for entry in entries.values()), default=file.stat().st_size)
    for name, entry in entries.items():
        if on := moving(deltas.get(name, ())):
            yield from _copied(file, done, entry.start)
            yield from _patched_tensor(file, entry, on)
            done = entry.stop
    yield from _copied(file, done, end)


def _copied(file: Path, start: int, stop: int) -> Iterator[memoryview]:
    with _explained(f"{file}: cannot be read"), file.open("rb") as source:
        source.seek(start)
        while start < stop and (block := source.read(min(_COPY, stop - start))):
            yield memoryview(block)
            start += len(block)
    if start < stop:
        raise CheckpointError(f"{file}: ends before its header says; it was changed while it was read")


def _patched_tensor(file: Path, entry: Entry, on: Sequence[Delta]) -> Iterator[memoryview]:
    count = math.prod(entry.shape)
    scratch = Scratch(min(_BLOCK, count), torch.device("cpu"))
    for start in range(0, count, _BLOCK):
        block = read_elements(file, entry, start, min(_BLOCK, count - start))
        patch_block(block, start, on, scratch)
        yield block.view(torch.uint8).numpy().data


def _copy_companions(source: Path, target: Path) -> None:
    """The index and other JSON beside the shards (config, preprocessing), so that the copy loads as the original.

    An index of other shards stays behind: they are not in the copy.
    """
    for file in sorted((source if source.is_dir() else source.parent).glob("*.json")):
        other = file.name.endswith(INDEX_SUFFIX) and source.is_file() and file.name != source.name
        if file.is_file() and not other:
            write(target / file.name, file.read_bytes())


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{what} ({error.strerror or error}); {reason(error)}") from error
