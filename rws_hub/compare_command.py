"""`rws compare`: what to compare, and where tables, data and pictures of it go."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rws_hub.errors import ArtifactError, RWSError
from rws_hub.jsonio import to_json

if TYPE_CHECKING:
    from rws_hub.comparison import Comparison

_PLOTS = ("cosine.png", "profile.png")


def run(arguments: argparse.Namespace) -> None:
    """Carry out `rws compare`.

    Raises:
        ArtifactError: a plot is there already, or a signature cannot be read, is not signed with the key that was
            given, or is not what the lock file pins.
        ComparisonError: the signatures cannot be compared.
        RWSError: matplotlib is missing.
        huggingface_hub.errors: whatever the Hub client raises, untouched.
    """
    if arguments.plots is not None:
        _refuse_early(arguments.plots)
    from rws_hub.comparison import compare, identify
    from rws_hub.signature import RobustWeightSignature

    def load(source: str) -> RobustWeightSignature:
        return RobustWeightSignature.from_pretrained(source, public_key=arguments.public_key, lock=arguments.lock)

    sources = [arguments.first, *arguments.others]
    signatures = [load(source) for source in sources]
    unknown = None if arguments.identify is None else load(arguments.identify)
    comparison = compare(signatures)
    found = None if unknown is None else identify(unknown, signatures)
    plots = [] if arguments.plots is None else _write_plots(arguments.plots, comparison)
    if arguments.json:
        facts = {"signatures": sources, **to_json(comparison), "identification": to_json(found), "plots": plots}
        json.dump(facts, sys.stdout, indent=2)
        print()
        return
    from rich.console import Console

    from rws_hub.compare_tables import print_comparison, print_identification

    console = Console(highlight=False)
    print_comparison(comparison, console)
    if found is not None:
        print_identification(found, arguments.identify, console)
    for file in plots:
        print(f"{file}: written")


def _refuse_early(folder: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise RWSError("rws compare --plots needs matplotlib: pip install 'rws-hub[demo]'")
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; name a folder for the plots")
    for name in _PLOTS:
        if (folder / name).exists():
            raise ArtifactError(f"{folder / name} exists already; choose another folder (nothing is ever overwritten)")


def _write_plots(folder: Path, comparison: Comparison) -> list[str]:
    from rws_hub.artifact import write_new
    from rws_hub.compare_plots import cosine_png, profile_png

    pictures = (cosine_png(comparison), profile_png(comparison))
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(_PLOTS, pictures, strict=True):
        write_new(folder / name, picture)
    return [str(folder / name) for name in _PLOTS]
