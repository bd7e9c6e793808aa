"""`rws train`: from words on a command line to a training, and from its record to a few lines."""

from __future__ import annotations

import argparse
import json
import os
import sys

from rws_hub.errors import TrainingError
from rws_hub.words import MODEL, count, data, finite, path, positive, word


def declare(train: argparse.ArgumentParser) -> None:
    """The arguments of `rws train`."""
    train.add_argument("model", type=word, help=MODEL)
    data(train, "train")
    train.add_argument(
        "--val-split", metavar="NAME", help="chooses the epoch; default: a tenth of --split is set aside"
    )
    train.add_argument("-o", "--out", type=path, required=True, help="folder to write, or to go on in")
    train.add_argument(
        "--corruption", type=word, metavar="NAME", help="what to become robust to; without it: a standard model"
    )
    train.add_argument("--severity", type=int, choices=range(1, 6), help="how strong, from 1 to 5")
    train.add_argument(
        "--recipe",
        choices=["standard", "from-clean", "two-branch"],
        help="from-clean: start at the standard model, half of the images corrupted (default with --corruption); "
        "two-branch: start at the pretrained model, all of them corrupted, as in the paper",
    )
    train.add_argument("--scratch", action="store_true", help="begin with random weights of that architecture")
    train.add_argument("--epochs", type=positive, default=10, metavar="N", help="passes over the images (default 10)")
    train.add_argument(
        "--batch-size",
        type=positive,
        default=128,
        metavar="N",
        help="images a step, all processes together; the figures hang on the number of processes unless it is a "
        "multiple of 64 for each (default 128)",
    )
    train.add_argument("--lr", type=finite, default=0.01, metavar="RATE", help="peak learning rate (default 0.01)")
    train.add_argument(
        "--optimizer", choices=["sgd", "adamw"], default="sgd", help="default sgd, Nesterov momentum 0.9"
    )
    train.add_argument("--weight-decay", type=finite, default=5e-4, metavar="RATE", help="default 0.0005")
    train.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True, help="random crop and mirror")
    train.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="bf16 computes under autocast")
    train.add_argument(
        "--workers", type=count, default=0, metavar="N", help="processes that prepare images (default 0)"
    )
    train.add_argument("--seed", type=count, default=0, metavar="N", help="of everything random (default 0)")


def run(arguments: argparse.Namespace) -> None:
    """Train as asked; the main process tells."""
    from rws_hub import jsonio
    from rws_hub.corruptions import require_name
    from rws_hub.pictures import open_pictures
    from rws_hub.training import train
    from rws_hub.training.settings import Recipe, TrainSettings

    if arguments.corruption is not None:
        require_name(arguments.corruption)
    recipe: Recipe = arguments.recipe or ("standard" if arguments.corruption is None else "from-clean")
    if arguments.corruption is not None and arguments.severity is None:
        raise TrainingError(f"say how strong {arguments.corruption} is to be: --severity 1 to 5")
    settings = TrainSettings(
        recipe,
        arguments.corruption,
        arguments.severity,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        lr=arguments.lr,
        optimizer=arguments.optimizer,
        weight_decay=arguments.weight_decay,
        augment=arguments.augment,
        precision=arguments.precision,
        seed=arguments.seed,
    )
    columns = {"image_column": arguments.image_column, "label_column": arguments.label_column}
    pictures = open_pictures(arguments.data, arguments.split, **columns)
    validation = None if arguments.val_split is None else open_pictures(arguments.data, arguments.val_split, **columns)
    record = train(
        arguments.model,
        pictures,
        settings,
        arguments.out,
        validation=validation,
        scratch=arguments.scratch,
        size=arguments.size,
        workers=arguments.workers,
        progress=not arguments.json,
    )
    if os.environ.get("RANK", "0") != "0":
        return
    if arguments.json:
        json.dump({"out": str(arguments.out), **jsonio.to_json(record)}, sys.stdout, indent=2)
        print()
        return
    best = record.epochs[record.best]
    noise = f"with {arguments.corruption} at severity {arguments.severity}"
    kind = {"standard": "all clean", "from-clean": f"half of them {noise}", "two-branch": f"all of them {noise}"}
    wrong = "" if best.corrupted is None else f", {best.corrupted:.1%} corrupted"
    print(
        f"{arguments.out}: trained from {record.start_label} on {record.data.images:,} images of {record.data.name}, "
        f"{kind[recipe]}, in {record.seconds:.0f} s"
    )
    print(
        f"epoch {record.best + 1} of {len(record.epochs)} was the best on {record.validation.images:,} validation "
        f"images: {best.clean:.1%} clean{wrong}"
    )
