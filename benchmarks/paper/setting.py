"""What is trained and measured: small enough for two cores, or as in the paper for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rws_hub.corruptions import CORRUPTIONS
from rws_hub.training.settings import Optimizer


@dataclass(frozen=True, slots=True)
class Setting:
    """One size of the whole experiment.

    Attributes:
        name: of the results file.
        width: of the backbones, as a share of the original channel counts.
        corruptions: which.
        compared: those on which recipes are compared; none leaves that out.
        severity: of training and measuring.
        seeds: of the main models, for what is claimed: the headline, specificity, similarity.
        few_seeds: for what is a trend (bits, depth, strength, ...), and for the second data set.
        inits: other initialisations of the pretrained weights that signatures are moved to.
        pretrain, standard, robust, further: epochs.
        lr: peak learning rate of pretraining, then of fine-tuning, by backbone.
        train_images, test_images: how many of them; None is all.
        precision: of training.
    """

    name: str
    width: float
    corruptions: tuple[str, ...]
    compared: tuple[str, ...]
    severity: int
    seeds: tuple[int, ...]
    few_seeds: tuple[int, ...]
    inits: tuple[int, ...]
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
    compared=("gaussian_noise", "fog"),
    severity=5,
    seeds=(0, 1, 2),
    few_seeds=(0,),
    inits=(1,),
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
    compared=("gaussian_noise", "defocus_blur", "fog", "jpeg_compression"),
    few_seeds=(0, 1, 2),
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
    compared=("fog",),
    seeds=(0, 1),
    few_seeds=(0, 1),
    pretrain=1,
    standard=1,
    robust=1,
    further=1,
    train_images=1300,
    test_images=200,
)

BACKBONES = ("resnet", "vgg", "vit")
SETTINGS = {s.name: dict.fromkeys(BACKBONES, s) for s in (SMALL, FULL, SMOKE)}
# A VGG-16 costs seven times what a ResNet-18 of the same width does.
SETTINGS["small"]["vgg"] = replace(
    SMALL,
    width=0.25,
    corruptions=("gaussian_noise", "impulse_noise", "defocus_blur", "motion_blur", "fog", "jpeg_compression"),
    compared=(),
    inits=(),
    test_images=2000,
)
# Two heads of ViT-Ti's three, patches of 8 pixels and few epochs: what two cores can do of a transformer. Most
# corruptions hardly hurt so weak a model; contrast and fog do. float32 is the faster one at that size.
SETTINGS["small"]["vit"] = replace(
    SMALL,
    width=2 / 3,
    corruptions=("contrast", "gaussian_noise", "fog"),
    compared=(),
    seeds=(0,),
    inits=(),
    pretrain=6,
    standard=3,
    robust=1,
    train_images=30000,
    precision="fp32",
)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a backbone is trained.

    Attributes:
        pretrain_lr, finetune_lr: peak learning rates, of pretraining and of everything after it.
        optimizer, weight_decay, batch_size: see `TrainSettings`.
    """

    pretrain_lr: float
    finetune_lr: float
    optimizer: Optimizer = "sgd"
    weight_decay: float = 5e-4
    batch_size: int = 128


# VGG without batch norm does not bear the rates that ResNet does.
FITS = {"resnet": Fit(0.1, 0.02), "vgg": Fit(0.02, 0.01), "vit": Fit(1e-3, 5e-4, "adamw", 0.05, 64)}
