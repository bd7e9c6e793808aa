"""From checkpoints to config and payload: what a signature states, and how coarse it is stored."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from rws_hub import layers
from rws_hub._version import __version__
from rws_hub.codec import is_wide
from rws_hub.config import oldest_format, parse_config
from rws_hub.errors import ExtractionError
from rws_hub.extract import Encoder
from rws_hub.layers import SHALLOW_SHARE, LayerRule
from rws_hub.measuring import Measured, measure
from rws_hub.payload import parts_of, write_payload
from rws_hub.pools import pool
from rws_hub.rate import Target, choose
from rws_hub.sources import CanonicalWeights
from rws_hub.spec import (
    FORMAT,
    Backbone,
    Codec,
    Corruption,
    Extraction,
    Payload,
    SignatureConfig,
    stream_bytes,
)
from rws_hub.trio import Trio

_BITS = (0.1, 8.0)
# For a size on disk: factors of large matrices take less than a tenth of a bit for each of their elements.
_FEWEST = 0.005
_ERRORS = (0.001, 0.9)
# How often a size is aimed at, and from which share of it on it is met.
_ATTEMPTS, _MET = 8, 0.985

# Config and payload.
_Made = tuple[SignatureConfig, memoryview]


@dataclass(frozen=True, slots=True)
class Statement:
    """What a person says about a signature, and what was found out about its backbone."""

    description: str
    license: str
    corruption: Corruption
    alpha: float
    backbone: Backbone
    layers: LayerRule
    batchnorm: Literal["delta", "none"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How coarse: a target for the quantizer (None: float32), or the bytes that all may take."""

    target: Target | None
    max_bytes: int | None


def wanted_rate(bits: float | None, error: float | None, max_bytes: int | None) -> Wanted:
    """What was asked for.

    Raises:
        ExtractionError: more than one of them, or a number that cannot be.
    """
    if sum(x is not None for x in (bits, error, max_bytes)) > 1:
        raise ExtractionError("bits, error and max_bytes all say how coarse the weights are stored; pass one of them")
    for name, value, (low, high) in (("bits", bits, _BITS), ("error", error, _ERRORS)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and (low <= value <= high or (name == "bits" and value == 32))):
            plain = ", or 32 for plain float32" if name == "bits" else ""
            raise ExtractionError(f"{name}={value!r}: expected a number from {low:g} to {high:g}{plain}")
    if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 1):
        raise ExtractionError(f"max_bytes={max_bytes!r}: expected a whole number of bytes")
    if bits is not None:
        return Wanted(None if bits == 32 else Target("bits", float(bits)), None)
    return Wanted(Target("default") if error is None else Target("error", float(error)), max_bytes)


def executed_modules(model: object, example_input: torch.Tensor | None, weights: CanonicalWeights) -> list[str] | None:
    """Execution order that no table states, when there is a live model to trace or an example to watch."""
    found = weights.recognition
    if layers.states_order(found.table, found.body):
        return None
    if example_input is not None and not isinstance(model, nn.Module):
        raise ExtractionError("example_input needs the standard model as a live module, not as a file or state dict")
    if not isinstance(model, nn.Module):
        return None
    try:
        seen = (
            layers.traced(model, found.prefix)
            if example_input is None
            else layers.watch(model, example_input, found.prefix)
        )
    except Exception as error:  # whatever a foreign model raises
        raise ExtractionError(f"running the standard model on example_input failed: {error}") from error
    return seen if seen is None or found.table is None else layers.canonical_order(seen, found.pieces, found.prefix)


def make(trio: Trio, statement: Statement, wanted: Wanted, executed: Sequence[str] | None, progress: bool) -> _Made:
    """Config and payload of a new signature.

    Args:
        trio: the checkpoints.
        statement: what to say about it.
        wanted: how coarse.
        executed: execution order of a backbone without a table (`executed_modules`).
        progress: show a progress bar on stderr.

    Raises:
        ExtractionError: as in `measuring.measure` and `extract.Encoder`; a size that cannot be met; values that
            no config can hold.
    """
    coded, batchnorm = wanted.target is not None, statement.batchnorm == "delta"
    measured = measure(trio, statement.layers, coded, batchnorm, executed, progress)

    def once(target: Target | None) -> _Made:
        return _assemble(trio, statement, measured, target, progress)

    made = once(wanted.target)
    return made if wanted.max_bytes is None else _fit(once, made, wanted.max_bytes)


def _fit(once: Callable[[Target], _Made], made: _Made, most: int) -> _Made:
    """The largest signature that takes at most so many bytes, nearly; `made` is one to begin with."""
    coded = made[0].coded
    fitting: _Made | None = made if _size(made) <= most else None
    # Bits that are known to be few enough, and too many.
    (low, high), bits = (_FEWEST, _BITS[1]), made[0].coded_bits
    for _ in range(_ATTEMPTS if coded else 0):
        if fitting is not None and (_size(fitting) >= _MET * most or low == _BITS[1]):
            break
        bits += 8 * ((1 + _MET) / 2 * most - _size(made)) / coded
        if not low < bits < high:
            # Beyond what is known already: at the very end once, and else in the middle.
            bits = high if bits >= high == _BITS[1] else low if bits <= low == _FEWEST else (low + high) / 2
        made = once(Target("bits", bits))
        if _size(made) <= most:
            fitting, low = (made if fitting is None or _size(made) > _size(fitting) else fitting), bits
        elif bits == _FEWEST:
            break
        else:
            high = bits
    if fitting is None and coded and bits != _FEWEST:
        made = once(Target("bits", _FEWEST))
        fitting = made if _size(made) <= most else None
    if fitting is None:
        raise ExtractionError(
            f"max_bytes={most:,} cannot be met: {_size(made):,} bytes are needed. Keep fewer layers (layers=), or "
            "allow more"
        )
    return fitting


def _size(made: _Made) -> int:
    return len(made[0].to_text().encode()) + len(made[1])


def _assemble(trio: Trio, statement: Statement, measured: Measured, target: Target | None, progress: bool) -> _Made:
    grid = None if target is None or measured.sample is None else choose(measured.sample, target)
    encoder = Encoder(trio, measured, grid)
    if grid is None:
        parts, codec = parts_of(dict(encoder.run(progress))), Codec("float32", 32)
    else:
        body = trio.standard.recognition.body
        symbols = [n for n in measured.order if is_wide(body[n]) and n not in grid.factored]
        size = sum(stream_bytes(math.prod(body[n]), grid.width) for n in symbols)
        parts = pool((packed for _, packed in encoder.run(progress)), size)
        lengths = {label: len(parts.get(label, ())) for label in ("frame", "escapes", "factors")}
        codec = Codec("entropy", grid.width, lengths["frame"], lengths["escapes"], lengths["factors"] or None)
    payload, found = write_payload(parts), encoder.extracted()
    rule = statement.layers
    named = () if isinstance(rule, (str, int)) else tuple(rule)
    config = SignatureConfig(
        format=FORMAT,
        format_version=oldest_format(statement.backbone, codec, found.sketch),
        rws_hub_version=__version__,
        description=statement.description,
        license=statement.license,
        corruption=statement.corruption,
        recommended_alpha=statement.alpha,
        relative_error=found.relative_error,
        backbone=statement.backbone,
        sources=found.sources,
        sketch=found.sketch,
        extraction=Extraction(
            recipe="from-clean" if trio.pretrained is None else "two-branch",
            method="difference" if trio.pretrained is None else "projection",
            layers="names" if named else "shallow" if rule == "shallow" else "first",
            share=SHALLOW_SHARE if rule == "shallow" else None,
            patterns=named,
            batchnorm=statement.batchnorm,
            profile=measured.profile,
        ),
        codec=codec,
        tensors=found.facts,
        payload=Payload(len(payload), hashlib.sha256(payload).hexdigest()),
        digest="",
    ).with_seal()
    try:
        return parse_config(config.to_text()), payload  # what is written must be what can be read
    except ValueError as error:
        raise ExtractionError(str(error).removeprefix("config.json: ")) from error
