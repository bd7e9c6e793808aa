"""What was measured: plain data for `measured.json`, and the `results.json` that a signature's card is made from."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from rws_hub._version import __version__
from rws_hub.errors import EvaluationError
from rws_hub.evaluation.cells import CLEAN, Condition
from rws_hub.evaluation.runner import Grid, Table
from rws_hub.evaluation.statistics import INTERVAL, Estimate, gain, mean_corruption_error, top1
from rws_hub.results import RESULTS_FORMAT, RESULTS_FORMAT_VERSION, Accuracy, Evaluation, Results
from rws_hub.signature import RobustWeightSignature


@dataclass(frozen=True, slots=True)
class Row:
    """One variant: top-1 on clean images, under each condition, and averaged over all corrupted ones.

    Attributes:
        name: of the variant.
        clean: on clean images.
        corrupted: under each corrupted condition.
        mean: over all corrupted conditions; None if there are none.
        gain: what that is more than that of the first variant, paired by image.
        mce: mean corruption error against a reference, if one was given (1 is as good as the reference).
    """

    name: str
    clean: Estimate
    corrupted: dict[Condition, Estimate]
    mean: Estimate | None
    gain: Estimate | None
    mce: float | None


def rows(grid: Grid, table: Table, reference: Mapping[str, Sequence[float]] | None) -> tuple[Row, ...]:
    """One row for each variant, in their order.

    Args:
        grid: what was measured.
        table: and what came out.
        reference: corruption -> top-1 error at each severity, of the model that mCE is relative to.

    Raises:
        EvaluationError: the reference does not cover what was measured.
    """
    wrong = [c for c in grid.conditions if c.corruption != CLEAN]
    clean = Condition(CLEAN, 0)
    found = []
    first = [table[grid.variants[0].name, c] for c in wrong]
    for name in (v.name for v in grid.variants):
        each = {c: top1([table[name, c]], grid.seed) for c in wrong}
        found.append(
            Row(
                name,
                top1([table[name, clean]], grid.seed),
                each,
                top1([table[name, c] for c in wrong], grid.seed) if wrong else None,
                gain(first, [table[name, c] for c in wrong], grid.seed) if wrong else None,
                None if reference is None else mean_corruption_error(errors(each), reference),
            )
        )
    return tuple(found)


def errors(corrupted: Mapping[Condition, Estimate]) -> dict[str, list[float]]:
    """Corruption -> top-1 error at each severity, ascending."""
    found: dict[str, list[float]] = {}
    for condition in sorted(corrupted):
        found.setdefault(condition.corruption, []).append(1 - corrupted[condition].mean)
    return found


def reference_errors(reference: Mapping[str, Any], grid: Grid, label: str) -> dict[str, list[float]]:
    """The errors of the unpatched model in another `measured.json`, under the conditions of the grid.

    Args:
        reference: its contents.
        grid: what is to be measured.
        label: what to call it.

    Raises:
        EvaluationError: it is none, of other images, or does not cover the corruptions of the grid.
    """
    try:
        (plain,) = [v for v in reference["variants"] if v["name"] == "unpatched"]
        means = {Condition(c["corruption"], c["severity"]): float(c["mean"]) for c in plain["corrupted"]}
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"{label} is no measured.json of rws eval") from error
    for key, value in _measured_on(grid).items():
        if reference.get(key) != value:
            raise EvaluationError(
                f"{label} was measured with {key} {reference.get(key)!r}, here it is {value!r}; measure it with the "
                "same images and seed"
            )
    asked: dict[str, list[float]] = {}
    found: dict[str, list[float]] = {}
    for condition in sorted(c for c in grid.conditions if c.corruption != CLEAN):
        asked.setdefault(condition.corruption, []).append(0.0)
        if condition in means:
            found.setdefault(condition.corruption, []).append(1 - means[condition])
    mean_corruption_error(asked, found)  # refuses what does not fit, before anything is measured
    return found


def _measured_on(grid: Grid) -> dict[str, Any]:
    return {
        "split": grid.data.split,
        "images": len(grid.data),
        "fingerprint": grid.data.fingerprint,
        "seed": grid.seed,
        "preprocessing": json.loads(json.dumps(asdict(grid.preprocessing))),
    }


def measured(grid: Grid, found: Sequence[Row], command: str, reference: Mapping[str, Any] | None) -> dict[str, Any]:
    """`measured.json`, whole: every number with its 95 % interval, and what it was measured on."""
    return {
        "command": command,
        "dataset": grid.data.name,
        **_measured_on(grid),
        "precision": grid.precision,
        "interval": INTERVAL,
        "reference": None if reference is None else reference.get("command"),
        "versions": versions(),
        "variants": [
            {
                "name": row.name,
                "clean": asdict(row.clean),
                "corrupted": [{**asdict(c), **asdict(e)} for c, e in row.corrupted.items()],
                "mean": None if row.mean is None else asdict(row.mean),
                "gain": None if row.gain is None else asdict(row.gain),
                "errors": errors(row.corrupted),
                "mce": row.mce,
            }
            for row in found
        ],
    }


def results(
    grid: Grid,
    found: Sequence[Row],
    signature: RobustWeightSignature,
    strengths: Mapping[str, float],
    *,
    target: str,
    robust_is_source: bool,
    command: str,
) -> Results:
    """The `results.json` of one signature.

    Args:
        grid: what was measured.
        found: its rows; one is called "unpatched", one may be called "robust".
        signature: whose payload the numbers belong to.
        strengths: row name -> alpha, of the rows that are the target with this signature alone.
        target: which model was patched; `results.OWN_CLEAN_MODEL` is the signature's own.
        robust_is_source: whether the row "robust" is of the model that the signature was computed from; another
            one is no part of the card.
        command: what was run.
    """
    by_name = {row.name: row for row in found}
    plain, robust = by_name["unpatched"], by_name.get("robust") if robust_is_source else None

    def accuracy(name: str, condition: Condition | None) -> Accuracy:
        def of(row: Row) -> float:
            return row.clean.mean if condition is None else row.corrupted[condition].mean

        return Accuracy(of(plain), of(by_name[name]), None if robust is None else of(robust))

    return Results(
        format=RESULTS_FORMAT,
        format_version=RESULTS_FORMAT_VERSION,
        payload_sha256=signature.config.payload.sha256,
        command=command,
        versions=versions(),
        evaluations=tuple(
            Evaluation(
                dataset=grid.data.name,
                dataset_id=grid.data.dataset_id,
                split=grid.data.split,
                metric="accuracy",
                corruption=condition.corruption,
                severity=condition.severity,
                target=target,
                alpha=alpha,
                images=len(grid.data),
                seed=grid.seed,
                clean=accuracy(name, None),
                corrupted=accuracy(name, condition),
            )
            for name, alpha in strengths.items()
            for condition in plain.corrupted
        ),
    )


def versions() -> dict[str, str]:
    """Of what computed."""
    return {
        "python": platform.python_version(),
        "rws-hub": __version__,
        **{name: version(name) for name in ("accelerate", "datasets", "numpy", "scipy", "torch")},
    }
