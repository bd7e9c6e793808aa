"""Add signatures to a live model and take them off again, bit for bit: `patch`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from rws_hub.config import strength
from rws_hub.errors import PatchStateError
from rws_hub.handle import Patch, Removal, handles_on
from rws_hub.planner import require_signatures
from rws_hub.removal import Mode
from rws_hub.signature import RobustWeightSignature


def patch(
    model: nn.Module,
    *signatures: RobustWeightSignature,
    alpha: float | Sequence[float] | None = None,
    removal: Mode | None = None,
    checkpoint: str | Path | None = None,
    table: str | Path | None = None,
) -> Patch:
    """Add signatures to a live model, in place.

    Args:
        model: any timm, transformers or torch module whose backbone is that of the signatures, in any of its
            naming dialects, wrapped or not, on any device, in fp16, bf16, fp32 or fp64.
        signatures: what to add. Inside the patch each goes by the name of its corruption.
        alpha: patch strength, one number for all or one for each, unitless; 0 is the clean model, 1 as
            extracted, negative or above 1 is allowed. None: each signature's recommended strength.
        removal: what is kept to restore every bit: "snapshot", a copy of the touched tensors; "ledger", what
            subtracting gets wrong, a few bits for each weight; "reload", next to nothing, for the clean values are
            read from `checkpoint` again. None: "reload" with a checkpoint; else "snapshot" up to 268 MB of touched
            tensors, "ledger" beyond. A tensor that is patched already keeps the way back that it has.
        checkpoint: the (sharded) safetensors that the model was loaded from; every value is compared before it is
            changed, and the file has to be there when the patch is changed or taken off.
        table: a name table of your own (docs/NAMES.md), used instead of those of the package.

    Returns:
        A handle, which is also a context manager that unpatches at its end.

    Raises:
        IncompatibleModelError: something does not fit; nothing was changed.
        PatchStateError: the model carries one of these signatures already, or does not hold what the checkpoint
            holds; nothing was changed.
        CheckpointError: the checkpoint cannot be read.
        NameTableError: a table that cannot be read, or that does not explain a signature's names.

    Example:
        >>> with patch(model, fog, alpha=0.8):
        ...     logits = model(images)
        >>> p = patch(model, fog, noise, alpha=(0.5, 0.5))
        >>> p.set_alpha(fog=0.3)
        >>> p
        <Patch on ResNet: fog=0.3, gaussian_noise=0.5>
        >>> p.unpatch()
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"patch takes a live nn.Module, found {type(model).__name__}; for a file use `rws apply`")
    if not signatures:
        raise TypeError("patch needs at least one signature")
    require_signatures(signatures)
    names = [s.config.corruption.name for s in signatures]
    if twice := [n for i, n in enumerate(names) if n in names[:i]]:
        raise PatchStateError(
            f"the name {twice[0]!r} is taken in this patch; add the second one with p.add(signature, name=...)"
        )
    handle = Patch(model, Removal(removal, None if checkpoint is None else Path(checkpoint).absolute()))
    handle._change(
        dict(zip(names, zip(signatures, _strengths(signatures, alpha), strict=True), strict=True)), (), table
    )
    return handle


def active_patches(model: nn.Module) -> tuple[Patch, ...]:
    """The handles that are active on a model or on parts of it, through whatever wrapper, oldest first.

    Example:
        >>> p = patch(model, fog)
        >>> active_patches(model) == (p,)
        True
        >>> p.unpatch()
        >>> active_patches(model)
        ()
    """
    return handles_on(model)


def _strengths(signatures: Sequence[RobustWeightSignature], alpha: float | Sequence[float] | None) -> tuple[float, ...]:
    if alpha is None:
        return tuple(s.config.recommended_alpha for s in signatures)
    several = isinstance(alpha, Sequence) and not isinstance(alpha, (str, bytes))
    values = tuple(alpha) if several else (alpha,) * len(signatures)  # type: ignore[arg-type]
    if len(values) != len(signatures):
        raise ValueError(f"{len(signatures)} signatures but {len(values)} values of alpha")
    return tuple(strength(v, s.config.corruption.name) for s, v in zip(signatures, values, strict=True))
