"""`rws eval`: from words on a command line to a table of accuracies, `measured.json` and `results.json`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rws_hub.errors import EvaluationError
from rws_hub.words import MODEL, count, data, finite, path, verify, word

if TYPE_CHECKING:
    from rich.table import Table

    from rws_hub.backbones import Opened
    from rws_hub.evaluation.cells import Condition
    from rws_hub.evaluation.report import Row
    from rws_hub.signature import RobustWeightSignature

_MEASURED, _RESULTS, _CELLS = "measured.json", "results.json", "cells"


def declare(measure: argparse.ArgumentParser) -> None:
    """The arguments of `rws eval`."""
    measure.add_argument("model", type=word, help=MODEL)
    data(measure, "test")
    measure.add_argument("-o", "--out", type=path, required=True, help="folder to write, or to go on in")
    measure.add_argument(
        "--signature",
        type=word,
        action="append",
        default=[],
        metavar="SIG",
        help="folder or Hub id; several are measured each alone and all together, at alpha and at alpha / n each, and "
        "give no results.json",
    )
    measure.add_argument(
        "--alpha",
        type=_numbers,
        help="patch strengths, with commas between (default 1); controls are measured at the recommended one",
    )
    measure.add_argument(
        "--corruption",
        type=word,
        default="standard",
        metavar="NAMES",
        help="with commas between; standard for the 15 of ImageNet-C (default), all, or none",
    )
    measure.add_argument("--severity", type=_severities, default=[5], help="1 to 5, with commas between (default 5)")
    measure.add_argument("--robust", type=word, metavar="MODEL", help="the robust twin, to be measured beside it")
    measure.add_argument(
        "--controls",
        type=_controls,
        default=[],
        help="noise: random numbers of the same norm in the place of the signature; raw: the plain difference to "
        "--robust in the same tensors; with a comma between",
    )
    measure.add_argument(
        "--bn-images",
        type=count,
        default=0,
        metavar="N",
        help="re-estimate batch norm on so many unlabelled images, chosen by the seed and corrupted like those "
        "that are measured",
    )
    measure.add_argument("--bn-split", default="train", metavar="NAME", help="where those come from (default train)")
    measure.add_argument(
        "--reference", type=path, metavar="FILE", help="measured.json of the model that mCE is relative to"
    )
    measure.add_argument(
        "--target", type=word, metavar="NAME", help="the model's name on the card, if it is not the signature's own"
    )
    verify(measure)
    measure.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="bf16 computes under autocast")
    measure.add_argument("--seed", type=count, default=0, metavar="N", help="of the corruptions (default 0)")


def _controls(text: str) -> list[str]:
    if not all(part in ("noise", "raw") for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: controls are noise, raw, or noise,raw")
    return text.split(",")


def _numbers(text: str) -> list[float]:
    return [finite(part) for part in text.split(",")]


def _severities(text: str) -> list[int]:
    if not all(part in ("1", "2", "3", "4", "5") for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: severities are whole numbers from 1 to 5, with commas between")
    return sorted({int(part) for part in text.split(",")})


def run(arguments: argparse.Namespace) -> None:
    """Measure as asked; the main process tells and writes."""
    from rws_hub import jsonio
    from rws_hub.artifact import write_files
    from rws_hub.backbones import open_model
    from rws_hub.classifier import preprocessing_of, require_order, stated_classes

    try:
        from rws_hub.evaluation import report
        from rws_hub.evaluation.origin import is_source
        from rws_hub.evaluation.runner import conditions, measure
        from rws_hub.evaluation.study import Study, plan
    except ModuleNotFoundError as error:
        if error.name != "accelerate":
            raise
        raise EvaluationError("measuring needs accelerate: pip install 'rws-hub[eval]'") from error
    from rws_hub.pictures import open_pictures, refuse_overlap
    from rws_hub.signature import RobustWeightSignature

    idle = [n for n in ("alpha", "controls", "public-key", "lock") if getattr(arguments, n.replace("-", "_"))]
    if idle and not arguments.signature:
        raise EvaluationError(f"--{idle[0]} is about signatures, and there is none: name one with --signature")
    reference = _reference(arguments.reference)
    wanted = conditions(_corruptions(arguments), arguments.severity)
    columns = {"image_column": arguments.image_column, "label_column": arguments.label_column}
    pictures = open_pictures(arguments.data, arguments.split, **columns)
    spare = None
    if arguments.bn_images:
        spare = open_pictures(arguments.data, arguments.bn_split, **columns, labelled=False)
        refuse_overlap(spare, pictures, "batch norm must not be re-estimated on the images that are measured")
    opened = open_model(arguments.model)
    robust = None if arguments.robust is None else open_model(arguments.robust)
    for given in filter(None, (opened, robust)):
        require_order(stated_classes(given.config), pictures.classes, given.label)
    study = Study(
        model=opened.model,
        robust=None if robust is None else robust.model,
        signatures=tuple(
            RobustWeightSignature.from_pretrained(s, public_key=arguments.public_key, lock=arguments.lock)
            for s in arguments.signature
        ),
        alphas=tuple(arguments.alpha or (1.0,)),
        controls=tuple(arguments.controls),
        norm_images=arguments.bn_images,
        verify=arguments.verify,
    )
    preprocessing = preprocessing_of(opened.model, opened.processor, arguments.size)
    target = _target(arguments.target, opened, study.signatures)
    planned = plan(
        study,
        pictures,
        wanted,
        preprocessing,
        unlabelled=spare,
        seed=arguments.seed,
        precision=arguments.precision,
    )
    theirs = None if reference is None else report.reference_errors(reference, planned.grid, str(arguments.reference))
    table = measure(planned.grid, arguments.out / _CELLS, progress=not arguments.json)
    if os.environ.get("RANK", "0") != "0":
        return
    found = report.rows(planned.grid, table, theirs)
    command = _command(arguments)
    data_out = report.measured(planned.grid, found, command, reference)
    files = {_MEASURED: jsonio.pretty(data_out).encode()}
    if len(study.signatures) == 1 and len(wanted) > 1:
        told = report.results(
            planned.grid,
            found,
            study.signatures[0],
            planned.alone[0],
            target=target,
            robust_is_source=study.robust is not None and is_source(study.robust, study.signatures[0], "robust"),
            command=command,
        )
        files[_RESULTS] = told.to_text().encode()
    if not _same(arguments.out / _RESULTS, files.get(_RESULTS)):  # of an earlier run: it must not stand beside another
        (arguments.out / _RESULTS).unlink(missing_ok=True)
    write_files(arguments.out, files)
    if arguments.json:
        json.dump({"out": str(arguments.out), **data_out}, sys.stdout, indent=2)
        print()
    else:
        _print(found, wanted, f"{pictures.name}, {pictures.split}: {len(pictures):,} images")
        print(f"{arguments.out}: {', '.join(sorted(files))}")
        if _RESULTS in files:
            print("rws card takes them over: rws card SIGNATURE --results", arguments.out / _RESULTS)


def _same(file: Path, data: bytes | None) -> bool:
    return file.is_file() and file.read_bytes() == data


def _target(given: str | None, opened: Opened, signatures: Sequence[RobustWeightSignature]) -> str:
    """What the model is called on a card: as the signature's own clean model only if it is that very one."""
    from rws_hub.evaluation.origin import is_source
    from rws_hub.results import OWN_CLEAN_MODEL

    if all(is_source(opened.model, s, "standard") for s in signatures):
        if given not in (None, OWN_CLEAN_MODEL) and len(signatures) == 1:
            raise EvaluationError(
                f"{opened.label} is the very model that the signature was made from: leave out --target {given}"
            )
        return OWN_CLEAN_MODEL
    target = given or opened.label
    if target == OWN_CLEAN_MODEL and (given or len(signatures) == 1):  # several come on no card
        raise EvaluationError(
            f"on a card, {OWN_CLEAN_MODEL} is the very model that the signature was made from, and {opened.label} is "
            "not: say with --target what it is to be called"
        )
    return target


def _corruptions(arguments: argparse.Namespace) -> tuple[str, ...]:
    from rws_hub.corruptions import CORRUPTIONS, STANDARD

    groups = {"standard": STANDARD, "all": CORRUPTIONS, "none": ()}
    found = [name for word in arguments.corruption.split(",") for name in groups.get(word, (word,))]
    return tuple(dict.fromkeys(found))


def _reference(file: Path | None) -> dict[str, Any] | None:
    """Another `measured.json`."""
    if file is None:
        return None
    try:
        data = json.loads(file.read_bytes())
    except ValueError as error:
        raise EvaluationError(f"{file} is no {_MEASURED} of rws eval") from error
    if not isinstance(data, dict):
        raise EvaluationError(f"{file} is no {_MEASURED} of rws eval")
    return data


def _command(arguments: argparse.Namespace) -> str:
    """What was asked, without the places of this machine."""

    def named(source: str) -> str:
        return Path(source).resolve().name if Path(source).exists() else source

    plain: dict[str, Any] = {
        "split": arguments.split,
        "corruption": arguments.corruption,
        "severity": ",".join(map(str, arguments.severity)),
        "alpha": ",".join(f"{a:g}" for a in arguments.alpha or ()),
        "controls": ",".join(arguments.controls),
        "bn-images": arguments.bn_images or "",
        "bn-split": arguments.bn_split if arguments.bn_images else "",
        "reference": "" if arguments.reference is None else arguments.reference.name,
        "robust": "" if arguments.robust is None else named(arguments.robust),
        "seed": arguments.seed,
        "verify": "" if arguments.verify == "kin" else arguments.verify,
    }
    words = ["rws eval", named(arguments.model), named(arguments.data)]
    words += [f"--{name} {value}" for name, value in plain.items() if value != ""]
    words += [f"--signature {named(s)}" for s in arguments.signature]
    return " ".join(words)


def _print(found: Sequence[Row], wanted: Sequence[Condition], title: str) -> None:
    """Means with their intervals; below, where there are several, each corruption by the numbers of the models."""
    from rich.console import Console
    from rich.text import Text

    wrong = [c for c in wanted if c.severity]
    console = Console(highlight=False)
    console.print(Text(f"{title}. Top-1 in percent [95 % interval]\n"))
    table = _table("", "model", "clean", *(["corrupted, mean" if len(wrong) > 1 else str(wrong[0])] if wrong else []))
    if any(row.mce is not None for row in found):
        table.add_column("mCE", justify="right", no_wrap=True)
    for number, row in enumerate(found, 1):
        told = [
            f"{100 * e.mean:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"
            for e in (row.clean, row.mean)
            if e is not None
        ]
        table.add_row(str(number), Text(row.name), *told, *([] if row.mce is None else [f"{100 * row.mce:.1f}"]))
    console.print(table)
    longest = max((len(str(c)) for c in wrong), default=0)
    block = max(1, (console.width - longest) // (_NUMBER + 2))
    for begin in range(0, len(found), block) if len(wrong) > 1 else ():
        part = found[begin : begin + block]
        table = _table("model", *(str(begin + i + 1).rjust(_NUMBER) for i in range(len(part))))
        for condition in wrong:
            table.add_row(str(condition), *(f"{100 * row.corrupted[condition].mean:.1f}" for row in part))
        console.print()
        console.print(table)
    console.print()


def _table(*heads: str) -> Table:
    """Names, which may go on in the next line, then numbers, which may not."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False)
    for head in heads:
        number = head not in ("", "model")
        table.add_column(head, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


_NUMBER = len("100.0")
