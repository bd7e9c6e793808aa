"""What is trained and measured: small enough for two cores, or as in the paper for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rws_hub.corruptions import CORRUPTIONS


@dataclass(frozen=True, slots=True)
class Setting:
    """One size of the whole experiment.

    Attributes:
        name: of the results file.
        width: of the backbones, as a share of the original channel counts.
        corruptions: which.
        one_of_a_kind: those on which recipes are compared, one of each kind.
        severity: of training and measuring.
        seeds: of everything that follows the pretrained weights.
        pretrain, standard, robust, further: epochs.
        lr: peak learning rate of pretraining, then of fine-tuning, by backbone.
        train_images, test_images: how many of them; None is all.
        precision: of training.
    """

    name: str
    width: float
    corruptions: tuple[str, ...]
    one_of_a_kind: tuple[str, ...]
    severity: int
    seeds: tuple[int, ...]
    pretrain: int
    standard: int
    robust: int
    further: int
    train_images: int | None
    test_images: int | None
    precision: str

    def split(self, name: str) -> str:
        """The part of "train" or "test" that is used, in the words of `datasets`."""
        images = self.test_images if name == "test" else self.train_images
        return name if images is None else f"{name}[:{images}]"


SMALL = Setting(
    name="small",
    width=0.5,
    corruptions=(
        "gaussian_noise",
        "impulse_noise",
        "defocus_blur",
        "motion_blur",
        "fog",
        "snow",
        "contrast",
        "jpeg_compression",
    ),
    one_of_a_kind=("gaussian_noise", "defocus_blur", "fog", "jpeg_compression"),
    severity=5,
    seeds=(0, 1, 2),
    pretrain=12,
    standard=6,
    robust=2,
    further=2,
    train_images=None,
    test_images=4000,
    precision="bf16",
)

# The paper's two backbones at full width, all 19 corruptions, its 50 epochs.
FULL = replace(
    SMALL,
    name="full",
    width=1.0,
    corruptions=CORRUPTIONS,
    pretrain=90,
    standard=50,
    robust=10,
    further=10,
    test_images=None,
)

# Shows that everything runs, and nothing else.
SMOKE = replace(
    SMALL,
    name="smoke",
    width=0.125,
    corruptions=("gaussian_noise", "defocus_blur", "fog", "contrast"),
    one_of_a_kind=("fog",),
    seeds=(0, 1),
    pretrain=1,
    standard=1,
    robust=1,
    further=1,
    train_images=1300,
    test_images=200,
)

SETTINGS = {s.name: s for s in (SMALL, FULL, SMOKE)}
BACKBONES = ("resnet", "vgg")
# VGG without batch norm does not bear the rates that ResNet does.
PRETRAIN_LR = {"resnet": 0.1, "vgg": 0.02}
FINETUNE_LR = {"resnet": 0.02, "vgg": 0.01}
