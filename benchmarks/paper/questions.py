"""The questions that a user, or a reader of the paper, asks; each answered with numbers and intervals."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

from lab import AS_IT_IS, MAIN, OTHER, Answer, Lab, Maker, Rows
from weights import ALPHAS, linearity, profile, similarity

from rws_hub.corruptions import CORRUPTIONS
from rws_hub.evaluation.cells import Condition
from rws_hub.evaluation.statistics import top1
from rws_hub.evaluation.variants import Variant, noise_of_same_norm

_NORM_IMAGES = 1000
# Relative errors of the coded weights, by label; 0 is plain float32, None what `rws extract` does unasked.
ERRORS = {str(e): e for e in (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)} | {"default": None}


def headline(lab: Lab) -> Answer:
    """Does it work: own model, three seeds, against the robust twin and the controls."""
    return _headline(lab, MAIN)


def elsewhere(lab: Lab) -> Answer:
    """The same on the other data set."""
    return _headline(lab, OTHER)


def _headline(lab: Lab, dataset: str) -> Answer:
    makers: dict[str, Maker] = {
        "unpatched": lambda c, s: _standard(lab, dataset, s),
        "patched, all layers": lambda c, s: _patched(lab, dataset, c, s, "all"),
        "patched, shallow layers": lambda c, s: _patched(lab, dataset, c, s, "shallow"),
        "noise of the same norm": lambda c, s: _noise(lab, dataset, c, s),
        "robust twin": lambda c, s: lab.variant(lab.zoo.robust(dataset, c, s), dataset),
    }
    if lab.zoo.backbone == "resnet":
        makers["batch norm re-estimated"] = lambda c, s: _norms(_standard(lab, dataset, s), _NORM_IMAGES)
        makers["patched, and batch norm re-estimated"] = lambda c, s: _norms(
            _patched(lab, dataset, c, s, "all"), _NORM_IMAGES
        )
    return _summaries(lab.rows(dataset, makers, seeds=lab.seeds(dataset)))


def damage(lab: Lab) -> Answer:
    """What each corruption does to a clean model: top-1 at every severity, all 19."""
    conditions = [Condition(c, s) for c in CORRUPTIONS for s in range(1, 6)]
    table = lab.table(MAIN, {"unpatched": _standard(lab, MAIN, 0)}, (AS_IT_IS, *conditions))
    return {
        "clean": float(table["unpatched", AS_IT_IS].mean()),
        "corruptions": {
            c: [float(table["unpatched", Condition(c, s)].mean()) for s in range(1, 6)] for c in CORRUPTIONS
        },
    }


def depth(lab: Lab) -> Answer:
    """How many of the first layers it takes, and what they weigh."""
    units = len(lab.signature(MAIN, lab.setting.corruptions[0], 0).config.extraction.profile)
    makers: dict[str, Maker] = {"unpatched": lambda c, s: _standard(lab, MAIN, s)}
    for k in range(1, units + 1):
        makers[str(k)] = lambda c, s, k=k: _patched(lab, MAIN, c, s, k)  # type: ignore[misc]
    found = _summaries(lab.rows(MAIN, makers, seeds=lab.setting.few_seeds[:1]))
    for k in range(1, units + 1):
        made = [lab.signature(MAIN, c, 0, layers=k) for c in lab.setting.corruptions]
        found[str(k)]["bytes"] = fmean(s.nbytes for s in made)
        found[str(k)]["touched"] = made[0].config.touched_parameters
    return {"layers": [u.unit for u in made[0].config.extraction.profile], "rows": found}


def specificity(lab: Lab) -> Answer:
    """What does a signature do to other corruptions: gain of every signature under every condition."""
    conditions = (AS_IT_IS, *map(lab.condition, lab.setting.corruptions))
    total: dict[str, dict[str, list[float]]] = {}
    for seed in lab.setting.seeds:
        variants = {"unpatched": _standard(lab, MAIN, seed)}
        variants |= {c: _patched(lab, MAIN, c, seed, "all") for c in lab.setting.corruptions}
        table = lab.table(MAIN, variants, conditions)
        for name in variants:
            for condition in conditions:
                gained = float(table[name, condition].mean() - table["unpatched", condition].mean())
                total.setdefault(name, {}).setdefault(condition.corruption, []).append(gained)
    return {name: {c: fmean(v) for c, v in by.items()} for name, by in total.items() if name != "unpatched"}


def transfer(lab: Lab) -> Answer:
    """Does it carry over: to another data set, to a model trained further, to a stranger."""
    zoo = lab.zoo
    if len(lab.setting.seeds) < 2:
        return {}
    targets: dict[str, tuple[str, Callable[[int], Any]]] = {
        "another seed": (MAIN, lambda s: zoo.standard(MAIN, (s + 1) % len(lab.setting.seeds))),
        "trained further": (MAIN, lambda s: zoo.further(MAIN, s)),
        "another data set": (OTHER, lambda s: zoo.standard(OTHER, s)),
    }
    for init in lab.setting.inits:
        targets["another initialisation"] = (MAIN, lambda s, i=init: zoo.standard(MAIN, 0, i))  # type: ignore[misc]
    answer: Answer = {}
    for label, (dataset, folder) in targets.items():

        def on(c: str, s: int, kind: str, dataset: str = dataset, folder: Callable[[int], Any] = folder) -> Variant:
            plain = lab.variant(folder(s), dataset)
            if kind == "unpatched":
                return plain
            if kind == "noise of the same norm":
                source = lab.model(zoo.standard(MAIN, s), MAIN)
                return _with(plain, noise_of_same_norm(source, lab.signature(MAIN, c, s), 0))
            corruptions = lab.setting.corruptions
            other = corruptions[(corruptions.index(c) + 3) % len(corruptions)]  # never of the same kind
            return _with(plain, lab.signature(MAIN, other if kind == "another corruption's" else c, s))

        kinds = ["unpatched", "patched", "noise of the same norm", "another corruption's"]
        makers: dict[str, Maker] = {k: (lambda c, s, k=k, on=on: on(c, s, k)) for k in kinds}  # type: ignore[misc]
        if dataset == OTHER:
            makers["its own data set's signature"] = lambda c, s: _patched(lab, OTHER, c, s, "all")
        answer[label] = _summaries(lab.rows(dataset, makers, seeds=lab.setting.few_seeds))
    return answer


def bits(lab: Lab) -> Answer:
    """How few bits it takes, and what the whole artifact weighs against the checkpoint."""
    answer: Answer = {}
    for layers in ("all", "shallow"):
        makers: dict[str, Maker] = {
            label: (lambda c, s, e=e, layers=layers: _patched(lab, MAIN, c, s, layers, error=e))  # type: ignore[misc]
            for label, e in ERRORS.items()
        }
        found = _summaries(lab.rows(MAIN, makers, seeds=lab.setting.few_seeds))
        for label, e in ERRORS.items():
            made = [
                lab.signature(MAIN, c, s, layers=layers, error=e)
                for c in lab.setting.corruptions
                for s in lab.setting.few_seeds
            ]
            found[label]["bytes"] = fmean(s.nbytes for s in made)
            found[label]["touched"] = fmean(s.config.touched_parameters for s in made)
            found[label]["bits"] = fmean(8 * s.nbytes / s.config.touched_parameters for s in made)
        answer[layers] = found
    standard = lab.zoo.standard(MAIN, 0) / "model.safetensors"
    return {"checkpoint_bytes": standard.stat().st_size, **answer}


def strength(lab: Lab) -> Answer:
    """What alpha does, and whether the model is back afterwards."""
    makers: dict[str, Maker] = {"0": lambda c, s: _standard(lab, MAIN, s)}
    for alpha in ALPHAS:
        makers[f"{alpha:g}"] = lambda c, s, a=alpha: _patched(lab, MAIN, c, s, "all", alpha=a)  # type: ignore[misc]
    return {"rows": _summaries(lab.rows(MAIN, makers, seeds=lab.setting.few_seeds)), **linearity(lab)}


def composition(lab: Lab) -> Answer:
    """Several at once: 2, 4, all; each at full strength, and sharing it."""
    corruptions = lab.setting.corruptions
    if len(corruptions) < 4:
        return {}
    half = corruptions[:: max(1, len(corruptions) // 4)][:4]
    sets = [*zip(corruptions[::2], (*corruptions[3::2], corruptions[1]), strict=True), half, corruptions]
    answer: Answer = {"sets": []}
    for members in sets:
        found: dict[str, list[Any]] = {}
        for seed in lab.setting.few_seeds:
            variants = {"unpatched": _standard(lab, MAIN, seed)}
            variants |= {f"own {c}": _patched(lab, MAIN, c, seed, "all") for c in members}
            for label, each in (("1 each", 1.0), ("1/n each", 1 / len(members))):
                added = [(lab.signature(MAIN, c, seed), each) for c in members]
                variants[label] = _with_all(_standard(lab, MAIN, seed), added)
            table = lab.table(MAIN, variants, (AS_IT_IS, *map(lab.condition, members)))
            for label in ("unpatched", "1 each", "1/n each"):
                found.setdefault(label, []).extend(table[label, lab.condition(c)] for c in members)
                found.setdefault(f"{label}, clean", []).append(table[label, AS_IT_IS])
            found.setdefault("each alone", []).extend(table[f"own {c}", lab.condition(c)] for c in members)
        means = {label: top1(rows) for label, rows in found.items()}
        answer["sets"].append({"members": list(members), **{k: [v.mean, v.low, v.high] for k, v in means.items()}})
    return answer


def recipes(lab: Lab) -> Answer:
    """Two branches against from-clean at equal cost, and what the projection does."""
    kinds: dict[str, tuple[Any, bool]] = {
        "from-clean": ("from-clean-long", False),
        "two-branch, plain difference": ("two-branch", False),
        "two-branch, projected": ("two-branch", True),
    }
    makers: dict[str, Maker] = {"unpatched": lambda c, s: _standard(lab, MAIN, s)}
    for twin in ("from-clean-long", "two-branch"):
        makers[f"robust twin, {twin}"] = lambda c, s, t=twin: lab.variant(lab.zoo.robust(MAIN, c, s, t), MAIN)  # type: ignore[misc]
    for label, (twin, projected) in kinds.items():
        for layers in ("all", "shallow"):
            makers[f"{label}, {layers}"] = lambda c, s, t=twin, p=projected, k=layers: _with(  # type: ignore[misc]
                _standard(lab, MAIN, s), lab.signature(MAIN, c, s, twin=t, layers=k, error=0.0, projected=p)
            )
    if not lab.setting.compared:
        return {}
    return _summaries(lab.rows(MAIN, makers, corruptions=lab.setting.compared, seeds=lab.setting.few_seeds[:1]))


def batchnorm(lab: Lab) -> Answer:
    """Left alone, moved with the patch, re-estimated, or both; with how many images."""
    if lab.zoo.backbone != "resnet":
        return {}
    makers: dict[str, Maker] = {
        "unpatched": lambda c, s: _standard(lab, MAIN, s),
        "none": lambda c, s: _with(_standard(lab, MAIN, s), lab.signature(MAIN, c, s, batchnorm=False)),
        "delta": lambda c, s: _patched(lab, MAIN, c, s, "all"),
    }
    for n in (16, 64, 256, 1000):
        makers[f"re-estimated alone, {n}"] = lambda c, s, n=n: _norms(_standard(lab, MAIN, s), n)  # type: ignore[misc]
        makers[f"delta, then re-estimated, {n}"] = lambda c, s, n=n: _norms(_patched(lab, MAIN, c, s, "all"), n)  # type: ignore[misc]
    makers["none, then re-estimated, 1000"] = lambda c, s: _norms(
        _with(_standard(lab, MAIN, s), lab.signature(MAIN, c, s, batchnorm=False)), 1000
    )
    return _summaries(lab.rows(MAIN, makers, seeds=lab.setting.few_seeds))


QUESTIONS: dict[str, Callable[[Lab], Answer]] = {
    "headline": headline,
    "bits": bits,
    "depth": depth,
    "strength": strength,
    "specificity": specificity,
    "composition": composition,
    "batchnorm": batchnorm,
    "damage": damage,
    "recipes": recipes,
    "elsewhere": elsewhere,
    "transfer": transfer,
    "similarity": similarity,
    "profile": profile,
}


def _standard(lab: Lab, dataset: str, seed: int) -> Variant:
    return lab.variant(lab.zoo.standard(dataset, seed), dataset)


def _patched(
    lab: Lab,
    dataset: str,
    corruption: str,
    seed: int,
    layers: str | int,
    *,
    error: float | None = None,
    alpha: float = 1.0,
) -> Variant:
    signature = lab.signature(dataset, corruption, seed, layers=layers, error=error)
    return _with_all(_standard(lab, dataset, seed), [(signature, alpha)])


def _noise(lab: Lab, dataset: str, corruption: str, seed: int) -> Variant:
    plain = _standard(lab, dataset, seed)
    return _with(plain, noise_of_same_norm(plain.model, lab.signature(dataset, corruption, seed), seed))


def _with(variant: Variant, signature: Any) -> Variant:
    return _with_all(variant, [(signature, 1.0)])


def _with_all(variant: Variant, signatures: Any) -> Variant:
    return Variant("", variant.model, variant.weights, tuple(signatures))


def _norms(variant: Variant, images: int) -> Variant:
    return Variant("", variant.model, variant.weights, variant.signatures, images)


def _summaries(found: dict[str, Rows]) -> Answer:
    """What was found, beside the first of it."""
    base = next(iter(found.values()))
    return {label: rows.summary(base) for label, rows in found.items()}
