"""The demo's model, its training and its measuring. Every random draw comes from a generator of the demo's own."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import numpy as np
import timm
import torch
from torch import nn
from torch.nn import functional

from rws_hub.demo.data import Images, Pixels, add_noise, shift, to_tensor
from rws_hub.demo.settings import DemoSettings, Schedule

_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4
_WARM_UP = 0.2  # share of the steps in which the learning rate rises
_EVAL_BATCH = 300


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, and give the caller's number back at the end.

    The models are so small that a second thread gains little, and on a machine with other work the two wait
    for each other most of the time. One thread also makes the numbers independent of the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build_model(settings: DemoSettings, seed: int) -> nn.Module:
    """A narrow ResNet of four basic blocks for one-channel pictures, freshly initialised."""
    # The CPU generator alone is seeded, and put back: the caller's random numbers stay what they were.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = timm.create_model(
            "resnet18", num_classes=10, in_chans=1, layers=[1, 1, 1, 1], channels=list(settings.channels)
        )
    return model.to(memory_format=torch.channels_last)


def train(
    start: nn.Module,
    images: Images,
    schedule: Schedule,
    settings: DemoSettings,
    rng: np.random.Generator,
    step: Callable[[], None],
    *,
    noisy_share: float = 0.0,
) -> nn.Module:
    """A trained copy of `start`, in evaluation mode.

    Args:
        start: what to begin from; left as it is.
        images: shifted anew in every epoch.
        schedule: epochs and peak learning rate.
        settings: batch size and shift.
        rng: for order, shifts and noise.
        step: called after every epoch.
        noisy_share: share of every batch that gets fresh noise.
    """
    model = copy.deepcopy(start).train()
    batches = len(images) // settings.batch
    noisy = np.tile(np.arange(settings.batch) < round(noisy_share * settings.batch), batches)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=schedule.lr, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY, nesterov=True
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.lr, total_steps=schedule.epochs * batches, pct_start=_WARM_UP, cycle_momentum=False
    )
    for _ in range(schedule.epochs):
        drawn = images[rng.permutation(len(images))[: batches * settings.batch]]
        pixels = shift(drawn.pixels, settings.max_shift, rng)
        pixels[noisy] = add_noise(pixels[noisy], rng)
        inputs, labels = to_tensor(pixels), torch.from_numpy(drawn.labels)
        for x, y in zip(torch.split(inputs, settings.batch), torch.split(labels, settings.batch), strict=True):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(functional.cross_entropy(model(x), y))
            optimizer.step()
            cycle.step()
        step()
    return model.eval()


@torch.inference_mode()
def accuracy(model: nn.Module, images: Images) -> float:
    """Top-1 accuracy, a fraction from 0 to 1."""
    answers = torch.cat([model(x).argmax(1) for x in torch.split(to_tensor(images.pixels), _EVAL_BATCH)])
    return float((answers.numpy() == images.labels).mean())


@torch.inference_mode()
def reestimate_batchnorm(model: nn.Module, pixels: Pixels) -> nn.Module:
    """A copy whose batch-norm statistics are those of `pixels`, which need no labels: the rival of a patch."""
    adapted = copy.deepcopy(model).train()
    for module in adapted.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over what it sees
    adapted(to_tensor(pixels))
    return adapted.eval()


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts agree in every bit of every tensor; equal numbers are not enough (0.0 and -0.0)."""
    return a.keys() == b.keys() and all(torch.equal(_bits(t), _bits(b[n])) for n, t in a.items())


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int32) if tensor.dtype == torch.float32 else tensor
