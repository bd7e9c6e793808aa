"""The libraries that are put side by side: one weight change, written, put on and taken off in each one's own way.

All of them get the same change of the same layers: of each a product of two factors of rank 4, which is what PEFT and
diffusers store; rws-hub stores the product, as float32, so that none of them rounds.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from rws_hub import Patch, RobustWeightSignature, patch
from rws_hub.spec import CONFIG_FILE, PAYLOAD_FILE

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
RANK = 4
# The same for all: the spread of each factor, so that the product is about a tenth of the weights.
SPREAD = 0.05
Factors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def unet(seed: int, width: int = 64, layers: int = 1) -> nn.Module:
    """A small conditional UNet of random weights, with eight attention layers to adapt at one layer a block."""
    torch.manual_seed(seed)
    model: nn.Module = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(width, 2 * width),
        layers_per_block=layers,
        cross_attention_dim=16,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return model.eval().requires_grad_(False)


def run(model: nn.Module) -> torch.Tensor:
    """One forward pass on ones."""
    dtype = next(model.parameters()).dtype
    ones = torch.ones(1, 4, 8, 8, dtype=dtype)
    with torch.no_grad():
        found: torch.Tensor = model(ones, 1, torch.ones(1, 3, 16, dtype=dtype)).sample
    return found


def factors(model: nn.Module, seed: int) -> Factors:
    """Layer -> A [rank, in] and B [out, rank], float32, in the order of the model."""
    generator = torch.Generator().manual_seed(seed)
    layers = {n: m for n, m in model.named_modules() if any(n.endswith(f".{t}") for t in TARGETS)}
    return {
        name: (
            torch.randn(RANK, layer.weight.shape[1], generator=generator) * SPREAD,
            torch.randn(layer.weight.shape[0], RANK, generator=generator) * SPREAD,
        )
        for name, layer in layers.items()
    }


class Library(Protocol):
    """One library, used as its documentation says."""

    label: str
    file: str
    config: str | None

    def write(self, folder: Path, base: nn.Module, change: Factors) -> None:
        """Write the change, made for `base`, as it is published."""

    def load(self, model: nn.Module, folder: Path) -> Any:
        """Read it, put it on, and return a handle."""

    def on(self, handle: Any) -> None:
        """Put it on (again)."""

    def off(self, handle: Any) -> None:
        """Take everything off, ready to be put on again."""

    def second(self, handle: Any, folder: Path) -> None:
        """Put another one on as well."""

    def first_off(self, handle: Any) -> None:
        """Take the first one off, so that the second one is on alone."""

    def net(self, handle: Any) -> nn.Module:
        """What is called."""

    def beside(self, model: nn.Module, folder: Path) -> Callable[[], nn.Module] | None:
        """Use it without writing into the weights, where that can be; what is returned gives the clean model back."""


class RwsHub(Library):
    """This package. `exact`: with the strictest check of the base; `resealed`: see `damaged`."""

    file = PAYLOAD_FILE
    config: str | None = CONFIG_FILE

    def __init__(self, label: str = "rws-hub", exact: bool = False, resealed: bool = False) -> None:
        self.label, self.resealed = label, resealed
        self._options: dict[str, Any] = {"verify": "exact"} if exact else {}

    def write(self, folder: Path, base: nn.Module, change: Factors) -> None:
        """A signature of the product."""
        robust = base.state_dict()
        robust |= {f"{n}.weight": robust[f"{n}.weight"] + b @ a for n, (a, b) in change.items()}
        RobustWeightSignature.extract(
            standard=base,
            robust=robust,
            corruption=folder.name,
            license="mit",
            layers=[f"{name}.weight" for name in change],
            bits=32,
        ).save_pretrained(folder)

    def load(self, model: nn.Module, folder: Path) -> tuple[nn.Module, list[Patch], RobustWeightSignature]:
        """`patch`."""
        signature = RobustWeightSignature.from_pretrained(folder)
        return model, [patch(model, signature, **self._options)], signature

    def on(self, handle: Any) -> None:
        """`patch` once more."""
        handle[1].append(patch(handle[0], handle[2], **self._options))

    def off(self, handle: Any) -> None:
        """`unpatch`."""
        handle[1].pop(0).unpatch()

    def second(self, handle: Any, folder: Path) -> None:
        """A handle of its own."""
        handle[1].append(patch(handle[0], RobustWeightSignature.from_pretrained(folder)))

    def first_off(self, handle: Any) -> None:
        """The first handle."""
        handle[1].pop(0).unpatch()

    def net(self, handle: Any) -> nn.Module:
        """The model itself."""
        model: nn.Module = handle[0]
        return model

    def beside(self, model: nn.Module, folder: Path) -> None:
        """It cannot."""


class Peft(Library):
    """PEFT: `PeftModel.from_pretrained`, `merge_adapter`, `unmerge_adapter`."""

    file = "adapter_model.safetensors"
    config: str | None = "adapter_config.json"

    def __init__(self, label: str = "PEFT", strict: bool = False) -> None:
        self.label, self._strict = label, strict

    def write(self, folder: Path, base: nn.Module, change: Factors) -> None:
        """A LoRA."""
        made = get_peft_model(copy.deepcopy(base), LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
        _fill(made, change, "base_model.model.")
        made.save_pretrained(str(folder))

    def load(self, model: nn.Module, folder: Path) -> PeftModel:
        """`from_pretrained`, then `merge_adapter`."""
        loaded = PeftModel.from_pretrained(model, str(folder))
        loaded.merge_adapter(safe_merge=self._strict)
        return loaded

    def on(self, handle: Any) -> None:
        """`merge_adapter`."""
        handle.merge_adapter(safe_merge=self._strict)

    def off(self, handle: Any) -> None:
        """`unmerge_adapter`."""
        handle.unmerge_adapter()

    def second(self, handle: Any, folder: Path) -> None:
        """`load_adapter` under another name (which takes the first one off: so it is merged again), and merged too."""
        handle.unmerge_adapter()
        handle.load_adapter(str(folder), "second")
        handle.merge_adapter(adapter_names=["default", "second"], safe_merge=self._strict)

    def first_off(self, handle: Any) -> None:
        """All off, since one cannot be chosen; then the second alone."""
        handle.unmerge_adapter()
        handle.merge_adapter(adapter_names=["second"], safe_merge=self._strict)

    def net(self, handle: Any) -> nn.Module:
        """The wrapper."""
        model: nn.Module = handle
        return model

    def beside(self, model: nn.Module, folder: Path) -> Callable[[], nn.Module]:
        """Its layers add the product of the factors to their outputs."""
        loaded = PeftModel.from_pretrained(model, str(folder))
        run(loaded)
        return loaded.unload  # type: ignore[no-any-return]


class Diffusers(Library):
    """diffusers: `load_lora_adapter`, `fuse_lora`, `unfuse_lora` of its models (a pipeline's methods call them)."""

    file = "pytorch_lora_weights.safetensors"
    config: str | None = None

    def __init__(self, label: str = "diffusers", strict: bool = False) -> None:
        self.label, self._strict = label, strict

    def write(self, folder: Path, base: nn.Module, change: Factors) -> None:
        """A LoRA."""
        made: Any = copy.deepcopy(base)
        made.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
        _fill(made, change, "")
        made.save_lora_adapter(str(folder))

    def load(self, model: nn.Module, folder: Path) -> Any:
        """`load_lora_adapter`, then `fuse_lora`."""
        live: Any = model
        self._read(live, folder, "first")
        self.on(live)
        return live

    def _read(self, live: Any, folder: Path, name: str) -> None:
        live.load_lora_adapter(str(folder), prefix=None, adapter_name=name, weight_name=self.file)

    def on(self, handle: Any) -> None:
        """`fuse_lora`."""
        handle.fuse_lora(safe_fusing=self._strict, adapter_names=["first"])

    def off(self, handle: Any) -> None:
        """`unfuse_lora`."""
        handle.unfuse_lora()

    def second(self, handle: Any, folder: Path) -> None:
        """Another name, fused beside the first; not while that is fused."""
        handle.unfuse_lora()
        self._read(handle, folder, "second")
        handle.fuse_lora(safe_fusing=self._strict, adapter_names=["first", "second"])

    def first_off(self, handle: Any) -> None:
        """All off, since one cannot be chosen; then the second alone."""
        handle.unfuse_lora()
        handle.fuse_lora(safe_fusing=self._strict, adapter_names=["second"])

    def net(self, handle: Any) -> nn.Module:
        """The model itself."""
        model: nn.Module = handle
        return model

    def beside(self, model: nn.Module, folder: Path) -> Callable[[], nn.Module]:
        """Its layers add the product of the factors to their outputs."""
        live: Any = model
        self._read(live, folder, "first")
        run(model)

        def undo() -> nn.Module:
            live.unload_lora()
            return model

        return undo


def libraries() -> list[Library]:
    """Each as it is used by default, then with the strictest switches that its documentation names."""
    knows_verify = "verify" in inspect.signature(patch).parameters
    ours: list[Library] = [RwsHub(), *([RwsHub("rws-hub, verify='exact'", exact=True)] if knows_verify else [])]
    peers: list[Library] = [
        Peft(),
        Peft("PEFT, safe_merge", strict=True),
        Diffusers(),
        Diffusers("diffusers, safe_fusing", strict=True),
    ]
    return [*ours, *peers]


def _fill(model: nn.Module, change: Factors, prefix: str) -> None:
    live = dict(model.named_parameters())
    with torch.no_grad():
        for name, (a, b) in change.items():
            live[f"{prefix}{name}.lora_A.default.weight"].copy_(a)
            live[f"{prefix}{name}.lora_B.default.weight"].copy_(b)
