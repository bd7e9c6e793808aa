"""The first lines of docs/EVIDENCE.md: every question in a sentence, decided by its numbers."""

from __future__ import annotations

from itertools import takewhile
from statistics import fmean

from evidence_coding import LAYERS, verdict
from evidence_read import BACKBONES, Answer, Found, gained, points

WHAT_WAS_DONE = (
    "Small backbones, pretrained on 100 Tiny-ImageNet classes at 32 pixels, fine-tuned on CIFAR-10 and CIFAR-100; for "
    "each of them several corruptions of all four kinds at severity 5 (`rws_hub.corruptions`, the constants of "
    "CIFAR-10-C). The ViT saw 30,000 images for few epochs, which leaves a weak model, and was trained on CIFAR-10 "
    "once, for three corruptions, two of which hurt it much. Recipe `from-clean`, batch norm as `delta`, the codec's "
    "default error and alpha 1 where nothing else is said. "
    '"All layers" is every layer but the head (`--layers \'*\'`), "shallow" the default of `rws extract`: '
    "the first layers that hold 70 % of the summed relative differences. The "
    "validation split chose every epoch; the first 4,000 test images were measured (VGG: 2,000). "
    "Accuracies are top-1 in percent, means over corruptions and seeds: [95 % interval, bootstrap over images] ± "
    "standard deviation over seeds; what is gained over the first row has the paired interval over images, which says "
    "nothing about other seeds. Tables stand on different corruptions and seeds, as said below each, so their "
    "unpatched rows differ. Settings: `benchmarks/paper/setting.py`. At the size of these models the numbers show "
    "patterns; those of large models will differ. The full setting of the paper is `--setting full`, which needs a GPU "
    "and was not run."
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
        "sizes": _sizes,
        "rivals": _rivals,
        "efficiency": _efficiency,
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
    told = []
    for target, rows in answer.items():
        if target != "run":
            own, other, cost = (
                points(rows, name, kind=kind)
                for name, kind in (
                    ("patched", "corrupted"),
                    ("another corruption's", "corrupted"),
                    ("patched", "clean"),
                )
            )
            verdict = "yes" if own > max(1, other + 1) else "no"
            told.append(
                f"{target}: {verdict}, {own:+.1f} corrupted ({other:+.1f} by another corruption's), {cost:+.1f} clean"
            )
    return [f"Do they transfer? Points gained: {'; '.join(told)}."]


def _bits(answer: Answer) -> list[str]:
    told = []
    for layers in ("all", "shallow"):
        rows = answer[layers]
        asked, default = [row for error, row in rows.items() if error != "default"], rows["default"]
        # And every finer one.
        least = list(takewhile(lambda row: row["gain"]["corrupted"]["mean"] >= -0.002, asked))[-1]
        ratio, usual = (answer["checkpoint_bytes"] / row["bytes"] for row in (least, default))
        told.append(
            f"How few bits? With {layers} layers, {least['bits']:.2f} bits per touched parameter (whole artifact on "
            f"disk; the checkpoint in fp32 is {ratio:.0f} times larger) are within 0.2 points of fp32 on average, and "
            f"so is all that is finer: {gained(least, places=2)} corrupted, {gained(least, 'clean', places=2)} clean. "
            f"What is written unasked ({default['bits']:.2f} bits, {usual:.0f} times) costs "
            f"{gained(default, places=2)} corrupted, {gained(default, 'clean', places=2)} clean."
        )
    return told


def _sizes(answer: Answer) -> list[str]:
    told = []
    for layers in LAYERS:
        row = answer[layers]
        if row["error"] == "0.0":
            told.append(f"with {layers} layers no error that was measured is near enough")
            continue
        told.append(
            f"with {layers} layers {8 * row['bytes'] / row['touched']:.2f} bits per touched parameter, "
            f"{row['bytes']:,.0f} bytes, the fp32 checkpoint {answer['checkpoint_bytes'] / row['bytes']:.0f} times "
            f"larger ({gained(row, places=2)} against float32)"
        )
    return [f"How small without loss to speak of (at most 0.1 points on average)? {'; '.join(told)}."]


def _rivals(answer: Answer) -> list[str]:
    told = []
    for layers in LAYERS:
        beside = {k: row["ours"] for k, row in answer[layers].items() if row["ours"]}
        losses = [k for k, b in beside.items() if verdict(b) == "loss"]
        wins = sum(verdict(b) == "win" for b in beside.values())
        told.append(
            f"with {layers} layers ours keeps more on corrupted images than {wins} of {len(beside)}, less than "
            f"{len(losses)}{' (' + '; '.join(losses) + ')' if losses else ''}"
        )
    return [f"Against other codings of the same difference, at no more bytes: {'; '.join(told)}."]


def _efficiency(answer: Answer) -> list[str]:
    above = [row["bits"] - row["scalar"] for layers in LAYERS for row in answer[layers]["bounds"].values()]
    saved = [1 - row["ours"] / row["bits"] for layers in LAYERS for row in answer[layers]["absmax"].values()]
    return [
        f"How near to what is possible? {min(above):.2f} to {max(above):.2f} bits a coded weight above the best scalar "
        f"quantizer with an ideal coder; {min(saved):.0%} to {max(saved):.0%} smaller than group absmax at its error."
    ]


def _composition(answer: Answer) -> list[str]:
    every = answer["sets"][-1]
    before, alone, full, shared = (100 * every[k][0] for k in ("unpatched", "each alone", "1 each", "1/n each"))
    share = (max(full, shared) - before) / (alone - before)
    verdict = "Yes" if share > 0.8 else "In part" if share > 0.3 else "Hardly" if share > 0 else "No"
    pairs = [made for made in answer["sets"] if len(made["members"]) == 2]
    kept = fmean(
        (made["1 each"][0] - made["unpatched"][0]) / (made["each alone"][0] - made["unpatched"][0]) for made in pairs
    )
    cost = 100 * fmean(made["1 each, clean"][0] - made["unpatched, clean"][0] for made in pairs)
    return [
        f"Do they compose? Pairs at alpha 1 each keep {kept:.0%} of the gain that each has alone, and cost {cost:+.1f} "
        f"points clean. All {len(every['members'])} at once: {verdict.lower()}, {before:.1f} % unpatched becomes "
        f"{full:.1f} % at alpha 1 each and {shared:.1f} % sharing alpha, against {alone:.1f} % with each "
        "corruption's own."
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
        f"Which recipe, at equal cost (one seed, two corruptions)? From-clean: {told('from-clean, all')}. Two-branch: "
        f"{told(plain)}.",
        f"Does the projection of two-branch help? {'Yes' if helps else 'Not on corrupted images'}: with it "
        f"{told(projected)}.",
    ]
