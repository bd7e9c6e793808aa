"""Other packages: PEFT's LoRA, zstd's patches of files, deltatensors."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import deltatensors
import torch
from contender import SWAPPED, Contender, size
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load
from subject import SEED, Subject
from torch import nn

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RANK = 16
LINEAR = r"blocks\.[0-3]\.(attn\.(qkv|proj)|mlp\.fc[12])"
# 2 ** 29 bytes: the clean checkpoint and as much of the robust one as lies between equal places.
WINDOW_LOG = 29


def write_lora(subject: Subject) -> Path:
    """An adapter for all linear layers of the touched blocks, its product as large as the signature's noise."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LINEAR)
    model = get_peft_model(subject.model(), config)
    generator = torch.Generator().manual_seed(SEED)
    spread = (0.002 / RANK**0.5) ** 0.5  # weights have a spread of 0.02
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, spread, generator=generator)
    model.save_pretrained(str(subject.folder / "lora"))
    return subject.folder / "lora"


def lora(subject: Subject) -> Contender:
    """PEFT: inject the adapter, merge it, unmerge it. Only the linear layers change."""
    folder, plain = write_lora(subject), subject.model()
    injected: list[PeftModel] = []

    def on(strength: float) -> None:
        for module in injected[0].modules():
            if isinstance(module, LoraLayer):
                module.set_scale("default", strength)
        injected[0].merge_adapter()

    def swap() -> None:
        injected[0].unmerge_adapter()
        on(SWAPPED)

    steps = {
        "load": lambda: injected.append(PeftModel.from_pretrained(plain, str(folder))),
        "patch": lambda: on(1),
        "swap": swap,
        "remove": lambda: injected[0].unmerge_adapter(),
    }
    files = size(folder / "adapter_config.json", folder / "adapter_model.safetensors")
    return Contender("peft", plain, steps, files, lambda: injected.pop().unload())


def write_patch(subject: Subject) -> Path:
    """The robust file as zstd --patch-from --long has it: a difference from the clean one, byte by byte."""
    prefix = zstd.ZstdDict(subject.file("clean").read_bytes(), is_raw=True).as_prefix
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: WINDOW_LOG,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    file = subject.folder / "robust.zst"
    file.write_bytes(zstd.compress(subject.file("robust").read_bytes(), options=options, zstd_dict=prefix))
    return file


def patch_from(subject: Subject) -> Contender:
    """The robust file made of the clean one and the patch, and loaded."""
    model, file = subject.model(), write_patch(subject)

    def read() -> None:
        prefix = zstd.ZstdDict(subject.file("clean").read_bytes(), is_raw=True).as_prefix
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
        model.load_state_dict(load(zstd.decompress(file.read_bytes(), zstd_dict=prefix, options=options)))

    return Contender("zstd", model, {"from file": read}, size(file))


def write_deltas(subject: Subject) -> Path:
    """What deltatensors, int4, makes of the touched tensors alone. It computes in numpy, which has no bfloat16."""
    clean, file = _touched(subject.clean, subject), subject.folder / "robust.wdelta"
    with contextlib.redirect_stdout(io.StringIO()):
        deltatensors.save_delta(file, {n: v + subject.delta[n] for n, v in clean.items()}, clean, strategy="int4")
    return file


def deltas(subject: Subject) -> Contender:
    """New weights made by deltatensors of the clean ones, which it verifies; they are copied into the model."""
    model, file = subject.model(), write_deltas(subject)
    live, clean = model.state_dict(), _touched(subject.clean, subject)

    def read() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            values = deltatensors.load_delta(file, clean)
        for name, value in values.items():
            live[name].copy_(torch.from_numpy(value))

    return Contender("deltatensors", model, {"from file": read}, size(file))


def _touched(model: nn.Module, subject: Subject) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if name in subject.delta}


def peers(subject: Subject) -> list[Contender]:
    """All that this dtype allows."""
    both = [lora(subject), patch_from(subject)]
    return [*both, deltas(subject)] if next(subject.clean.parameters()).dtype == torch.float32 else both
