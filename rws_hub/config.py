"""`config.json`: reading it, and the rules that its types alone cannot express (docs/SPEC.md, section 2)."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

from rws_hub import compact, jsonio
from rws_hub._version import __version__
from rws_hub.compact import MAX_AXES, MAX_DIMENSION, MAX_NAMES
from rws_hub.errors import CorruptArtifactError, FormatVersionError, NotASignatureError
from rws_hub.names import table_of
from rws_hub.spec import (
    ALWAYS_EXPANDED,
    CONFIG_FILE,
    FORMAT,
    FORMAT_VERSION,
    MAX_CONFIG_BYTES,
    MAX_EXPANSION,
    MAX_PRODUCT,
    WIDTHS,
    Backbone,
    Codec,
    Corruption,
    SignatureConfig,
    Sketch,
    TensorFacts,
    stream_bytes,
)

_ITEM_BYTES = {"float16": 2, "float32": 4}
# Bytes that a reader keeps of each code of a factor.
_FACTOR_BYTES = 4
# Names times cells of a table that could be theirs: what finding a backbone in a model takes time for.
MAX_READINGS = 2**22
_HEX40 = re.compile(r"[0-9a-f]{40}")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_RELEASE = re.compile(r"[0-9]+(\.[0-9]+)*")
_TENSOR_NAME = re.compile(r"[A-Za-z_0-9]+(\.[A-Za-z_0-9]+)*", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def parse_config(text: str | bytes, where: str = CONFIG_FILE) -> SignatureConfig:
    """Read and verify `config.json`.

    Raises:
        NotASignatureError: valid JSON, but of something else.
        FormatVersionError: of a newer format.
        CorruptArtifactError: anything else that does not hold.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise CorruptArtifactError(f"{where}: {len(text):,} bytes; at most {MAX_CONFIG_BYTES:,} are allowed")
    data = jsonio.parse(text, where)
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise NotASignatureError(f'{where} is not that of a robust weight signature ("format": "{FORMAT}" is missing)')
    version = data.get("format_version")
    if type(version) is not int or not 1 <= version < 2**31:
        raise CorruptArtifactError(f"{where}: format_version must be a positive integer, found {jsonio.shown(version)}")
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{where} is of format {version}; this rws-hub reads up to format {FORMAT_VERSION}. {_advice(data)}"
        )
    config = jsonio.decode(SignatureConfig, compact.expand(data, where) if version >= compact.SINCE else data, where)
    check_config(config)
    if version >= compact.SINCE:
        compact.check_spelling(data, jsonio.to_json(config), where)
    _check_frame(config)
    _check_payload_size(config)
    return config


def check_config(config: SignatureConfig) -> None:
    """Verify the digest and the rules that types alone cannot express.

    Raises:
        CorruptArtifactError: naming the value, what was expected and what was found.
    """
    if config.digest != (sealed := config.sealed):
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: the digest does not hold (stated {jsonio.named(config.digest[:12])}..., values give "
            f"{sealed[:12]}...): a number, a name or a decision was changed after it was written. "
            "Fetch the artifact again."
        )
    oldest = oldest_format(config.backbone, config.codec, config.sketch)
    if config.format_version != oldest:
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: format_version is {config.format_version}, but its keys are those of format {oldest}"
        )
    _check_text(config)
    _check_backbone(config.backbone)
    _check_codec(config)
    _check_tensors(config)


def oldest_format(backbone: Backbone, codec: Codec, sketch: Sketch) -> int:
    """The format version that a config states: the oldest one that knows its keys and choices."""
    if codec.factors is not None:
        return 5
    if sketch.method == "signs-2048-v1":
        return 4
    if codec.scheme == "entropy":
        return 3
    return 1 if backbone.table is None else 2


def is_repo_id(text: str) -> bool:
    """Whether `text` is a full Hub id, `namespace/name`."""
    return _REPO_ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def is_tensor_name(text: str) -> bool:
    """Whether `text` can be a parameter name: dotted words, nothing that could be a path."""
    return len(text) <= 256 and _TENSOR_NAME.fullmatch(text) is not None


def _advice(data: Mapping[str, Any]) -> str:
    """What to install, from a config that is not verified: only a plain word is repeated from it."""
    version = data.get("rws_hub_version")
    plain = isinstance(version, str) and len(version) <= 40 and _WORD.fullmatch(version)
    if plain and _release(str(version)) > _release(__version__):  # what wrote a newer format is newer
        return f"It was written by rws-hub {version}: pip install -U 'rws-hub>={version}'"
    return "Install a newer one: pip install -U rws-hub"


def _release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without zeros at the end: (0, 1) of 0.1.0rc2."""
    found = _RELEASE.match(version)
    numbers = [int(n) for n in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def check_labels(license: str, corruption: Corruption, repo_id: str | None, revision: str | None) -> None:
    """Verify what a person states about a signature (also before a long extraction begins).

    Raises:
        CorruptArtifactError: naming the value, what was expected and what was found.
    """
    for key, text in (("license", license), ("corruption.name", corruption.name)):
        if not isinstance(text, str) or not _WORD.fullmatch(text):
            raise CorruptArtifactError(f"{CONFIG_FILE}: {key} must be one plain word, found {jsonio.shown(text)}")
    dataset = corruption.dataset
    if dataset is not None and not isinstance(dataset, str):
        raise CorruptArtifactError(f"{CONFIG_FILE}: corruption.dataset must be text, found {jsonio.shown(dataset)}")
    if dataset is not None and not (_WORD.fullmatch(dataset) or is_repo_id(dataset)):
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: corruption.dataset must be one word or a Hub id, found {jsonio.shown(dataset)}"
        )
    severity = corruption.severity
    if severity is not None and (type(severity) is not int or not 1 <= severity <= 5):
        raise CorruptArtifactError(f"{CONFIG_FILE}: corruption.severity must be 1 to 5, found {severity}")
    if repo_id is not None and not (isinstance(repo_id, str) and is_repo_id(repo_id)):
        raise CorruptArtifactError(f"{CONFIG_FILE}: backbone.repo_id {jsonio.shown(repo_id)} is not a Hub id")
    if revision is not None and not (isinstance(revision, str) and _HEX40.fullmatch(revision)):
        raise CorruptArtifactError(f"{CONFIG_FILE}: backbone.revision {jsonio.shown(revision)} is not a 40-hex commit")


def strength(alpha: object, name: str) -> float:
    """A patch strength as a float.

    Raises:
        ValueError: not a plain finite number.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, Real):
        raise ValueError(f"alpha of {name!r} must be a plain number, found {alpha!r} ({type(alpha).__name__})")
    try:
        value = float(alpha)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"alpha of {name!r} must be a finite number, found {alpha!r}")
    return value


def _check_text(config: SignatureConfig) -> None:
    check_labels(config.license, config.corruption, config.backbone.repo_id, config.backbone.revision)
    hashes = [config.payload.sha256, config.digest, *(s.sha256 for s in config.sources)]
    if bad := [h for h in hashes if not _HEX64.fullmatch(h)]:
        raise CorruptArtifactError(f"{CONFIG_FILE}: {jsonio.shown(bad[0])} is not a sha256 in hex")
    roles = [s.role for s in config.sources]
    if roles not in (["standard", "robust"], ["pretrained", "standard", "robust"]):
        raise CorruptArtifactError(f"{CONFIG_FILE}: sources must be (pretrained,) standard, robust; found {roles}")
    try:
        sketch = base64.b64decode(config.sketch.values, validate=True)
    except ValueError as error:
        raise CorruptArtifactError(f"{CONFIG_FILE}: sketch.values is not base64") from error
    if len(sketch) != 256:
        raise CorruptArtifactError(f"{CONFIG_FILE}: sketch.values must hold 256 bytes, found {len(sketch)}")


def _check_backbone(backbone: Backbone) -> None:
    try:
        table = table_of(backbone.family, backbone.table)
    except ValueError as error:
        raise CorruptArtifactError(f"{CONFIG_FILE}: backbone.table: {error}") from error
    if table is not None and len(table.rows) * len(table.dialects) * len(backbone.layout) > MAX_READINGS:
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: backbone.layout has {len(backbone.layout):,} names, too many to be read by a table of "
            f"{len(table.rows)} rows and {len(table.dialects)} columns (at most {MAX_READINGS:,} cells together)"
        )
    for name, shape in [*backbone.layout.items(), *backbone.head.items()]:
        if not is_tensor_name(name):
            raise CorruptArtifactError(
                f"{CONFIG_FILE}: {jsonio.shown(name)} cannot be a tensor name (letters, digits, _ and dots)"
            )
        # The product of what has not been looked at could take for ever.
        if len(shape) > MAX_AXES or any(not 1 <= d <= MAX_DIMENSION for d in shape) or math.prod(shape) > MAX_DIMENSION:
            raise CorruptArtifactError(
                f"{CONFIG_FILE}: {name} has the impossible shape {jsonio.shown(list(shape))}; at most {MAX_AXES} "
                f"dimensions from 1 on and {MAX_DIMENSION:,} elements"
            )
    if both := sorted(backbone.layout.keys() & backbone.head.keys()):
        raise CorruptArtifactError(f"{CONFIG_FILE}: {both[0]} is in the backbone's layout and in its head")
    if len(backbone.layout) > MAX_NAMES or len(backbone.head) > MAX_NAMES:
        raise CorruptArtifactError(f"{CONFIG_FILE}: layout and head have at most {MAX_NAMES:,} names each")


def _check_codec(config: SignatureConfig) -> None:
    codec = config.codec
    known = {"uniform": range(2, 9), "float32": (32,), "entropy": WIDTHS}
    if codec.bits not in known[codec.scheme]:
        raise CorruptArtifactError(f"{CONFIG_FILE}: codec {codec.scheme!r} with {codec.bits} bits does not exist")
    if codec.scheme == "uniform" and config.format_version > 2:
        raise CorruptArtifactError(f"{CONFIG_FILE}: codec 'uniform' ended with format 2")


def _check_tensors(config: SignatureConfig) -> None:
    codec = config.codec
    if config.relative_error < 0:
        raise CorruptArtifactError(f"{CONFIG_FILE}: relative_error is never negative, found {config.relative_error}")
    if bad := [u for u in config.extraction.profile if u.parameters < 0 or u.relative_difference < 0]:
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: extraction.profile: the numbers of {jsonio.shown(bad[0].unit)} are never negative"
        )
    if not config.tensors:
        raise CorruptArtifactError(f"{CONFIG_FILE}: a signature must touch at least one tensor")
    for name, facts in config.tensors.items():
        if name not in config.backbone.layout:
            raise CorruptArtifactError(
                f"{CONFIG_FILE}: {jsonio.named(name)} is touched but is not in the backbone's layout"
            )
        if (facts.op == "multiply") != name.endswith("running_var"):
            raise CorruptArtifactError(f"{CONFIG_FILE}: {name} cannot have op {facts.op!r}: running variances multiply")
        if (facts.encoding == "codes") != (facts.granularity is not None):
            raise CorruptArtifactError(f"{CONFIG_FILE}: {name}: granularity goes with encoding 'codes' only")
        if facts.granularity == "row" and not config.shape(name):
            raise CorruptArtifactError(f"{CONFIG_FILE}: {name} has no rows, so its granularity cannot be 'row'")
        if facts.relative_error < 0 or facts.relative_norm < 0:
            raise CorruptArtifactError(f"{CONFIG_FILE}: {name}: relative_error and relative_norm are never negative")
        _check_rank(name, facts, config.shape(name))
        needs = {"codes": "uniform", "symbols": "entropy", "factors": "entropy"}.get(facts.encoding, codec.scheme)
        if codec.scheme != needs:
            raise CorruptArtifactError(f"{CONFIG_FILE}: {name} has {facts.encoding}, but the codec is {codec.scheme}")


def _check_rank(name: str, facts: TensorFacts, shape: tuple[int, ...]) -> None:
    if (facts.encoding == "factors") != (facts.rank is not None):
        raise CorruptArtifactError(f"{CONFIG_FILE}: {name}: rank goes with encoding 'factors', and only with it")
    if facts.rank is not None and not (shape and 1 <= facts.rank <= min(shape[0], math.prod(shape[1:]))):
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: {name} cannot be factors of rank {facts.rank}: its shape is {jsonio.shown(list(shape))}"
        )


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
    factored = [n for n, f in config.tensors.items() if f.encoding == "factors"]
    size, most = sum(map(config.factor_codes, factored)), codec.factors or 0
    elements = sum(math.prod(config.shape(n)) for n in factored)
    if (
        bool(factored) != (codec.factors is not None)
        or (factored and most < 1)
        or size * _FACTOR_BYTES > max(MAX_EXPANSION * most, ALWAYS_EXPANDED)
        or elements > max(MAX_PRODUCT * most, ALWAYS_EXPANDED)
    ):
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: {most:,} compressed bytes of factors cannot stand for {len(factored)} tensors of "
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
        elif facts.encoding in ("symbols", "factors"):
            data += 4 + (facts.rank or 0)
        else:
            data += count * _ITEM_BYTES[facts.encoding]
    # The header names the same tensors as the config, in fewer words.
    if not data < config.payload.bytes <= data + MAX_CONFIG_BYTES:
        raise CorruptArtifactError(
            f"{CONFIG_FILE}: payload.bytes is {config.payload.bytes:,}, but the tensors take {data:,} and a header"
        )
