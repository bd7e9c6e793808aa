"""The words of the `rws` command line: which commands there are, and what they take. Needs no torch."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from rws_hub import check_command, data_commands, eval_command, hub_commands, train_command
from rws_hub._version import __version__
from rws_hub.spec import DEFAULT_ERROR, DEFAULT_MATRIX_ERROR
from rws_hub.words import MODEL_FILES, finite, path, positive, terms, word

# argparse alone takes -1e-3 for an option, not for a number.
_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)


def build_parser() -> argparse.ArgumentParser:
    """All commands."""
    parser = argparse.ArgumentParser(
        prog="rws", description="Robust weight signatures: robustness as a patch, shared on the Hugging Face Hub."
    )
    parser.add_argument("--version", action="version", version=f"rws {__version__}")
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(verbs)
    train_command.declare(_verb(verbs, "train", "train a standard model, or its robust twin, from a pretrained start"))
    _extract(verbs)
    measure = _verb(verbs, "eval", "clean and corrupted accuracy, with and without signatures and controls")
    eval_command.declare(measure)
    hub_commands.declare_trust(measure)

    info = _verb(verbs, "info", "what a signature is; fast, nothing is decoded")
    _signature(info, "--verify")

    check = _verb(verbs, "check", "would it fit, and what would it do: the plan for a checkpoint (exit code 1 if not)")
    _signature(check)
    check_command.declare(check)
    _table(check)

    data_commands.declare(_verb(verbs, "corruptions", "a sheet of one image under every corruption and severity"))

    compare = _verb(verbs, "compare", "how alike signatures are: cosines of their deltas, and how far each layer moved")
    compare.add_argument("first", type=word, metavar="SIG", help="a local folder or a Hub id")
    compare.add_argument("others", type=word, nargs="+", metavar="SIG", help="one or more others of the same backbone")
    compare.add_argument("--identify", type=word, metavar="SIG", help="which of them is this one nearest to?")
    compare.add_argument("--plots", type=path, metavar="FOLDER", help="write cosine.png and profile.png there")
    hub_commands.declare_trust(compare, "--verify")

    apply = _verb(verbs, "apply", "write a patched copy of a checkpoint; the original is not touched")
    _signature(apply)
    apply.add_argument("model", type=word, help=MODEL_FILES)
    apply.add_argument("-o", "--out", type=path, required=True, help="where to write; must not exist yet")
    _table(apply)
    apply.add_argument("--alpha", type=finite, help="patch strength; default: the signature's recommended one")
    terms(apply)

    mapping = _verb(
        verbs, "map", "where each tensor would go in a model, by name; or find the names of two models' tensors"
    )
    mapping.usage = (
        "rws map [-h] [--json] SIGNATURE MODEL [--revision REVISION] [--subfolder SUBFOLDER] [--table FILE]\n"
        "       rws map [-h] [--json] infer MODEL MODEL [--size PIXELS] [-o FILE]"
    )
    mapping.set_defaults(usage_error=mapping.error)
    mapping.add_argument(
        "names", nargs="+", type=word, action=_Names, metavar="NAME", help="SIGNATURE MODEL, or: infer MODEL MODEL"
    )
    mapping.add_argument("--revision", type=word, help="branch, tag or commit of the signature; default: main")
    mapping.add_argument("--subfolder", help="where in the repository or folder the signature is")
    mapping.set_defaults(public_key=None, lock=None)  # it only reads names
    _table(mapping)
    mapping.add_argument(
        "--size", type=positive, help="infer: side of the input in pixels; default: what the model states"
    )
    mapping.add_argument("-o", "--out", type=path, help="infer: the .map file to write; default: standard output")

    card = _verb(verbs, "card", "write README.md of a local signature anew, keeping what people wrote in it")
    card.add_argument("folder", type=path)
    card.add_argument("--results", type=path, help="results.json to take over into the folder and the card")

    hub_commands.declare_sign(_verb(verbs, "sign", "sign a local signature with a private key, as model.sig"))
    hub_commands.declare_push(_verb(verbs, "push", "publish a local signature on the Hub as one commit"))
    hub_commands.declare_pull(_verb(verbs, "pull", "fetch a signature from the Hub into a folder, verified"))
    hub_commands.declare_lock(_verb(verbs, "lock", "pin signatures as they are now, byte for byte, in a lock file"))
    return parser


def _demo(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = _verb(verbs, "demo", "the whole story on real images in a few minutes: train, extract, patch, take off")
    demo.add_argument("-o", "--out", type=path, default=Path("rws-demo"), help="folder for the artifact and the plot")
    demo.add_argument("--seeds", type=int, default=3, help="repetitions, for mean and spread (default 3)")
    demo.add_argument("--push", type=word, metavar="REPO", help="publish the signature afterwards: namespace/name")


def _extract(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    extract = _verb(verbs, "extract", "make a signature from checkpoints")
    extract.add_argument("--standard", type=path, required=True, help="the clean model: (sharded) safetensors")
    extract.add_argument("--robust", type=path, required=True, help="its robust twin")
    extract.add_argument("--pretrained", type=path, help="the weights both grew from: takes the paper's projection")
    extract.add_argument("--corruption", type=word, required=True, help="what the twin is robust to, such as fog")
    extract.add_argument("--severity", type=int, choices=range(1, 6))
    extract.add_argument("--dataset", type=word, help="what it was trained on")
    extract.add_argument("--license", type=word, required=True, help="licence id, such as apache-2.0")
    extract.add_argument(
        "--layers",
        type=word,
        default="shallow",
        help="shallow, the number of first layers, or name patterns with commas between",
    )
    size = extract.add_mutually_exclusive_group()
    size.add_argument("--bits", type=finite, help="about how many bits for each weight, such as 1.5; 32: plain float32")
    size.add_argument(
        "--target-error",
        type=finite,
        help=f"relative error; default {DEFAULT_ERROR:g} of kernels and {DEFAULT_MATRIX_ERROR:g} of linear layers",
    )
    size.add_argument("--target-bytes", type=int, help="of config and payload together, at most")
    extract.add_argument("--batchnorm", default="delta", choices=["delta", "none"])
    extract.add_argument("--alpha", type=finite, default=1.0, help="recommended patch strength (default 1)")
    extract.add_argument("--base-model", type=word, help="Hub id of the published clean model")
    extract.add_argument("--base-revision", type=word, help="its 40-hex commit")
    _table(extract)
    extract.add_argument("--description", default="", help="free text for the card")
    extract.add_argument("-o", "--out", type=path, required=True, help="folder to write")


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
    verb.add_argument("--table", type=path, metavar="FILE", help="a name table of your own (docs/NAMES.md)")


def _signature(verb: argparse.ArgumentParser, *public_key: str) -> None:
    verb.add_argument("signature", type=word, help="a local folder or a Hub id")
    verb.add_argument("--revision", type=word, help="branch, tag or commit of the signature; default: main")
    verb.add_argument("--subfolder", help="where in the repository or folder the signature is")
    hub_commands.declare_trust(verb, *public_key)
