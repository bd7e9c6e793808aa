"""Uploads of large files outside Xet: negotiated with the Hub, sent to the CDN whole or in parts."""

from hashlib import md5, sha256
from typing import Any

from starlette.responses import JSONResponse, Response

from .access import writable_repo
from .api_files import check_signature
from .errors import HubError
from .http import Call, Routes
from .state import Hub

routes = Routes()
cdn_routes = Routes()


def _upload(hub: Hub, digest: str, size: int, *, multipart: bool) -> dict[str, Any]:
    path = f"/uploads/{digest}"
    if not multipart or size <= hub.part_size:
        return {"href": hub.signed_url(path)}
    count = -(-size // hub.part_size)
    parts = {f"{number:05d}": hub.signed_url(f"{path}/{number}") for number in range(1, count + 1)}
    return {"href": hub.signed_url(path), "header": {"chunk_size": str(hub.part_size), **parts}}


@routes.on("POST", "/{repo}.git/info/lfs/objects/batch")
def batch(hub: Hub, call: Call) -> Response:
    """Say where to send each file; files that are there already get no address."""
    repo, _ = writable_repo(hub, call, contributing=True)
    body, objects = call.json(), []
    if body["operation"] != "upload":
        raise HubError(501, "This server has large-file uploads only; downloads go through resolve")
    for wanted in body["objects"]:
        digest, size = wanted["oid"], wanted["size"]
        answer: dict[str, Any] = {"oid": digest, "size": size}
        if not hub.store.has_lfs(digest):
            upload = _upload(hub, digest, size, multipart="multipart" in body.get("transfers", ()))
            verify = {"href": f"{hub.web_url(repo)}.git/info/lfs/objects/verify"}
            answer["actions"] = {"upload": upload, "verify": verify}
        objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")


@routes.on("POST", "/{repo}.git/info/lfs/objects/verify")
def verify(hub: Hub, call: Call) -> Response:
    """Whether a file has arrived."""
    writable_repo(hub, call, contributing=True)
    wanted = call.json()
    store, digest = hub.store, wanted["oid"]
    arrived = store.has_lfs(digest) and store.lfs_entry(digest).size == wanted["size"]
    return JSONResponse({}, 200 if arrived else 404)


def _keep(hub: Hub, digest: str, data: bytes) -> Response:
    if sha256(data).hexdigest() != digest:
        raise HubError(400, "Content does not match oid")
    hub.store.add_lfs(data)
    return JSONResponse({})


@cdn_routes.on("PUT", "/uploads/{digest}")
def whole(hub: Hub, call: Call) -> Response:
    """Receive a file in one piece."""
    check_signature(hub, call)
    return _keep(hub, call.args["digest"], call.body)


@cdn_routes.on("PUT", "/uploads/{digest}/{number}")
def part(hub: Hub, call: Call) -> Response:
    """Receive one part of a file."""
    check_signature(hub, call)
    hub.store.parts[call.args["digest"], int(call.args["number"])] = call.body
    return Response(headers={"ETag": f'"{md5(call.body).hexdigest()}"'})


@cdn_routes.on("POST", "/uploads/{digest}")
def complete(hub: Hub, call: Call) -> Response:
    """Put the parts of a file together."""
    check_signature(hub, call)
    digest, listed = call.args["digest"], call.json()["parts"]
    return _keep(hub, digest, b"".join(hub.store.parts.pop((digest, part["partNumber"])) for part in listed))
