"""The training itself, on accelerate: one process, several GPUs or several machines, and the same steps on each."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from rws_hub.artifact import write_files
from rws_hub.batchnorm import reestimate_batchnorm
from rws_hub.classifier import Preprocessing, logits
from rws_hub.corruptions import corrupt
from rws_hub.errors import TrainingError
from rws_hub.training import state
from rws_hub.training.job import Job, record_of
from rws_hub.training.settings import MICRO_BATCH, EpochRecord, TrainRecord, TrainSettings
from rws_hub.training.state import BEST_FILE, Progress
from rws_hub.training.stream import Epoch, batches

# How much work a kill may cost, at most.
_SAVE_SECONDS = 120.0
_EVAL_BATCH = 250
# Batch norm is measured on this many training images before a model is judged or kept: running averages would lag
# behind the weights and hang on the order of the last steps.
_NORM_IMAGES = 4096


def begin() -> Accelerator:
    """Accelerate, set up as it was launched: whoever asks it for anything asks here, since the first to ask decides."""
    # What `accelerate config` says about precision and accumulation is not ours: the settings decide.
    once = GradientAccumulationPlugin(num_steps=1)
    return Accelerator(mixed_precision="no", gradient_accumulation_plugin=once)


def run(job: Job, model: nn.Module, out: Path, *, workers: int, progress: bool) -> TrainRecord:
    """Train `model` in place and leave its best weights in it; begin, or go on where `out` says it stopped.

    Args:
        job: see there.
        model: the weights to start from.
        out: folder for the state; there already.
        workers: processes that prepare images, per training process; 0 prepares them in the training itself.
        progress: show a bar on stderr.

    Returns:
        The record; writing it, and the model, is the caller's part. Only the main process should.

    Raises:
        TrainingError: too few images, or `out` holds another training.
    """
    settings = job.settings
    accelerator = begin()
    micro = _micro_batch(settings.batch_size, accelerator.num_processes)
    steps = len(job.training) // settings.batch_size
    if not steps:
        raise TrainingError(f"{len(job.training)} training images are less than one batch of {settings.batch_size}")
    identity = {
        **state.flat(settings),
        "start": state.digest(model),
        "micro_batch": str(micro),
        **state.flat(job.preprocessing, "preprocessing"),
        "images": job.training.pictures.fingerprint,
        "validation": job.validation.pictures.fingerprint,
        "counts": f"{len(job.training)}, {len(job.validation)}",
    }
    model.to(accelerator.device).to(memory_format=torch.channels_last)
    _freeze_unused(model, job.preprocessing, accelerator.device)
    optimizer = _optimizer(settings, model)
    at = state.load(out, identity, model, optimizer) or Progress(identity)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    trainer = _Trainer(job, accelerator, model, wrapped, optimizer, micro, steps, workers, out)
    bar: tqdm[NoReturn] = tqdm(
        total=settings.epochs * steps,
        initial=at.epoch * steps + at.step,
        desc="training",
        unit="step",
        disable=not (progress and accelerator.is_main_process),
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 30.0,  # a log is read line by line
    )
    with bar, torch.random.fork_rng():
        at = trainer.train(at, bar)
    if (out / BEST_FILE).exists():
        import safetensors.torch

        state.put(model, safetensors.torch.load_file(out / BEST_FILE))
    accelerator.wait_for_everyone()  # the caller removes that file
    return record_of(job, identity["start"], at)


@dataclass(slots=True, eq=False)
class _Trainer:
    job: Job
    accelerator: Accelerator
    model: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    micro: int
    steps: int
    workers: int
    out: Path

    def train(self, at: Progress, bar: tqdm[NoReturn]) -> Progress:
        """Everything that is still to do."""
        settings = self.job.settings
        since = time.monotonic()
        while at.epoch < settings.epochs:
            epoch = Epoch(self.job.training, settings, self.job.preprocessing.view, at.epoch)
            for loss in self._epoch(epoch, at):
                bar.update()
                at = replace(at, step=at.step + 1, loss=at.loss + loss)
                if self._all_agree(time.monotonic() - since > _SAVE_SECONDS):
                    at = self._spent(at, since)
                    since = time.monotonic()
                    self._save(at)
            at, since = self._spent(self._judged(at), since), time.monotonic()
            self._save(at)
            last = at.done[-1]
            bar.set_postfix_str(
                f"loss {last.loss:.3f}, clean {last.clean:.1%}"
                + ("" if last.corrupted is None else f", corrupted {last.corrupted:.1%}")
            )
        return at

    def _epoch(self, epoch: Epoch, at: Progress) -> Iterator[float]:
        """The rest of an epoch, one step after the other."""
        settings, rank = self.job.settings, self.accelerator.process_index
        mine = range(rank, settings.batch_size // self.micro, self.accelerator.num_processes)
        share = [
            list(range(begin := step * settings.batch_size + part * self.micro, begin + self.micro))
            for step in range(at.step, self.steps)
            for part in mine
        ]
        loader = batches(epoch, share, self.workers)
        self.wrapped.train()
        for step in range(at.step, self.steps):
            number = at.epoch * self.steps + step
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate(number, settings.epochs * self.steps)
            loss = torch.zeros((), device=self.accelerator.device)
            for i, part in enumerate(mine):
                # What dropout draws is decided by the step and the part, whichever process computes it.
                torch.manual_seed((settings.seed * 2**40 + number * 2**10 + part) % 2**63)
                images, labels = next(loader)
                last = i == len(mine) - 1
                with _synchronised(self.accelerator, self.wrapped, last):
                    with self._autocast():
                        scores = logits(self.wrapped, self._tensor(images))
                    found = functional.cross_entropy(scores.float(), labels.to(self.accelerator.device)) / len(mine)
                    self.accelerator.backward(found)
                loss += found.detach()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self._count_batches(settings.batch_size // self.micro - len(mine))
            yield float(self.accelerator.reduce(loss, "mean"))

    def _count_batches(self, elsewhere: int) -> None:
        """Batch norms count those of the other processes, too, so that all of a checkpoint is the same as of one."""
        for name, buffer in self.model.named_buffers() if elsewhere else ():
            if name.endswith("num_batches_tracked"):
                buffer += elsewhere

    def _judged(self, at: Progress) -> Progress:
        """The end of an epoch: batch norm measured, top-1 on the validation images, the best weights kept."""
        settings = self.job.settings
        self._measure_norms()
        clean = self._top1(None)
        corrupted = None if settings.corruption is None else self._top1(settings.corruption)
        found = EpochRecord(at.epoch, at.loss / self.steps, clean, corrupted)
        done = (*at.done, found)
        best = max(range(len(done)), key=lambda i: (done[i].score(settings.recipe), i))
        if best == at.epoch and self.accelerator.is_main_process:
            import safetensors.torch

            write_files(self.out, {BEST_FILE: safetensors.torch.save(state.weights(self.model))})
        self.accelerator.wait_for_everyone()
        return replace(at, epoch=at.epoch + 1, step=0, loss=0.0, done=done, best=best)

    def _measure_norms(self) -> None:
        # The same images on every process, so that all keep the same model without talking to each other.
        settings = self.job.settings
        epoch = Epoch(self.job.training, settings, self.job.preprocessing.view, settings.epochs)
        count = min(_NORM_IMAGES, len(self.job.training)) // _EVAL_BATCH * _EVAL_BATCH or len(self.job.training)
        parts = [list(range(b, min(b + _EVAL_BATCH, count))) for b in range(0, count, _EVAL_BATCH)]
        with self._autocast():
            reestimate_batchnorm(self.model, (self._tensor(x) for x, _ in batches(epoch, parts, 0)))

    @torch.inference_mode()
    def _top1(self, corruption: str | None) -> float:
        """On the validation images, shared out in whole batches."""
        part, settings = self.job.validation, self.job.settings
        self.model.eval()
        right = torch.zeros((), device=self.accelerator.device, dtype=torch.float64)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        for begin in range(rank * _EVAL_BATCH, len(part), world * _EVAL_BATCH):
            numbers = part.numbers[begin : begin + _EVAL_BATCH]
            pixels = part.pictures.pixels(numbers, self.job.preprocessing.view)
            if corruption is not None and settings.severity is not None:
                pixels = corrupt(pixels, corruption, settings.severity, seed=settings.seed, indices=numbers)
            with self._autocast():
                answers = logits(self.model, self._tensor(torch.from_numpy(pixels))).argmax(1).cpu()
            right += (answers == torch.from_numpy(part.pictures.labels[numbers])).sum()
        return float(self.accelerator.reduce(right, "sum")) / len(part)

    def _autocast(self) -> torch.autocast:
        # Not accelerate's, which is set once for the whole process.
        bf16 = self.job.settings.precision == "bf16"
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=bf16)

    def _tensor(self, pixels: Tensor) -> Tensor:
        return self.job.preprocessing.tensor(pixels, self.accelerator.device)

    def _save(self, at: Progress) -> None:
        if self.accelerator.is_main_process:
            state.save(self.out, at, self.model, self.optimizer)
        self.accelerator.wait_for_everyone()

    def _all_agree(self, wish: bool) -> bool:
        """The main process's word, so that no process waits for another that goes on."""
        if self.accelerator.num_processes == 1:
            return wish
        said = torch.tensor(float(wish and self.accelerator.is_main_process), device=self.accelerator.device)
        return bool(self.accelerator.reduce(said, "sum") > 0)

    @staticmethod
    def _spent(at: Progress, since: float) -> Progress:
        return replace(at, seconds=at.seconds + time.monotonic() - since)


def _micro_batch(batch: int, processes: int) -> int:
    """How many images one forward pass sees; the same for any number of processes that it can be."""
    micro = min(MICRO_BATCH, batch // processes)
    if not micro or batch % (micro * processes):
        share = MICRO_BATCH * processes
        smaller = f"at most {share}" if processes == 1 else f"a multiple of {processes} up to {share}"
        raise TrainingError(
            f"batch_size cannot be {batch} on {processes} process{'es' * (processes > 1)}: take {smaller}, or a "
            f"multiple of {share}"
        )
    return micro


def _optimizer(settings: TrainSettings, model: nn.Module) -> torch.optim.Optimizer:
    chosen = [p for p in model.parameters() if p.requires_grad]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(chosen, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(chosen, lr=settings.lr, momentum=0.9, weight_decay=settings.weight_decay, nesterov=True)


def _synchronised(accelerator: Accelerator, model: nn.Module, last: bool) -> Any:
    """Gradients of all processes are put together in the last part of a step only."""
    import contextlib

    return contextlib.nullcontext() if last else accelerator.no_sync(model)


def _freeze_unused(model: nn.Module, preprocessing: Preprocessing, device: torch.device) -> None:
    """Parameters without part in the answer get no gradient, for which several processes would wait for ever.

    On one process, too, so that the optimizer's state is of the same parameters on any number of them.
    """
    size = preprocessing.view.size
    with torch.enable_grad():
        logits(model.eval(), torch.zeros(1, 3, size, size, device=device)).sum().backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
