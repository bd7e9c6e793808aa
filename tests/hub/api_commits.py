"""Writing: how each file is to be uploaded, and commits, which apply completely or not at all."""

import base64
import json
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

from starlette.responses import JSONResponse, Response

from .access import writable_repo
from .api_discussions import commit_event, open_discussion
from .errors import HubError, entry_not_found, revision_not_found
from .http import Call, Routes
from .state import Hub
from .store import FileEntry, Store

routes = Routes()


def _matches(path: str, patterns: Iterable[str]) -> bool:
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch(path, p) or fnmatch(name, p) or path.startswith(p.strip("/") + "/") for p in patterns)


@routes.on("POST", "/api/models/{repo}/preupload/{rev}")
def preupload(hub: Hub, call: Call) -> Response:
    """Say for each file whether it is large, ignored, or there already."""
    repo, _ = writable_repo(hub, call, contributing=call.flag("create_pr"))
    commit, body = repo.revision(call.args["rev"]), call.json()

    def lines(name: str) -> list[str]:
        return hub.store.content(commit.files[name]).decode().splitlines() if name in commit.files else []

    ignore = body["gitIgnore"].splitlines() if "gitIgnore" in body else lines(".gitignore")
    ignored = [line.strip() for line in ignore if line.strip() and not line.startswith("#")]
    large = [line.split()[0] for line in lines(".gitattributes") if "filter=lfs" in line]
    answers = []
    for file in body["files"]:
        path, sample = file["path"], base64.b64decode(file["sample"])
        lfs = _matches(path, large) or file["size"] > hub.lfs_threshold or b"\0" in sample
        answer = {
            "path": path,
            "uploadMode": "lfs" if lfs else "regular",
            "shouldIgnore": _matches(path, ignored),
        }
        if path in commit.files:
            # The client leaves a file out of its commit when this is the id of its own copy.
            answer["oid"] = commit.files[path].etag
        answers.append(answer)
    return JSONResponse({"files": answers, "commitOid": commit.oid})


def _checked_path(path: str) -> str:
    stripped = path.rstrip("/")
    # Backslashes further inside are accepted, as on the Hub: clients must guard against them themselves.
    if re.match(r"\.\.[/\\]", path) or {"", ".", "..", ".git"} & set(stripped.split("/")):
        raise HubError(422, f"Invalid path: {path}")
    return stripped


def _delete(files: dict[str, FileEntry], path: str, *, file_too: bool) -> None:
    gone = [name for name in files if name.startswith(f"{path}/") or (file_too and name == path)]
    if not gone:
        raise entry_not_found(f"A file with this name doesn't exist: {path}")
    for name in gone:
        del files[name]


def _apply(store: Store, files: dict[str, FileEntry], operation: str, value: dict[str, Any]) -> None:
    path = _checked_path(value["path"])
    if operation == "file":
        files[path] = store.add_blob(base64.b64decode(value["content"]))
    elif operation == "lfsFile":
        if not store.has_lfs(value["oid"]):
            raise HubError(400, f"Your push was rejected because an LFS pointer has no file behind it: {path}")
        files[path] = store.lfs_entry(value["oid"])
    elif operation in ("deletedFile", "deletedFolder"):
        _delete(files, path, file_too=operation == "deletedFile")
    else:
        raise HubError(400, f"Unknown operation {operation}")


@routes.on("POST", "/api/models/{repo}/commit/{rev}")
def commit(hub: Hub, call: Call) -> Response:
    """Commit to a branch or a pull request, or open a pull request with the commit."""
    revision, create_pr = call.args["rev"], call.flag("create_pr")
    contributing = create_pr or revision.startswith("refs/pr/")
    repo, user = writable_repo(hub, call, contributing=contributing)
    base = repo.revision(revision)
    header, *operations = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    head = header["value"]
    if header["key"] != "header" or not head.get("summary"):
        raise HubError(400, "The first line must be a header with a summary")
    if not base.oid.startswith(head.get("parentCommit") or ""):
        raise HubError(412, "The branch was updated since you opened this page. Please refresh and try again.")
    files = dict(base.files)
    for operation in operations:
        _apply(hub.store, files, operation["key"], operation["value"])

    title, message = head["summary"], head.get("description", "")
    answer: dict[str, object] = {"success": True, "hookOutput": ""}
    if create_pr:
        if f"refs/heads/{revision}" not in repo.refs:
            raise revision_not_found(revision)
        discussion = open_discussion(repo, user.name, title, message, base=revision, status="open")
        ref = f"refs/pr/{discussion.num}"
        answer["pullRequestUrl"] = f"{hub.web_url(repo)}/discussions/{discussion.num}"
    else:
        ref = repo.writable_ref(revision)
    made = repo.add_commit(ref, files, title, user.name, message)
    if ref.startswith("refs/pr/"):
        repo.discussions[int(ref.removeprefix("refs/pr/")) - 1].events.append(commit_event(made))
    return JSONResponse({**answer, "commitOid": made.oid, "commitUrl": f"{hub.web_url(repo)}/commit/{made.oid}"})
