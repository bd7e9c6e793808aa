"""The `rws` command: arguments in, a line or a table out. The work is done by the library; see `commands`.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 an error (its message, no traceback),
2 wrong usage, 130 interrupted. Handlers import what they need when they run, so `rws info` needs no torch.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from rws_hub import commands
from rws_hub._version import __version__
from rws_hub.errors import RWSError

# Whatever comes out of the Hub client speaks for itself; a traceback would only bury it.
_CLIENT = "huggingface_hub"
# argparse alone takes -1e-3 for an option, not for a number.
_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)

_MODEL = "a .safetensors file, an index, a folder with one of them, or a model on the Hub: namespace/name[@revision]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal cannot show must not undo what was done
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    try:
        commands.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not isinstance(error, (RWSError, OSError)) and not _is_of_client(error):
            raise
        print(f"error: {_sentence(error)}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(f"note: {note}", file=sys.stderr)
        return 1
    return 0


def _is_of_client(error: Exception) -> bool:
    """Whether an error came through the Hub client, which raises those of its transports as they are."""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name.partition(".")[0] == _CLIENT for name in frames)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = str(error) or type(error).__name__
    # The client lets its transport's errors through, and those do not say what they are about.
    bare = type(error).__module__.partition(".")[0] not in ("builtins", "huggingface_hub", "rws_hub")
    return f"the Hub could not be reached ({text})" if bare else text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rws", description="Robust weight signatures: robustness as a patch, shared on the Hugging Face Hub."
    )
    parser.add_argument("--version", action="version", version=f"rws {__version__}")
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(verbs)
    _extract(verbs)

    info = _verb(verbs, "info", "what a signature is; fast, nothing is decoded")
    _signature(info)

    check = _verb(verbs, "check", "would it fit: the plan for a checkpoint, tensor by tensor (exit code 1 if not)")
    _signature(check)
    check.add_argument("model", type=_word, help=_MODEL)
    _table(check)

    apply = _verb(verbs, "apply", "write a patched copy of a checkpoint; the original is not touched")
    _signature(apply)
    apply.add_argument("model", type=_word, help=_MODEL)
    apply.add_argument("-o", "--out", type=_path, required=True, help="where to write; must not exist yet")
    _table(apply)
    apply.add_argument("--alpha", type=_finite, help="patch strength; default: the signature's recommended one")

    mapping = _verb(
        verbs, "map", "where each tensor would go in a model, by name; or find the names of two models' tensors"
    )
    mapping.usage = "rws map [-h] [--json] SIGNATURE MODEL\n       rws map [-h] [--json] infer MODEL MODEL [-o FILE]"
    mapping.add_argument(
        "names", nargs="+", type=_word, action=_Names, metavar="NAME", help="SIGNATURE MODEL, or: infer MODEL MODEL"
    )
    mapping.add_argument("--revision", type=_word, help="branch, tag or commit of the signature; default: main")
    mapping.add_argument("--subfolder", help="where in the repository or folder the signature is")
    _table(mapping)
    mapping.add_argument("--size", type=int, help="infer: side of the input in pixels; default: what the model states")
    mapping.add_argument("-o", "--out", type=_path, help="infer: the .map file to write; default: standard output")

    card = _verb(verbs, "card", "write README.md of a local signature anew, keeping what people wrote in it")
    card.add_argument("folder", type=_path)
    card.add_argument("--results", type=_path, help="results.json to take over into the folder and the card")

    push = _verb(verbs, "push", "publish a local signature on the Hub as one commit")
    push.add_argument("folder", type=_path)
    push.add_argument("repo_id", type=_word, help="namespace/name; created if it does not exist")
    push.add_argument("--private", action=argparse.BooleanOptionalAction, default=None, help="for a new repository")
    push.add_argument("--revision", type=_word, help="branch to commit to; default: main")
    push.add_argument("--message", type=_word, default="Upload robust weight signature", help="title of the commit")
    push.add_argument("--create-pr", action="store_true", help="open a pull request instead")

    pull = _verb(verbs, "pull", "fetch a signature from the Hub into a folder, verified")
    pull.add_argument("repo_id", type=_word)
    pull.add_argument("-o", "--out", type=_path, help="folder to write; default: the name of the repository")
    pull.add_argument("--revision", type=_word, help="branch, tag or commit; default: main")
    pull.add_argument("--subfolder", help="where in the repository the signature is")
    return parser


def _demo(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = _verb(verbs, "demo", "the whole story on real images in a few minutes: train, extract, patch, take off")
    demo.add_argument("-o", "--out", type=_path, default=Path("rws-demo"), help="folder for the artifact and the plot")
    demo.add_argument("--seeds", type=int, default=3, help="repetitions, for mean and spread (default 3)")
    demo.add_argument("--push", type=_word, metavar="REPO", help="publish the signature afterwards: namespace/name")


def _extract(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    extract = _verb(verbs, "extract", "make a signature from checkpoints")
    extract.add_argument("--standard", type=_path, required=True, help="the clean model: (sharded) safetensors")
    extract.add_argument("--robust", type=_path, required=True, help="its robust twin")
    extract.add_argument("--pretrained", type=_path, help="the weights both grew from: takes the paper's projection")
    extract.add_argument("--corruption", type=_word, required=True, help="what the twin is robust to, such as fog")
    extract.add_argument("--severity", type=int, choices=range(1, 6))
    extract.add_argument("--dataset", type=_word, help="what it was trained on")
    extract.add_argument("--license", type=_word, required=True, help="licence id, such as apache-2.0")
    extract.add_argument(
        "--layers",
        type=_word,
        default="shallow",
        help="shallow, the number of first layers, or name patterns with commas between",
    )
    extract.add_argument("--bits", type=int, default=4, choices=[2, 3, 4, 5, 6, 7, 8, 32])
    extract.add_argument("--batchnorm", default="delta", choices=["delta", "none"])
    extract.add_argument("--alpha", type=_finite, default=1.0, help="recommended patch strength (default 1)")
    extract.add_argument("--base-model", type=_word, help="Hub id of the published clean model")
    extract.add_argument("--base-revision", type=_word, help="its 40-hex commit")
    _table(extract)
    extract.add_argument("--description", default="", help="free text for the card")
    extract.add_argument("-o", "--out", type=_path, required=True, help="folder to write")


def _verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    verb._negative_number_matcher = _NEGATIVE
    verb.add_argument("--json", action="store_true", help="one JSON object on stdout, for machines")
    return verb


class _Names(argparse.Action):
    """`SIGNATURE MODEL` or `infer MODEL MODEL`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[str] | None,
        option_string: str | None = None,
    ) -> None:
        """Count them."""
        names = list(values or ())
        if len(names) != (3 if names[0] == "infer" else 2):
            raise argparse.ArgumentError(self, "expected SIGNATURE MODEL, or: infer MODEL MODEL")
        namespace.names = names


def _table(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--table", type=_path, metavar="FILE", help="a name table of your own (docs/NAMES.md)")


def _word(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty string says nothing")
    return text


def _path(text: str) -> Path:
    return Path(_word(text))


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def _signature(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("signature", type=_word, help="a local folder or a Hub id")
    verb.add_argument("--revision", type=_word, help="branch, tag or commit of the signature; default: main")
    verb.add_argument("--subfolder", help="where in the repository or folder the signature is")


if __name__ == "__main__":
    sys.exit(main())
