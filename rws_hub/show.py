"""A signature's facts as a table in the terminal, or as plain data. Needs no torch."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from rws_hub.spec import SignatureConfig


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
        "bits": config.codec.bits,
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


def print_info(config: SignatureConfig) -> None:
    """Print the same as a table."""
    facts = summary(config)
    severity = "" if facts["severity"] is None else f", severity {facts['severity']}"
    dataset = "" if facts["dataset"] is None else f", on {facts['dataset']}"
    base = facts["base_model"] or "not published"
    touched, body = facts["touched_parameters"], facts["body_parameters"]
    rows = [
        ("corruption", f"{facts['corruption']}{severity}{dataset}"),
        ("backbone", f"{facts['backbone']} ({facts['library']}, {facts['family']} names)"),
        ("base model", base + (f" @ {facts['base_revision'][:12]}" if facts["base_revision"] else "")),
        ("made by", f"{facts['recipe']}, {facts['method']}, batch norm: {facts['batchnorm']}"),
        ("layers", f"{len(facts['layers'])} of {facts['layers_total']}: {', '.join(facts['layers'])}"),
        ("touches", f"{touched:,} of {body:,} weights and statistics ({touched / body:.1%})"),
        ("size", f"{facts['bytes']:,} bytes ({facts['payload_bytes']:,} payload, {facts['config_bytes']:,} config)"),
        ("", f"{facts['times_smaller']:.1f} times smaller than the body in fp32"),
        ("", f"{facts['bits_per_touched_parameter']:.2f} bits per touched parameter"),
        ("codec", f"{facts['bits']} bits, relative error {facts['relative_error']:.2%}"),
        ("alpha", f"{facts['recommended_alpha']:g} recommended"),
        ("license", facts["license"]),
        ("sha256", f"{facts['sha256']} (verified)"),
    ]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    Console(highlight=False, soft_wrap=False).print(table)
