"""One mutant of a seed, judged: an artifact, or what stands beside it (results, card)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from forge import small_signature
from judge import WronglyAcceptedError, judge
from mutants import Origin, change_bytes, mutate

from rws_hub import Accuracy, Evaluation, Results
from rws_hub.card import render_card
from rws_hub.card_merge import merge_card
from rws_hub.errors import ArtifactError, CardError
from rws_hub.results import parse_results

# One in so many mutants is of results, and of a card.
RESULTS, CARDS = 50, 200


@dataclass(frozen=True)
class Case:
    """What came of a seed; `size` in bytes."""

    kind: str
    verdict: str
    size: int


Watch = Callable[[], contextlib.AbstractContextManager[None]]


def judged(origins: Sequence[Origin], seed: int, watch: Watch = contextlib.nullcontext) -> Case:
    """Make the mutant of a seed, and judge it while `watch` looks on."""
    draw = random.Random(seed)
    if seed % CARDS == CARDS - 1:
        text = change_bytes(card().encode(), draw, [b"---\ntags: [a]\n&a *a <<: !!bool x\n<!-- rws-hub:begin -->"])
        with watch():
            return Case("card", judge_card(text.decode("utf-8", "replace")), len(text))
    if seed % RESULTS == RESULTS - 1:
        raw = change_bytes(results().to_text().encode(), draw, [b'{"evaluations": [1e999, "\\ud800", null]}'])
        with watch():
            return Case("results", judge_results(raw), len(raw))
    origin = origins[draw.choices(range(len(origins)), [1 if "resnet" in o.name else 3 for o in origins])[0]]
    mutant = mutate(origin, origins, draw)
    with watch():
        verdict = judge(mutant)
    return Case(mutant.kind, verdict, len(mutant.text) + len(mutant.payload))


@cache
def results() -> Results:
    """Honest results of a small signature."""
    accuracy = Accuracy(0.9, 0.88, 0.89)
    evaluation = Evaluation(
        *("CIFAR-10", "uoft-cs/cifar10", "test", "accuracy", "fog", 5, "standard", 1.0, 1000, 0, accuracy, accuracy)
    )
    digest = small_signature().config.payload.sha256
    return Results("rws-results", 1, digest, "rws eval", {"rws-hub": "0.1.0"}, (evaluation,))


@cache
def card() -> str:
    """An honest card, with words of a person around it."""
    own = render_card(small_signature().config, results())
    return own.replace("---\n\n", "language: no\n---\n\n# Mine\n\nWords.\n\n", 1) + "\nMore words.\n"


def judge_results(raw: bytes) -> str:
    """Refused, or results that are written and read back to the same."""
    try:
        found = parse_results(raw)
        found.require_for(small_signature().config)
    except ArtifactError:
        return "refused"
    if parse_results(found.to_text()) != found:
        raise WronglyAcceptedError("written and read again, the results are others")
    return "the same" if found == results() else "another"


def judge_card(text: str) -> str:
    """Refused, or merged so that merging again changes nothing."""
    new = render_card(small_signature().config, results())
    try:
        merged = merge_card(new, text)
    except CardError:
        return "refused"
    if merge_card(new, merged) != merged:
        raise WronglyAcceptedError("merged again, the card is another")
    return "the same" if text == card() else "another"
