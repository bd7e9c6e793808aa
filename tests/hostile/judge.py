"""What a changed artifact may do: be refused in our own words, or be what it says; nothing else."""

from __future__ import annotations

import dataclasses
import hashlib

import torch
from mutants import Mutant, Origin

from rws_hub import RobustWeightSignature
from rws_hub.codec import largest, norm_of
from rws_hub.config import parse_config
from rws_hub.errors import ArtifactError, NameTableError
from rws_hub.names import table_of
from rws_hub.payload import read_payload
from rws_hub.resolve import match
from rws_hub.spec import SignatureConfig


class WronglyAcceptedError(AssertionError):
    """An artifact that should have been refused."""


def judge(mutant: Mutant) -> str:
    """Read a mutant as `from_pretrained` does: "refused", "the same" or "another".

    - Refused: an `ArtifactError`. Any other exception goes through.
    - The same: it was not sealed again; config (but for `description`) and every decoded bit are the origin's.
    - Another: it was sealed again and is whole in itself: its config is written and read back to the same values, the
      payload is written again to the same bytes, every delta has the promised shape, is finite and decodes alike twice.

    Raises:
        WronglyAcceptedError: it was accepted and is neither.
    """
    try:
        # The config of an honest artifact is honest: it is read once.
        config = mutant.origin.config if mutant.text is mutant.origin.text else parse_config(mutant.text)
        payload = bytearray(mutant.payload)
        signature = RobustWeightSignature(config, read_payload(payload, config), payload)
    except ArtifactError:
        return "refused"
    origin = mutant.origin
    if config.description != origin.config.description:
        config = dataclasses.replace(config, description=origin.config.description)
    if config == origin.config:
        if decoded(signature) != honest(origin):
            raise WronglyAcceptedError("the config is that of the origin, the numbers are not")
        return "the same"
    if not mutant.deep:
        raise WronglyAcceptedError("a changed config was accepted without a new seal")
    _check_another(signature)
    return "another"


def _check_another(signature: RobustWeightSignature) -> None:
    config = signature.config
    for name, packed in signature.tensors.items():
        delta, bits = signature.delta(name).double(), config.codec.bits
        size, most = float(delta.norm()), float(delta.abs().max())
        if not most <= largest(packed, bits) * (1 + 1e-6) or not abs(norm_of(packed, bits) - size) <= 1e-5 * size:
            raise WronglyAcceptedError(f"{name} is larger than is told of it, or smaller")
    if parse_config(config.to_text()) != config:
        raise WronglyAcceptedError("written and read again, the config is another")
    first = decoded(signature)
    again = bytearray(signature.payload)
    if decoded(RobustWeightSignature(config, read_payload(again, config), again)) != first:
        raise WronglyAcceptedError("decoded again, the numbers are others")
    _check_names(config)


def _check_names(config: SignatureConfig) -> None:
    """A table that was accepted finds places in a model, or is refused for what it says."""
    table = table_of(config.backbone.family, config.backbone.table)
    try:
        match(table, config.backbone.layout, config.tensors, config.backbone.layout)
    except NameTableError:
        return


def decoded(signature: RobustWeightSignature) -> str:
    """The sha256 of every delta, in order."""
    digest = hashlib.sha256()
    for name in sorted(signature.names):
        delta = signature.delta(name)
        if tuple(delta.shape) != signature.config.shape(name) or not bool(torch.isfinite(delta).all()):
            raise WronglyAcceptedError(f"{name} is not finite, or not of its shape")
        digest.update(name.encode())
        digest.update(delta.numpy().tobytes())
    return digest.hexdigest()


_HONEST: dict[str, str] = {}


def honest(origin: Origin) -> str:
    """`decoded` of an origin."""
    if origin.name not in _HONEST:
        payload = bytearray(origin.payload)
        signature = RobustWeightSignature(origin.config, read_payload(payload, origin.config), payload)
        _HONEST[origin.name] = decoded(signature)
    return _HONEST[origin.name]
