"""How alike signatures are: the cosines of their deltas, overall and layer by layer, and whose twin an unknown one is.

Compared are the learned parameters that every one of the signatures touches. Running batch-norm statistics are left
out: a mean is in the units of its channel and a variance is kept as a logarithm, so their sizes next to a weight's
mean nothing. A cosine says something about signatures that were made from the same clean weights; between models of
another origin it is near zero, whatever they were trained for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from rws_hub.errors import ComparisonError
from rws_hub.names import table_of
from rws_hub.report import fold_names
from rws_hub.signature import RobustWeightSignature
from rws_hub.spec import SignatureConfig
from rws_hub.trio import is_statistic

# Elements taken to float64 at a time: of large tensors only the float32 deltas are held.
_BLOCK = 2**16
_UNKNOWN = "the unknown signature"


@dataclass(frozen=True, slots=True)
class Similarity:
    """How alike signatures are in one set of tensors.

    Attributes:
        tensors, parameters: how many of them every signature touches.
        cosine: row i, column j: cosine of signatures i and j, -1 to 1; 1 on the diagonal. None where one of the two
            is zero throughout, which has no direction.
    """

    tensors: int
    parameters: int
    cosine: tuple[tuple[float | None, ...], ...]

    @property
    def mean(self) -> float | None:
        """Mean cosine over all pairs of different signatures; None if no pair has one."""
        found = [c for i, row in enumerate(self.cosine) for c in row[:i] if c is not None]
        return math.fsum(found) / len(found) if found else None


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """One layer, in all signatures.

    Attributes:
        label: the layer, as in `config.extraction.profile`.
        similarity: None if the signatures share no parameter here.
        relative_difference: of each signature, ||robust - standard|| / ||standard||, unitless, as recorded when it
            was extracted; None where its backbone has no such layer.
        touched: whether each signature changes the layer.
    """

    label: str
    similarity: Similarity | None
    relative_difference: tuple[float | None, ...]
    touched: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Signatures side by side, in the order in which they were given; `layers` in execution order.

    In a backbone without a name table, `layers` hold the tensors of the modules they are named after; what stands
    elsewhere, such as a norm of its own, counts in `overall` only.
    """

    labels: tuple[str, ...]
    overall: Similarity
    layers: tuple[LayerComparison, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """A reference and its overall cosine with the unknown signature, -1 to 1; None for one that is zero."""

    label: str
    corruption: str
    cosine: float | None


@dataclass(frozen=True, slots=True)
class Identification:
    """What an unknown signature is most like.

    Attributes:
        ranking: the references, nearest first; those without a cosine last.
        rival: the nearest reference of another corruption than the first one's; None if there is none.
        margin: cosine of the first minus that of the rival, unitless, 0 to 2; None without a rival.
        tensors, parameters: how many the unknown signature and all references touch.
    """

    ranking: tuple[Match, ...]
    rival: Match | None
    margin: float | None
    tensors: int
    parameters: int


def compare(signatures: Sequence[RobustWeightSignature], names: Sequence[str] | None = None) -> Comparison:
    """Compare signatures of one backbone by the direction of their deltas, in float64.

    Args:
        signatures: two or more, of one family and depth; each may touch layers of its own.
        names: what to call them, each once; None: by their corruptions, with the severity or a number where
            several have the same.

    Raises:
        ComparisonError: fewer than two signatures, other names than signatures, backbones that differ, or no learned
            parameter that all of them touch.

    Example:
        >>> both = compare([fog, noise])
        >>> both.labels
        ('fog', 'gaussian_noise')
        >>> [layer.label for layer in both.layers if layer.similarity]
        ['stem', 'layer1.0']
    """
    if len(signatures) < 2:
        raise ComparisonError(f"comparing takes at least two signatures, found {len(signatures)}")
    labels = _labels([s.config for s in signatures]) if names is None else tuple(names)
    if len(labels) != len(signatures) or len(set(labels)) < len(labels):
        raise ComparisonError(f"{len(signatures)} signatures need as many different names, found {list(labels)}")
    shared = _shared([s.config for s in signatures], labels)
    profiles = [{u.unit: u for u in s.config.extraction.profile} for s in signatures]
    units = dict.fromkeys(unit for profile in profiles for unit in profile)
    members: dict[str | None, list[str]] = {}
    for name in shared:
        members.setdefault(_unit_of(signatures[0].config, name, units), []).append(name)
    grams = {unit: _gram(signatures, tensors) for unit, tensors in members.items()}

    def similarity(tensors: Sequence[str], gram: torch.Tensor) -> Similarity:
        return Similarity(len(tensors), sum(map(signatures[0].elements, tensors)), _cosines(gram))

    layers = tuple(
        LayerComparison(
            unit,
            similarity(members[unit], grams[unit]) if unit in members else None,
            tuple(profile[unit].relative_difference if unit in profile else None for profile in profiles),
            tuple(unit in profile and profile[unit].touched for profile in profiles),
        )
        for unit in units
    )
    return Comparison(labels, similarity(shared, torch.stack(list(grams.values())).sum(0)), layers)


def identify(unknown: RobustWeightSignature, references: Sequence[RobustWeightSignature]) -> Identification:
    """Rank references by their overall cosine with an unknown signature.

    Args:
        unknown: the signature in question; what its config says of its corruption is not looked at.
        references: one or more of the same backbone. What counts is touched by all of them.

    Raises:
        ComparisonError: as in `compare`, or the unknown signature is zero where they meet.

    Example:
        >>> found = identify(fog, [noise, fog])
        >>> found.ranking[0].label, round(found.ranking[0].cosine, 2)
        ('fog', 1.0)
    """
    labels = _labels([s.config for s in references])
    overall = compare([unknown, *references], [_UNKNOWN, *labels]).overall
    if overall.cosine[0][0] is None:
        raise ComparisonError(
            f"{_UNKNOWN} is zero in the {overall.parameters:,} parameters that it shares with the others"
        )
    found = [
        Match(label, signature.config.corruption.name, cosine)
        for label, signature, cosine in zip(labels, references, overall.cosine[0][1:], strict=True)
    ]
    ranking = tuple(sorted(found, key=lambda m: math.inf if m.cosine is None else -m.cosine))
    nearest, rival = ranking[0], _rival(ranking)
    margin = None if rival is None or rival.cosine is None or nearest.cosine is None else nearest.cosine - rival.cosine
    return Identification(ranking, rival, margin, overall.tensors, overall.parameters)


def _rival(ranking: Sequence[Match]) -> Match | None:
    rest = (m for m in ranking if m.corruption != ranking[0].corruption and m.cosine is not None)
    return next(rest, None)


def _labels(configs: Sequence[SignatureConfig]) -> tuple[str, ...]:
    """The corruptions; where one comes several times, with its severity; where that does not help, with a number."""
    known = [(c.corruption.name, c.corruption.severity) for c in configs]
    often = Counter(name for name, _ in known)
    labels = [f"{name} {severity}" if often[name] > 1 and severity is not None else name for name, severity in known]
    often, seen = Counter(labels), Counter[str]()
    for i, label in enumerate(labels):
        seen[label] += 1
        labels[i] = f"{label} #{seen[label]}" if often[label] > 1 else label
    return tuple(labels)


def _shared(configs: Sequence[SignatureConfig], labels: Sequence[str]) -> list[str]:
    """The learned parameters that all touch, in the order of the first; refuses what cannot be compared."""
    first = configs[0]
    shared = [n for n in first.tensors if not is_statistic(n)]
    for i, config in enumerate(configs[1:], 1):
        _require_same_backbone(first, config, labels[0], labels[i])
        before, shared = shared, [n for n in shared if n in config.tensors]
        for name in shared:
            if first.shape(name) != config.shape(name):
                raise ComparisonError(
                    f"{name}: {labels[0]} has shape {list(first.shape(name))}, {labels[i]} {list(config.shape(name))}; "
                    "only signatures of one backbone can be compared"
                )
        if not shared:
            common = labels[0] if i == 1 else f"all of {', '.join(labels[:i])}"
            raise ComparisonError(
                f"{labels[i]} touches none of the learned parameters that {common} "
                f"{'touches' if i == 1 else 'touch'} ({', '.join(fold_names(before)) or 'none'}): nothing to compare"
            )
    return shared


def _require_same_backbone(a: SignatureConfig, b: SignatureConfig, name_a: str, name_b: str) -> None:
    """Refuse another family or table, and another depth: tensors of one name are then at different places."""
    ours, theirs = a.backbone, b.backbone
    if ours.family != theirs.family:
        raise ComparisonError(
            f"{name_a} is for {ours.architecture} ({ours.family} names), {name_b} for {theirs.architecture} "
            f"({theirs.family} names); only signatures of one backbone can be compared"
        )
    if ours.table != theirs.table:
        raise ComparisonError(f"{name_a} and {name_b} bring different name tables {ours.family!r}")
    layers = [_numbered(c) for c in (a, b)]
    for layer in sorted(layers[0] ^ layers[1]):
        having, lacking = (name_a, name_b) if layer in layers[0] else (name_b, name_a)
        raise ComparisonError(
            f"the backbone of {having} has {layer}, that of {lacking} has not; only signatures of one backbone can be "
            "compared"
        )


def _numbered(config: SignatureConfig) -> set[str]:
    """What a backbone of the same family and another depth has more or fewer of."""
    known = table_of(config.backbone.family, config.backbone.table) is not None
    # Within a layer the libraries may differ in a bias; without a table there is one library's names only.
    parts = {u.unit for u in config.extraction.profile} if known else set(config.backbone.layout)
    return {part for part in parts if any(map(str.isdigit, part))}


def _unit_of(config: SignatureConfig, name: str, units: Collection[str]) -> str | None:
    """The layer of a tensor, None if the config does not tell."""
    table = table_of(config.backbone.family, config.backbone.table)
    placed = None if table is None else table.unit_of(name)
    # Without a statement of the table a layer is called by its module, as in `layers.units_of`.
    found = [name.rpartition(".")[0], name] if placed is None else [placed[1]]
    return next((unit for unit in found if unit in units), None)


def _gram(signatures: Sequence[RobustWeightSignature], names: Sequence[str]) -> torch.Tensor:
    """Inner products of all signatures over some tensors: float64, one row and one column a signature."""
    gram = torch.zeros(len(signatures), len(signatures), dtype=torch.float64)
    for name in names:
        deltas = [s.delta(name).reshape(-1) for s in signatures]
        for start in range(0, len(deltas[0]), _BLOCK):
            rows = torch.stack([d[start : start + _BLOCK] for d in deltas]).double()
            gram += rows @ rows.T
    return gram


def _cosines(gram: torch.Tensor) -> tuple[tuple[float | None, ...], ...]:
    products: list[list[float]] = gram.tolist()

    def cosine(i: int, j: int) -> float | None:
        # One square root, and one half of the matrix: what is equal in exact arithmetic does not differ by a rounding.
        norms = math.sqrt(products[i][i] * products[j][j])
        return max(-1.0, min(1.0, products[min(i, j)][max(i, j)] / norms)) if norms else None

    return tuple(tuple(cosine(i, j) for j in range(len(products))) for i in range(len(products)))
