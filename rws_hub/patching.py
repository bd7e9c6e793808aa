"""Add signatures to a live model and take them off again, bit for bit: `patch` and its handle."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from torch import nn

from rws_hub.anchors import Place, commit, deltas_on, find_owner, path_of, places
from rws_hub.config import strength
from rws_hub.errors import PatchStateError
from rws_hub.plan import PatchPlan, SignaturePlan
from rws_hub.planner import plan_module, require_signatures
from rws_hub.signature import RobustWeightSignature

# The active handles, by the modules that own what they touch.
_handles: weakref.WeakKeyDictionary[nn.Module, list[Patch]] = weakref.WeakKeyDictionary()
_numbers = itertools.count()


def patch(
    model: nn.Module,
    *signatures: RobustWeightSignature,
    alpha: float | Sequence[float] | None = None,
    table: str | Path | None = None,
) -> Patch:
    """Add signatures to a live model, in place.

    Args:
        model: any timm, transformers or torch module whose backbone is that of the signatures, in any of its
            naming dialects, wrapped or not, on any device, in fp16, bf16, fp32 or fp64.
        signatures: what to add. Inside the patch each goes by the name of its corruption.
        alpha: patch strength, one number for all or one for each, unitless; 0 is the clean model, 1 as
            extracted, negative or above 1 is allowed. None: each signature's recommended strength.
        table: a name table of your own (docs/NAMES.md), used instead of those of the package.

    Returns:
        A handle, which is also a context manager that unpatches at its end.

    Raises:
        IncompatibleModelError: something does not fit; nothing was changed.
        PatchStateError: the model carries one of these signatures already; nothing was changed.
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
    handle = Patch(model)
    names = [s.config.corruption.name for s in signatures]
    handle._add(signatures, _strengths(signatures, alpha), names, table)
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
    found = {handle for module in model.modules() for handle in _handles.get(module, ())}
    return tuple(sorted(found, key=lambda handle: handle._number))


class Patch:
    """A set of signatures on one model. Made by `patch`; also a context manager that unpatches at its end.

    The model's weights are a function of its clean weights and the set of (signature, alpha) alone, summed
    over every active handle: any order of operations ends in the same bits.
    """

    def __init__(self, model: nn.Module) -> None:
        # Weak, so that the list of handles kept for a model does not keep the model itself alive.
        self._ref = weakref.ref(model)
        self._label = type(model).__name__
        self._number = next(_numbers)
        self._entries: dict[str, tuple[RobustWeightSignature, float]] = {}
        self._plans: dict[str, SignaturePlan] = {}
        # The modules that own the patched tensors: a wrapper may be dropped while the model inside it lives on.
        self._owners: dict[str, dict[str, weakref.ref[nn.Module]]] = {}

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
        return {name: alpha for name, (_, alpha) in self._entries.items()}

    @property
    def plan(self) -> PatchPlan:
        """Where the signatures of this handle went."""
        return PatchPlan(self._label, tuple(self._plans.values()))

    def set_alpha(self, /, **alphas: float) -> None:
        """Rescale signatures by name, all at once: `p.set_alpha(fog=0.3, noise=0)`.

        Raises:
            PatchStateError: a name that is not on the model, or a patched weight was changed meanwhile.
            ValueError: a strength that is not a finite number.
        """
        self._require(alphas)
        wanted = {name: strength(alpha, name) for name, alpha in alphas.items()}
        commit([d for n, a in wanted.items() for d in self._deltas(n, a)], [])
        for name, alpha in wanted.items():
            self._entries[name] = (self._entries[name][0], alpha)

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
        self._add([signature], _strengths([signature], alpha), [name or signature.config.corruption.name], table)

    def remove(self, *names: str) -> None:
        """Take signatures off by name; the others stay.

        Raises:
            PatchStateError: a name that is not on the model, or a patched weight was changed meanwhile.
        """
        self._require(names)
        names = tuple(dict.fromkeys(names))
        commit([], [d for n in names for d in self._deltas(n)])
        self._forget(names)

    def unpatch(self, *, force: bool = False) -> None:
        """Take all signatures of this handle off. Once no handle is left, every bit is as it was.

        Args:
            force: restore even if somebody changed a patched weight meanwhile; that change is lost.

        Raises:
            PatchStateError: nothing to take off, or a patched weight was changed (by training, by a forward
                pass in train mode that updates batch-norm statistics, by load_state_dict ...).
        """
        if not self._entries:
            raise PatchStateError("this patch is not on the model any more; it was taken off before")
        names = tuple(self._entries)
        commit([], [d for n in names for d in self._deltas(n, force=force)], force=force)
        self._forget(names)

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

    def _add(
        self,
        signatures: Sequence[RobustWeightSignature],
        alphas: Sequence[float],
        names: Sequence[str],
        table: str | Path | None,
    ) -> None:
        for i, name in enumerate(names):
            if name in self._entries or name in names[:i]:
                raise PatchStateError(
                    f"the name {name!r} is taken in this patch; add the second one with p.add(signature, name=...)"
                )
        plan = plan_module(self._model, signatures, table).require()
        entries = dict(zip(names, zip(signatures, alphas, strict=True), strict=True))
        plans = dict(zip(names, plan.signatures, strict=True))
        model = self._model
        homes = {
            name: {b.model: model.get_submodule(path_of(b.model)) for b in p.bindings} for name, p in plans.items()
        }
        deltas = [d for name, (s, a) in entries.items() for d in places(s, a, plans[name], homes[name])]
        self._refuse_twice(deltas)
        commit(deltas, [])
        self._owners |= {name: {n: weakref.ref(m) for n, m in home.items()} for name, home in homes.items()}
        self._entries |= entries
        self._plans |= plans
        for owner in self._owning():
            live = _handles.setdefault(owner, [])
            if self not in live:
                live.append(self)

    def _deltas(self, name: str, alpha: float | None = None, *, force: bool = False) -> list[Place]:
        """What one signature adds and to which modules, at its own strength or at `alpha`.

        Raises:
            PatchStateError: a module that was patched is gone, or not in the model any more (unless `force`).
        """
        root = self._ref()
        homes: dict[str, nn.Module] = {}
        for path, reference in self._owners[name].items():
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
        signature, strength = self._entries[name]
        return places(signature, strength if alpha is None else alpha, self._plans[name], homes)

    def _refuse_twice(self, deltas: list[Place]) -> None:
        seen: set[tuple[nn.Module, str, str]] = set()
        for module, attribute, delta in deltas:
            if (module, attribute, delta.order) in seen or delta.order in deltas_on(module, attribute):
                raise PatchStateError(
                    f"the model carries this very signature ({delta.signature.config.corruption.name}) already; "
                    "use set_alpha to change its strength. active_patches(model) lists the handles."
                )
            seen.add((module, attribute, delta.order))

    def _require(self, names: Sequence[str] | Mapping[str, float]) -> None:
        for name in names:
            if name not in self._entries:
                there = ", ".join(self._entries) or "none"
                raise PatchStateError(f"no signature named {name!r} in this patch; there are: {there}")

    def _forget(self, names: Sequence[str]) -> None:
        before = self._owning()
        for name in names:
            del self._entries[name], self._plans[name], self._owners[name]
        for owner in before - self._owning():
            _handles[owner].remove(self)
            if not _handles[owner]:
                del _handles[owner]

    def _owning(self) -> set[nn.Module]:
        """The modules, as far as they exist, that own what this handle touches."""
        return {m for owners in self._owners.values() for reference in owners.values() if (m := reference())}


def _strengths(signatures: Sequence[RobustWeightSignature], alpha: float | Sequence[float] | None) -> tuple[float, ...]:
    if alpha is None:
        return tuple(s.config.recommended_alpha for s in signatures)
    several = isinstance(alpha, Sequence) and not isinstance(alpha, (str, bytes))
    values = tuple(alpha) if several else (alpha,) * len(signatures)  # type: ignore[arg-type]
    if len(values) != len(signatures):
        raise ValueError(f"{len(signatures)} signatures but {len(values)} values of alpha")
    return tuple(strength(v, s.config.corruption.name) for s, v in zip(signatures, values, strict=True))
