"""What a push makes of what is there: which files it writes and deletes, and when it refuses. No network of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from rws_hub import artifact
from rws_hub.beside import FIGURES
from rws_hub.bundle import why_stale
from rws_hub.config import parse_config
from rws_hub.contents import AGAIN, Contents
from rws_hub.errors import ArtifactError, CorruptArtifactError, NotASignatureError
from rws_hub.results import parse_results
from rws_hub.spec import CARD_FILE, CONFIG_FILE, PAYLOAD_FILE, RESULTS_FILE, SIGNATURE_FILE, Data

# A file of a repository at one commit; None if it is not there.
Read = Callable[[str], bytes | None]

_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|ckpt|pkl|h5|keras|onnx|pb|tflite|msgpack|gguf|npz|pdparams|mlmodel)", re.IGNORECASE
)


def changes(
    repo_id: str, names: Collection[str], read: Read, contents: Contents, local_card: str | None, unsigned: bool
) -> dict[str, Data | None]:
    """What turns the files `names` of a commit into the artifact: bytes to write, or None to delete.

    Results and figures of this very payload stay, those of another one go: the history still has them. A signature
    file stays if it covers what will be there.

    Args:
        repo_id: the repository.
        names: its files.
        read: reads one of them.
        contents: what to publish.
        local_card: a README a person may have edited locally; its text is kept too.
        unsigned: delete a signature that is there.

    Raises:
        ArtifactError: what is there is not ours to change, or a signature would stay beside files it does not cover.
    """
    config = read(CONFIG_FILE)
    if config is None:
        _require_no_model(repo_id, names, contents)
    card = read(CARD_FILE)
    measured = {n for n in names if _is_measured(n)} if config is not None else set()
    if config is not None and _payload(config, repo_id) == contents.config.payload.sha256:
        found = {n: data for n in sorted(measured) if (data := read(n)) is not None}
        measured = set()
        results = contents.results
        if results is None and RESULTS_FILE in found:
            results = parse_results(found[RESULTS_FILE], f"{repo_id}/{RESULTS_FILE}")
        figures = {n.rpartition("/")[2]: data for n, data in found.items() if n != RESULTS_FILE}
        contents = replace(contents, results=results, figures=figures | dict(contents.figures))
    cards = [] if card is None else [artifact.decode_card(card, f"{repo_id}/{CARD_FILE}")]
    cards += [] if local_card is None else [local_card]
    files = contents.files(repo_id, *cards)
    stale = measured - files.keys()
    if contents.signature is not None:
        require_covering(repo_id, files, "What only the repository has is not signed unseen: pull it first. ")
    elif SIGNATURE_FILE in names:
        if unsigned:
            stale.add(SIGNATURE_FILE)
        else:
            _require_still_covering(repo_id, read(SIGNATURE_FILE) or b"", files)
    return dict.fromkeys(sorted(stale), None) | files


def require_covering(where: str, files: Mapping[str, Data], hint: str = "") -> None:
    """Refuse files that their own signature, if there is one, does not cover.

    Raises:
        ArtifactError: naming the first of them.
    """
    bundle = files.get(SIGNATURE_FILE)
    if bundle is not None and (reason := why_stale(bundle, SIGNATURE_FILE, files)):
        raise ArtifactError(
            f"{where}: {SIGNATURE_FILE} is not of the files to be published ({reason}). Nothing was written. "
            f"{hint}{AGAIN}"
        )


def _require_still_covering(repo_id: str, bundle: bytes, files: Mapping[str, Data]) -> None:
    if reason := why_stale(bundle, SIGNATURE_FILE, files):
        raise ArtifactError(
            f"{repo_id} is signed, and its {SIGNATURE_FILE} is not of the files to be published ({reason}). Nothing "
            "was written. Sign (sign=KEY, --sign KEY), or publish without a signature (sign=False, --no-sign)."
        )


def _is_measured(path: str) -> bool:
    return path == RESULTS_FILE or (path.startswith(f"{FIGURES}/") and artifact.belongs(path))


def _require_no_model(repo_id: str, names: Collection[str], contents: Contents) -> None:
    """Refuse what has no config.json but holds weights, or a file that a signature would overwrite.

    Texts and pictures may stand there, and signatures in subfolders.
    """
    written = {PAYLOAD_FILE, RESULTS_FILE, SIGNATURE_FILE, *(f"{FIGURES}/{n}" for n in contents.figures)}
    weights = {n for n in names if _WEIGHTS.fullmatch(n) and PurePosixPath(n).name != PAYLOAD_FILE}
    if found := sorted(weights | (written & set(names))):
        raise NotASignatureError(
            f"{repo_id} holds another kind of model ({found[0]}, and no {CONFIG_FILE} of a signature); nothing was "
            "written. Choose another repository."
        )


def _payload(config: bytes, repo_id: str) -> str | None:
    """Digest of the payload behind a remote config of ours; None if that config is damaged."""
    try:
        artifact.require_replaceable(config, f"{repo_id}/{CONFIG_FILE}")
    except NotASignatureError as error:
        raise NotASignatureError(
            f"{repo_id} already holds another kind of model (its {CONFIG_FILE} is not a signature's); nothing was "
            "overwritten. Choose another repository."
        ) from error
    try:
        return parse_config(config).payload.sha256
    except CorruptArtifactError:
        return None
