"""Batch-norm statistics measured anew on images, which need no labels; taken off again, bit for bit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rws_hub.errors import PatchStateError


class BatchNormEstimate:
    """Statistics that were measured on a live model, and the ones that they replaced. Also a context manager.

    Made by `reestimate_batchnorm`. It can be taken off as long as nothing else has changed the statistics since:
    a signature that was added after it has to be taken off before it.
    """

    def __init__(self, before: dict[str, tuple[Tensor, Tensor]], after: dict[str, Tensor]) -> None:
        self._before = before  # name -> the live buffer, its value before
        self._after = after

    @property
    def names(self) -> tuple[str, ...]:
        """The buffers that were measured."""
        return tuple(self._before)

    def remove(self) -> None:
        """Put the former statistics back, bit for bit. Doing it again does nothing.

        Raises:
            PatchStateError: the statistics have been changed since; nothing is put back.
        """
        for name, (live, _) in self._before.items():
            if not torch.equal(live.view(torch.uint8), self._after[name].view(torch.uint8)):  # NaN is NaN, too
                raise PatchStateError(
                    f"{name} has changed since it was re-estimated; take off what was added later first"
                )
        with torch.no_grad():
            for live, former in self._before.values():
                live.copy_(former)
        self._before, self._after = {}, {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def has_batchnorm(model: nn.Module) -> bool:
    """Whether there are running statistics that could be measured anew."""
    return bool(_norms(model))


def reestimate_batchnorm(model: nn.Module, batches: Iterable[Tensor]) -> BatchNormEstimate:
    """Measure every batch norm's running mean and variance anew: the rival, or the companion, of a patch.

    Args:
        model: live, patched or not; a model without batch norm is left as it is.
        batches: preprocessed images [n, 3, height, width], all batches of about one size. Each batch norm's statistics
            become the plain mean over the batches of that batch's mean and (unbiased) variance, each batch being
            normalised by its own, as in training (Schneider et al. 2020, arXiv 2006.16971, with N = 0).

    Returns:
        A handle that takes the statistics off again.

    Raises:
        ValueError: no batch, statistics that are not finite, or a batch of one value per channel, as torch says it.
        Whatever the model raises on the images; the statistics are then as they were.

    Example:
        >>> with reestimate_batchnorm(model, [images]):
        ...     logits = model(images)
    """
    norms = _norms(model)
    live = {f"{n}.{b}": getattr(m, b) for n, m in norms.items() for b in ("running_mean", "running_var")}
    before = {name: (buffer, buffer.detach().clone()) for name, buffer in live.items()}
    with _measuring(model, norms.values()):
        try:
            seen = 0
            for images in batches if norms else ():
                with torch.no_grad():
                    model(images)
                seen += 1
            if norms and not seen:
                raise ValueError("there is no image to estimate batch norm on")
            if broken := [name for name, buffer in live.items() if not bool(buffer.isfinite().all())]:
                raise ValueError(f"{broken[0]} is not finite on these images; are they preprocessed, and whole?")
        except BaseException:
            with torch.no_grad():
                for buffer, former in before.values():
                    buffer.copy_(former)
            raise
    return BatchNormEstimate(before, {name: buffer.detach().clone() for name, buffer in live.items()})


def _norms(model: nn.Module) -> dict[str, _BatchNorm]:
    return {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}


@contextlib.contextmanager
def _measuring(model: nn.Module, norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Batch norms, and they alone, as in training, with a plain mean over batches; everything put back at the end."""
    norms = list(norms)
    training = {m: m.training for m in model.modules()}
    kept = [(m, m.momentum, m.num_batches_tracked) for m in norms]
    try:
        model.eval()
        for norm in norms:
            norm.momentum = None  # torch's way to ask for a cumulative mean, which starts at a count of 0
            norm.num_batches_tracked = torch.zeros((), dtype=torch.long, device=next(model.buffers()).device)
            norm.train()
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count
        for module, was in training.items():
            module.training = was
