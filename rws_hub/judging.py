"""Is this the model that a signature is meant for, and what would become of it: `plan_patch`, and what `patch` asks.

Where everything goes was found by names and shapes (`planner`). Here values are read, clean ones, and what a user
would regret is refused: before a weight is touched.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from rws_hub import bounds, kinship, shards
from rws_hub.anchors import Home, Place, path_of, places
from rws_hub.config import strength
from rws_hub.plan import KIN_SIMILARITY, MAX_RELATIVE_NORM, PatchPlan, SignaturePlan, Verify
from rws_hub.planner import plan_module, plan_weights, require_signatures
from rws_hub.signature import RobustWeightSignature
from rws_hub.sources import Weights, WeightsLike, by_canonical, gather, live_tensors, open_weights
from rws_hub.spelling import Piece
from rws_hub.subjects import Live, Stored
from rws_hub.trio import digest_of

# From this similarity on, two count-sketches of formats 1 to 3 may be of the same weights.
_ALIKE = 0.999


@dataclass(frozen=True, slots=True)
class Terms:
    """What a user lets be patched, and how far."""

    verify: Verify = "kin"
    max_relative_norm: float = MAX_RELATIVE_NORM

    def __post_init__(self) -> None:
        if self.verify not in get_args(Verify):
            raise ValueError(f"verify={self.verify!r}: expected 'exact', 'kin' or 'architecture'")
        limit = self.max_relative_norm
        if isinstance(limit, bool) or not isinstance(limit, Real) or not float(limit) > 0:
            raise ValueError(f"max_relative_norm={limit!r}: expected a number above 0 (math.inf: no limit)")


def plan_patch(
    model: WeightsLike,
    *signatures: RobustWeightSignature,
    alpha: float | Sequence[float] | None = None,
    verify: Verify = "kin",
    max_relative_norm: float = MAX_RELATIVE_NORM,
    table: str | Path | None = None,
) -> PatchPlan:
    """Decide where every delta of the signatures would go in a model, and what it would do. Pure: nothing is changed.

    Args:
        model: an `nn.Module` (on any device, meta too), a state dict, or a path to (sharded) safetensors.
        signatures: what would be added.
        alpha: patch strengths, as in `patch`.
        verify: which models are refused, as in `patch`.
        max_relative_norm: which changes are refused, as in `patch`.
        table: a name table of your own (docs/NAMES.md), used instead of those of the package.

    Returns:
        A plan; `plan.ok`, `plan.explain()` and `plan.require()` tell.

    Raises:
        CheckpointError: a path that cannot be read as weights.
        NameTableError: a table that cannot be read, or that does not explain a signature's names.

    Example:
        >>> plan_patch(model, fog).ok
        True
        >>> plan_patch(model, fog).signatures[0].kinship.partition(":")[0]
        'same base'
    """
    require_signatures(signatures)
    terms, alphas = Terms(verify, max_relative_norm), strengths(signatures, alpha)
    if not isinstance(model, nn.Module):
        weights = open_weights(model, "the state dict" if isinstance(model, Mapping) else Path(model).name)
        return judge_weights(plan_weights(weights, signatures, table), signatures, alphas, weights, terms)
    plan = plan_module(model, signatures, table)
    on: list[Place] = []
    for signature, strength_, planned in zip(signatures, alphas, plan.signatures, strict=True):
        if planned.rejected:
            return plan
        owners = {b.model: model.get_submodule(path_of(b.model)) for b in planned.bindings}
        on += places(signature, strength_, planned, owners)
    # Processes would have to ask together.
    asked = not any(shards.is_sharded(t) for t in live_tensors(model).values())
    return _judged(plan, signatures, Live(on, []), terms, kin=asked, digest=asked, exact=asked)


def judge_change(
    plan: PatchPlan,
    signatures: Sequence[RobustWeightSignature],
    on: Sequence[Place],
    off: Sequence[Place],
    terms: Terms,
) -> tuple[PatchPlan, dict[Home, float]]:
    """A plan that fits, with what is found out about the model, and the sizes of what would be touched.

    Args:
        plan: of the signatures, accepted.
        signatures: what is to be added.
        on: where, as the plan says.
        off: what is to be taken off.
        terms: on which it is refused.
    """
    live = Live(on, off)
    kin, digest = terms.verify != "architecture", terms.verify == "exact"
    return _judged(plan, signatures, live, terms, kin=kin, digest=digest), live.sizes


def judge_strengths(plan: PatchPlan, on: Sequence[Place], terms: Terms) -> PatchPlan:
    """The same where only strengths are changed: the model was judged before."""
    return (
        plan if terms.max_relative_norm == math.inf else _judged(plan, (), Live(on, []), terms, kin=False, digest=False)
    )


def described(plan: PatchPlan, on: Sequence[Place]) -> PatchPlan:
    """A plan that was carried out, with what it does to the model."""
    return _judged(plan, (), Live(on, []), Terms(max_relative_norm=math.inf), kin=False, digest=False)


def judge_weights(
    plan: PatchPlan,
    signatures: Sequence[RobustWeightSignature],
    alphas: Sequence[float],
    weights: Weights,
    terms: Terms,
) -> PatchPlan:
    """The same of a checkpoint or a state dict."""
    if any(s.rejected for s in plan.signatures):
        return plan
    return _judged(
        plan, signatures, Stored(weights, plan, signatures, alphas), terms, kin=True, digest=True, exact=True
    )


def strengths(signatures: Sequence[RobustWeightSignature], alpha: float | Sequence[float] | None) -> tuple[float, ...]:
    """One strength for each signature, as it was asked for.

    Raises:
        ValueError: not as many as signatures, or no finite number.
    """
    if alpha is None:
        return tuple(s.config.recommended_alpha for s in signatures)
    several = isinstance(alpha, Sequence) and not isinstance(alpha, (str, bytes))
    values = tuple(alpha) if several else (alpha,) * len(signatures)  # type: ignore[arg-type]
    if len(values) != len(signatures):
        raise ValueError(f"{len(signatures)} signatures but {len(values)} values of alpha")
    return tuple(strength(v, s.config.corruption.name) for s, v in zip(signatures, values, strict=True))


def _judged(
    plan: PatchPlan,
    signatures: Sequence[RobustWeightSignature],
    model: Live | Stored,
    terms: Terms,
    *,
    kin: bool,
    digest: bool,
    exact: bool = False,
) -> PatchPlan:
    judged = plan.signatures
    if signatures:
        judged = tuple(
            _with_kinship(p, s, model, terms, kin=kin, digest=digest)
            for p, s in zip(plan.signatures, signatures, strict=True)
        )
    changes, whole = bounds.changes(model.touched, partial(model.square, exact=exact))
    near = [c for c in changes if c.relative_norm > bounds.TRUSTED * terms.max_relative_norm]
    if near and not exact:
        close = {name for change in near for name in change.names}
        changes, whole = bounds.changes(model.touched, lambda n: model.square(n, exact=n in close))
    why = bounds.excess(changes, model.touched, terms.max_relative_norm)
    return dataclasses.replace(plan, signatures=judged, changes=changes, relative_norm=whole, refused=why)


def _with_kinship(
    planned: SignaturePlan,
    signature: RobustWeightSignature,
    model: Live | Stored,
    terms: Terms,
    *,
    kin: bool,
    digest: bool,
) -> SignaturePlan:
    if not kin:
        why = _not_the_base(planned, "", (), scattered=True) if terms.verify == "exact" else ""
        return dataclasses.replace(planned, refused=why)
    config = signature.config
    homes = by_canonical(Piece(p.canonical, p.part, b.model, p.model_part) for b in planned.bindings for p in b.pieces)
    # A summand cannot be read back out of a sum; nor is a tied tensor there twice.
    unread = [
        n
        for n in signature.names
        if any(p.part is not None and p.part.axis for p in homes.get(n, [])) or n not in homes
    ]
    layout = {n: config.shape(n) for n in signature.names}

    near, exact = (Weights("", model.layout, read, {}) for read in (model.near, model.exact))

    def rows(name: str, start: int, stop: int, *, of: Weights = near) -> torch.Tensor:
        if name in unread:
            return torch.full((stop - start, *layout[name][1:]), torch.nan)
        return gather(of, homes[name], layout[name], start, stop)

    if config.sketch.method == "signs-2048-v1":
        found = model.summed(kinship.agreement(config.sketch, layout, rows))
        similarity, compared, alike = found.similarity, found.compared, found.agreeing == found.compared
        broken = found.broken
    else:
        read = {n: s for n, s in layout.items() if n not in unread}
        similarity = None if model.scattered else kinship.count_similarity(config.sketch, read, rows)
        alike = similarity is None or similarity > _ALIKE
        compared = 0 if similarity is None else sum(signature.elements(n) for n in read)
        broken = "" if model.scattered else kinship.broken(read, rows)
    same, own = None, ""
    if digest and (alike or terms.verify == "exact") and not unread and not model.scattered:
        own = digest_of(layout, partial(rows, of=exact))
        same = own == next(s.sha256 for s in config.sources if s.role == "standard")
    judged = dataclasses.replace(planned, similarity=similarity, compared=compared, same_base=same)
    why = ""
    if terms.verify == "exact" and not same:
        twin = own == next(s.sha256 for s in config.sources if s.role == "robust")
        why = _not_the_base(judged, "its robust twin" if twin else "", unread, scattered=model.scattered)
    elif terms.verify == "kin" and broken:
        named = homes[broken][0].model if broken in homes else broken
        why = (
            f"most of the weights that were looked at in {named} are NaN or infinite, so nothing can be said of its "
            "kinship; expected finite ones. Load the model again, or look at how it was made. To insist, pass "
            'verify="architecture" (--verify architecture).'
        )
    elif terms.verify == "kin" and similarity is not None and similarity < KIN_SIMILARITY:
        why = (
            f"it is a stranger to the model that the signature was made from: the estimated similarity is "
            f"{similarity:.2f}, and kin have at least {KIN_SIMILARITY:g}. It fits by names and shapes, but was not "
            "grown from the same weights, and usually gains little or loses (docs/RELIABILITY.md). To insist, pass "
            'verify="architecture" (--verify architecture).'
        )
    return dataclasses.replace(judged, refused=why)


def _not_the_base(judged: SignaturePlan, twin: str, unread: Sequence[str], *, scattered: bool) -> str:
    """Why a model is not known to be the exact base."""
    if scattered:
        return 'its tensors are spread over processes, and verify="exact" takes whole ones.'
    if unread:
        return f'{unread[0]} cannot be read back from this model as it was, which verify="exact" needs.'
    alike = "" if judged.similarity is None else f", estimated similarity {judged.similarity:.2f}"
    return (
        "its touched tensors are not bit for bit those of the clean model that the signature was made from"
        f"{f' but those of {twin}' if twin else ''}{alike}. Another dtype counts as another model. Load that model as "
        'it was published, or pass verify="kin" for any model grown from it.'
    )
