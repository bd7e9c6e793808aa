"""Users and whole repositories: create, delete, settings, access, information and listing."""

from hashlib import md5
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from . import cards
from .access import caller, logged_in, readable_repo, visible_repo, writable_repo, writer
from .errors import HubError, repo_not_found
from .http import Call, Routes, page
from .state import Hub
from .store import Commit, Repo, timestamp

routes = Routes()

# What `list_models` may ask for here; anything else would be ignored silently, so it is refused.
_LIST_QUERY = {
    "author",
    "search",
    "filter",
    "pipeline_tag",
    "sort",
    "limit",
    "cursor",
    "full",
    "cardData",
    "expand",
}


@routes.on("GET", "/api/whoami-v2")
def whoami(hub: Hub, call: Call) -> Response:
    """Describe the caller."""
    user = logged_in(hub, call)
    role = "read" if user.read_only else "write"
    names = {"id": user.name, "name": user.name, "fullname": user.name, "email": None, "isPro": False}
    orgs = [{"type": "org", "name": org, "fullname": org, "roleInOrg": "admin"} for org in user.orgs]
    token = {"displayName": "test", "role": role, "createdAt": timestamp()}
    auth = {"type": "access_token", "accessToken": token}
    return JSONResponse({"type": "user", **names, "orgs": orgs, "auth": auth})


def _named_repo(call: Call, owner: str) -> str:
    body = call.json()
    if body.get("type") not in (None, "model"):
        raise HubError(501, "This server has model repositories only")
    return f"{body.get('organization') or owner}/{body['name']}"


@routes.on("POST", "/api/repos/create")
def create(hub: Hub, call: Call) -> Response:
    """Make an empty repository."""
    user = writer(hub, call)
    repo_id = _named_repo(call, user.name)
    namespace = repo_id.split("/")[0]
    if not user.owns(namespace):
        raise HubError(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')
    existing = hub.store.find(repo_id)
    if existing is not None:
        message = "You already created this model repo"
        # With `exist_ok` the client reads the url of this refusal.
        raise HubError(409, message, body={"error": message, "url": hub.web_url(existing)})
    body = call.json()
    private = bool(body.get("private")) or body.get("visibility") == "private"
    repo = hub.store.create(repo_id, user.name, private=private)
    return JSONResponse({"url": hub.web_url(repo), "name": repo_id, "id": repo_id})


@routes.on("DELETE", "/api/repos/delete")
def delete(hub: Hub, call: Call) -> Response:
    """Remove a repository and its history."""
    user = writer(hub, call)
    repo = hub.store.find(_named_repo(call, user.name))
    if repo is None or (repo.private and not user.owns(repo.namespace)):
        raise repo_not_found(anonymous=False)
    if not user.owns(repo.namespace):
        raise HubError(403, f"Forbidden: you must be a member of {repo.namespace} with write access")
    del hub.store.repos[repo.id]
    return PlainTextResponse("OK")


@routes.on("PUT", "/api/models/{repo}/settings")
def settings(hub: Hub, call: Call) -> Response:
    """Change who may see a repository or read its files."""
    repo, _ = writable_repo(hub, call)
    body = call.json()
    repo.gated = body.get("gated", repo.gated)
    if "visibility" in body or "private" in body:
        repo.private = bool(body.get("private")) or body.get("visibility") == "private"
    return JSONResponse({"private": repo.private, "gated": repo.gated})


@routes.on("POST", "/api/models/{repo}/user-access-request/grant")
def grant(hub: Hub, call: Call) -> Response:
    """Let a user read a gated repository."""
    repo, _ = writable_repo(hub, call)
    if not repo.gated:
        raise HubError(400, "Repo is not gated")
    repo.granted.add(call.json()["user"])
    return JSONResponse({})


@routes.on("GET", "/api/models/{repo}/auth-check")
def auth_check(hub: Hub, call: Call) -> Response:
    """Whether the caller may read the files."""
    readable_repo(hub, call)
    return JSONResponse({})


@routes.on("GET", "/api/models/{repo}/auth-check/write")
def auth_check_write(hub: Hub, call: Call) -> Response:
    """Whether the caller may commit."""
    writable_repo(hub, call)
    return JSONResponse({})


@routes.on("POST", "/api/validate-yaml")
def validate_yaml(hub: Hub, call: Call) -> Response:
    """Check a card: as JSON for commits, as plain text for the card classes."""
    errors, warnings = cards.problems(call.json()["content"])
    status = 400 if errors else 200
    if "text/plain" in call.headers.get("accept", ""):
        return PlainTextResponse("\n".join(f"- Error: {error}" for error in errors), status)
    found = {"errors": [{"message": e} for e in errors], "warnings": [{"message": w} for w in warnings]}
    return JSONResponse(found, status)


def _sibling(commit: Commit, path: str, *, blobs: bool) -> dict[str, Any]:
    entry = commit.files[path]
    found: dict[str, Any] = {"rfilename": path}
    if blobs:
        found |= {"size": entry.size, "blobId": entry.oid}
        found |= {} if entry.sha256 is None else {"lfs": entry.lfs("sha256")}
    return found


def _description(hub: Hub, repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    card = cards.metadata(hub.store, commit.files)
    contents = {entry.etag: entry.size for entry in commit.files.values()}
    described = {
        "_id": md5(repo.id.encode()).hexdigest()[:24],
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.namespace,
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": cards.tags(card, commit.files),
        "library_name": card.get("library_name"),
        "pipeline_tag": card.get("pipeline_tag"),
        "model-index": card.get("model-index"),
        "cardData": card or None,
        "siblings": [_sibling(commit, path, blobs=blobs) for path in sorted(commit.files)],
        "usedStorage": sum(contents.values()),
    }
    return {key: value for key, value in described.items() if value is not None}


@routes.on("GET", "/api/models/{repo}")
@routes.on("GET", "/api/models/{repo}/revision/{rev}")
def info(hub: Hub, call: Call) -> Response:
    """Describe a repository at a revision."""
    repo = visible_repo(hub, call)
    commit = repo.revision(call.args.get("rev", "main"))
    described = _description(hub, repo, commit, blobs=call.flag("blobs"))
    if "expand" in call.query:
        described = {k: v for k, v in described.items() if k in ("_id", "id", *call.query["expand"])}
    return JSONResponse(described)


@routes.on("GET", "/api/models")
def list_models(hub: Hub, call: Call) -> Response:
    """List the repositories that the caller may see, filtered by author, words and tags."""
    if unknown := sorted(set(call.query) - _LIST_QUERY):
        raise HubError(501, f"This server cannot list models by {', '.join(unknown)}")
    user = caller(hub, call)
    wanted = {tag for value in call.query.get("filter", ()) for tag in value.split(",")}
    wanted |= set(call.query.get("pipeline_tag", ()))
    found = []
    for repo in reversed(hub.store.repos.values()):
        visible = not repo.private or (user is not None and user.owns(repo.namespace))
        named = call.first("author", repo.namespace) == repo.namespace
        if visible and named and call.first("search").lower() in repo.id.lower():
            described = _description(hub, repo, repo.revision("main"))
            if wanted <= set(described["tags"]):
                found.append(described)
    if sort := call.first("sort"):
        found.sort(key=lambda described: described.get(sort, 0), reverse=True)
    if "expand" in call.query:
        kept = {"_id", "id", *call.query["expand"]}
    else:
        kept = {key for described in found for key in described}
        kept -= set() if call.flag("full") else {"siblings"}
        kept -= set() if call.flag("full") or call.flag("cardData") else {"cardData"}
    items = [{k: v for k, v in described.items() if k in kept} for described in found]
    return page(hub, call, items, hub.page_size)
