"""What the words of a command line have to be, and the arguments that several commands share. Needs no torch."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

MODEL = "a model: timm/<name>, a local folder, or namespace/name[@revision] on the Hub"

MODEL_FILES = (
    "a .safetensors file, an index, a folder with one of them, or a model on the Hub: namespace/name[@revision]"
)
VERIFY = (
    "refuse: all but the exact base; strangers to it (kin, default); nothing whose names and shapes fit (architecture)"
)


def word(text: str) -> str:
    """Anything but nothing."""
    if not text:
        raise argparse.ArgumentTypeError("an empty string says nothing")
    return text


def path(text: str) -> Path:
    """A file or folder, there or not."""
    return Path(word(text))


def count(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def finite(text: str) -> float:
    """A number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def limit(text: str) -> float:
    """A number above 0, infinity too."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 (inf: no limit)")
    return value


def verify(verb: argparse.ArgumentParser) -> None:
    """How much the model has to be that of the signature."""
    verb.add_argument("--verify", default="kin", choices=["exact", "kin", "architecture"], help=VERIFY)


def terms(verb: argparse.ArgumentParser) -> None:
    """That, and how far it may be changed."""
    verify(verb)
    verb.add_argument(
        "--max-relative-norm",
        type=limit,
        default=1.0,
        metavar="X",
        help="refuse to change a tensor by more, in terms of its own norm (default 1; inf: no limit)",
    )


def data(verb: argparse.ArgumentParser, split: str) -> None:
    """Which labelled images; `split` is the default."""
    verb.add_argument("data", type=word, help="a folder of Parquet files or of images, or a data set on the Hub")
    verb.add_argument(
        "--split", default=split, metavar="NAME", help=f"of the data, as in {split} or {split}[:1000] (default {split})"
    )
    verb.add_argument("--image-column", metavar="NAME", help="default: the one that holds images")
    verb.add_argument("--label-column", metavar="NAME", help="default: the one that holds class labels")
    verb.add_argument(
        "--size", type=positive, metavar="N", help="side of the pictures in pixels; default: what the model states"
    )
