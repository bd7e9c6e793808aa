"""Signatures from and to the Hub, always through the unmodified `huggingface_hub` client.

The client's errors pass through untouched; ours is only "this is not a signature". A revision is resolved
once: the config is fetched by the given revision, everything else by the commit it turned out to be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rws_hub import artifact, beside, merging, signing
from rws_hub import lock as locks
from rws_hub.commits import commit_once
from rws_hub.config import is_repo_id
from rws_hub.contents import Contents
from rws_hub.downloads import download, explained, is_whole
from rws_hub.errors import ArtifactError, NotASignatureError
from rws_hub.manifest import Manifest
from rws_hub.pending import current
from rws_hub.places import Place, api_of
from rws_hub.spec import CONFIG_FILE, PAYLOAD_FILE, SIGNATURE_FILE

# What git allows no branch to be called (git check-ref-format).
_NO_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|^[./-]|[./]$|\.lock(/|$)|^@?$")
_HEX40 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Found:
    """Where the files of an artifact lie, and what they have to be.

    Attributes:
        folder: a local one, or the cache folder of one commit.
        manifests: of a lock file and, in the cache, of a verified signature, where they were asked for.
        commit: None for a local folder.
        public_key: for a local folder, whose signature has yet to be verified with it.
    """

    folder: Path
    manifests: tuple[Manifest, ...] = ()
    commit: str | None = None
    public_key: str | Path | None = None

    def vouched(self) -> tuple[Manifest, ...]:
        """What the files have to be. A local folder can be signed anew at any moment: ask in `artifact.consistently`.

        Raises:
            VerificationError: a local folder is not signed with `public_key`.
            SigningError: the key cannot verify, or the library for it is missing.
        """
        if self.public_key is None:
            return self.manifests
        file = current(self.folder, SIGNATURE_FILE)
        return (*self.manifests, signing.verified(file, self.public_key, str(self.folder)))


def locate(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    subfolder: str | None = None,
    public_key: str | Path | None = None,
    lock: str | Path | None = None,
) -> Found:
    """The folder that holds the artifact: a local one as it is, or the cache folder of one commit.

    Raises:
        NotASignatureError: neither a folder nor a Hub id, or a repository without a signature.
        ArtifactError: `revision` with a local folder, or a subfolder that points elsewhere.
        VerificationError: not signed with `public_key` (of a local folder, `Found.vouched` tells), or not what `lock`
            pins.
        huggingface_hub.errors: as the client raises them.
    """
    pin = None if lock is None else locks.find_pin(Path(lock), source, revision, subfolder)
    manifests = _pinned(pin, lock)
    published = pin is not None and pin.repo is not None  # a folder of that name is not what is pinned
    folder = None if published else artifact.local_folder(source, revision, subfolder)
    if folder is not None:
        return Found(folder, manifests, public_key=public_key)
    if isinstance(source, Path) or not is_repo_id(source):
        raise NotASignatureError(f"{str(source)[:200]!r} is neither a local folder nor a Hub id (namespace/name)")
    place = Place(source, subfolder, token, cache_dir, force_download, local_files_only)
    with _said_of(pin, lock):
        return _fetch(place, revision if pin is None else pin.revision, manifests, public_key)


def _fetch(place: Place, revision: str | None, manifests: tuple[Manifest, ...], public_key: str | Path | None) -> Found:
    """Config and payload of one commit; nothing of them is decoded before what vouches for them was compared."""

    def proof(config: Path) -> None:
        if public_key is None:  # otherwise nothing is to be read of it yet; the signature is asked below
            artifact.read_config(config.parent, manifests, place.label)

    try:
        file = place.download(CONFIG_FILE, revision, proof)
    except RemoteEntryNotFoundError as error:
        raise NotASignatureError(
            f"{place.label} has no {CONFIG_FILE}, so it is not a robust weight signature; see whether the name, the "
            "revision and the subfolder are right"
        ) from error
    commit = place.commit_of(file)
    if public_key is not None:
        try:
            signature = place.download(SIGNATURE_FILE, commit, Path.exists)
        except RemoteEntryNotFoundError as error:
            raise signing.unsigned(place.label, public_key) from error
        manifests += (signing.verified(signature, public_key, place.label),)
    config = artifact.read_config(file.parent, manifests, place.label)  # before fetching what it may not be
    place.download(PAYLOAD_FILE, commit, lambda path: artifact.verify_payload(path.parent, config))
    return Found(file.parent, manifests, commit)


def _pinned(pin: locks.Pin | None, lock: str | Path | None) -> tuple[Manifest, ...]:
    return () if pin is None or lock is None else (locks.pinned(pin, Path(lock)),)


@contextmanager
def _said_of(pin: locks.Pin | None, lock: str | Path | None) -> Iterator[None]:
    """Add to the client's error what a lock file has to do with it."""
    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        if pin is not None:
            error.add_note(
                f"{lock} pins {pin.label} at {pin.revision}. If that commit is gone for good, take its files from a "
                "machine that has them in its cache, or pin another: rws lock."
            )
        raise


def pull(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    subfolder: str | None = None,
    public_key: str | Path | None = None,
    lock: str | Path | None = None,
) -> tuple[str, dict[str, bytes]]:
    """The commit that a revision stands for, and every file of the signature published there, verified.

    Raises:
        NotASignatureError: not a Hub id, or the repository holds no signature.
        FormatVersionError, CorruptArtifactError: it does not hold what it promises.
        VerificationError: not signed with `public_key`, or not what `lock` pins.
        huggingface_hub.errors: as the client raises them.
    """
    if not is_repo_id(repo_id):
        raise NotASignatureError(f"{repo_id!r} is not a Hub id (namespace/name)")
    artifact.require_plain(subfolder)
    pin = None if lock is None else locks.find_pin(Path(lock), repo_id, revision, subfolder)
    manifests = _pinned(pin, lock)
    place = Place(repo_id, subfolder, token)
    with _said_of(pin, lock):
        found = _fetch(place, revision if pin is None else pin.revision, manifests, public_key)
        config = artifact.read_config(found.folder, found.manifests, place.label)
        payload = artifact.verify_payload(found.folder, config)
        commit = str(found.commit)
        names = place.files(commit) if pin is None else list(pin.sha256)
        # Of a mirror that names files by something else: what is not vouched for by digests is taken as it comes.
        proof = None if is_whole(found.folder / CONFIG_FILE) else Path.exists
        paths = {n: place.download(n, commit, proof) for n in names}
    files = {**beside.read_beside(paths), PAYLOAD_FILE: bytes(payload)}
    for manifest in found.manifests:
        manifest.require_all(place.label, files)
    beside.require_beside(files, config, place.label)
    return commit, files


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
    unsigned: bool = False,
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
        unsigned: delete a signature file that is there, which is refused otherwise if it would become stale.

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
    if revision is not None and _NO_BRANCH.search(revision):
        raise ArtifactError(f"revision={revision!r} cannot be a branch; name one by letters, digits, -, _, . and /")
    # What cannot be, fails before any request.
    merging.require_covering(repo_id, contents.files(repo_id, *([] if local_card is None else [local_card])))
    api = api_of(token)
    may_branch = not create_pr and not (revision or "").startswith("refs/")
    again = "offline: unset HF_HUB_OFFLINE and push again" if constants.HF_HUB_OFFLINE else "push again in a moment"
    nothing = (f"nothing was published in {repo_id}", again)
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
        changes = merging.changes(
            repo_id, names, lambda name: _read(api, repo_id, name, head, names), contents, local_card, unsigned
        )
        if not branch_exists:
            api.create_branch(repo_id, branch=str(revision), revision=head, exist_ok=True)
    with explained(*nothing):
        return commit_once(
            api,
            repo_id,
            [
                CommitOperationDelete(path) if data is None else CommitOperationAdd(path, bytes(data))
                for path, data in changes.items()
            ],
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


def _read(api: HfApi, repo_id: str, filename: str, commit: str, names: Sequence[str]) -> bytes | None:
    """A file at a commit; None only if the Hub says twice that it does not exist: `names` are those that do."""
    try:
        return beside.read_file(
            download(repo_id, filename, revision=commit, token=api.token), beside.limit_of(filename)
        )
    except RemoteEntryNotFoundError:
        if filename in names:
            raise
        return None
