"""The questions about coding alone: against other ways to store the same matrices, against what is possible, in all."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import rivals
import safetensors.torch
from bounds import code_bits, scalar_bits, shannon_bits
from lab import MAIN, Answer, Lab, Maker, Rows
from questions import bits
from torch import Tensor

from rws_hub import RobustWeightSignature, patch
from rws_hub.codec import is_wide, relative_error
from rws_hub.evaluation.statistics import gain
from rws_hub.evaluation.variants import Variant
from rws_hub.training.state import digest

_LAYERS = ("all", "shallow")
_GROUPS, _BITS = (64, 128), (2, 3, 4)
_RANKS = (1, 2, 4, 8, 16)
# Relative errors of ours that are put beside rivals.
_OURS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# And beside the bounds.
_BOUNDED = (0.2, 0.4, 0.6, 0.8)
# How much less robust accuracy the smallest file may keep, a share: 0.1 points.
_LOSS = 0.001


def against_rivals(lab: Lab) -> Answer:
    """Robust accuracy by bytes of ours and others, every second corruption, seed 0; what differs is the matrices.

    Layers and vectors are those of our signature, so is the size of all that is not matrices. "ours" beside a rival is
    our largest file that is no larger than its.
    """
    corruptions = lab.setting.corruptions[::2]
    answer: Answer = {}
    for layers in _LAYERS:
        stored = {c: _stored(lab, c, layers) for c in corruptions}
        labels = list(stored[corruptions[0]])
        makers: dict[str, Maker] = {
            "fp32": lambda c, s, layers=layers: _ours(lab, c, s, layers, 0.0)  # type: ignore[misc]
        }
        makers |= {
            f"ours, {e}": (lambda c, s, e=e, layers=layers: _ours(lab, c, s, layers, e))  # type: ignore[misc]
            for e in _OURS
        }
        makers |= {k: (lambda c, s, k=k, d=stored, y=layers: _with(lab, c, s, y, d[c][k])) for k in labels}  # type: ignore[misc]
        rows = lab.rows(MAIN, makers, corruptions=corruptions, seeds=(0,))
        sizes = {f"ours, {e}": fmean(_signature(lab, c, layers, e).nbytes for c in corruptions) for e in _OURS}
        for k in labels:
            sizes[k] = fmean(_rest(_signature(lab, c, layers, _OURS[-1])) + stored[c][k].nbytes for c in corruptions)
        answer[layers] = {
            k: {**rows[k].summary(rows["fp32"]), "bytes": sizes.get(k), "ours": _beside(rows, sizes, k)} for k in makers
        }
    return {"corruptions": list(corruptions), **answer}


def efficiency(lab: Lab) -> Answer:
    """Bits of our coded weights beside the bounds at our error, tensor by tensor; and beside group absmax at its error.

    Means over every fourth corruption, seed 0. Bits are those of codes, steps and what stands aside, in the file;
    vectors, names and the card are not counted.
    """
    corruptions = lab.setting.corruptions[::4]
    answer: Answer = {}
    for layers in _LAYERS:
        bounded = {str(e): _mean([_bounds(lab, c, layers, e) for c in corruptions]) for e in _BOUNDED}
        groups = {
            f"{b} bits, groups of {g}": _mean([_absmax(lab, c, layers, b, g) for c in corruptions])
            for b in _BITS
            for g in _GROUPS
        }
        answer[layers] = {"bounds": bounded, "absmax": groups}
    return {"corruptions": list(corruptions), **answer}


def sizes(lab: Lab) -> Answer:
    """The file whose codes are coarsest of those that lose at most 0.1 points on average; bytes on disk, no README."""
    found = bits(lab)
    weights = safetensors.torch.load_file(lab.zoo.standard(MAIN, 0) / "model.safetensors")
    answer: Answer = {
        "checkpoint_bytes": found["checkpoint_bytes"],
        "kernel_bytes": sum(4 * t.numel() for t in weights.values() if t.dim() == 4),
    }
    for layers in _LAYERS:
        rows = found[layers]
        kept = {e: row["gain"]["corrupted"]["mean"] >= -_LOSS for e, row in rows.items() if e != "default"}
        chosen = max((e for e, near in kept.items() if near), key=float)
        finer = [near for e, near in kept.items() if float(e) <= float(chosen)]
        answer[layers] = {
            "error": chosen,
            "every_finer_one_too": all(finer),
            "bytes": fmean(
                _on_disk(lab.signature(MAIN, c, s, layers=layers, error=float(chosen)))
                for c in lab.setting.corruptions
                for s in lab.setting.few_seeds
            ),
            "touched": rows[chosen]["touched"],
            "corrupted": rows[chosen]["corrupted"],
            "gain": rows[chosen]["gain"],
        }
    return answer


CODING: dict[str, Callable[[Lab], Answer]] = {"rivals": against_rivals, "efficiency": efficiency, "sizes": sizes}


def _signature(lab: Lab, corruption: str, layers: str, error: float, seed: int = 0) -> RobustWeightSignature:
    return lab.signature(MAIN, corruption, seed, layers=layers, error=error)


def _matrices(lab: Lab, corruption: str, layers: str) -> dict[str, Tensor]:
    """The differences that are quantized, as they are."""
    exact = _signature(lab, corruption, layers, 0.0)
    return {n: exact.delta(n) for n in exact.names if is_wide(exact.config.shape(n))}


def _stored(lab: Lab, corruption: str, layers: str) -> dict[str, rivals.Stored]:
    """Every rival's matrices."""
    deltas = _matrices(lab, corruption, layers)
    found = {"signs": rivals.signs(deltas), "absmax, 4 bits, whole tensors": rivals.absmax(deltas, 4, None)}
    found |= {f"absmax, {b} bits, groups of {g}": rivals.absmax(deltas, b, g) for b in _BITS for g in _GROUPS}
    return found | {f"rank {r}": stored for r, stored in rivals.low_rank(deltas, _RANKS).items()}


def _coded(signature: RobustWeightSignature) -> int:
    """Bytes of all that matrices take in our payload."""
    parts = safetensors.torch.load(signature.payload)
    return sum(t.nbytes for name, t in parts.items() if name not in ("halves", "singles"))


def _rest(signature: RobustWeightSignature) -> int:
    """Bytes on disk of everything else: config, header and vectors."""
    return signature.nbytes - _coded(signature)


def _ours(lab: Lab, corruption: str, seed: int, layers: str, error: float) -> Variant:
    plain = lab.variant(lab.zoo.standard(MAIN, seed), MAIN)
    return Variant("", plain.model, plain.weights, ((_signature(lab, corruption, layers, error, seed), 1.0),))


def _with(lab: Lab, corruption: str, seed: int, layers: str, stored: rivals.Stored) -> Variant:
    """The standard model with our vectors on it and a rival's matrices."""
    plain = lab.variant(lab.zoo.standard(MAIN, seed), MAIN).model
    patched = copy.deepcopy(plain)
    with patch(plain, _signature(lab, corruption, layers, _OURS[-1], seed)):
        live = {n: t.detach().clone() for n, t in plain.state_dict().items()}
    clean = plain.state_dict()
    patched.load_state_dict(live | {n: clean[n] + d for n, d in stored.decoded.items()})
    return Variant("", patched, digest(patched))


def _beside(rows: Mapping[str, Rows], sizes: Mapping[str, float], rival: str) -> dict[str, Any] | None:
    """What our largest file of no more bytes gains over a rival, if there is one."""
    fitting = [k for k in sizes if k.startswith("ours") and sizes[k] <= sizes.get(rival, 0.0)]
    if rival.startswith("ours") or not fitting:
        return None
    best = max(fitting, key=lambda k: sizes[k])
    found = gain(list(rows[rival].corrupted.values()), list(rows[best].corrupted.values()))
    return {"error": best.removeprefix("ours, "), "bytes": sizes[best], "gain": [found.mean, found.low, found.high]}


def _bounds(lab: Lab, corruption: str, layers: str, error: float) -> dict[str, float]:
    """Means over all coded weights of one signature, every tensor bounded at the error that ours has in it.

    "codes" is the entropy of our own codes, tensor by tensor: what an ideal coder would make of them.
    """
    signature, deltas = _signature(lab, corruption, layers, error), _matrices(lab, corruption, layers)
    count = sum(d.numel() for d in deltas.values())
    found = {"bits": 8 * _coded(signature) / count, "codes": 0.0, "scalar": 0.0, "shannon": 0.0}
    for name, delta in deltas.items():
        values = delta.double().reshape(-1).numpy()
        ours, packed = signature.delta(name).double().reshape(-1).numpy(), signature.tensors[name]
        squared = float(((ours - values) ** 2).mean())
        # Of a delta that is stored as factors the codes are theirs; of any other, they differ where its values do.
        codes = packed.parts["factors"].double().numpy() if packed.encoding == "factors" else ours
        found["codes"] += code_bits(codes) * len(codes) / count
        found["scalar"] += scalar_bits(values, squared) * len(values) / count
        found["shannon"] += shannon_bits(values, squared) * len(values) / count
    return {**found, "error": _error(deltas, {n: signature.delta(n) for n in deltas})}


def _absmax(lab: Lab, corruption: str, layers: str, width: int, group: int) -> dict[str, float]:
    """Group absmax, and ours at its error, or at the coarsest that `extract` takes."""
    deltas = _matrices(lab, corruption, layers)
    stored = rivals.absmax(deltas, width, group)
    error = _error(deltas, stored.decoded)
    ours = _signature(lab, corruption, layers, min(error, 0.9))
    count = sum(d.numel() for d in deltas.values())
    return {
        "error": error,
        "error of ours": _error(deltas, {n: ours.delta(n) for n in deltas}),
        "bits": 8 * stored.nbytes / count,
        "ours": 8 * _coded(ours) / count,
    }


def _error(exact: Mapping[str, Tensor], decoded: Mapping[str, Tensor]) -> float:
    """Relative, of all together."""
    missed = sum((relative_error(d, decoded[n]) * float(d.double().norm())) ** 2 for n, d in exact.items())
    return math.sqrt(missed / sum(float(d.double().square().sum()) for d in exact.values()))


def _mean(found: list[dict[str, float]]) -> dict[str, float]:
    return {k: fmean(f[k] for f in found) for k in found[0]}


def _on_disk(signature: RobustWeightSignature) -> int:
    with tempfile.TemporaryDirectory() as folder:
        signature.save_pretrained(folder)
        return sum(p.stat().st_size for p in Path(folder).iterdir() if p.name != "README.md")
