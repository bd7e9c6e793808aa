"""Ten thousand random lives of a patched model for each way back: not one bit may remember them."""

import math
import random
from pathlib import Path
from typing import get_args

import pytest
import torch
from bits import plant_odd_values
from builders import perturbed, seeded
from safetensors.torch import save_file
from torch import nn

from rws_hub import RobustWeightSignature, patch, removal
from rws_hub.handle import Patch
from rws_hub.removal import Mode

# In each dtype; a copy is also the quickest way back.
SEQUENCES = {"snapshot": 10_000, "reload": 3_400, "ledger": 3_400}
STRENGTHS = (-1.5, 0.0, 0.3, 1.0)
# Overlapping on purpose: every tensor is shared by two signatures, and no two signatures touch the same set.
TOUCHED = {
    "fog": ["conv.weight", "bn.running_var"],
    "noise": ["conv.weight"],
    "blur": ["bn.running_var", "bn.weight"],
}

State = frozenset[tuple[str, float]]


class Small(nn.Module):
    """A convolution of 16 weights and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 2, bias=False)
        self.bn = nn.BatchNorm2d(2)


@pytest.fixture(scope="module")
def signatures() -> dict[str, RobustWeightSignature]:
    clean = seeded(Small, 0)
    return {
        name: RobustWeightSignature.extract(
            standard=clean, robust=perturbed(clean, 0.1, seed), corruption=name, license="mit", layers=layers, bits=32
        )
        for seed, (name, layers) in enumerate(TOUCHED.items(), 1)
    }


class Life:
    """One model, the handles on it, and what ought to be on it."""

    def __init__(
        self, dtype: torch.dtype, signatures: dict[str, RobustWeightSignature], mode: Mode, folder: Path
    ) -> None:
        self.model = seeded(Small, 0).to(dtype)
        plant_odd_values(self.model.conv.weight)
        # What is asked of a model before it is patched has tests of its own.
        self.removal = {"removal": mode, "verify": "architecture", "max_relative_norm": math.inf}
        if mode == "reload":
            self.removal["checkpoint"] = folder / "model.safetensors"
            save_file(self.model.state_dict(), self.removal["checkpoint"])
        self.signatures = signatures
        self.handles: list[Patch] = []
        integer = torch.int16 if dtype.itemsize == 2 else torch.int32
        floating = (t for t in self.model.state_dict().values() if t.is_floating_point())
        # Arrays over the model's own memory, so that looking at all bits costs microseconds.
        self._memory = [t.detach().view(integer).numpy() for t in floating]

    @property
    def bits(self) -> tuple[bytes, ...]:
        return tuple(array.tobytes() for array in self._memory)

    @property
    def state(self) -> State:
        return frozenset((n, a) for handle in self.handles for n, a in handle.alphas.items() if a)

    def live(self, rng: random.Random, steps: int) -> None:
        """A few random operations, beginning with a patch."""
        self._patch(rng)
        for _ in range(steps):
            rng.choice((self._patch, self._add, self._set_alpha, self._remove))(rng)

    def end(self, rng: random.Random) -> None:
        """Take every handle off, in any order."""
        rng.shuffle(self.handles)
        for handle in self.handles:
            if handle.active:
                handle.unpatch()
        self.handles = []

    def _free(self, rng: random.Random) -> str | None:
        taken = {name for handle in self.handles for name in handle.alphas}
        return rng.choice([n for n in TOUCHED if n not in taken] or [None])

    def _patch(self, rng: random.Random) -> None:
        if name := self._free(rng):
            self.handles.append(patch(self.model, self.signatures[name], alpha=rng.choice(STRENGTHS), **self.removal))

    def _add(self, rng: random.Random) -> None:
        if name := self._free(rng):
            rng.choice(self.handles).add(self.signatures[name], alpha=rng.choice(STRENGTHS))

    def _set_alpha(self, rng: random.Random) -> None:
        handle = rng.choice(self.handles)
        handle.set_alpha(**{name: rng.choice(STRENGTHS) for name in handle.alphas if rng.random() < 0.8})

    def _remove(self, rng: random.Random) -> None:
        handle = rng.choice(self.handles)
        if handle.active:
            handle.remove(rng.choice(list(handle.alphas)))


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_no_sequence_of_operations_leaves_a_trace(dtype, mode, signatures, tmp_path, monkeypatch):
    monkeypatch.setattr(removal, "_SMALL", 1)  # or all tensors here would be copied
    life = Life(dtype, signatures, mode, tmp_path)
    clean = life.bits
    reached: dict[State, tuple[bytes, ...]] = {frozenset(): clean}
    for seed in range(SEQUENCES[mode]):
        rng = random.Random(seed)
        life.live(rng, steps=seed % 4)
        state = life.state
        assert life.bits == reached.setdefault(state, life.bits), f"sequence {seed}: {dict(state)} by another way"
        life.end(rng)
        assert life.bits == clean, f"sequence {seed} left a trace"
    # Every set of signatures and strengths was reached, most of them by many ways; and they all differ.
    assert len(reached) == len(STRENGTHS) ** len(TOUCHED) == len(set(reached.values()))
