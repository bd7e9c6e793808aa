"""What the words of a command line have to be, and the arguments that several commands share. Needs no torch."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

MODEL = "a model: timm/<name>, a local folder, or namespace/name[@revision] on the Hub"


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
