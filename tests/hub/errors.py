"""The Hub's refusals.

The client picks its exception class from the `X-Error-Code` header alone when the server speaks plain
http, so every refusal about a repository, a revision or a file must carry one.
"""

from collections.abc import Mapping


class HubError(Exception):
    """A refusal that is answered with a status, a message and perhaps an `X-Error-Code`."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": message} if body is None else dict(body)
        # A header holds one latin-1 line; the body keeps the full text.
        line = " ".join(message.split()).encode("latin-1", "replace").decode("latin-1")
        self.headers = {**(headers or {}), "X-Error-Message": line}
        if code is not None:
            self.headers["X-Error-Code"] = code


def login_required(code: str | None = None) -> HubError:
    """Nobody is logged in; also how the Hub hides repositories from anonymous callers."""
    return HubError(401, "Invalid username or password.", code)


def repo_not_found(*, anonymous: bool) -> HubError:
    """The repository is missing, or the caller must not learn that it exists."""
    return login_required("RepoNotFound") if anonymous else HubError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    """No branch, tag, reference or commit has this name."""
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(message: str, *, commit: str | None = None) -> HubError:
    """The file or folder is missing; `commit` lets the client remember that it is."""
    headers = {} if commit is None else {"X-Repo-Commit": commit}
    return HubError(404, message, "EntryNotFound", headers=headers)
