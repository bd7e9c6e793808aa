"""Wrong bases, and damage to files: what every library is put through."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from adapters import Library, RwsHub, unet
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn

from rws_hub.config import parse_config
from rws_hub.spec import CONFIG_FILE

SEED = 0

Tensors = dict[str, torch.Tensor]


def trained(model: nn.Module, by: float) -> nn.Module:
    """A copy whose weights have moved by a share of their own size, as fine-tuning moves them."""
    twin, generator = copy.deepcopy(model), torch.Generator().manual_seed(SEED + 9)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(by * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator))
    return twin


def transformer() -> nn.Module:
    """A small one of diffusers', of other layers; some end in the names that an adapter looks for."""
    torch.manual_seed(SEED)
    sizes = {"joint_attention_dim": 16, "caption_projection_dim": 16, "pooled_projection_dim": 16}
    heads = {"num_attention_heads": 2, "attention_head_dim": 8}
    model: nn.Module = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, pos_embed_max_size=8, **heads, **sizes
    )
    return model.eval().requires_grad_(False)


BASES: dict[str, Callable[[], nn.Module]] = {
    "the right base": lambda: unet(SEED),
    "the right base, trained further": lambda: trained(unet(SEED), 0.1),
    "a stranger: same shapes, other weights": lambda: unet(SEED + 1),
    "other shapes: half as wide": lambda: unet(SEED, width=32),
    "more layers, and all those of the adapter": lambda: unet(SEED, layers=2),
    "another architecture, whose layers have such names": transformer,
}


def damaged(
    library: Library, folder: Path, damage: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    """Change the tensors of a published file. A resealing attacker also makes the digests of rws-hub's config anew."""
    file = folder / library.file
    with file.open("rb") as handle:
        header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
    save_file(damage(load_file(file)), file, metadata=header.get("__metadata__"))
    reseal(library, folder)


def reseal(library: Library, folder: Path) -> None:
    """State the digests of what is there now, if this library's attacker does so."""
    if not (isinstance(library, RwsHub) and library.resealed):
        return
    payload = (folder / library.file).read_bytes()
    config = parse_config((folder / CONFIG_FILE).read_bytes())
    stated = dataclasses.replace(config.payload, bytes=len(payload), sha256=hashlib.sha256(payload).hexdigest())
    (folder / CONFIG_FILE).write_text(dataclasses.replace(config, payload=stated).with_seal().to_text(), "utf-8")


def drop(tensors: Tensors) -> Tensors:
    """Without the last tensor."""
    return {name: tensors[name] for name in sorted(tensors)[:-1]}


def rename(tensors: Tensors) -> Tensors:
    """The last tensor by another name."""
    last = sorted(tensors)[-1]
    return drop(tensors) | {last.replace("to_v", "to_w").replace("to_q", "to_w"): tensors[last]}


def transpose(tensors: Tensors) -> Tensors:
    """The first tensor that is not square, the other way round."""
    name = next(n for n in sorted(tensors) if tensors[n].shape[0] != tensors[n].shape[1])
    return tensors | {name: tensors[name].T.contiguous()}


def poison(tensors: Tensors) -> Tensors:
    """One NaN."""
    tensors[sorted(tensors)[0]].view(-1)[5] = float("nan")
    return tensors


DAMAGES: dict[str, Callable[[Tensors], Tensors]] = {
    "a tensor is missing": drop,
    "a tensor too many": lambda t: t | {f"nowhere.{sorted(t)[0]}": t[sorted(t)[0]].clone()},
    "a tensor renamed": rename,
    "a tensor transposed": transpose,
    "a tensor as int32": lambda t: t | {sorted(t)[0]: t[sorted(t)[0]].to(torch.int32)},
    "a NaN": poison,
}


def truncate(library: Library, folder: Path) -> None:
    """Keep the first half of the file."""
    file = folder / library.file
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    reseal(library, folder)


def flip(library: Library, folder: Path) -> None:
    """Flip the highest bit but the sign of the last float32."""
    file = folder / library.file
    data = bytearray(file.read_bytes())
    data[-1] ^= 0x40
    file.write_bytes(data)
    reseal(library, folder)


def newer(library: Library, folder: Path) -> None:
    """Say that a later version wrote it, with a setting that nobody knows yet."""
    if isinstance(library, RwsHub):
        file = folder / CONFIG_FILE
        stated = json.loads(file.read_text("utf-8"))
        file.write_text(json.dumps(stated | {"format_version": 99, "unheard_of": True}), "utf-8")
    elif library.config:
        file = folder / library.config
        stated = json.loads(file.read_text("utf-8"))
        file.write_text(json.dumps(stated | {"peft_version": "99.0.0", "unheard_of": True}), "utf-8")
    else:
        data = (folder / library.file).read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        stated = json.loads(header["__metadata__"]["lora_adapter_metadata"])
        header["__metadata__"]["lora_adapter_metadata"] = json.dumps(
            stated | {"peft_version": "99.0.0", "unheard_of": True}
        )
        text = json.dumps(header).encode()
        (folder / library.file).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def damager(damage: Callable[[Tensors], Tensors]) -> Callable[[Library, Path], None]:
    """What does that to a file."""
    return lambda library, folder: damaged(library, folder, damage)


FILES: dict[str, Callable[[Library, Path], None]] = {
    **{name: damager(damage) for name, damage in DAMAGES.items()},
    "half of the file": truncate,
    "one bit of the last weight": flip,
    "of a later version, with an unknown setting": newer,
}
