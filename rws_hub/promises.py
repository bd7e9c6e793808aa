"""What a config promises of its payload: codes, ranks and sizes that can be, before any byte of it is read."""

from __future__ import annotations

import math

from rws_hub import jsonio
from rws_hub.errors import CorruptArtifactError
from rws_hub.spec import (
    ALWAYS_EXPANDED,
    CODED,
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    MAX_EXPANSION,
    MAX_PRODUCT,
    WIDTHS,
    SignatureConfig,
    TensorFacts,
    stream_bytes,
)

_ITEM_BYTES = {"float16": 2, "float32": 4}
# Bytes that a reader keeps of each code of a factor.
_FACTOR_BYTES = 4


def check_codec(config: SignatureConfig) -> None:
    """Refuse a codec that no format has."""
    codec = config.codec
    known = {"uniform": range(2, 9), "float32": (32,), "entropy": WIDTHS}
    if codec.bits not in known[codec.scheme]:
        raise CorruptArtifactError(f"{CONFIG_FILE}: codec {codec.scheme!r} with {codec.bits} bits does not exist")
    if codec.scheme == "uniform" and config.format_version > 2:
        raise CorruptArtifactError(f"{CONFIG_FILE}: codec 'uniform' ended with format 2")


def check_encoding(name: str, facts: TensorFacts, config: SignatureConfig) -> None:
    """Refuse a tensor whose encoding its codec does not have, or which is not told as its encoding demands."""
    shape, scheme = config.shape(name), config.codec.scheme
    if (facts.encoding == "codes") != (facts.granularity is not None):
        raise CorruptArtifactError(f"{CONFIG_FILE}: {name}: granularity goes with encoding 'codes' only")
    if facts.granularity == "row" and not shape:
        raise CorruptArtifactError(f"{CONFIG_FILE}: {name} has no rows, so its granularity cannot be 'row'")
    if (facts.encoding == "factors") != (facts.rank is not None):
        raise CorruptArtifactError(f"{CONFIG_FILE}: {name}: rank goes with encoding 'factors', and only with it")
    if facts.rank is not None and not (shape and 1 <= facts.rank <= min(shape[0], math.prod(shape[1:]))):
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: {name} cannot be factors of rank {facts.rank}: its shape is {jsonio.shown(list(shape))}"
        )
    needs = {"codes": "uniform", "symbols": "entropy", "factors": "entropy"}.get(facts.encoding, scheme)
    if scheme != needs:
        raise CorruptArtifactError(f"{CONFIG_FILE}: {name} has {facts.encoding}, but the codec is {scheme}")


def check_sizes(config: SignatureConfig) -> None:
    """Refuse a payload that cannot hold what it is said to hold, or would be more than it says.

    Raises:
        CorruptArtifactError: naming the value, what was expected and what was found.
    """
    _check_frame(config)
    _check_factors(config)
    _check_payload_size(config)


def _check_frame(config: SignatureConfig) -> None:
    """What an entropy-coded payload states of itself, before any of it is decompressed."""
    codec = config.codec
    if codec.scheme != "entropy":
        if codec.frame is not None or codec.escapes is not None or codec.factors is not None:
            raise CorruptArtifactError(
                f"{CONFIG_FILE}: codec.frame, codec.escapes and codec.factors go with scheme 'entropy' only"
            )
        return
    if codec.frame is None or codec.escapes is None or codec.frame < 1:
        raise CorruptArtifactError(f"{CONFIG_FILE}: codec.frame and codec.escapes are missing")
    counts = [math.prod(config.shape(n)) for n, f in config.tensors.items() if f.encoding == "symbols"]
    size = sum(stream_bytes(count, codec.bits) for count in counts)
    if not 0 <= codec.escapes <= sum(counts) or size > max(MAX_EXPANSION * codec.frame, ALWAYS_EXPANDED):
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: {codec.frame:,} compressed bytes and {codec.escapes:,} escapes cannot stand for "
            f"{sum(counts):,} codes"
        )


def _check_factors(config: SignatureConfig) -> None:
    """The same of factors, which stand for many more elements than they have codes."""
    factored = [n for n, f in config.tensors.items() if f.encoding == "factors"]
    taken, codes = config.codec.factors, sum(map(config.factor_codes, factored))
    elements = sum(math.prod(config.shape(n)) for n in factored)
    if taken is None and not factored:
        return
    if taken is None or taken < 1 or not factored:
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: codec.factors is {taken}, which cannot stand for the factors of {len(factored)} tensors; "
            "it counts their bytes, and is left out where there are none"
        )
    most = [max(limit * taken, ALWAYS_EXPANDED) for limit in (MAX_EXPANSION, MAX_PRODUCT)]
    if _FACTOR_BYTES * codes > most[0] or elements > most[1]:
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: {taken:,} compressed bytes of factors cannot stand for {codes:,} codes and "
            f"{elements:,} elements"
        )


def _check_payload_size(config: SignatureConfig) -> None:
    """The shapes say how large the payload is: nobody fetches or reads a file that is larger than its tensors."""
    data = (config.codec.frame or 0) + 2 * (config.codec.escapes or 0) + (config.codec.factors or 0)
    for name, facts in config.tensors.items():
        shape = config.shape(name)
        count = math.prod(shape)
        if facts.encoding == "codes":
            scales = shape[0] if facts.granularity == "row" else 1
            data += -(-count // 8) * config.codec.bits + 2 * scales
        elif facts.encoding in CODED:
            data += 4 + (facts.rank or 0)
        else:
            data += count * _ITEM_BYTES[facts.encoding]
    # The header names the same tensors as the config, in fewer words.
    if not data < config.payload.bytes <= data + MAX_CONFIG_BYTES:
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: payload.bytes is {config.payload.bytes:,}, but the tensors take {data:,} and a header"
        )
