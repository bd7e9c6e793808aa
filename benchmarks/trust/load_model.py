"""What is put under load: a model whose output tells its state, signatures of it, and threads that work."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from rws_hub import RobustWeightSignature

SEED = 0
ALPHAS = (0.5, 1.0)

Row = dict[str, Any]


class Deep(nn.Module):
    """Layers that all go into the output, so that it tells which states they were in. 12 x 64 x 64 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 64] -> [n, 64]; lets other threads run between two layers."""
        for layer in self.layers:
            x = layer(x)
            time.sleep(0)
        return x


def deep() -> nn.Module:
    """The same weights every time."""
    torch.manual_seed(SEED)
    return Deep().eval().requires_grad_(False)


def signature(name: str, seed: int) -> RobustWeightSignature:
    """Of every layer."""
    clean = deep().state_dict()
    generator = torch.Generator().manual_seed(seed)
    robust = {n: v + 0.05 * torch.randn(v.shape, generator=generator) for n, v in clean.items()}
    return RobustWeightSignature.extract(standard=clean, robust=robust, corruption=name, license="mit", layers=["*"])


def bits(model: nn.Module) -> bytes:
    """Every weight."""
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


def output(model: nn.Module) -> bytes:
    """Of one forward pass."""
    found: bytes = model(torch.ones(1, 64)).numpy().tobytes()
    return found


class Crew:
    """Threads that do their work again and again till it is over; what goes wrong in one of them is kept."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.errors: list[str] = []

    def _repeat(self, work: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                work()
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                return

    @contextlib.contextmanager
    def at(self, *works: Callable[[], object]) -> Iterator[None]:
        """They work while this block runs."""
        threads = [threading.Thread(target=self._repeat, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
