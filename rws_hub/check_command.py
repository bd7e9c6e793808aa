"""`rws check`: the plan for a checkpoint, and what it would do, as text or JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from rws_hub import hub_commands
from rws_hub.errors import IncompatibleModelError
from rws_hub.words import MODEL_FILES, finite, terms, word

if TYPE_CHECKING:
    from rws_hub.plan import PatchPlan


def declare(check: argparse.ArgumentParser) -> None:
    """What `rws check` takes beside the signature and a name table."""
    check.add_argument("model", type=word, help=MODEL_FILES)
    check.add_argument("--alpha", type=finite, help="patch strength; default: the signature's recommended one")
    terms(check)


def run(arguments: argparse.Namespace) -> None:
    """Tell, and fail if `rws apply` would."""
    from rws_hub import show
    from rws_hub.checkpoints import Access, locate
    from rws_hub.judging import plan_patch
    from rws_hub.references import parse

    signature = hub_commands.load(arguments)
    found = locate(parse(arguments.model), Access())
    plan = plan_patch(
        found.path,
        signature,
        alpha=arguments.alpha,
        verify=arguments.verify,
        max_relative_norm=arguments.max_relative_norm,
        table=arguments.table,
    )
    plan = dataclasses.replace(plan, target=found.label)
    if arguments.json:
        alpha = signature.config.recommended_alpha if arguments.alpha is None else arguments.alpha
        asked = {"alpha": alpha, "verify": arguments.verify, "max_relative_norm": arguments.max_relative_norm}
        json.dump(_finite({"revision": found.commit, **asked, **plan_json(plan)}), sys.stdout, indent=2)
        print()
    else:
        print(show.printable(plan.explain()))
    if not plan.ok:
        raise not_fitting(plan)


def plan_json(plan: PatchPlan) -> dict[str, Any]:
    """A plan for machines."""
    return {
        "target": plan.target,
        "ok": plan.ok,
        "refused": next((s.refused for s in plan.signatures if s.refused), plan.refused),
        "relative_norm": plan.relative_norm,
        "changes": [dataclasses.asdict(c) for c in plan.changes],
        "signatures": [
            {
                "name": s.name,
                "ok": s.ok,
                "family": s.family,
                "dialect": s.dialect,
                "prefix": s.prefix,
                "touched": s.touched,
                "similarity": s.similarity,
                "compared": s.compared,
                "same_base": s.same_base,
                "diagnosis": s.diagnosis,
                "refused": s.refused,
                "pieces": [dataclasses.asdict(p) for b in s.bindings for p in b.pieces],
                "rejected": [dataclasses.asdict(r) for r in s.rejected],
            }
            for s in plan.signatures
        ],
    }


def _finite(data: Any) -> Any:
    """JSON has no infinity: null."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def not_fitting(plan: PatchPlan) -> IncompatibleModelError:
    """What to say last about a plan that is not ok; the plan itself was told before."""
    if ambiguous := next((s for s in plan.signatures if s.is_ambiguous), None):
        return IncompatibleModelError(f"the signature does not fit {plan.target}: {ambiguous.diagnosis}", plan)
    if wrong := sum(len(s.rejected) for s in plan.signatures):
        count = "1 tensor is" if wrong == 1 else f"{wrong} tensors are"
        return IncompatibleModelError(f"the signature does not fit {plan.target}: {count} missing or different", plan)
    return IncompatibleModelError(f"the signature fits {plan.target}, and is refused: see above", plan)
