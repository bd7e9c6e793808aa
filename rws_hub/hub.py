"""The only module that talks to the network, always through the unmodified `huggingface_hub` client.

The client's errors pass through untouched; ours is only "this is not a signature". A revision is resolved
once: the config is fetched by the given revision, everything else by the commit it turned out to be.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError

from rws_hub._version import __version__
from rws_hub.config import is_repo_id, parse_config
from rws_hub.contents import Contents
from rws_hub.errors import ArtifactError, NotASignatureError
from rws_hub.spec import CARD_FILE, CONFIG_FILE, PAYLOAD_FILE

LIBRARY = "rws-hub"
_CONFLICT = 412


def locate(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    subfolder: str | None = None,
    config_only: bool = False,
) -> Path:
    """The folder that holds the artifact: a local one as it is, or the cache folder of one commit.

    Raises:
        NotASignatureError: neither a folder nor a Hub id, or a repository without a signature.
        ArtifactError: `revision` with a local folder, or a subfolder that points elsewhere.
        huggingface_hub.errors: as the client raises them.
    """
    if subfolder is not None and not _is_plain(subfolder):
        raise ArtifactError(f"subfolder={subfolder!r} must be a plain relative path")
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise ArtifactError(f"{folder} is a local folder; revision={revision!r} has no meaning there")
        return folder / subfolder if subfolder else folder
    if isinstance(source, Path) or not is_repo_id(source):
        raise NotASignatureError(f"{str(source)!r} is neither a local folder nor a Hub id (namespace/name)")

    def download(filename: str, at: str | None) -> Path:
        path = hf_hub_download(
            source,
            filename,
            subfolder=subfolder,
            revision=at,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            library_name=LIBRARY,
            library_version=__version__,
        )
        return Path(path)

    where = f"{source}{'' if subfolder is None else '/' + subfolder}"
    try:
        config = download(CONFIG_FILE, revision)
    except RemoteEntryNotFoundError as error:
        raise NotASignatureError(f"{where} has no {CONFIG_FILE}, so it is not a robust weight signature") from error
    commit = commit_of(config, subfolder)
    if not config_only:
        parse_config(config.read_bytes(), f"{where}/{CONFIG_FILE}")  # before fetching what it may not be
        download(PAYLOAD_FILE, commit)
    return config.parent


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
    """Every file of a published signature, from one commit, and that commit.

    Raises:
        NotASignatureError: the repository holds no signature.
        huggingface_hub.errors: as the client raises them.
    """
    folder = locate(repo_id, revision=revision, token=token, subfolder=subfolder)
    commit = commit_of(folder / CONFIG_FILE, subfolder)
    api = _api(token)
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    names = [n for n in api.list_repo_files(repo_id, revision=commit) if n.startswith(prefix)]
    wanted = [n for n in names if _is_ours(n.removeprefix(prefix))]
    files = {n.removeprefix(prefix): api.hf_hub_download(repo_id, n, revision=commit) for n in wanted}
    return commit, {n: Path(p).read_bytes() for n, p in files.items()}


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
        private, token, revision, commit_message, create_pr: as the Hub client takes them.

    Returns:
        URL of the commit (of the unchanged head, if nothing changed) or of the pull request.
    """
    api = _api(token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    head = api.repo_info(repo_id, revision=revision).sha
    if head is None:
        raise ArtifactError(f"{repo_id}: the Hub did not say which commit {revision or 'the main branch'} is at")
    _require_ours_or_empty(api, repo_id, head)
    remote_card = _read(api, repo_id, CARD_FILE, head)
    cards = [c for c in (remote_card, local_card) if c is not None]
    operations = [CommitOperationAdd(path, data) for path, data in contents.files(repo_id, *cards).items()]
    try:
        info = api.create_commit(
            repo_id,
            operations,
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
            parent_commit=head,
        )
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == _CONFLICT:
            error.add_note(
                f"{repo_id} was changed by somebody else while this push was being prepared. Nothing was written; "
                "push again to build on the new state."
            )
        raise
    return str(info.pr_url or info.commit_url)


def _require_ours_or_empty(api: HfApi, repo_id: str, commit: str) -> None:
    """Refuse to overwrite the config of another kind of model."""
    text = _read(api, repo_id, CONFIG_FILE, commit)
    if text is None:
        return
    try:
        parse_config(text, f"{repo_id}/{CONFIG_FILE}")
    except NotASignatureError as error:
        raise NotASignatureError(
            f"{repo_id} already holds another kind of model (its {CONFIG_FILE} is not a signature's); nothing was "
            "overwritten. Choose another repository."
        ) from error


def _read(api: HfApi, repo_id: str, filename: str, commit: str) -> str | None:
    """A text file at a commit; None only if the Hub says that it does not exist."""
    try:
        return Path(api.hf_hub_download(repo_id, filename, revision=commit)).read_text("utf-8")
    except RemoteEntryNotFoundError:
        return None


def _api(token: str | bool | None) -> HfApi:
    return HfApi(token=token, library_name=LIBRARY, library_version=__version__)


def _is_ours(path: str) -> bool:
    """Files that belong to an artifact; whatever else a repository holds stays there."""
    return path in (CONFIG_FILE, PAYLOAD_FILE, CARD_FILE, "results.json") or (
        path.startswith("figures/") and path.endswith(".png") and path.count("/") == 1
    )


def _is_plain(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not PurePosixPath(path).is_absolute() and ".." not in parts and "\\" not in path
