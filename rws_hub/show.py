"""A signature's facts as a table in the terminal, or as plain data. Needs no torch."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any

from rws_hub.spec import SIGNATURE_FILE, SignatureConfig

# Width of the column of names.
_NAMES = 12


def summary(config: SignatureConfig) -> dict[str, Any]:
    """What `rws info --json` prints: ids, sizes in bytes, ratios and errors (unitless)."""
    text = len(config.to_text().encode())
    size = text + config.payload.bytes
    checkpoint = 4 * config.body_parameters
    return {
        "corruption": config.corruption.name,
        "severity": config.corruption.severity,
        "dataset": config.corruption.dataset,
        "backbone": config.backbone.architecture,
        "library": config.backbone.library,
        "family": config.backbone.family,
        "base_model": config.backbone.repo_id,
        "base_revision": config.backbone.revision,
        "recipe": config.extraction.recipe,
        "method": config.extraction.method,
        "layers": [u.unit for u in config.extraction.profile if u.touched],
        "layers_total": len(config.extraction.profile),
        "batchnorm": config.extraction.batchnorm,
        "codec": config.codec.scheme,
        "relative_error": config.relative_error,
        "recommended_alpha": config.recommended_alpha,
        "touched_parameters": config.touched_parameters,
        "body_parameters": config.body_parameters,
        "bytes": size,
        "payload_bytes": config.payload.bytes,
        "config_bytes": text,
        "body_fp32_bytes": checkpoint,
        "times_smaller": checkpoint / size,
        "bits_per_touched_parameter": 8 * size / config.touched_parameters,
        "license": config.license,
        "format_version": config.format_version,
        "sha256": config.payload.sha256,
    }


def compared(every: bool | None) -> str | None:
    """Which files were held to a key or a lock file, in a few words; None: there was neither."""
    return None if every is None else "every file" if every else "config and payload"


def signed_by(signed: bool | None, public_key: Path | None, every: bool | None = None) -> str:
    """Whether an artifact is signed, in a few words; a key is given where it has been verified with it."""
    if public_key is not None:
        return f"verified with {public_key}: {compared(every)}{' but the card' if every else ''}"
    words = {
        True: f"{SIGNATURE_FILE} is there; whose it is, --verify KEY finds out",
        False: "no",
        None: "not known offline",
    }
    return words[signed]


def print_info(config: SignatureConfig, signed: str | None = None, pinned: str | None = None) -> None:
    """Print the same as a table of two columns, wrapped at the width of the terminal."""
    facts = summary(config)
    severity = "" if facts["severity"] is None else f", severity {facts['severity']}"
    dataset = "" if facts["dataset"] is None else f", on {facts['dataset']}"
    base = facts["base_model"] or "not published"
    touched, body = facts["touched_parameters"], facts["body_parameters"]
    rows = [
        ("corruption", f"{facts['corruption']}{severity}{dataset}"),
        ("backbone", _backbone(facts)),
        ("base model", base + (f" @ {facts['base_revision'][:12]}" if facts["base_revision"] else "")),
        ("made by", _method(config)),
        ("layers", f"{len(facts['layers'])} of {facts['layers_total']}: {', '.join(facts['layers'])}"),
        ("touches", f"{touched:,} of {body:,} weights and statistics ({touched / body:.1%})"),
        ("size", f"{facts['bytes']:,} bytes ({facts['payload_bytes']:,} payload, {facts['config_bytes']:,} config)"),
        ("", f"{facts['times_smaller']:.1f} times smaller than the body in float32"),
        ("", f"{facts['bits_per_touched_parameter']:.2f} bits per touched number, everything counted"),
        ("codec", f"{_codec(config)}; relative error {facts['relative_error']:.2%}"),
        ("alpha", f"{facts['recommended_alpha']:g} recommended"),
        ("license", facts["license"]),
        ("sha256", facts["sha256"]),
        *([] if signed is None else [("signed", signed)]),
        *([] if pinned is None else [("pinned", pinned)]),
    ]
    width = max(40, shutil.get_terminal_size().columns)
    for name, value in rows:
        text = f"{name:<{_NAMES}}{printable(value)}"
        print(textwrap.fill(text, width, subsequent_indent=" " * _NAMES, break_on_hyphens=False))


def printable(text: str) -> str:
    """Text from a file that anyone may have written, without what would steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _backbone(facts: dict[str, Any]) -> str:
    known = [facts[key] for key in ("backbone", "library") if facts[key] != "unknown"]
    names = "its own names" if facts["family"] == "identity" else f"{facts['family']} names"
    return ", ".join([*known, names])


def _codec(config: SignatureConfig) -> str:
    if config.codec.scheme == "entropy":
        factored = sum(f.encoding == "factors" for f in config.tensors.values())
        matrices = f", {factored} matri{'ces' if factored > 1 else 'x'} as factors" if factored else ""
        return f"entropy-coded{matrices}, {config.coded_bits:.2f} bits a weight"
    return "float32, as they are" if config.codec.scheme == "float32" else f"codes of {config.codec.bits} bits"


def _method(config: SignatureConfig) -> str:
    made = config.extraction
    norms = (
        f", {'with' if made.batchnorm == 'delta' else 'without'} batch norm" if config.backbone.has_batchnorm else ""
    )
    if made.method == "projection":
        return f"projection (clean and robust twin of one pretrained model){norms}"
    return f"plain difference (robust twin fine-tuned from the clean model){norms}"
