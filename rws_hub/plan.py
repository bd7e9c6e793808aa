"""What would go where: a pure plan that explains itself.

The frozen types only; `planner.plan_patch` makes them and `patching.patch` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rws_hub.errors import IncompatibleModelError
from rws_hub.report import fold_names, fold_pairs, table
from rws_hub.spelling import Piece, written

# How much a model has to be that of the signature: its touched tensors bit for bit; grown from the same weights; or
# named and shaped like it.
Verify = Literal["exact", "kin", "architecture"]

# A model that is less similar than this shares no ancestor with the source, or nothing is left of it; and a change
# that is larger than this, in terms of the weights that it is added to, has left them behind (docs/RELIABILITY.md).
KIN_SIMILARITY = 0.5
MAX_RELATIVE_NORM = 1.0
# How many of the tensors that change most a report names.
_WORST = 3

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
class Change:
    """What would become of one tensor, or of a few that hold the same rows of a signature's tensor (q, k and v).

    Attributes:
        names: as the model spells them.
        relative_norm: ||alpha * delta|| / ||theta|| on this model, summed over the signatures on it. A vector is
            measured against all tensors of its layer; of running variances it is that of the standard deviations, in
            their logarithm, as a root mean square.
        recorded: the same of the clean models that the signatures were made from, as their configs state it; None
            for vectors.
        factor: how many times larger or smaller a running variance becomes at most; None for everything else.
    """

    names: tuple[str, ...]
    relative_norm: float
    recorded: float | None
    factor: float | None


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
        similarity: estimated cosine between the model's clean weights and those of the signature's clean source
            (-1 to 1); None where it was not looked at, or too few weights could be compared.
        compared: how many weights that estimate is made from; None where it was not looked at.
        same_base: whether the touched tensors are those of the clean source, bit for bit; None where it was not
            looked at.
        refused: why the model is refused although the signature fits it; empty if it is not.
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
    touched: int
    touched_bytes: int | None
    similarity: float | None = None
    compared: int | None = None
    same_base: bool | None = None
    refused: str = ""

    @property
    def ok(self) -> bool:
        """Whether every delta of the signature has a home, and the model is one that it is meant for."""
        return not self.rejected and not self.refused

    @property
    def is_ambiguous(self) -> bool:
        """Whether the signature fits at more than one place, so that none can be chosen."""
        return any(r.reason == "ambiguous" for r in self.rejected)

    def explain(self) -> str:
        """The report as a table: one line a tensor group, numbered layers folded together."""
        where = f"{self.family} in {self.dialect} names" + (f" under '{self.prefix}'" if self.prefix else "")
        head = f"{self.name}: {'does not fit' if self.rejected else 'fits'}, {where}"
        if self.rejected:
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
        if self.kinship:
            lines.append(f"kinship: {self.kinship}")
        return "\n".join([head, "", *lines, *([f"refused: {self.refused}"] if self.refused else [])])

    @property
    def kinship(self) -> str:
        """The similarity in words; nothing where it was not looked at."""
        if self.compared is None:
            return ""
        if self.same_base:
            return "same base: the touched tensors are those of the signature's source, bit for bit"
        if self.similarity is None:
            return f"unknown: no more than {self.compared} weights can be compared"
        return f"{'kin' if self.similarity >= KIN_SIMILARITY else 'stranger'} (similarity {self.similarity:.2f})"


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """What `patch` would do. Nothing has been touched.

    Attributes:
        target: the model.
        signatures: each for itself.
        changes: what would become of each tensor, the largest change first; with what is on the model already.
        relative_norm: ||alpha * delta|| / ||theta|| of all wide touched tensors together; None if there is none.
        refused: why this is too much for the model; empty if it is not.
    """

    target: str
    signatures: tuple[SignaturePlan, ...]
    changes: tuple[Change, ...] = ()
    relative_norm: float | None = None
    refused: str = ""

    @property
    def ok(self) -> bool:
        """Whether every signature fits, and nothing is refused."""
        return all(s.ok for s in self.signatures) and not self.refused

    def explain(self) -> str:
        """The whole report, for people."""
        lines = [f"plan for {self.target}", *(s.explain() for s in self.signatures), *self._told()]
        return "\n".join([*lines, f"refused: {self.refused}"] if self.refused else lines)

    def _told(self) -> list[str]:
        """What would change most."""
        factors = [(c.factor, c.names) for c in self.changes if c.factor is not None]
        rows = [
            (
                ", ".join(fold_names(c.names)),
                f"{c.relative_norm:.3g}",
                "-" if c.recorded is None else f"{c.recorded:.3g}",
            )
            for c in self.changes[:_WORST]
        ]
        if self.relative_norm is not None:
            rows.append(("all kernels and matrices", f"{self.relative_norm:.3g}", "-"))
        lines = ["", *table(("Changes most", "Relative norm", "On its source"), rows)] if rows else []
        if factors:
            factor, names = max(factors)
            lines.append(f"running variances change by a factor of up to {factor:.3g} ({names[0]})")
        return lines

    def __str__(self) -> str:
        return self.explain()

    def require(self) -> PatchPlan:
        """This plan, if everything fits and nothing is refused.

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
            if signature.refused:
                why = f"cannot patch {self.target} with {signature.name!r}: {signature.refused}"
                raise IncompatibleModelError(f"{why} Nothing was changed.", self)
        if self.refused:
            raise IncompatibleModelError(f"cannot patch {self.target}: {self.refused} Nothing was changed.", self)
        return self
