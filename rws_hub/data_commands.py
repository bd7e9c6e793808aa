"""`rws corruptions`: from an image on disk to a sheet of its corruptions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def declare(verb: argparse.ArgumentParser) -> None:
    """The arguments of `rws corruptions`."""
    verb.add_argument("image", type=Path, metavar="IMAGE", help="any picture that Pillow reads")
    verb.add_argument("-o", "--out", type=Path, required=True, help="the .png or .jpg to write; must not exist yet")
    verb.add_argument("--size", type=int, default=224, help="side of the middle square in pixels (default 224)")
    verb.add_argument("--seed", type=int, default=0, help="of the corruptions (default 0)")


def run(arguments: argparse.Namespace) -> None:
    """Carry out `rws corruptions`.

    Raises:
        CorruptionError: the image cannot be read, or the sheet not be written as asked.
        RWSError: scipy or Pillow is missing.
    """
    from rws_hub.corruptions.sheet import write_sheet

    size = write_sheet(arguments.image, arguments.out, size=arguments.size, seed=arguments.seed)
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "bytes": size}, indent=2))
    else:
        print(f"{arguments.out}: {size:,} bytes")
