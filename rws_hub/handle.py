"""`Patch`: the handle on the signatures that were added to one live model."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from torch import nn

from rws_hub.anchors import Place, commit, find_owner, kept_bytes, path_of, places, refuse_twice
from rws_hub.config import strength
from rws_hub.errors import PatchStateError
from rws_hub.gates import one_change
from rws_hub.judging import Terms, described, judge_change, judge_strengths
from rws_hub.plan import PatchPlan, SignaturePlan
from rws_hub.planner import plan_module, require_signatures
from rws_hub.removal import Removal
from rws_hub.signature import RobustWeightSignature

# The active handles, by the modules that own what they touch.
_handles: weakref.WeakKeyDictionary[nn.Module, tuple[Patch, ...]] = weakref.WeakKeyDictionary()
_numbers = itertools.count()


# A signature and its strength.
_Wanted = tuple[RobustWeightSignature, float]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One signature of a handle, and the modules that own what it touches: a model may be a wrapper that is dropped."""

    signature: RobustWeightSignature
    alpha: float
    plan: SignaturePlan
    owners: Mapping[str, weakref.ref[nn.Module]]


def handles_on(model: nn.Module) -> tuple[Patch, ...]:
    """The handles that are active on a model or on parts of it, oldest first."""
    found = {handle for module in model.modules() for handle in _handles.get(module, ())}
    return tuple(sorted(found, key=lambda handle: handle._number))


class Patch:
    """A set of signatures on one model. Made by `patch`; also a context manager that unpatches at its end.

    The model's weights are a function of its clean weights and the set of (signature, alpha) alone, summed
    over every active handle: any order of operations ends in the same bits.
    """

    def __init__(self, model: nn.Module, removal: Removal, terms: Terms) -> None:
        # Weak, so that the list of handles kept for a model does not keep the model itself alive.
        self._ref = weakref.ref(model)
        self._label = type(model).__name__
        self._removal = removal
        self._terms = terms
        self._number = next(_numbers)
        # Never changed but by putting another one in its place: other threads may be reading.
        self._entries: Mapping[str, _Entry] = {}

    @property
    def _model(self) -> nn.Module:
        model = self._ref()
        if model is None:
            raise PatchStateError(f"the {self._label} that was patched does not exist any more")
        return model

    @property
    def active(self) -> bool:
        """Whether any signature of this handle is on the model."""
        return bool(self._entries)

    @property
    def alphas(self) -> Mapping[str, float]:
        """Name -> strength of the signatures of this handle."""
        return {name: entry.alpha for name, entry in self._entries.items()}

    @property
    def plan(self) -> PatchPlan:
        """Where the signatures of this handle went, and what they do to the model."""
        if self._ref() is None:
            return self._planned
        on = [d for entry in self._entries.values() for d in self._deltas(entry, force=True)]
        return described(self._planned, on)

    @property
    def _planned(self) -> PatchPlan:
        return PatchPlan(self._label, tuple(entry.plan for entry in self._entries.values()))

    @property
    def kept_bytes(self) -> int:
        """Bytes kept in memory to restore what this handle touches; a tensor under two handles counts for both."""
        return kept_bytes(d for entry in self._entries.values() for d in self._deltas(entry, force=True))

    def set_alpha(self, /, **alphas: float) -> None:
        """Rescale signatures by name, all at once: `p.set_alpha(fog=0.3, noise=0)`.

        Raises:
            IncompatibleModelError: a weight would change by more than the patch's `max_relative_norm`.
            PatchStateError: a name that is not on the model, or a patched weight was changed meanwhile.
            ValueError: a strength that is not a finite number.
        """
        with one_change(self._ref()):
            self._require(alphas)
            wanted = {name: strength(alpha, name) for name, alpha in alphas.items()}
            rescaled = {name: replace(self._entries[name], alpha=alpha) for name, alpha in wanted.items()}
            on = [d for entry in rescaled.values() for d in self._deltas(entry)]
            if any(abs(entry.alpha) > abs(self._entries[name].alpha) for name, entry in rescaled.items()):
                judge_strengths(self._planned, on, self._terms).require()
            commit(on, [])
            self._remember((), rescaled)

    def add(
        self,
        signature: RobustWeightSignature,
        *,
        alpha: float | None = None,
        name: str | None = None,
        table: str | Path | None = None,
    ) -> None:
        """Add one more signature, under the name of its corruption or under `name`.

        Raises:
            IncompatibleModelError, PatchStateError, NameTableError: as `patch`; nothing was changed.
        """
        require_signatures([signature])
        alpha = signature.config.recommended_alpha if alpha is None else alpha
        name = name or signature.config.corruption.name
        self._change({name: (signature, strength(alpha, name))}, (), table)

    def remove(self, *names: str) -> None:
        """Take signatures off by name; the others stay.

        Raises:
            PatchStateError: a name that is not on the model, or a patched weight was changed meanwhile.
        """
        self._change({}, names, None)

    def exchange(
        self,
        name: str,
        signature: RobustWeightSignature,
        *,
        alpha: float | None = None,
        table: str | Path | None = None,
    ) -> None:
        """Put a signature in the place of the one called `name`, in one pass; it goes by its own corruption.

        Raises:
            IncompatibleModelError, PatchStateError, NameTableError: as `patch` and `remove`; nothing was changed.

        Example:
            >>> p = patch(model, fog)
            >>> p.exchange("fog", noise, alpha=0.5)
            >>> p
            <Patch on ResNet: gaussian_noise=0.5>
            >>> p.unpatch()
        """
        require_signatures([signature])
        alpha = signature.config.recommended_alpha if alpha is None else alpha
        new = signature.config.corruption.name
        self._change({new: (signature, strength(alpha, new))}, (name,), table)

    def unpatch(self, *, force: bool = False) -> None:
        """Take all signatures of this handle off. Once no handle is left, every bit is as it was.

        Args:
            force: restore even if somebody changed a patched weight meanwhile; that change is lost.

        Raises:
            PatchStateError: nothing to take off, or a patched weight was changed (by training, by a forward
                pass in train mode that updates batch-norm statistics, by load_state_dict ...).
        """
        with one_change(self._ref()):
            if not self._entries:
                raise PatchStateError("this patch is not on the model any more; it was taken off before")
            commit([], [d for e in self._entries.values() for d in self._deltas(e, force=force)], force=force)
            self._remember(tuple(self._entries), {})

    def __enter__(self) -> Self:
        if not self._entries:
            raise PatchStateError("this patch is not on the model any more; call patch(model, ...) again")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._entries:
            self.unpatch()

    def __repr__(self) -> str:
        inside = ", ".join(f"{n}={a:g}" for n, a in self.alphas.items()) or "taken off"
        return f"<Patch on {self._label}: {inside}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Patch belongs to one live model and cannot be copied or pickled; save the model's state_dict (it "
            "holds the patched weights) or the signatures instead"
        )

    def _change(self, put: Mapping[str, _Wanted], remove: Sequence[str], table: str | Path | None) -> None:
        """Take some signatures off and put others on, by name, in one pass."""
        with one_change(self._ref()):
            self._require(remove)
            for name in put:
                if name in self._entries and name not in remove:
                    raise PatchStateError(
                        f"the name {name!r} is taken in this patch; take that one off first, or add the second one "
                        "with p.add(signature, name=...)"
                    )
            off = [d for n in dict.fromkeys(remove) for d in self._deltas(self._entries[n])]
            if not put:
                commit([], off)
                self._remember(remove, {})
                return
            model = self._model
            signatures = [s for s, _ in put.values()]
            plan = plan_module(model, signatures, table).require()
            fitting = dict(zip(put, plan.signatures, strict=True))
            homes = {
                n: {b.model: model.get_submodule(path_of(b.model)) for b in p.bindings} for n, p in fitting.items()
            }
            on = [d for n, (s, a) in put.items() for d in places(s, a, fitting[n], homes[n])]
            refuse_twice(on, off)
            judged, sizes = judge_change(plan, signatures, on, off, self._terms)
            plans = dict(zip(put, judged.require().signatures, strict=True))
            touched = sum(p.touched_bytes or 0 for p in plans.values())
            commit(on, off, self._removal.chooser(signatures, touched, table), sizes)
            owners = {n: {m: weakref.ref(o) for m, o in home.items()} for n, home in homes.items()}
            self._remember(remove, {n: _Entry(s, a, plans[n], owners[n]) for n, (s, a) in put.items()})

    def _deltas(self, entry: _Entry, *, force: bool = False) -> list[Place]:
        """What one signature adds and to which modules.

        Raises:
            PatchStateError: a module that was patched is gone, or not in the model any more (unless `force`).
        """
        root = self._ref()
        homes: dict[str, nn.Module] = {}
        for path, reference in entry.owners.items():
            owner = reference()
            if root is not None and not force and (owner is None or find_owner(root, path) is not owner):
                raise PatchStateError(
                    f"{path} is not the one that was patched: the module was replaced meanwhile. Put it back, or "
                    "call unpatch(force=True) to restore the clean values of what was patched all the same."
                )
            if owner is not None:
                homes[path] = owner
        if root is None and not homes:
            raise PatchStateError(f"the {self._label} that was patched does not exist any more")
        return places(entry.signature, entry.alpha, entry.plan, homes)

    def _require(self, names: Sequence[str] | Mapping[str, float]) -> None:
        for name in names:
            if name not in self._entries:
                there = ", ".join(self._entries) or "none"
                raise PatchStateError(f"no signature named {name!r} in this patch; there are: {there}")

    def _remember(self, gone: Sequence[str], new: dict[str, _Entry]) -> None:
        """Write down what was done: some are gone by name, and others are new or at another strength."""
        before = _owning(self._entries)
        self._entries = {n: e for n, e in self._entries.items() if n not in gone} | new
        after = _owning(self._entries)
        for owner in before ^ after:
            others = tuple(handle for handle in _handles.get(owner, ()) if handle is not self)
            _handles[owner] = (*others, self) if owner in after else others
            if not _handles[owner]:
                del _handles[owner]


def _owning(entries: Mapping[str, _Entry]) -> set[nn.Module]:
    """The modules, as far as they exist, that own what some signatures touch."""
    return {m for entry in entries.values() for reference in entry.owners.values() if (m := reference())}
