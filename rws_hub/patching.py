"""Add signatures to a live model and take them off again, bit for bit: `patch`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from rws_hub.errors import PatchStateError
from rws_hub.handle import Patch, handles_on
from rws_hub.judging import Terms, strengths
from rws_hub.plan import MAX_RELATIVE_NORM, Verify
from rws_hub.planner import require_signatures
from rws_hub.removal import Mode, Removal
from rws_hub.signature import RobustWeightSignature


def patch(
    model: nn.Module,
    *signatures: RobustWeightSignature,
    alpha: float | Sequence[float] | None = None,
    verify: Verify = "kin",
    max_relative_norm: float = MAX_RELATIVE_NORM,
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
        verify: which models are refused. "exact": all but the very clean model that a signature was made from, by the
            digest of the touched tensors. "kin": strangers, by the estimated similarity of the weights; models grown
            from the same pretrained weights pass, and so does one of which too little can be compared (only vectors
            are touched). "architecture": none whose names and shapes fit. Kept for `add` and `exchange`.
        max_relative_norm: the most that any tensor may change, as ||alpha * delta|| / ||theta||, over all signatures
            on it (docs/SPEC.md, section 9); `math.inf` for no limit. Kept for `add`, `exchange` and `set_alpha`.
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
        IncompatibleModelError: something does not fit, is a stranger, or changes too much; nothing was changed.
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
    terms = Terms(verify, max_relative_norm)
    handle = Patch(model, Removal(removal, None if checkpoint is None else Path(checkpoint).absolute()), terms)
    handle._change(dict(zip(names, zip(signatures, strengths(signatures, alpha), strict=True), strict=True)), (), table)
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
