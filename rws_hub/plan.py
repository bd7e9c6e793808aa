"""What would go where: a pure plan that explains itself.

The frozen types only; `planner.plan_patch` makes them and `patching.patch` carries them out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from rws_hub.errors import IncompatibleModelError
from rws_hub.report import fold_names, fold_pairs
from rws_hub.resolve import Piece

# A model whose sketch is less alike than this shares no ancestor with the source (docs/DECISIONS.md).
KIN_SIMILARITY = 0.3

Reason = Literal["missing", "unexpected", "mismatched", "unusable"]


@dataclass(frozen=True, slots=True)
class Binding:
    """All pieces of one signature that land in one tensor of the model."""

    model: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one tensor has no home: `name` as the signature or the model spells it, and the reason in words."""

    reason: Reason
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class SignaturePlan:
    """One signature against one model.

    Attributes:
        name: the signature's name inside the patch.
        family, dialect, prefix: what explained the model's names.
        bindings: where each delta goes.
        rejected: everything that stands against it; empty means that it fits.
        resized: untouched tensors of another shape (another input size), which do not matter.
        similarity: estimated cosine between the model's weights and the signature's clean source
            (-1 to 1), or None where the values could not be read.
        touched: number of weights and statistics that change.
    """

    name: str
    family: str
    dialect: str
    prefix: str
    bindings: tuple[Binding, ...]
    rejected: tuple[Rejection, ...]
    resized: tuple[str, ...]
    similarity: float | None
    touched: int

    @property
    def ok(self) -> bool:
        """Whether every delta of the signature has a home."""
        return not self.rejected

    def explain(self) -> str:
        """The report as text: one line a tensor group, numbered layers folded together."""
        where = f"{self.family} in {self.dialect} names" + (f" under '{self.prefix}'" if self.prefix else "")
        head = f"{self.name}: {'fits' if self.ok else 'does not fit'}, {where}"
        if not self.ok:
            details: dict[tuple[str, str], list[str]] = {}
            for r in self.rejected:
                details.setdefault((r.reason, r.detail), []).append(r.name)
            lines = [f"  {reason:<10} {n}  {d}" for (reason, d), names in details.items() for n in fold_names(names)]
            return "\n".join([head, *lines])
        pieces = [(p, b.model) for b in self.bindings for p in b.pieces]
        parts = Counter(p.canonical for p, _ in pieces)
        pairs = [(p.canonical + (_rows(p) if parts[p.canonical] > 1 else ""), model) for p, model in pieces]
        lines = [f"  accepted   {s}" + (f"  ->  {t}" if t != s else "") for s, t in fold_pairs(pairs)]
        lines += [f"  untouched  {n}  (another shape here; not part of the signature)" for n in self.resized]
        lines.append(f"  touches {self.touched:,} weights and statistics in {len(self.bindings)} tensors")
        if self.similarity is not None:
            lines.append(f"  kinship: {self.kinship}")
        return "\n".join([head, *lines])

    @property
    def kinship(self) -> str:
        """The similarity in words."""
        if self.similarity is None:
            return "unknown"
        verdict = (
            "kin of the signature's source"
            if self.similarity >= KIN_SIMILARITY
            else "a stranger to the signature's source: it fits by shape, but expect little of it"
        )
        return f"{verdict} (estimated similarity {self.similarity:.2f})"


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """What `patch` would do. Nothing has been touched."""

    target: str
    signatures: tuple[SignaturePlan, ...]

    @property
    def ok(self) -> bool:
        """Whether every signature fits."""
        return all(s.ok for s in self.signatures)

    def explain(self) -> str:
        """The whole report, for people."""
        return "\n".join([f"plan for {self.target}", *(s.explain() for s in self.signatures)])

    def __str__(self) -> str:
        return self.explain()

    def require(self) -> PatchPlan:
        """This plan, if everything fits.

        Raises:
            IncompatibleModelError: naming the first tensor, what was expected and what was found.
        """
        for signature in self.signatures:
            if signature.rejected:
                first = signature.rejected[0]
                more = len(signature.rejected) - 1
                raise IncompatibleModelError(
                    f"cannot patch {self.target} with {signature.name!r}: {first.reason} {first.name} "
                    f"({first.detail})"
                    + (f", and {more} more" if more else "")
                    + ". Nothing was changed. print(plan_patch(...).explain()), or `rws check`, shows the whole list.",
                    self,
                )
        return self


def _rows(piece: Piece) -> str:
    return f"[{piece.rows[0]}:{piece.rows[1]}]"
