"""The questions that a user, or a reader of the paper, asks; each answered with numbers and intervals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import fmean
from typing import Any

from lab import AS_IT_IS, Lab, Maker, Rows, whole_bytes

from rws_hub import compare, patch
from rws_hub.corruptions import CORRUPTIONS
from rws_hub.evaluation.cells import Condition
from rws_hub.evaluation.statistics import top1
from rws_hub.evaluation.variants import Variant, noise_of_same_norm
from rws_hub.spec import DEFAULT_ERROR, SignatureConfig

Answer = dict[str, Any]
MAIN, OTHER = "cifar10", "cifar100"
_NORM_IMAGES = 1000
ALPHAS = (-1.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
# Relative errors of the coded weights; 0 is plain float32.
ERRORS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8)


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
    return _summaries(lab.rows(dataset, makers, seeds=_seeds(lab, dataset)))


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
        found[str(k)]["bytes"] = fmean(whole_bytes(s) for s in made)
        found[str(k)]["touched"] = made[0].config.touched_parameters
    return {"layers": [u.unit for u in made[0].config.extraction.profile], "rows": found}


def profile(lab: Lab) -> Answer:
    """Are the differences shallow: relative difference by layer, against that of two seeds."""
    zoo, seeds = lab.zoo, lab.setting.seeds
    sketch: dict[str, list[SignatureConfig]] = {
        "from-clean": [lab.signature(MAIN, c, s).config for c in lab.setting.corruptions for s in seeds],
        "two-branch": [lab.signature(MAIN, c, 0, twin="two-branch").config for c in lab.setting.compared],
        "another seed": [
            lab.difference(zoo.standard(MAIN, a), zoo.standard(MAIN, b), MAIN).config for a, b in pairwise(seeds)
        ],
        "fine-tuning itself": [_finetuning(lab).config],
    }
    layers = [u.unit for u in sketch["from-clean"][0].extraction.profile]
    return {
        "layers": layers,
        "relative": {
            label: [fmean(c.extraction.profile[i].relative_difference for c in configs) for i in range(len(layers))]
            for label, configs in sketch.items()
            if configs
        },
    }


def similarity(lab: Lab) -> Answer:
    """Does a signature tell its corruption: cosines between seeds and data sets, and the nearest of each."""
    keys = [(d, c, s) for d in (MAIN, OTHER) for c in lab.setting.corruptions for s in _seeds(lab, d)]
    seeds_only = [
        lab.difference(lab.zoo.standard(MAIN, a), lab.zoo.standard(MAIN, b), MAIN)
        for a, b in pairwise(lab.setting.seeds)
    ]
    names = [" ".join(map(str, k)) for k in keys] + [f"seeds {i}" for i in range(len(seeds_only))]
    answer: Answer = {"corruptions": list(lab.setting.corruptions)}
    for layers in ("all", "shallow"):
        made = [lab.signature(*key, layers=layers, error=0.0) for key in keys]
        answer[layers] = _identification(keys, compare([*made, *seeds_only], names).overall.cosine, len(seeds_only))
    return answer


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
            str(e): (lambda c, s, e=e, layers=layers: _patched(lab, MAIN, c, s, layers, error=e))  # type: ignore[misc]
            for e in ERRORS
        }
        found = _summaries(lab.rows(MAIN, makers, seeds=lab.setting.few_seeds))
        for e in ERRORS:
            made = [
                lab.signature(MAIN, c, s, layers=layers, error=e)
                for c in lab.setting.corruptions
                for s in lab.setting.few_seeds
            ]
            found[str(e)]["bytes"] = fmean(whole_bytes(s) for s in made)
            found[str(e)]["touched"] = fmean(s.config.touched_parameters for s in made)
            found[str(e)]["bits"] = fmean(8 * whole_bytes(s) / s.config.touched_parameters for s in made)
        answer[layers] = found
    standard = lab.zoo.standard(MAIN, 0) / "model.safetensors"
    return {"checkpoint_bytes": standard.stat().st_size, **answer}


def strength(lab: Lab) -> Answer:
    """What alpha does, and whether the model is back afterwards."""
    makers: dict[str, Maker] = {"0": lambda c, s: _standard(lab, MAIN, s)}
    for alpha in ALPHAS:
        makers[f"{alpha:g}"] = lambda c, s, a=alpha: _patched(lab, MAIN, c, s, "all", alpha=a)  # type: ignore[misc]
    return {"rows": _summaries(lab.rows(MAIN, makers, seeds=lab.setting.few_seeds)), **_linearity(lab)}


def composition(lab: Lab) -> Answer:
    """Several at once: 2, 4, all; each at full strength, and sharing it."""
    corruptions = lab.setting.corruptions
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


def _seeds(lab: Lab, dataset: str) -> tuple[int, ...]:
    return lab.setting.seeds if dataset == MAIN else lab.setting.few_seeds


def _standard(lab: Lab, dataset: str, seed: int) -> Variant:
    return lab.variant(lab.zoo.standard(dataset, seed), dataset)


def _patched(
    lab: Lab,
    dataset: str,
    corruption: str,
    seed: int,
    layers: str | int,
    *,
    error: float = DEFAULT_ERROR,
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


def _finetuning(lab: Lab) -> Any:
    """Standard minus pretrained, under the head of the standard model."""
    from rws_hub.classifier import with_head

    zoo = lab.zoo
    start = with_head(lab.model(zoo.pretrained(), "tinyimagenet32"), 10, 0)
    from rws_hub import RobustWeightSignature

    return RobustWeightSignature.extract(
        standard=start,
        robust=lab.model(zoo.standard(MAIN, 0), MAIN),
        corruption="difference",
        license="apache-2.0",
        layers=["*"],
        bits=32,
    )


def _identification(keys: list[tuple[str, str, int]], cosines: Any, seeds_only: int) -> Answer:
    """Nearest neighbours among the signatures of other seeds, or of the other data set; and mean cosines."""
    n = len(keys)

    def mean(chosen: Callable[[int, int], bool]) -> float:
        return fmean(cosines[i][j] for i in range(n) for j in range(n) if i != j and chosen(i, j))

    def identified(allowed: Callable[[int, int], bool]) -> list[int]:
        right = asked = 0
        for i in range(n):
            others = [j for j in range(n) if j != i and allowed(i, j)]
            if others:
                asked += 1
                right += keys[max(others, key=lambda j: cosines[i][j])][1] == keys[i][1]
        return [right, asked]

    def other_seed(i: int, j: int) -> bool:
        return keys[i][0] == keys[j][0] and keys[i][2] != keys[j][2]

    def other_data(i: int, j: int) -> bool:
        return keys[i][0] != keys[j][0]

    def same(i: int, j: int) -> bool:
        return keys[i][1] == keys[j][1]

    corruptions = list(dict.fromkeys(c for _, c, _ in keys))
    between = [
        [mean(lambda i, j, a=a, b=b: other_seed(i, j) and keys[i][1] == a and keys[j][1] == b) for b in corruptions]  # type: ignore[misc]
        for a in corruptions
    ]
    return {
        "same corruption, another seed": mean(lambda i, j: same(i, j) and other_seed(i, j)),
        "another corruption, another seed": mean(lambda i, j: not same(i, j) and other_seed(i, j)),
        "same corruption, another data set": mean(lambda i, j: same(i, j) and other_data(i, j)),
        "another corruption, another data set": mean(lambda i, j: not same(i, j) and other_data(i, j)),
        "another corruption, same seed": mean(lambda i, j: not same(i, j) and keys[i][::2] == keys[j][::2]),
        "difference of two seeds": fmean(abs(cosines[i][n + k]) for i in range(n) for k in range(seeds_only)),
        "identified among other seeds": identified(other_seed),
        "identified in the other data set": identified(other_data),
        "between": between,
    }


def _linearity(lab: Lab) -> Answer:
    """Largest departure from theta + alpha * delta, in ulp of the larger summand; and bytes that differ afterwards."""
    import torch

    model = lab.model(lab.zoo.standard(MAIN, 0), MAIN)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    worst, changed = 0.0, 0
    for corruption in lab.setting.corruptions:
        signature = lab.signature(MAIN, corruption, 0)
        for alpha in ALPHAS:
            with patch(model, signature, alpha=alpha):
                live = model.state_dict()
                for name in signature.names:
                    if "running_var" in name:
                        continue
                    own, added = before[name].double(), alpha * signature.delta(name).double()
                    exact, larger = own + added, torch.maximum(own.abs(), added.abs()).float()
                    spacing = torch.nextafter(larger, torch.tensor(torch.inf)) - larger
                    worst = max(worst, float(((live[name].double() - exact).abs() / spacing.double()).max()))
            after = model.state_dict()
            changed += sum(
                int((after[n].flatten().view(torch.uint8) != t.flatten().view(torch.uint8)).sum())
                for n, t in before.items()
            )
    return {"worst_ulp": worst, "bytes_changed_after_removal": changed}
