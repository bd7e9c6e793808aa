"""What a revision holds and how revisions are named: trees, paths, history, branches and tags."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, PlainTextResponse, Response

from .access import visible_repo, writable_repo
from .errors import HubError, entry_not_found, revision_not_found
from .http import Call, Routes, page
from .state import Hub
from .store import Commit, Repo

routes = Routes()

_BAD_REF = re.compile(r"^refs/|[\s~^:?*\[\\]|\.\.|^[-/.]|[/.]$|@\{")


def _last_change(repo: Repo, commit: Commit, part: Callable[[Commit], object]) -> Mapping[str, str]:
    """The commit that gave a part of the files its present state."""
    last = commit
    for older in repo.history(commit):
        if part(older) != part(commit):
            break
        last = older
    return {"id": last.oid, "title": last.title, "date": last.date}


def _file(hub: Hub, repo: Repo, commit: Commit, path: str, *, expand: bool) -> dict[str, object]:
    entry = commit.files[path]
    item: dict[str, object] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.sha256 is not None:
        item["lfs"] = entry.lfs("oid")
        if (file := hub.store.xet.file_of(entry.sha256)) is not None:
            item["xetHash"] = file.hash
    if expand:
        item["lastCommit"] = _last_change(repo, commit, lambda c: c.files.get(path))
        safe = {"status": "safe"}
        item["securityFileStatus"] = {**safe, "avScan": safe, "pickleImportScan": safe}
    return item


def _folder(repo: Repo, commit: Commit, path: str, oid: str, *, expand: bool) -> dict[str, object]:
    item: dict[str, object] = {"type": "directory", "oid": oid, "size": 0, "path": path}
    if expand:
        item["lastCommit"] = _last_change(repo, commit, lambda c: c.under(path))
    return item


@routes.on("GET", "/api/models/{repo}/tree/{rev}")
@routes.on("GET", "/api/models/{repo}/tree/{rev}/{path*}")
def tree(hub: Hub, call: Call) -> Response:
    """List a folder, or everything under it."""
    repo = visible_repo(hub, call)
    commit, base = repo.revision(call.args["rev"]), call.args.get("path", "").strip("/")
    recursive, expand = call.flag("recursive"), call.flag("expand")
    folders = commit.folders()
    if base not in folders:
        raise entry_not_found(f'{base} does not exist on "{call.args["rev"]}"')
    prefix = f"{base}/" if base else ""

    def listed(path: str) -> bool:
        return path != "" and path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :])

    items = {path: _folder(repo, commit, path, folders[path], expand=expand) for path in folders if listed(path)}
    items |= {path: _file(hub, repo, commit, path, expand=expand) for path in commit.files if listed(path)}
    return page(
        hub,
        call,
        [items[path] for path in sorted(items)],
        min(hub.page_size, 50) if expand else hub.page_size,
    )


@routes.on("POST", "/api/models/{repo}/paths-info/{rev}")
def paths_info(hub: Hub, call: Call) -> Response:
    """Describe the named files and folders; those that do not exist are left out."""
    repo = visible_repo(hub, call)
    commit, form = repo.revision(call.args["rev"]), parse_qs(call.body.decode())
    expand = form.get("expand", [""])[0].lower() == "true"
    folders, items = commit.folders(), []
    for path in (path.strip("/") for path in form.get("paths", ())):
        if path in commit.files:
            items.append(_file(hub, repo, commit, path, expand=expand))
        elif path and path in folders:
            items.append(_folder(repo, commit, path, folders[path], expand=expand))
    return JSONResponse(items)


@routes.on("GET", "/api/models/{repo}/refs")
def refs(hub: Hub, call: Call) -> Response:
    """List branches and tags, and pull requests if wanted."""
    repo = visible_repo(hub, call)

    def under(prefix: str, shown: str = "") -> list[dict[str, str]]:
        found = sorted((ref, oid) for ref, oid in repo.refs.items() if ref.startswith(prefix))
        return [{"name": shown + ref[len(prefix) :], "ref": ref, "targetCommit": oid} for ref, oid in found]

    found = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": []}
    if call.flag("include_prs"):
        found["pullRequests"] = under("refs/pr/", "refs/pr/")
    return JSONResponse(found)


@routes.on("GET", "/api/models/{repo}/commits/{rev}")
def commits(hub: Hub, call: Call) -> Response:
    """List the history of a revision, newest first."""
    repo = visible_repo(hub, call)
    items = []
    for commit in repo.history(repo.revision(call.args["rev"])):
        text = {"title": commit.title, "message": commit.message}
        item = {"id": commit.oid, "date": commit.date, "authors": [{"user": commit.author}], **text}
        items.append(item | ({"formatted": text} if "expand[]" in call.query else {}))
    return page(hub, call, items, hub.page_size)


def _new_ref(repo: Repo, ref: str, name: str, target: str) -> Response:
    if _BAD_REF.search(name):
        raise HubError(400, f"Invalid reference name: {name}")
    if ref in repo.refs:
        raise HubError(409, f"Reference {ref} already exists")
    repo.refs[ref] = target
    return PlainTextResponse("OK")


def _drop_ref(repo: Repo, ref: str, name: str) -> Response:
    if ref not in repo.refs:
        raise revision_not_found(name)
    if ref == "refs/heads/main":
        raise HubError(403, "Cannot delete refs/heads/main")
    del repo.refs[ref]
    return PlainTextResponse("OK")


@routes.on("POST", "/api/models/{repo}/branch/{name}")
def create_branch(hub: Hub, call: Call) -> Response:
    """Start a branch at a revision."""
    repo, _ = writable_repo(hub, call)
    name = call.args["name"]
    start = repo.revision(call.json().get("startingPoint") or "main")
    return _new_ref(repo, f"refs/heads/{name}", name, start.oid)


@routes.on("DELETE", "/api/models/{repo}/branch/{name}")
def delete_branch(hub: Hub, call: Call) -> Response:
    """Remove a branch."""
    repo, _ = writable_repo(hub, call)
    return _drop_ref(repo, f"refs/heads/{call.args['name']}", call.args["name"])


@routes.on("POST", "/api/models/{repo}/tag/{rev}")
def create_tag(hub: Hub, call: Call) -> Response:
    """Tag a revision: the path names the revision and the body the tag."""
    repo, _ = writable_repo(hub, call)
    name = call.json()["tag"]
    return _new_ref(repo, f"refs/tags/{name}", name, repo.revision(call.args["rev"]).oid)


@routes.on("DELETE", "/api/models/{repo}/tag/{name}")
def delete_tag(hub: Hub, call: Call) -> Response:
    """Remove a tag."""
    repo, _ = writable_repo(hub, call)
    return _drop_ref(repo, f"refs/tags/{call.args['name']}", call.args["name"])
