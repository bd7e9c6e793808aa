"""The models of the experiment, each trained once and kept in a folder of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import timm
import torch
from setting import FITS, Fit, Setting
from timm.models.vgg import VGG
from torch import nn

from rws_hub.backbones import load_model
from rws_hub.classifier import with_head
from rws_hub.pictures import Pictures, open_pictures
from rws_hub.training import train
from rws_hub.training.settings import Recipe, TrainSettings

SIZE = 32
PRETRAIN_DATA = "tinyimagenet32"
# "from-clean-long" costs as much as "two-branch": both get as many epochs as the standard model.
Twin = Literal["from-clean", "from-clean-long", "two-branch"]

_VGG16: list[int | str] = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
_CLASSES = {"cifar10": 10, "cifar100": 100, PRETRAIN_DATA: 100}


@cache
def _pictures(folder: Path, split: str) -> Pictures:
    return open_pictures(folder, split)


@dataclass(frozen=True, slots=True)
class Zoo:
    """One backbone's models.

    Attributes:
        setting: how long and how large.
        backbone: "resnet" (timm's ResNet-18, batch norm), "vgg" (VGG-16 without batch norm and with one linear layer
            as its head, as in the paper) or "vit" (timm's ViT-Ti, narrower, on patches of 8 pixels).
        data: folder with cifar10, cifar100 and tinyimagenet32, each of Parquet files.
        work: folder for what is trained.
    """

    setting: Setting
    backbone: str
    data: Path
    work: Path

    def pictures(self, dataset: str, split: str) -> Pictures:
        """Labelled images; they are decoded once."""
        return _pictures(self.data / dataset, split)

    def pretrained(self, init: int = 0) -> Path:
        """theta_0, by the seed of its initialisation."""
        start = self._build(init)
        settings = TrainSettings(
            "standard",
            epochs=self.setting.pretrain,
            batch_size=self._fit.batch_size,
            lr=self._fit.pretrain_lr,
            optimizer=self._fit.optimizer,
            weight_decay=self._fit.weight_decay,
            seed=init,
            precision=self._precision,
        )
        return self._train(start, PRETRAIN_DATA, settings, f"pretrained-{init}", scratch=True)

    def standard(self, dataset: str, seed: int, init: int = 0) -> Path:
        """theta_std: theta_0, fine-tuned on clean images."""
        name = f"{dataset}-standard-{seed}" + (f"-init{init}" if init else "")
        start = self._start(self.pretrained(init), PRETRAIN_DATA)
        return self._train(start, dataset, self._finetune("standard", None, self.setting.standard, seed), name)

    def further(self, dataset: str, seed: int) -> Path:
        """The standard model, trained further on clean images in another order."""
        start = self._start(self.standard(dataset, seed), dataset)
        settings = self._finetune("standard", None, self.setting.further, 1000 + seed)
        return self._train(start, dataset, settings, f"{dataset}-further-{seed}")

    def robust(self, dataset: str, corruption: str, seed: int, twin: Twin = "from-clean") -> Path:
        """theta_c by one of the recipes."""
        recipe: Recipe = "two-branch" if twin == "two-branch" else "from-clean"
        if twin == "two-branch":
            start = self._start(self.pretrained(), PRETRAIN_DATA)
        else:
            start = self._start(self.standard(dataset, seed), dataset)
        epochs = self.setting.robust if twin == "from-clean" else self.setting.standard
        settings = self._finetune(recipe, corruption, epochs, seed)
        return self._train(start, dataset, settings, f"{dataset}-{twin}-{corruption}-{seed}")

    def load(self, folder: Path, dataset: str) -> nn.Module:
        """A trained model, in eval mode."""
        if self.backbone != "vgg":
            return load_model(folder)
        model = with_head(self._build_vgg(0), _CLASSES[dataset], 0)
        model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
        return model.eval()

    @property
    def _fit(self) -> Fit:
        return FITS[self.backbone]

    @property
    def _precision(self) -> Literal["bf16", "fp32"]:
        return "bf16" if self.setting.precision == "bf16" else "fp32"

    def _finetune(self, recipe: Recipe, corruption: str | None, epochs: int, seed: int) -> TrainSettings:
        return TrainSettings(
            recipe,
            corruption,
            None if corruption is None else self.setting.severity,
            epochs=epochs,
            batch_size=self._fit.batch_size,
            lr=self._fit.finetune_lr,
            optimizer=self._fit.optimizer,
            weight_decay=self._fit.weight_decay,
            seed=seed,
            precision=self._precision,
        )

    def _train(
        self, start: Path | nn.Module, dataset: str, settings: TrainSettings, name: str, *, scratch: bool = False
    ) -> Path:
        out = self.work / self.setting.name / self.backbone / name
        if not (out / "train.json").exists():
            print(f"training {self.backbone} {name}", flush=True)
            scratch = scratch and isinstance(start, Path)
            train(
                start,
                self.pictures(dataset, self.setting.split("train")),
                settings,
                out,
                scratch=scratch,
                size=SIZE,
                progress=True,
            )
        return out

    def _start(self, folder: Path, dataset: str) -> Path | nn.Module:
        """What a training goes on from: of timm's own model the folder, so that its config is handed on."""
        return folder if self.backbone != "vgg" else self.load(folder, dataset)

    def _build(self, seed: int) -> Path | nn.Module:
        if self.backbone == "vgg":
            return self._build_vgg(seed)
        folder = self.work / self.setting.name / self.backbone / "architecture"
        folder.mkdir(parents=True, exist_ok=True)
        architecture, features, arguments = self._timm()
        stated: Any = timm.create_model(architecture, **arguments).pretrained_cfg
        config = {
            "architecture": architecture,
            "num_classes": 1000,
            "num_features": features,
            "model_args": arguments,
            "pretrained_cfg": {**dict(stated), "crop_pct": 1.0},
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        return folder

    def _timm(self) -> tuple[str, int, dict[str, Any]]:
        """Architecture, features before the head and arguments of a model that timm builds."""
        if self.backbone == "vit":
            heads = max(1, round(3 * self.setting.width))
            arguments = {"img_size": SIZE, "patch_size": 8, "embed_dim": 64 * heads, "num_heads": heads}
            return "vit_tiny_patch16_224", 64 * heads, arguments
        channels = [round(c * self.setting.width) for c in (64, 128, 256, 512)]
        return "resnet18", channels[-1], {"channels": channels}

    def _build_vgg(self, seed: int) -> nn.Module:
        cfg = [c if isinstance(c, str) else round(c * self.setting.width) for c in _VGG16]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: Any = VGG(cfg, num_classes=_CLASSES[PRETRAIN_DATA])
            model.pre_logits = nn.Identity()
            model.num_features = model.head_hidden_size = int(cfg[-2])
            model.head.in_features = int(cfg[-2])
            model.reset_classifier(_CLASSES[PRETRAIN_DATA])
        built: nn.Module = model
        return built
