"""What was *measured* with an artifact: the frozen types behind `results.json`.

Every accuracy is top-1, as a fraction from 0 to 1. A results file belongs to one payload, which it names
by its sha256, so numbers of one signature can never end up on the card of another.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rws_hub import jsonio
from rws_hub.config import is_repo_id
from rws_hub.errors import CorruptArtifactError, FormatVersionError
from rws_hub.spec import RESULTS_FILE, SignatureConfig

RESULTS_FORMAT: Literal["rws-results"] = "rws-results"
RESULTS_FORMAT_VERSION = 1
MAX_RESULTS_BYTES = 2**20

# The target that the signature itself was computed from, as `Evaluation.target` spells it.
OWN_CLEAN_MODEL = "standard"

_HEX64 = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_MAX_LINE = 2000


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 accuracy on one set of images, as a fraction from 0 to 1.

    Attributes:
        unpatched: of the target as it is.
        patched: of the target with the signature added.
        robust: of the robust model that the signature was computed from, if it was measured too.
    """

    unpatched: float
    patched: float
    robust: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One target, measured on clean images and on the same images corrupted.

    Attributes:
        dataset: the data set's name, one line.
        dataset_id: its Hub id, `namespace/name`, if it has one.
        split: which part of it, one line.
        metric: always "accuracy".
        corruption: of the corrupted images; one word. It need not be the one the signature was made for.
        severity: 1 to 5, or None where the corruption has no such scale.
        target: which model was patched, one line; "standard" is the signature's own clean model.
        alpha: patch strength, unitless.
        images: how many images each accuracy is a mean over.
        seed: of the corruption's random draws.
        clean: on the clean images.
        corrupted: on the corrupted images.
    """

    dataset: str
    dataset_id: str | None
    split: str
    metric: Literal["accuracy"]
    corruption: str
    severity: int | None
    target: str
    alpha: float
    images: int
    seed: int
    clean: Accuracy
    corrupted: Accuracy


@dataclass(frozen=True, slots=True)
class Results:
    """`results.json`, whole.

    Attributes:
        format, format_version: "rws-results", 1.
        payload_sha256: digest of the `rws.safetensors` that was measured.
        command: what was run, one line.
        versions: package or platform -> version.
        evaluations: at least one; no two of the same setting.
    """

    format: Literal["rws-results"]
    format_version: int
    payload_sha256: str
    command: str
    versions: dict[str, str]
    evaluations: tuple[Evaluation, ...]

    def to_text(self) -> str:
        """The text of `results.json`. Same results, same text.

        Raises:
            CorruptArtifactError: the results break a rule of `check`: what could not be read is not written.
        """
        self.check()
        return jsonio.pretty(jsonio.to_json(self))

    def require_for(self, config: SignatureConfig) -> None:
        """Verify that these numbers are sound and were measured with this very signature.

        Raises:
            CorruptArtifactError: naming both payloads, or the value that breaks a rule of `check`.
        """
        self.check()
        if self.payload_sha256 != config.payload.sha256:
            raise CorruptArtifactError(
                f"{RESULTS_FILE} was measured with the payload {self.payload_sha256[:12]}..., but this signature's "
                f"payload is {config.payload.sha256[:12]}...: these numbers are of another signature. "
                "Evaluate this one (rws eval), or leave the results out."
            )

    def check(self, where: str = RESULTS_FILE) -> None:
        """Verify the rules that types alone cannot express.

        Raises:
            CorruptArtifactError: naming the value, what was expected and what was found.
        """
        if self.format != RESULTS_FORMAT or self.format_version != RESULTS_FORMAT_VERSION:
            raise CorruptArtifactError(f"{where}: expected {RESULTS_FORMAT!r} of format {RESULTS_FORMAT_VERSION}")
        if not _HEX64.fullmatch(self.payload_sha256):
            raise CorruptArtifactError(
                f"{where}: payload_sha256 {jsonio.shown(self.payload_sha256)} is not a sha256 in hex"
            )
        _require_line(self.command, f"{where}: command")
        for name, version in self.versions.items():
            _require_line(name, f"{where}: versions")
            _require_line(version, f"{where}: versions.{jsonio.named(name)}")
        if not self.evaluations:
            raise CorruptArtifactError(f"{where}: evaluations is empty; a results file holds at least one")
        seen: dict[Evaluation, int] = {}
        for i, evaluation in enumerate(self.evaluations):
            _check_evaluation(evaluation, f"{where}: evaluations[{i}]")
            nothing = Accuracy(0.0, 0.0, None)
            setting = dataclasses.replace(evaluation, clean=nothing, corrupted=nothing)
            if setting in seen:
                raise CorruptArtifactError(
                    f"{where}: evaluations[{seen[setting]}] and [{i}] are of one and the same setting; keep one"
                )
            seen[setting] = i


def parse_results(text: str | bytes, where: str = RESULTS_FILE) -> Results:
    """Read and verify `results.json`.

    Raises:
        FormatVersionError: of a newer format.
        CorruptArtifactError: anything else that does not hold.
    """
    if len(text) > MAX_RESULTS_BYTES:
        raise CorruptArtifactError(f"{where}: {len(text):,} bytes; at most {MAX_RESULTS_BYTES:,} are allowed")
    data = jsonio.parse(text, where)
    if not isinstance(data, Mapping) or data.get("format") != RESULTS_FORMAT:
        raise CorruptArtifactError(f'{where} holds no results ("format": "{RESULTS_FORMAT}" is missing)')
    version = data.get("format_version")
    if type(version) is not int or not 1 <= version < 2**31:
        raise CorruptArtifactError(f"{where}: format_version must be a positive integer, found {jsonio.shown(version)}")
    if version > RESULTS_FORMAT_VERSION:
        raise FormatVersionError(
            f"{where} is of format {version}; this rws-hub reads up to format {RESULTS_FORMAT_VERSION}: "
            "pip install -U rws-hub"
        )
    results = jsonio.decode(Results, data, where)
    results.check(where)
    return results


def _check_evaluation(evaluation: Evaluation, where: str) -> None:
    for key in ("dataset", "split", "target"):
        _require_line(getattr(evaluation, key), f"{where}.{key}")
    if evaluation.dataset_id is not None and not is_repo_id(evaluation.dataset_id):
        raise CorruptArtifactError(
            f"{where}.dataset_id {jsonio.shown(evaluation.dataset_id)} is not a Hub id (namespace/name)"
        )
    if not _WORD.fullmatch(evaluation.corruption):
        raise CorruptArtifactError(
            f"{where}.corruption must be one plain word, found {jsonio.shown(evaluation.corruption)}"
        )
    if evaluation.severity is not None and not 1 <= evaluation.severity <= 5:
        raise CorruptArtifactError(f"{where}.severity must be 1 to 5, found {evaluation.severity}")
    if not math.isfinite(evaluation.alpha):
        raise CorruptArtifactError(f"{where}.alpha must be finite, found {evaluation.alpha}")
    if evaluation.images < 1:
        raise CorruptArtifactError(f"{where}.images must be at least 1, found {evaluation.images}")
    for side in ("clean", "corrupted"):
        accuracy: Accuracy = getattr(evaluation, side)
        for key in ("unpatched", "patched", "robust"):
            value: float | None = getattr(accuracy, key)
            if value is not None and not 0.0 <= value <= 1.0:  # also refuses NaN
                raise CorruptArtifactError(f"{where}.{side}.{key} must be a fraction from 0 to 1, found {value}")


def _require_line(text: str, where: str) -> None:
    # isprintable refuses line breaks, control characters and those that reverse the reading direction.
    if not text.strip() or not text.isprintable() or len(text) > _MAX_LINE:
        raise CorruptArtifactError(
            f"{where} must be one line of 1 to {_MAX_LINE} printable characters, found {jsonio.shown(text)}"
        )
