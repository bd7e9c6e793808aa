"""Signatures from and to the Hub, always through the unmodified `huggingface_hub` client.

The client's errors pass through untouched; ours is only "this is not a signature". A revision is resolved
once: the config is fetched by the given revision, everything else by the commit it turned out to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo
from huggingface_hub.errors import (
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rws_hub import artifact
from rws_hub._version import __version__
from rws_hub.artifact import FIGURES
from rws_hub.commits import commit_once
from rws_hub.config import is_repo_id, parse_config
from rws_hub.contents import Contents
from rws_hub.downloads import LIBRARY, download, explained, is_whole
from rws_hub.errors import ArtifactError, CorruptArtifactError, NotASignatureError
from rws_hub.results import parse_results
from rws_hub.spec import CARD_FILE, CONFIG_FILE, PAYLOAD_FILE, RESULTS_FILE

_UNUSED = ("nothing of it is used", "run it again in a moment")
_HEX40 = re.compile(r"[0-9a-f]{40}")
_FIGURE = re.compile(FIGURES + r"/[^/\\]+\.png")
_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|ckpt|pkl|h5|keras|onnx|pb|tflite|msgpack|gguf|npz|pdparams|mlmodel)", re.IGNORECASE
)


def locate(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    subfolder: str | None = None,
) -> Path:
    """The folder that holds the artifact: a local one as it is, or the cache folder of one commit.

    Raises:
        NotASignatureError: neither a folder nor a Hub id, or a repository without a signature.
        ArtifactError: `revision` with a local folder, or a subfolder that points elsewhere.
        huggingface_hub.errors: as the client raises them.
    """
    folder = artifact.local_folder(source, revision, subfolder)
    if folder is not None:
        return folder
    if isinstance(source, Path) or not is_repo_id(source):
        raise NotASignatureError(f"{str(source)[:200]!r} is neither a local folder nor a Hub id (namespace/name)")
    return _fetch(source, revision, token, cache_dir, force_download, local_files_only, subfolder)


def _fetch(
    repo_id: str,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    subfolder: str | None = None,
) -> Path:
    """The cache folder of one commit."""
    subfolder = str(PurePosixPath(subfolder)) if subfolder else None

    def fetch(filename: str, at: str | None, proof: Callable[[Path], object]) -> Path:
        with explained(*_UNUSED):
            return download(
                repo_id,
                filename,
                subfolder=subfolder,
                revision=at,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                proof=proof,
            )

    where = f"{repo_id}{'' if subfolder is None else '/' + subfolder}"
    try:
        file = fetch(CONFIG_FILE, revision, lambda path: parse_config(path.read_bytes()))
    except RemoteEntryNotFoundError as error:
        raise NotASignatureError(
            f"{where} has no {CONFIG_FILE}, so it is not a robust weight signature; see whether the name, the revision "
            "and the subfolder are right"
        ) from error
    config = parse_config(file.read_bytes(), f"{where}/{CONFIG_FILE}")  # before fetching what it may not be
    fetch(PAYLOAD_FILE, commit_of(file, subfolder), lambda path: artifact.verify_payload(path.parent, config))
    return file.parent


def commit_of(config: Path, subfolder: str | None) -> str:
    """The commit of a cached file: the cache keeps files as `snapshots/<commit>/<path in repository>`."""
    return config.parents[len(PurePosixPath(subfolder).parts) if subfolder else 0].name


def pull(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    subfolder: str | None = None,
) -> tuple[str, dict[str, bytes]]:
    """The commit that a revision stands for, and every file of the signature published there, verified.

    Raises:
        NotASignatureError: not a Hub id, or the repository holds no signature.
        FormatVersionError, CorruptArtifactError: it does not hold what it promises.
        huggingface_hub.errors: as the client raises them.
    """
    if not is_repo_id(repo_id):
        raise NotASignatureError(f"{repo_id!r} is not a Hub id (namespace/name)")
    artifact.require_plain(subfolder)
    subfolder = str(PurePosixPath(subfolder)) if subfolder else None
    folder = _fetch(repo_id, revision, token, subfolder=subfolder)
    artifact.verify_payload(folder, artifact.read_config(folder))
    commit = commit_of(folder / CONFIG_FILE, subfolder)
    prefix = f"{subfolder}/" if subfolder else ""
    with explained(*_UNUSED):
        names = [n for n in _api(token).list_repo_files(repo_id, revision=commit) if n.startswith(prefix)]
        wanted = [n for n in names if _is_ours(n.removeprefix(prefix))]
        # Of a mirror that names files by something else: what is not vouched for by digests is taken as it comes.
        proof = None if is_whole(folder / CONFIG_FILE) else Path.exists
        files = [download(repo_id, n, revision=commit, token=token, proof=proof) for n in wanted]
    return commit, {n.removeprefix(prefix): p.read_bytes() for n, p in zip(wanted, files, strict=True)}


def push(
    repo_id: str,
    contents: Contents,
    *,
    local_card: str | None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str,
    create_pr: bool = False,
) -> str:
    """Publish an artifact in one commit on top of exactly what was read; see `push_to_hub`.

    Args:
        repo_id: `namespace/name`.
        contents: what to publish.
        local_card: a README a person may have edited locally; its text is kept too.
        private: for a repository that is created now; an existing public one is refused.
        token: as the Hub client takes it.
        revision: a branch (created from the main one if missing) or `refs/pr/N`.
        commit_message: title of the commit.
        create_pr: open a pull request instead of committing.

    Returns:
        URL of the commit (of the unchanged head, if nothing changed) or of the pull request.

    Raises:
        ArtifactError: what is there is not ours to change; nothing was written.
        huggingface_hub.errors: as the client raises them.
    """
    if not is_repo_id(repo_id):
        raise ArtifactError(f"{repo_id!r} is not a Hub id (namespace/name)")
    if not commit_message.strip():
        raise ArtifactError("the commit message is empty")
    if revision is not None and _HEX40.fullmatch(revision):
        raise ArtifactError(f"revision={revision!r} is a commit; a push goes to a branch")
    contents.files(repo_id, *([] if local_card is None else [local_card]))  # what cannot be, fails before any request
    api = _api(token)
    may_branch = not create_pr and not (revision or "").startswith("refs/")
    nothing = (f"nothing was published in {repo_id}", "push again in a moment")
    with explained(*nothing):
        try:
            info, branch_exists = _base(api, repo_id, revision, may_branch)
        except RepositoryNotFoundError:
            if revision is not None and not may_branch:
                raise  # a new repository would not have it either
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            info, branch_exists = _base(api, repo_id, revision, may_branch)
    head = info.sha
    if head is None:
        raise ArtifactError(f"{repo_id}: the Hub did not say which commit {revision or 'the main branch'} is at")
    if private and not info.private:
        raise ArtifactError(f"{repo_id} exists and is public; nothing was written. Make it private first")
    names = [s.rfilename for s in info.siblings or ()]
    with explained(*nothing):
        operations = _operations(api, repo_id, head, names, contents, local_card)
        if not branch_exists:
            api.create_branch(repo_id, branch=str(revision), revision=head, exist_ok=True)
    with explained(*nothing):
        return commit_once(
            api,
            repo_id,
            operations,
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
            parent_commit=head,
        )


def _base(api: HfApi, repo_id: str, revision: str | None, may_branch: bool) -> tuple[ModelInfo, bool]:
    """What a push builds on, and whether its branch exists; a new branch grows from the main one."""
    try:
        return api.model_info(repo_id, revision=revision), True
    except RevisionNotFoundError:
        if not may_branch:
            raise
        return api.model_info(repo_id), False


def _operations(
    api: HfApi, repo_id: str, head: str, names: Sequence[str], contents: Contents, local_card: str | None
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """What turns the files `names` of a commit into the artifact.

    Results and figures of this very payload stay, those of another one go: the history still has them.
    """
    config = _read(api, repo_id, CONFIG_FILE, head, names)
    if config is None:
        _require_no_model(repo_id, names, contents)
    card = _read(api, repo_id, CARD_FILE, head, names)
    measured = {n for n in names if n == RESULTS_FILE or _FIGURE.fullmatch(n)} if config is not None else set()
    if config is not None and _payload(config, repo_id) == contents.config.payload.sha256:
        found = {n: data for n in sorted(measured) if (data := _read(api, repo_id, n, head, names)) is not None}
        measured = set()
        results = contents.results
        if results is None and RESULTS_FILE in found:
            results = parse_results(found[RESULTS_FILE], f"{repo_id}/{RESULTS_FILE}")
        figures = {n.rpartition("/")[2]: data for n, data in found.items() if n != RESULTS_FILE}
        contents = replace(contents, results=results, figures=figures | dict(contents.figures))
    cards = [] if card is None else [artifact.decode_card(card, f"{repo_id}/{CARD_FILE}")]
    cards += [] if local_card is None else [local_card]
    files = contents.files(repo_id, *cards)
    stale = [CommitOperationDelete(n) for n in sorted(measured - files.keys())]
    return [*stale, *(CommitOperationAdd(path, bytes(data)) for path, data in files.items())]


def _require_no_model(repo_id: str, names: Sequence[str], contents: Contents) -> None:
    """Refuse what has no config.json but holds weights, or a file that a signature would overwrite.

    Texts and pictures may stand there, and signatures in subfolders.
    """
    written = {PAYLOAD_FILE, RESULTS_FILE, *(f"{FIGURES}/{n}" for n in contents.figures)}
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


def _read(api: HfApi, repo_id: str, filename: str, commit: str, names: Sequence[str]) -> bytes | None:
    """A file at a commit; None only if the Hub says twice that it does not exist: `names` are those that do."""
    try:
        return download(repo_id, filename, revision=commit, token=api.token).read_bytes()
    except RemoteEntryNotFoundError:
        if filename in names:
            raise
        return None


def _api(token: str | bool | None) -> HfApi:
    return HfApi(token=token, library_name=LIBRARY, library_version=__version__)


def _is_ours(path: str) -> bool:
    """Files that belong to an artifact; whatever else a repository holds stays there."""
    return path in (CONFIG_FILE, PAYLOAD_FILE, CARD_FILE, RESULTS_FILE) or _FIGURE.fullmatch(path) is not None
