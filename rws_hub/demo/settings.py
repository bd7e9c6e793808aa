"""Sizes, schedules and strengths of the demo in one place. Needs nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

CORRUPTION = "gaussian_noise"
SEVERITY = 5
DATASET = "digits"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One training: how many passes over its images, and the peak learning rate of the one-cycle schedule."""

    epochs: int
    lr: float


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Everything that decides what the demo trains and measures. The defaults take about 25 s a seed on one core.

    Attributes:
        side: images are upsampled from 8 by 8 to this many pixels a side.
        base_images, user_images, test_images: sizes of three disjoint splits with all ten digits alike.
        max_shift: training images are moved by up to this many pixels, the one augmentation.
        channels: width of the four stages of the ResNet.
        batch: images a step.
        ancestor: training that all kin share; the stranger has one of its own.
        clean: from the ancestor to the clean model.
        robust: from the clean model to its robust twin, half of every batch noisy.
        two_branch: from the ancestor to the two-branch robust twin, every image noisy.
        user: from the clean model to the user's model, on other images. The full learning rate: a model that
            somebody really trained on, not a near copy.
        bn_images: unlabelled noisy images that the rival of the patch re-estimates batch-norm statistics on.
        alphas: patch strengths of the sweep on the user's model, unitless.
    """

    side: int = 24
    base_images: int = 700
    user_images: int = 500
    test_images: int = 597
    max_shift: int = 2
    channels: tuple[int, int, int, int] = (64, 96, 128, 128)
    batch: int = 50
    ancestor: Schedule = Schedule(6, 0.1)
    clean: Schedule = Schedule(10, 0.1)
    robust: Schedule = Schedule(8, 0.02)
    two_branch: Schedule = Schedule(10, 0.1)
    user: Schedule = Schedule(10, 0.1)
    bn_images: int = 64
    alphas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)

    @property
    def epochs(self) -> int:
        """All epochs of one seed; the stranger is trained like the ancestor and the clean model."""
        shared = self.ancestor.epochs + self.clean.epochs
        return 2 * shared + self.robust.epochs + self.two_branch.epochs + self.user.epochs
