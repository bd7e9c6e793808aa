"""The first lines of docs/EVIDENCE.md: every question in a sentence, decided by its numbers."""

from __future__ import annotations

from evidence_read import BACKBONES, Answer, Found, gained, points

WHAT_WAS_DONE = (
    "Two small backbones, pretrained on 100 Tiny-ImageNet classes at 32 pixels, fine-tuned on CIFAR-10 and "
    "CIFAR-100; for each of them several corruptions of all four kinds at severity 5 (`rws_hub.corruptions`, the "
    "constants of CIFAR-10-C). Recipe `from-clean`, batch norm as `delta`, the codec's default error and alpha 1 "
    'where nothing else is said; "all layers" is every layer but the head. The validation split chose every '
    "epoch; the first test images, by default 4,000, were measured. Accuracies are top-1 in percent, means over "
    "corruptions and seeds: [95 % interval, bootstrap over images] ± standard deviation over seeds; what is gained "
    "has the paired interval. Settings, with the number of seeds of every question: "
    "`benchmarks/paper/setting.py`. At the size of these models the numbers show patterns; those of large models "
    "will differ. The full setting of the paper is `--setting full`, which needs a GPU and was not run."
)
_WHOLE, _SHALLOW = "patched, all layers", "patched, shallow layers"


def in_short(found: dict[str, Found]) -> list[str]:
    """What was answered, backbone by backbone; what was not is left out."""
    judges = {
        "headline": _headline,
        "profile": _profile,
        "similarity": _similarity,
        "transfer": _transfer,
        "bits": _bits,
        "composition": _composition,
        "batchnorm": _batchnorm,
        "recipes": _recipes,
    }
    lines: list[str] = []
    for backbone, title in BACKBONES.items():
        told = [t for name, judge in judges.items() if backbone in found[name] for t in judge(found[name][backbone])]
        if told:
            lines += [f"**{title}**", "", *(f"- {t}" for t in told), ""]
    return lines


def _headline(answer: Answer) -> list[str]:
    rows = answer
    whole, shallow, twin = (points(rows, n) for n in (_WHOLE, _SHALLOW, "robust twin"))
    return [
        f"Does it work? {'Yes' if whole > 0.5 * twin else 'Hardly'}: patching gains {whole:+.1f} points on corrupted "
        f"CIFAR-10, {whole / twin:.0%} of what the robust twin gains, at {points(rows, _WHOLE, kind='clean'):+.1f} "
        "points "
        f"clean. The shallow layers alone gain {shallow / twin:.0%}, noise of the same norm "
        f"{points(rows, 'noise of the same norm'):+.1f} points."
    ]


def _profile(answer: Answer) -> list[str]:
    halves = {k: sum(v[: len(v) // 2]) / sum(v) for k, v in answer["relative"].items()}
    own, seeds = halves["from-clean"], halves["another seed"]
    verdict = "Yes" if own > 0.6 else "No" if own < 0.5 else "Hardly"
    return [
        f"Are the differences shallow? {verdict}: the first half of the layers holds {own:.0%} of the summed relative "
        f"differences; of the difference between two seeds it holds {seeds:.0%}."
    ]


def _similarity(answer: Answer) -> list[str]:
    rows = answer["all"]
    seeds, data = rows["identified among other seeds"], rows["identified in the other data set"]
    return [
        f"Are signatures discriminative? {seeds[0]} of {seeds[1]} are nearest to one of their own corruption from "
        f"another seed, {data[0]} of {data[1]} across data sets (by chance one in {len(answer['corruptions'])}). But "
        f"the cosine of one corruption's signatures between seeds is {rows['same corruption, another seed']:.2f} only, "
        f"that of different corruptions' made from one model {rows['another corruption, same seed']:.2f}; "
        f"with a mere difference of seeds it is {rows['difference of two seeds']:.2f} in absolute value."
    ]


def _transfer(answer: Answer) -> list[str]:
    gains = {t: (points(r, "patched"), points(r, "another corruption's")) for t, r in answer.items() if t != "run"}
    told = "; ".join(
        f"{t}: {'yes' if own > max(1, other + 1) else 'no'}, {own:+.1f} (another corruption's signature {other:+.1f})"
        for t, (own, other) in gains.items()
    )
    return [f"Do they transfer? Points gained on corrupted images: {told}."]


def _bits(answer: Answer) -> list[str]:
    told = []
    for layers in ("all", "shallow"):
        rows = answer[layers]
        least = min((r for r in rows.values() if r["gain"]["corrupted"]["mean"] >= -0.002), key=lambda r: r["bytes"])
        ratio = answer["checkpoint_bytes"] / least["bytes"]
        told.append(
            f"How few bits? With {layers} layers, {least['bits']:.2f} bits per touched parameter (whole artifact on "
            f"disk) are the fewest tried within 0.2 points of fp32 ({gained(least, places=2)}; clean "
            f"{gained(least, 'clean', places=2)}); the fp32 checkpoint is {ratio:.0f} times larger than that artifact."
        )
    return told


def _composition(answer: Answer) -> list[str]:
    every = answer["sets"][-1]
    before, alone, full, shared = (100 * every[k][0] for k in ("unpatched", "each alone", "1 each", "1/n each"))
    share = (max(full, shared) - before) / (alone - before)
    verdict = "Yes" if share > 0.8 else "In part" if share > 0.3 else "Hardly" if share > 0 else "No"
    return [
        f"Do they compose? {verdict}: all {len(every['members'])} at once, {before:.1f} % unpatched becomes "
        f"{full:.1f} % at "
        f"alpha 1 each and {shared:.1f} % sharing alpha, against {alone:.1f} % with each corruption's own."
    ]


def _batchnorm(answer: Answer) -> list[str]:
    patched, alone = points(answer, "delta"), points(answer, "re-estimated alone, 1000")
    both, none = points(answer, "delta, then re-estimated, 1000"), points(answer, "none")
    later = points(answer, "none, then re-estimated, 1000")
    cost = points(answer, "re-estimated alone, 1000", kind="clean")
    return [
        f"Does re-estimating batch norm do as well? {'Yes' if alone > patched - 1 else 'No'}, but it needs no robust "
        f"model: on 1,000 unlabelled images of the same corruption it gains {alone:+.1f} points, "
        f"{alone / patched:.0%} of the patch's {patched:+.1f} (clean, on clean images, {cost:+.1f}). Both together "
        f"{both:+.1f}; a patch that leaves batch norm alone {none:+.1f}, and {later:+.1f} with re-estimation."
    ]


def _recipes(answer: Answer) -> list[str]:
    def told(name: str) -> str:
        return f"{points(answer, name):+.1f} corrupted, {points(answer, name, kind='clean'):+.1f} clean"

    plain, projected = "two-branch, plain difference, all", "two-branch, projected, all"
    helps = points(answer, projected) > points(answer, plain)
    return [
        f"Which recipe, at equal cost? From-clean: {told('from-clean, all')}. Two-branch: {told(plain)}.",
        f"Does the projection help? {'Yes' if helps else 'Not on corrupted images'}: {told(projected)}.",
    ]
