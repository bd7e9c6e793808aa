"""Sentences about what was measured. Every claim is decided by the numbers, whichever way they fall."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rws_hub.demo.records import Score, SeedStory, Who, spread
from rws_hub.demo.settings import CORRUPTION, DATASET, SEVERITY

NAMES: dict[Who, str] = {"own": "its own clean model", "user": "the user's model", "stranger": "the stranger"}

# Two accuracies are called the same if they print the same, with one decimal of a percent.
_SAME = 0.05
# A stranger that gains this share of what the user's model gains is as good as kin.
_NEARLY_ALL = 0.8

Take = Callable[[SeedStory], float]


def findings(stories: Sequence[SeedStory], bn_images: int) -> tuple[str, ...]:
    """What a reader should take away, one sentence or two each.

    Args:
        stories: one a seed.
        bn_images: how many unlabelled noisy images the batch-norm rival was given.
    """
    return (
        _what(stories),
        *(_patching(stories, who) for who in NAMES),
        _restored(stories),
        _rival(stories, bn_images),
        _two_branch(stories),
        _strength(stories),
        _size(stories),
    )


def _what(stories: Sequence[SeedStory]) -> str:
    count = len(stories)
    return (
        f"Measured: top-1 accuracy on {stories[0].images} test images of scikit-learn's {DATASET}, clean and with "
        f"{CORRUPTION} at severity {SEVERITY}; "
        + (
            "one seed, so no spread is known."
            if count == 1
            else f"means of {count} seeds, each with its own split, initialisations and noise."
        )
    )


def _patching(stories: Sequence[SeedStory], who: Who) -> str:
    def before(s: SeedStory) -> Score:
        return s.target(who).before

    def patched(s: SeedStory) -> Score:
        return s.target(who).patched

    noisy = _change(stories, "noisy accuracy", lambda s: before(s).noisy, lambda s: patched(s).noisy)
    clean = _change(stories, "clean accuracy", lambda s: before(s).clean, lambda s: patched(s).clean)
    text = f"On {NAMES[who]} the patch {noisy} and {clean}."
    gain = _noisy_gain(stories, who)
    if gain < _SAME:
        return text + " Patching does not help there."
    if who == "own":
        twin = _mean(stories, lambda s: s.robust.noisy)
        return text + f" The robust twin that it was extracted from has {twin:.1f}% noisy."
    if who == "stranger":
        return text + _stranger_against_kin(gain, _noisy_gain(stories, "user"))
    return text


def _stranger_against_kin(gain: float, kin_gain: float) -> str:
    if kin_gain < _SAME:
        return " That is more than the user's model gained."
    share = gain / kin_gain
    if share < _NEARLY_ALL:
        return f" That is only {share:.0%} of what the user's model gains: a signature is for kin."
    return f" That is {share:.0%} of what the user's model gains, though the two share no ancestor."


def _restored(stories: Sequence[SeedStory]) -> str:
    told = [t.restored for s in stories for t in s.targets]
    if all(told):
        return f"Taking the patch off restored every tensor bit for bit, on {len(told)} of {len(told)} models."
    return (
        f"Taking the patch off did NOT restore {told.count(False)} of {len(told)} models bit for bit. "
        "That is a bug; please report it."
    )


def _rival(stories: Sequence[SeedStory], bn_images: int) -> str:
    told = "; ".join(_rival_on(stories, who) for who in NAMES)
    return f"Instead of a patch, batch-norm statistics re-estimated on {bn_images} unlabelled noisy images give {told}."


def _rival_on(stories: Sequence[SeedStory], who: Who) -> str:
    def other(s: SeedStory) -> Score:
        return s.target(who).batchnorm

    def ours(s: SeedStory) -> Score:
        return s.target(who).patched

    noisy, clean = _mean(stories, lambda s: other(s).noisy), _mean(stories, lambda s: other(s).clean)
    on_noisy = noisy - _mean(stories, lambda s: ours(s).noisy)
    on_clean = clean - _mean(stories, lambda s: ours(s).clean)
    return (
        f"{NAMES[who]} {noisy:.1f}% noisy ({_against(on_noisy)} the patch) and {clean:.1f}% clean "
        f"({_against(on_clean)} it){_verdict(on_noisy, on_clean)}"
    )


def _verdict(on_noisy: float, on_clean: float) -> str:
    if on_noisy >= _SAME and on_clean >= _SAME:
        return ": it is the better choice there"
    if on_noisy <= -_SAME and on_clean <= -_SAME:
        return ": the patch is the better choice there"
    return f": {_compared(on_noisy)} on noisy images, {_compared(on_clean)} on clean ones"


def _compared(points: float) -> str:
    return "as good" if abs(points) < _SAME else "better" if points > 0 else "worse"


def _two_branch(stories: Sequence[SeedStory]) -> str:
    def patched(s: SeedStory) -> Score:
        return s.target("user").patched

    def other(s: SeedStory) -> Score:
        return s.target("user").two_branch

    noisy, clean = _mean(stories, lambda s: other(s).noisy), _mean(stories, lambda s: other(s).clean)
    on_noisy = noisy - _mean(stories, lambda s: patched(s).noisy)
    on_clean = clean - _mean(stories, lambda s: patched(s).clean)
    lost = _mean(stories, lambda s: s.target("user").before.clean) - clean
    cost = f"It costs {lost:.1f} points of clean accuracy." if lost >= _SAME else "It costs no clean accuracy."
    return (
        f"The two-branch signature gives the user's model {noisy:.1f}% noisy ({_against(on_noisy)} the from-clean "
        f"one) and {clean:.1f}% clean ({_against(on_clean)} it). {cost}"
    )


def _strength(stories: Sequence[SeedStory]) -> str:
    means = [(alpha, *_at(stories, i)) for i, (alpha, _) in enumerate(stories[0].sweep)]
    alpha, noisy, clean = max(means, key=lambda m: (m[1], -m[0]))  # of equals, the weakest patch
    return (
        f"Of the strengths tried on the user's model, alpha {alpha:g} is best on noisy images: {noisy:.1f}% there, "
        f"{clean:.1f}% on clean ones."
    )


def _at(stories: Sequence[SeedStory], i: int) -> tuple[float, float]:
    """Noisy and clean accuracy at the i-th strength of the sweep."""
    return _mean(stories, lambda s: s.sweep[i][1].noisy), _mean(stories, lambda s: s.sweep[i][1].clean)


def _size(stories: Sequence[SeedStory]) -> str:
    sizes = stories[0].sizes
    return (
        f"The artifact is {sizes.artifact:,} bytes: {_times(sizes.checkpoint, sizes.artifact)} the checkpoint of "
        f"{sizes.checkpoint:,} bytes."
    )


def _noisy_gain(stories: Sequence[SeedStory], who: Who) -> float:
    before = _mean(stories, lambda s: s.target(who).before.noisy)
    return _mean(stories, lambda s: s.target(who).patched.noisy) - before


def _change(stories: Sequence[SeedStory], what: str, before: Take, after: Take) -> str:
    old, new = _mean(stories, before), _mean(stories, after)
    points = new - old
    if abs(points) < _SAME:
        return f"leaves {what} at {new:.1f}%"
    ups = sum(after(s) > before(s) for s in stories)
    downs = sum(after(s) < before(s) for s in stories)
    count = f", in {ups if points > 0 else downs} of {len(stories)} seeds" if len(stories) > 1 else ""
    verb = "raises" if points > 0 else "lowers"
    return f"{verb} {what} from {old:.1f} to {new:.1f}% ({points:+.1f} points{count})"


def _against(points: float) -> str:
    return "the same as" if abs(points) < _SAME else f"{abs(points):.1f} {'above' if points > 0 else 'below'}"


def _times(whole: int, part: int) -> str:
    return f"{whole / part:.1f} times smaller than" if part < whole else f"{part / whole:.1f} times the size of"


def _mean(stories: Sequence[SeedStory], take: Take) -> float:
    """In percent, to the one decimal that is printed: differences are those of the numbers that a reader sees."""
    return round(100 * spread(stories, take).mean, 1)
