"""PEFT, diffusers and this package through the same wrong bases, damaged files, merges and unmerges.

    python benchmarks/trust/side_by_side.py           # into benchmarks/results/trust-rivals.json, in a minute or two
    python benchmarks/trust/side_by_side.py --print   # printed only

Needs peft and diffusers. One small UNet of random weights stands for every base, so that all of them can take it; all
get the same change of the same layers. Nothing is expected here: what happens is written down. Of every case: whether
there was an error, a warning or neither, its first line, and whether each weight of the model has the bits it had.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from adapters import Ear, Factors, Library, RwsHub, damaged, factors, libraries, reseal, run, unet
from diffusers import SD3Transformer2DModel
from torch import nn

import rws_hub
from rws_hub import steady
from rws_hub.spec import CONFIG_FILE

RESULT = Path(__file__).parent.parent / "results" / "trust-rivals.json"
SEED = 0
CYCLES = 100
# Of forward passes while a thread merges and unmerges.
SECONDS = 2.0
# Characters of a message.
MOST = 220
_BITS = {2: torch.int16, 4: torch.int32}

Tensors = dict[str, torch.Tensor]
Row = dict[str, Any]


class Weights:
    """The live weights of a model, by the very objects that hold them, and the bits that they had."""

    def __init__(self, model: nn.Module) -> None:
        self._live = dict(model.named_parameters())
        self._bits = {name: _bits(tensor) for name, tensor in self._live.items()}

    def differing(self, names: list[str] | None = None) -> tuple[int, int]:
        """How many weights have other bits now, and of how many; `names`: of these tensors."""
        wanted = names or list(self._live)
        wrong = sum(int((_bits(self._live[n]) != self._bits[n]).sum()) for n in wanted)
        return wrong, sum(self._bits[n].numel() for n in wanted)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().view(_BITS[tensor.element_size()])


def told(work: Callable[[], object], known: set[str]) -> Row:
    """What a piece of work says: an error, a warning that the right base does not get, or nothing."""
    with Ear() as ear:
        try:
            work()
            error = None
        except Exception as raised:
            error = raised
    if error is not None:
        return {"outcome": "error", "kind": type(error).__name__, "message": first_line(str(error))}
    fresh = [first_line(text) for text in ear.heard if first_line(text) not in known]
    return {"outcome": "warning" if fresh else "accepted", "kind": "", "message": fresh[0] if fresh else ""}


def first_line(text: str) -> str:
    """The first line (and the next one, where that only announces it), without paths of this machine."""
    lines = [x.strip() for x in text.splitlines() if x.strip()]
    told = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    told = re.sub(r"\S*/(?:damaged-\d+|first|second|huge)/", "", told)
    return told if len(told) <= MOST else f"{told[:MOST]}..."


def loaded(library: Library, model: nn.Module, folder: Path, known: set[str]) -> Row:
    """Put what is in the folder on a model."""
    before, names = Weights(model), set(dict(model.named_parameters()))
    row = told(lambda: library.load(model, folder), known)
    row["weights_changed"] = before.differing()[0] > 0
    row["names_changed"] = set(dict(model.named_parameters())) != names
    row["finite"] = all(bool(p.isfinite().all()) for p in model.parameters())
    return row


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


def cycles(library: Library, folder: Path, change: Factors, dtype: torch.dtype) -> Row:
    """Share of the touched weights that are not back after one removal, and after many."""
    model = unet(SEED).to(dtype)
    weights, touched = Weights(model), [f"{name}.weight" for name in change]
    handle = library.load(model, folder)
    library.off(handle)
    once = weights.differing(touched)
    for _ in range(CYCLES - 1):
        library.on(handle)
        library.off(handle)
    after, count = weights.differing(touched)
    return {"once": once[0] / count, f"after_{CYCLES}": after / count}


def two(library: Library, first: Path, second: Path, change: Factors, dtype: torch.dtype) -> Row:
    """Two are put on, the first is taken off, then the other: is what is left what it should be, bit for bit?"""
    alone, model = unet(SEED).to(dtype), unet(SEED).to(dtype)
    library.load(alone, second)
    touched = [f"{name}.weight" for name in change]
    weights, live = Weights(model), dict(model.named_parameters())
    expected = [_bits(p) for n, p in _plain(alone).items() if n in touched]
    handle = library.load(model, first)
    library.second(handle, second)
    library.first_off(handle)
    left = sum(int((_bits(live[n]) != bits).sum()) for n, bits in zip(_in_order(alone, touched), expected, strict=True))
    library.off(handle)
    wrong, count = weights.differing(touched)
    return {"second_alone": left / count, "both_off": wrong / count}


def _plain(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n.replace("base_layer.", ""): p for n, p in model.named_parameters()}


def _in_order(model: nn.Module, names: list[str]) -> list[str]:
    return [n for n in _plain(model) if n in names]


def again(library: Library, folder: Path, known: set[str]) -> Row:
    """Put it on when it is on already."""
    model = unet(SEED)
    handle = library.load(model, folder)
    before = Weights(model)
    return told(lambda: library.on(handle), known) | {"weights_changed": before.differing()[0] > 0}


def foreign(library: Library, folder: Path, change: Factors, known: set[str]) -> Row:
    """Take it off when somebody else has changed one weight meanwhile."""
    model = unet(SEED)
    live = dict(model.named_parameters())[f"{next(iter(change))}.weight"]
    clean = float(live[0, 0])
    handle = library.load(model, folder)
    with torch.no_grad():
        live[0, 0] += 1.0
    before = Weights(model)
    row = told(lambda: library.off(handle), known) | {"weights_changed": before.differing()[0] > 0}
    return row | {"foreign_change_kept": abs(float(live[0, 0]) - clean) > 0.5}


def beside(library: Library, folder: Path) -> Row | None:
    """Use it without merging, where the library can: do the weights stay, and is the output the clean one after?"""
    model = unet(SEED)
    before, clean = Weights(model), run(model)
    undo = library.beside(model, folder)
    if undo is None:
        return None
    row = {"weights_changed": before.differing()[0] > 0}
    return row | {"output_back": torch.equal(run(undo()), clean), "weights_changed_after": before.differing()[0] > 0}


def overflow(library: Library, folder: Path, known: set[str]) -> Row:
    """Put on a model in fp16 what is too much for it in the last layer only."""
    return loaded(library, unet(SEED).to(torch.float16), folder, known)


def meanwhile(library: Library, folder: Path, guarded: bool) -> Row:
    """Forward passes in one thread while another one puts on and takes off: how many saw a mixture, or failed."""
    model = unet(SEED)
    allowed = [run(model)]
    handle = library.load(model, folder)
    net = library.net(handle)
    allowed.append(run(net))
    library.off(handle)
    stop, counts = threading.Event(), {"passes": 0, "mixed": 0, "errors": 0}
    # PEFT and diffusers add rounding to the clean weights again and again, so outputs near one of both are one of both.
    apart = float((allowed[0] - allowed[1]).abs().max())

    def serve() -> None:
        while not stop.is_set():
            counts["passes"] += 1
            try:
                if guarded:
                    with steady(model):
                        found = run(net)
                else:
                    found = run(net)
            except Exception:
                counts["errors"] += 1
                continue
            counts["mixed"] += min(float((found - a).abs().max()) for a in allowed) > 0.01 * apart

    thread = threading.Thread(target=serve)
    thread.start()
    end, rounds = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        library.on(handle)
        time.sleep(0.002)
        library.off(handle)
        time.sleep(0.002)
        rounds += 1
    stop.set()
    thread.join()
    return counts | {"rounds": rounds}


def measure(scratch: Path) -> dict[str, Any]:
    """Every library through every case."""
    base = unet(SEED)
    change, other = factors(base, SEED + 1), factors(base, SEED + 2)
    last = list(change)[-1]
    huge = dict(change) | {last: (change[last][0] * 1e4, change[last][1] * 1e4)}
    found: dict[str, Any] = {"bases": {}, "files": {}, "cycles": {}, "two": {}, "life": {}, "beside": {}, "threads": {}}
    attacker = RwsHub("rws-hub, digests made anew", resealed=True)
    everyone: list[Library] = [*libraries(), attacker]
    for number, library in enumerate(everyone):
        start = time.perf_counter()
        root = scratch / str(number)
        for name, wanted in (("first", change), ("second", other), ("huge", huge)):
            library.write(root / name, base, wanted)
        with Ear() as ear:
            library.load(unet(SEED), root / "first")
        known = {first_line(text) for text in ear.heard}
        rows: dict[str, Row] = {}
        found["files"][library.label] = rows
        for case, damage in FILES.items():
            folder = root / f"damaged-{len(rows)}"
            shutil.copytree(root / "first", folder)
            damage(library, folder)
            rows[case] = loaded(library, unet(SEED), folder, known)
        if library is not attacker:
            lives(found, library, root, change, known)
        print(f"{library.label}: {time.perf_counter() - start:.0f} s", flush=True)
    return found


def lives(found: dict[str, Any], library: Library, root: Path, change: Factors, known: set[str]) -> None:
    """Everything but damaged files."""
    first, second, label = root / "first", root / "second", library.label
    found["bases"][label] = {n: loaded(library, make(), first, known) for n, make in BASES.items()}
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if library.label.startswith("rws-hub, verify"):
        return  # that switch is about the base, and bf16 is not the very base
    found["cycles"][label] = {name: cycles(library, first, change, dtype) for name, dtype in dtypes.items()}
    found["two"][label] = {name: two(library, first, second, change, dtype) for name, dtype in dtypes.items()}
    found["life"][label] = {
        "put on twice": again(library, first, known),
        "taken off after a foreign change": foreign(library, first, change, known),
        "fp16, the last layer overflows": overflow(library, root / "huge", known),
    }
    found["beside"][label] = beside(library, first)
    found["threads"][label] = meanwhile(library, first, guarded=False)
    if isinstance(library, RwsHub):
        found["threads"][f"{label}, within steady"] = meanwhile(library, first, guarded=True)


def main() -> None:
    """Measure, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="write nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure(Path(scratch))
    found = {
        "command": "python benchmarks/trust/side_by_side.py",
        "seed": SEED,
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "versions": {
            "rws-hub": rws_hub.__version__,
            "torch": version("torch"),
            "peft": version("peft"),
            "diffusers": version("diffusers"),
        },
        "seconds": round(time.perf_counter() - start, 1),
        **measured,
    }
    if given.print:
        print(json.dumps(found, indent=1))
    else:
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
