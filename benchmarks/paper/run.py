"""The paper's claims on CIFAR-10 and CIFAR-100, one command for each; what is done is never done again.

    python benchmarks/paper/run.py --data FOLDER --work FOLDER [--backbone resnet] [--setting small] [QUESTION ...]

`--data` holds cifar10, cifar100 and tinyimagenet32 as folders of Parquet files. Every question trains what it needs,
one model after the other, and can be interrupted anywhere; answers go to benchmarks/results/paper/, from which
`make docs` writes docs/EVIDENCE.md. Run one process for each backbone side by side if there are cores for it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch
from coding import CODING
from lab import Lab
from questions import QUESTIONS
from setting import BACKBONES, SETTINGS
from zoo import Zoo

ALL = QUESTIONS | CODING
RESULTS = Path(__file__).parent.parent / "results" / "paper"


def main() -> None:
    """Answer the asked questions, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(ALL)}; default: all")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where models and measurements are kept")
    parser.add_argument("--backbone", choices=BACKBONES, action="append")
    parser.add_argument("--setting", choices=list(SETTINGS), default="small")
    arguments = parser.parse_args()
    if unknown := set(arguments.questions) - set(ALL):
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # such small models gain nothing from more, and the numbers hang on it
    for question in arguments.questions or ALL:
        for backbone in arguments.backbone or BACKBONES:
            lab = Lab(Zoo(SETTINGS[arguments.setting][backbone], backbone, arguments.data, arguments.work))
            started = time.monotonic()
            answer = ALL[question](lab)
            if not answer:
                continue
            # What was only to show that it runs is no result.
            folder = arguments.work if arguments.setting == "smoke" else RESULTS
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{arguments.setting}-{backbone}-{question}.json"
            found = {
                "command": f"benchmarks/paper/run.py --setting {arguments.setting} --backbone {backbone} {question}",
                "machine": {
                    "cores": os.cpu_count(),
                    "architecture": platform.machine(),
                    "cuda": torch.cuda.is_available(),
                },
                "versions": {"python": platform.python_version()}
                | {n: version(n) for n in ("rws-hub", "torch", "timm", "numpy", "scipy", "datasets", "accelerate")},
                "answer": answer,
            }
            file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            print(f"{file.name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
