"""Whether a live model is one of those that a signature was computed from: by the digests that its config records."""

from __future__ import annotations

from typing import Literal

from torch import nn

from rws_hub.errors import RWSError
from rws_hub.names import table_of
from rws_hub.signature import RobustWeightSignature
from rws_hub.sources import canonical_weights, open_weights
from rws_hub.trio import digest_of


def is_source(model: nn.Module, signature: RobustWeightSignature, role: Literal["standard", "robust"]) -> bool:
    """Whether every touched tensor of the model has the very bits of that source.

    Args:
        model: live; one that was loaded in another dtype than it was extracted from is another model here.
        signature: whose sources are meant.
        role: which of them.
    """
    backbone = signature.config.backbone
    stated = {source.role: source.sha256 for source in signature.config.sources}
    own = None if backbone.table is None else table_of(backbone.family, backbone.table)
    try:
        weights = canonical_weights(open_weights(model, "the model"), own)
    except (RWSError, ValueError):
        return False
    body = weights.recognition.body
    if any(body.get(name) != backbone.layout[name] for name in signature.names):
        return False
    return digest_of({n: body[n] for n in signature.names}, weights.rows) == stated[role]
