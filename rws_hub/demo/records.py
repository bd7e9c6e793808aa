"""What one seed of the demo measured, and the spread over seeds. Frozen, and light: no torch here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Who = Literal["own", "user", "stranger"]


@dataclass(frozen=True, slots=True)
class Score:
    """Top-1 accuracies on the test images, fractions from 0 to 1."""

    clean: float
    noisy: float


@dataclass(frozen=True, slots=True)
class TargetStory:
    """One model that was patched.

    Attributes:
        who: the signature's own clean model, the user's, or a stranger.
        similarity: the plan's estimate of the cosine with the signature's source, -1 to 1.
        kinship: the plan's verdict in words.
        kin: the same as yes or no; None if it could not be told.
        before: as it is.
        patched: with the from-clean signature at alpha 1.
        two_branch: with the two-branch signature at alpha 1 instead.
        batchnorm: with batch-norm statistics re-estimated on noisy images instead.
        after: once the patch is off again.
        restored: whether every bit of every tensor was as before, after each of the two signatures.
    """

    who: Who
    similarity: float | None
    kinship: str
    kin: bool | None
    before: Score
    patched: Score
    two_branch: Score
    batchnorm: Score
    after: Score
    restored: bool


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on disk, and what they hold.

    Attributes:
        config, payload: the two files of the artifact.
        float32_artifact: config and payload of the same signature, not quantized.
        checkpoint: the whole clean model, float32.
        touched: weights and statistics that the signature changes.
        body: weights and statistics outside of the head.
        bits: of one entropy-coded weight.
        layers: labels of the touched layers, in order of execution.
        layers_total: how many layers the body has.
    """

    config: int
    payload: int
    float32_artifact: int
    checkpoint: int
    touched: int
    body: int
    bits: float
    layers: tuple[str, ...]
    layers_total: int

    @property
    def artifact(self) -> int:
        """Bytes of config and payload together."""
        return self.config + self.payload


@dataclass(frozen=True, slots=True)
class SeedStory:
    """Everything measured with one seed.

    Attributes:
        seed: of splits, initialisations, training and noise.
        images: number of test images.
        payload_sha256: digest of the from-clean signature's payload.
        targets: own, user, stranger.
        robust, two_branch_robust: the robust twins that the two signatures were extracted from.
        sweep: (alpha, score) of the user's model.
        sizes: of the from-clean signature.
    """

    seed: int
    images: int
    payload_sha256: str
    targets: tuple[TargetStory, TargetStory, TargetStory]
    robust: Score
    two_branch_robust: Score
    sweep: tuple[tuple[float, Score], ...]
    sizes: Sizes

    def target(self, who: Who) -> TargetStory:
        """One of the three targets."""
        return next(t for t in self.targets if t.who == who)


@dataclass(frozen=True, slots=True)
class Spread:
    """One number over all seeds: mean and standard deviation (None with a single seed)."""

    mean: float
    sd: float | None


def spread(stories: Sequence[SeedStory], take: Callable[[SeedStory], float]) -> Spread:
    """Mean and sample standard deviation of what `take` finds in each seed."""
    values = [take(s) for s in stories]
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
