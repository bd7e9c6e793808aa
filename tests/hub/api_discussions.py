"""Pull requests, and the discussions that they are."""

from secrets import token_hex

from starlette.responses import JSONResponse, Response

from .access import visible_repo, writable_repo
from .errors import HubError
from .http import Call, Routes
from .state import Hub
from .store import Commit, Discussion, Repo, timestamp

routes = Routes()

_PAGE = 50


def _event(kind: str, author: str, data: dict[str, object]) -> dict[str, object]:
    head = {"id": token_hex(12), "type": kind, "createdAt": timestamp()}
    return {**head, "author": {"name": author}, "data": data}


def _comment(author: str, text: str) -> dict[str, object]:
    latest = {"raw": text, "html": text, "updatedAt": timestamp(), "author": {"name": author}}
    return _event("comment", author, {"edited": False, "hidden": False, "history": [], "latest": latest})


def commit_event(commit: Commit) -> dict[str, object]:
    """The trace that a commit leaves in its pull request."""
    return _event("commit", commit.author, {"subject": commit.title, "oid": commit.oid})


def open_discussion(repo: Repo, author: str, title: str, text: str, *, base: str | None, status: str) -> Discussion:
    """Open a discussion, or a pull request against `base`, whose reference exists from the start."""
    number = len(repo.discussions) + 1
    opened = Discussion(number, title, author, base is not None, base or "", status, timestamp())
    opened.events.append(_comment(author, text))
    repo.discussions.append(opened)
    if base is not None:
        repo.refs[f"refs/pr/{number}"] = repo.refs[f"refs/heads/{base}"]
    return opened


def _summary(repo: Repo, discussion: Discussion) -> dict[str, object]:
    return {
        "num": discussion.num,
        "title": discussion.title,
        "status": discussion.status,
        "isPullRequest": discussion.is_pull_request,
        "author": {"name": discussion.author},
        "createdAt": discussion.created,
        "repo": {"name": repo.id, "type": "model"},
    }


def _numbered(repo: Repo, call: Call) -> Discussion:
    number = call.args["num"]
    if not number.isdigit() or not 1 <= int(number) <= len(repo.discussions):
        raise HubError(404, "Discussion not found")
    return repo.discussions[int(number) - 1]


@routes.on("GET", "/api/models/{repo}/discussions")
def discussions(hub: Hub, call: Call) -> Response:
    """List discussions, newest first, by kind, state and author."""
    repo = visible_repo(hub, call)
    kind, status, author = call.first("type", "all"), call.first("status", "all"), call.first("author")
    found = [
        _summary(repo, d)
        for d in reversed(repo.discussions)
        if kind in ("all", "pull_request" if d.is_pull_request else "discussion")
        and status in ("all", "open" if d.status in ("open", "draft") else "closed")
        and author in ("", d.author)
    ]
    start = int(call.first("p", "0")) * _PAGE
    return JSONResponse({"discussions": found[start : start + _PAGE], "count": len(found), "start": start})


@routes.on("POST", "/api/models/{repo}/discussions")
def create(hub: Hub, call: Call) -> Response:
    """Open a discussion, or a draft pull request to which commits are to follow."""
    repo, user = writable_repo(hub, call, contributing=True)
    body = call.json()
    base, status = ("main", "draft") if body.get("pullRequest") else (None, "open")
    opened = open_discussion(repo, user.name, body["title"], body["description"], base=base, status=status)
    return JSONResponse({"num": opened.num, "title": opened.title, "pullRequest": opened.is_pull_request})


@routes.on("GET", "/api/models/{repo}/discussions/{num}")
def details(hub: Hub, call: Call) -> Response:
    """Describe one discussion with its events."""
    repo = visible_repo(hub, call)
    discussion = _numbered(repo, call)
    described = {
        **_summary(repo, discussion),
        "events": discussion.events,
        "filesWithConflicts": [],
        "diff": "",
    }
    if discussion.is_pull_request:
        changes = {"base": f"refs/heads/{discussion.base}", "mergeCommitId": discussion.merge_commit}
        described["changes"] = {key: value for key, value in changes.items() if value is not None}
    return JSONResponse(described)


@routes.on("POST", "/api/models/{repo}/discussions/{num}/merge")
def merge(hub: Hub, call: Call) -> Response:
    """Bring a pull request's changes to its base branch; where both changed a file, the request wins."""
    repo, user = writable_repo(hub, call)
    request = _numbered(repo, call)
    if not request.is_pull_request or request.status in ("merged", "closed"):
        raise HubError(400, "Pull request is not open")
    proposed, base = repo.revision(f"refs/pr/{request.num}"), repo.revision(request.base)
    on_base = {commit.oid for commit in repo.history(base)}
    fork = next(commit for commit in repo.history(proposed) if commit.oid in on_base)
    files = dict(base.files)
    for path in fork.files.keys() | proposed.files.keys():
        if path not in proposed.files:
            files.pop(path, None)
        elif fork.files.get(path) != proposed.files[path]:
            files[path] = proposed.files[path]
    title = f"{request.title} (#{request.num})"
    request.merge_commit = repo.add_commit(f"refs/heads/{request.base}", files, title, user.name).oid
    request.status = "merged"
    request.events.append(_event("status-change", user.name, {"status": "merged"}))
    return JSONResponse({})
