"""File contents: the Hub redirects, to a copy by commit for regular files and to the CDN for large ones."""

from urllib.parse import quote

from starlette.responses import PlainTextResponse, Response

from .access import readable_repo
from .errors import HubError, entry_not_found
from .http import Call, Routes, file_bytes
from .state import Hub
from .store import Commit, FileEntry

routes = Routes()
cdn_routes = Routes()


def _entry(commit: Commit, path: str) -> FileEntry:
    if path not in commit.files:
        raise entry_not_found("Entry not found", commit=commit.oid)
    return commit.files[path]


@routes.on("GET", "/{repo}/resolve/{rev}/{path*}")
def resolve(hub: Hub, call: Call) -> Response:
    """Say where a file's content is, and what it is."""
    repo, path = readable_repo(hub, call), call.args["path"]
    commit = repo.revision(call.args["rev"])
    entry = _entry(commit, path)
    headers = {"X-Repo-Commit": commit.oid, "X-Linked-Etag": f'"{entry.etag}"'}
    if entry.sha256 is None:
        headers["Location"] = f"/api/resolve-cache/models/{repo.id}/{commit.oid}/{quote(path)}"
        return PlainTextResponse("Temporary Redirect", 307, headers)
    headers |= {"X-Linked-Size": str(entry.size), "Accept-Ranges": "bytes"}
    if (file := hub.store.xet.file_of(entry.sha256)) is not None:
        headers["X-Xet-Hash"] = file.hash
        headers["Link"] = f'<{hub.url}/api/models/{repo.id}/xet-read-token/{commit.oid}>; rel="xet-auth"'
    headers["Location"] = hub.signed_url(f"/files/{entry.sha256}")
    return PlainTextResponse("Found", 302, headers)


@routes.on("GET", "/api/resolve-cache/models/{repo}/{commit}/{path*}")
def resolve_cache(hub: Hub, call: Call) -> Response:
    """The content of a regular file."""
    commit = readable_repo(hub, call).revision(call.args["commit"])
    entry = _entry(commit, call.args["path"])
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{entry.etag}"'}
    return file_bytes(call, hub.store.content(entry), headers)


def check_signature(hub: Hub, call: Call) -> None:
    """Refuse requests to the CDN that do not come from a signed address."""
    if call.first("signature") != hub.signature(call.path):
        raise HubError(403, "SignatureDoesNotMatch")


@cdn_routes.on("GET", "/files/{digest}")
def large_file(hub: Hub, call: Call) -> Response:
    """The content of a large file."""
    check_signature(hub, call)
    digest = call.args["digest"]
    return file_bytes(call, hub.store.lfs_content(digest), {"ETag": f'"{digest}"'})
