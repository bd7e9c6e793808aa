"""One commit, made once: whether it was made is asked for where the answer was lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo
from huggingface_hub.errors import HfHubHTTPError

from rws_hub.downloads import git_blob, is_passing

Operations = Sequence[CommitOperationAdd | CommitOperationDelete]

_CONFLICT = 412
# Open pull requests of one title that are looked at.
_REQUESTS = 20


def commit_once(
    api: HfApi,
    repo_id: str,
    operations: Operations,
    *,
    commit_message: str,
    revision: str | None,
    create_pr: bool,
    parent_commit: str,
) -> str:
    """The URL of the commit that makes `operations` on top of its parent, or of the pull request for it.

    Raises:
        huggingface_hub.errors: as the client raises them, with a note that says what is known of the repository.
    """
    if create_pr and (url := _requested(api, repo_id, operations, commit_message)):
        return url
    try:
        made = api.create_commit(
            repo_id,
            list(operations),
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
            parent_commit=parent_commit,
        )
    except Exception as error:
        conflict = isinstance(error, HfHubHTTPError) and error.response.status_code == _CONFLICT
        if not (conflict or is_passing(error)):
            raise
        try:
            if url := _made(api, repo_id, operations, commit_message, revision, create_pr, parent_commit):
                return url
        except Exception as unknown:
            error.add_note(
                f"whether {repo_id} was changed is not known: the Hub does not answer ({type(unknown).__name__}). "
                "Push again in a moment: what is there already is not committed twice."
            )
            raise error from None
        if conflict:
            error.add_note(
                f"{repo_id} was changed by somebody else while this push was being prepared. Nothing was written; "
                "push again to build on the new state."
            )
        else:
            error.add_note(f"{repo_id} is as it was; push again in a moment")
        raise
    return str(made.pr_url or made.commit_url)


def _made(
    api: HfApi,
    repo_id: str,
    operations: Operations,
    title: str,
    revision: str | None,
    create_pr: bool,
    parent: str,
) -> str | None:
    """The URL of what was made although the client has not heard of it."""
    if create_pr:
        return _requested(api, repo_id, operations, title)
    info = api.model_info(repo_id, revision=revision, files_metadata=True)
    return f"{api.endpoint}/{repo_id}/commit/{info.sha}" if info.sha != parent and _holds(info, operations) else None


def _requested(api: HfApi, repo_id: str, operations: Operations, title: str) -> str | None:
    """The URL of an open pull request of this title that brings this very state."""
    opened = api.get_repo_discussions(repo_id, discussion_type="pull_request", discussion_status="open")
    for found in islice((d for d in opened if d.title == title), _REQUESTS):
        info = api.model_info(repo_id, revision=f"refs/pr/{found.num}", files_metadata=True)
        if _holds(info, operations):
            return f"{api.endpoint}/{repo_id}/discussions/{found.num}"
    return None


def _holds(info: ModelInfo, operations: Operations) -> bool:
    """Whether a state of the repository is the one that the operations lead to."""
    there = {s.rfilename: s.blob_id if s.lfs is None else s.lfs.sha256 for s in info.siblings or ()}
    for operation in operations:
        found = there.get(operation.path_in_repo)
        if isinstance(operation, CommitOperationDelete):
            if found is not None:
                return False
            continue
        data = operation.path_or_fileobj
        assert isinstance(data, bytes)
        if found not in (operation.upload_info.sha256.hex(), git_blob(data)):
            return False
    return True
