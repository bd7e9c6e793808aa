"""What a library says and what it does to the weights of a model: heard and compared bit for bit."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Characters of a message.
MOST = 220
_BITS = {2: torch.int16, 4: torch.int32}

Row = dict[str, Any]


class Weights:
    """The live weights of a model, by the very objects that hold them, and the bits that they had."""

    def __init__(self, model: nn.Module) -> None:
        self._live = dict(model.named_parameters())
        self._bits = {name: bits_of(tensor) for name, tensor in self._live.items()}

    def differing(self, names: list[str] | None = None) -> tuple[int, int]:
        """How many weights have other bits now, and of how many; `names`: of these tensors."""
        wanted = names or list(self._live)
        wrong = sum(int((bits_of(self._live[n]) != self._bits[n]).sum()) for n in wanted)
        return wrong, sum(self._bits[n].numel() for n in wanted)


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of the values, as integers."""
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


class Ear(logging.Handler):
    """Hears every warning, of Python's warnings and of the libraries' loggers, while it is entered."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []
        self._loggers = [logging.getLogger(n) for n in ("diffusers", "peft", "transformers", "accelerate", "rws_hub")]
        self._caught = warnings.catch_warnings(record=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is logged."""
        self.heard.append(record.getMessage())

    def __enter__(self) -> Ear:
        self._warned = self._caught.__enter__()
        warnings.simplefilter("always")
        for logger in self._loggers:
            logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.heard += [str(w.message) for w in self._warned or ()]
        self._caught.__exit__(None, None, None)
        for logger in self._loggers:
            logger.removeHandler(self)
