"""Decide where every delta of a signature goes in a model, before a weight is touched.

Whatever can fail about fit, fails here; `patching.patch` carries out an accepted plan and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from rws_hub.diagnosis import Known, diagnose
from rws_hub.errors import NameTableError
from rws_hub.names import Family, Layout, families, read_table, table_of
from rws_hub.plan import Binding, PatchPlan, Rejection, SignaturePlan
from rws_hub.recognise import recognise, why_unexplained
from rws_hub.resolve import Match, match, match_below, plain_names
from rws_hub.signature import RobustWeightSignature
from rws_hub.sources import Weights, by_canonical, is_floating, live_tensors, what_else
from rws_hub.spelling import IDENTITY, Piece, flaw, written
from rws_hub.writable import first_names, once_per_storage, why_not


def require_signatures(found: Sequence[object]) -> None:
    """Refuse anything else, with a hint for those who pass an id or a list."""
    for each in found:
        if not isinstance(each, RobustWeightSignature):
            raise TypeError(
                f"expected a RobustWeightSignature, found {type(each).__name__}; load one with "
                "RobustWeightSignature.from_pretrained(folder_or_hub_id)"
            )


def plan_module(
    model: nn.Module, signatures: Sequence[RobustWeightSignature], table: str | Path | None = None
) -> PatchPlan:
    """Where every delta of the signatures would go in a live module: names and shapes only, no value is read."""
    tensors = live_tensors(model)
    layout = {n: tuple(t.shape) for n, t in tensors.items() if is_floating(t)}
    target = _Target(type(model).__name__, layout, tensors, what_else(tensors))
    return PatchPlan(target.label, tuple(_plan_one(target, s, _names_of(s, table)) for s in signatures))


def plan_weights(
    weights: Weights, signatures: Sequence[RobustWeightSignature], table: str | Path | None = None
) -> PatchPlan:
    """The same of a checkpoint or a state dict."""
    target = _Target(weights.label, weights.layout, {}, weights.others)
    return PatchPlan(weights.label, tuple(_plan_one(target, s, _names_of(s, table)) for s in signatures))


@dataclass(frozen=True, slots=True)
class _Target:
    """A model: names and shapes of its floating tensors, the live ones (none of a file), and what else it holds."""

    label: str
    layout: Layout
    tensors: Mapping[str, torch.Tensor]
    others: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Names:
    """The table that a signature's names are looked up in, and what stands before each of them."""

    table: Family | None
    root: str = ""

    def inner(self, layout: Layout) -> Layout:
        """The layout as the table spells it."""
        return {n.removeprefix(self.root): shape for n, shape in layout.items()}

    def places(self, signature: RobustWeightSignature, layout: Layout) -> list[Match]:
        body = signature.config.backbone.layout
        if self.table is None or not self.root:
            return match(self.table, body, signature.names, layout)
        return match_below(self.root, self.table, body, signature.names, layout)


def _names_of(signature: RobustWeightSignature, path: str | Path | None) -> _Names:
    backbone = signature.config.backbone
    if path is None:
        return _Names(table_of(backbone.family, backbone.table))
    given = read_table(path)
    found = _rooted([given], backbone.layout)
    name = signature.config.corruption.name
    if found is None:
        why = why_unexplained(backbone.layout, given)
        raise NameTableError(f"{path}: the table does not explain the names of the signature {name!r}: it {why}")
    if found.table and (problem := flaw(found.table, found.inner(backbone.layout))):
        raise NameTableError(f"{path}: the table {problem}. Every number must have one place in every column")
    return found


def _rooted(tables: Iterable[Family], layout: Layout) -> _Names | None:
    """The table that explains a signature's whole layout, with the dialect it is written in first."""
    (found, *others) = recognise(layout, tables)
    if found.table is None or others or not all(n.startswith(found.prefix) for n in layout):
        return None
    return _Names(found.table.rooted(found.dialect), found.prefix)


def _plan_one(target: _Target, signature: RobustWeightSignature, names: _Names) -> SignaturePlan:
    layout, tensors = target.layout, target.tensors
    first = first_names(tensors)
    places = _places(layout, first, signature, names)
    best = places[0]
    rejected = _of_another_kind(best, target)
    diagnosis = ""
    if not best.fits and not rejected:
        diagnosis = _diagnosis(best, signature, names, layout)
    rejected += _rejections(best, signature, layout, {r.name for r in rejected})
    distinct = _distinct(places, first)
    if len(distinct) > 1:
        found = ", ".join(f"'{prefix}'" for prefix in distinct)
        diagnosis = f"the backbone occurs under {found}; patch one submodule alone"
        rejected = [Rejection("ambiguous", "", diagnosis, target.label)]
    grouped: dict[str, list[Piece]] = {}
    for piece in best.pieces if best.fits else ():
        grouped.setdefault(piece.model, []).append(piece)
    bindings = [Binding(first.get(n, n), tuple(pieces)) for n, pieces in grouped.items()]
    if not rejected:
        rejected = [r for n in grouped if n in tensors for r in why_not(n, tensors[n])]
    if not rejected:
        bindings, rejected = once_per_storage(bindings, best, tensors, signature)
    if rejected and not diagnosis:
        diagnosis = f"{rejected[0].model}: {rejected[0].detail}"
    return SignaturePlan(
        name=signature.config.corruption.name,
        family=names.table.name if names.table else IDENTITY,
        dialect=best.dialect,
        prefix=best.prefix,
        bindings=tuple(bindings),
        rejected=tuple(rejected),
        diagnosis=diagnosis,
        resized=best.resized,
        absent=best.absent,
        touched=sum(signature.elements(n) for n in signature.names),
        touched_bytes=sum(t.numel() * t.element_size() for t in (tensors[b.model] for b in bindings))
        if tensors
        else None,
    )


def _places(layout: Layout, first: Mapping[str, str], signature: RobustWeightSignature, names: _Names) -> list[Match]:
    """Where the signature's backbone is in a model, best first."""
    places = names.places(signature, layout)
    if sum(m.fits for m in places) != 1 and len(_distinct(places, first)) < 2 and any(first[n] != n for n in first):
        # A signature made from a model with tied tensors, or a backbone that goes by two names.
        again = names.places(signature, {n: shape for n, shape in layout.items() if first[n] == n})
        places = again if again[0].fits else places
    if names.table is None and not places[0].fits:
        # Perhaps written before there was a table for its family.
        known = _rooted(families().values(), signature.config.backbone.layout)
        places = ([m for m in known.places(signature, layout) if m.fits] if known else []) or places
    return places


def _distinct(places: Iterable[Match], first: Mapping[str, str]) -> list[str]:
    """Prefixes of the places that fit; one for a backbone that goes by several names."""
    found: dict[tuple[frozenset[str], frozenset[Piece]], str] = {}
    for place in places:
        if place.fits:
            body = frozenset(first.get(n, n) for n in place.body)
            pieces = frozenset(dataclasses.replace(p, model=first.get(p.model, p.model)) for p in place.pieces)
            found.setdefault((body, pieces), place.prefix)
    return list(found.values())


def _of_another_kind(best: Match, target: _Target) -> list[Rejection]:
    """Tensors that the model has, but not as floating numbers."""
    others = plain_names(target.others, in_table=True)
    return [
        Rejection(
            "unusable",
            p.canonical,
            f"it is {target.others[others[p.model]]}; expected a dense fp16, bf16, fp32 or fp64 tensor",
            others[p.model],
        )
        for p in best.missing
        if p.model in others
    ]


def _source(signature: RobustWeightSignature) -> str:
    name = signature.config.backbone.architecture
    return "the signature's backbone" + ("" if name == "unknown" else f" {name}")


def _diagnosis(best: Match, signature: RobustWeightSignature, names: _Names, layout: Layout) -> str:
    known = Known(_source(signature), names.table, signature.config.backbone.layout, signature.names)
    return diagnose(best, known, layout)


def _rejections(
    best: Match, signature: RobustWeightSignature, layout: Layout, known: Collection[str]
) -> list[Rejection]:
    """What a place lacks, has too much, or has in another shape, but for the tensors of `known`."""
    homes = by_canonical(best.pieces)
    out: list[Rejection] = []
    for misfit in {m.piece.canonical: m for m in best.misfits}.values():
        name, part = misfit.piece.canonical, misfit.piece.model_part
        models = [p.model for p in homes[name]]
        found = " + ".join(str(list(layout[m])) for m in models)
        where = f" as {written(part)} of {list(misfit.expected)}" if part else ""
        detail = f"signature {list(signature.config.shape(name))}{where}, model {found}"
        out.append(Rejection("mismatched", name, detail, " + ".join(dict.fromkeys(models))))
    out += [
        Rejection("missing", p.canonical, "the signature's backbone has it, this model has not", p.model)
        for p in best.missing
        if p.canonical not in known
    ]
    out += [
        Rejection("unexpected", "", "this model has it, the signature's backbone has not", n) for n in best.unexpected
    ]
    return out
