"""What would go where: a pure plan that explains itself.

The frozen types only; `planner.plan_patch` makes them and `patching.patch` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rws_hub.errors import IncompatibleModelError
from rws_hub.report import fold_names, fold_pairs, table
from rws_hub.spelling import Piece, written

# A model whose sketch is less alike than this shares no ancestor with the source (docs/DECISIONS.md).
KIN_SIMILARITY = 0.3

# A guess at what a ledger takes for each weight, before there is one; `Patch.kept_bytes` tells what it took.
LEDGER_BITS = 0.5

Reason = Literal["missing", "unexpected", "mismatched", "unusable", "ambiguous"]


@dataclass(frozen=True, slots=True)
class Binding:
    """All pieces of one signature that land in one tensor of the model."""

    model: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one tensor has no home.

    Attributes:
        reason: one word.
        name: the tensor as the signature spells it; empty where it is about the model alone.
        detail: what was expected and what was found.
        model: the model's tensor that is meant, if there is one.
    """

    reason: Reason
    name: str
    detail: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class SignaturePlan:
    """One signature against one model.

    Attributes:
        name: the signature's name inside the patch.
        family, dialect, prefix: what explained the model's names.
        bindings: where each delta goes.
        rejected: everything that stands against it; empty means that it fits.
        diagnosis: the reason for all that in one line; empty if it fits.
        resized: untouched tensors of another shape (another input size), which do not matter.
        absent: untouched tensors of the last layer that the model was built without; nor do these.
        similarity: estimated cosine between the model's weights and the signature's clean source
            (-1 to 1), or None where the values could not be read.
        touched: number of weights and statistics that change.
        touched_bytes: what the tensors that change take in a live model; None for a file.
    """

    name: str
    family: str
    dialect: str
    prefix: str
    bindings: tuple[Binding, ...]
    rejected: tuple[Rejection, ...]
    diagnosis: str
    resized: tuple[str, ...]
    absent: tuple[str, ...]
    similarity: float | None
    touched: int
    touched_bytes: int | None

    @property
    def ok(self) -> bool:
        """Whether every delta of the signature has a home."""
        return not self.rejected

    @property
    def is_ambiguous(self) -> bool:
        """Whether the signature fits at more than one place, so that none can be chosen."""
        return any(r.reason == "ambiguous" for r in self.rejected)

    def explain(self) -> str:
        """The report as a table: one line a tensor group, numbered layers folded together."""
        where = f"{self.family} in {self.dialect} names" + (f" under '{self.prefix}'" if self.prefix else "")
        head = f"{self.name}: {'fits' if self.ok else 'does not fit'}, {where}"
        if not self.ok:
            rejected: dict[tuple[str, str, bool], list[tuple[str, str]]] = {}
            for r in self.rejected:
                pair = (r.model, r.name) if r.model else (r.name, "")
                rejected.setdefault((r.reason, r.detail, bool(r.model)), []).append(pair)
            found = [
                (t or "-", why, s, detail) if there else (s, why, "-", detail)
                for (why, detail, there), pairs in rejected.items()
                for s, t in fold_pairs(pairs)
            ]
            lines = table(("Tensor", "Status", "In the model", "Details"), found)
            return "\n".join([head, self.diagnosis, "", *lines])
        pieces = [(p, b.model) for b in self.bindings for p in b.pieces]
        pairs = [(p.canonical + written(p.part), model + written(p.model_part)) for p, model in pieces]
        rows = [(s, "accepted", "=" if t == s else t) for s, t in fold_pairs(pairs)]
        rows += [(n, "untouched", "another shape here; not part of the signature") for n in fold_names(self.resized)]
        rows += [(n, "untouched", "not in this model; not part of the signature") for n in fold_names(self.absent)]
        lines = table(("Tensor", "Status", "In the model"), rows)
        lines += ["", f"touches {self.touched:,} weights and statistics in {len(self.bindings)} tensors"]
        if self.touched_bytes is not None:
            ledger = round(self.touched * LEDGER_BITS / 8)
            lines.append(
                f"to take it off exactly, {self.touched_bytes:,} bytes are kept in memory (removal='snapshot'), or "
                f"about {ledger:,} ('ledger'), or next to none ('reload', with a checkpoint)"
            )
        if self.similarity is not None:
            lines.append(f"kinship: {self.kinship}")
        return "\n".join([head, "", *lines])

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
                count = len(signature.rejected)
                all_of_them = f" {count} tensor{'s' if count > 1 else ''} in all: print(plan_patch(...).explain()), "
                raise IncompatibleModelError(
                    f"cannot patch {self.target} with {signature.name!r}: {signature.diagnosis}. Nothing was changed."
                    + ("" if signature.is_ambiguous else all_of_them + "or `rws check`, shows the list."),
                    self,
                )
        return self
