"""Xet over HTTP: tokens from the Hub, chunks from and to a store on the CDN.

The native client falls back from version 2 of the store's protocol to version 1, and works without
deduplication queries; both are answered with 404.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterable
from secrets import token_hex
from typing import Any

from starlette.responses import JSONResponse, Response

from .access import readable_repo, writable_repo
from .errors import HubError
from .http import Call, Routes, file_bytes
from .state import Hub
from .xet import Term, XetFile, XetStore

routes = Routes()
cdn_routes = Routes()

_READ, _WRITE = "xet-read-", "xet-write-"


def _token(hub: Hub, prefix: str) -> Response:
    token, expiry, store = prefix + token_hex(8), int(time.time()) + 3600, f"{hub.cdn_url}/cas"
    headers = {"X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expiry), "X-Xet-Cas-Url": store}
    # Uploads read the body and downloads the headers.
    return JSONResponse({"accessToken": token, "exp": expiry, "casUrl": store}, headers=headers)


@routes.on("GET", "/api/models/{repo}/xet-read-token/{rev}")
def read_token(hub: Hub, call: Call) -> Response:
    """A token to download chunks with."""
    readable_repo(hub, call)
    return _token(hub, _READ)


@routes.on("GET", "/api/models/{repo}/xet-write-token/{rev}")
def write_token(hub: Hub, call: Call) -> Response:
    """A token to upload chunks with; the revision may be the text "None" for a new pull request."""
    writable_repo(hub, call, contributing=call.flag("create_pr") or call.args["rev"].startswith("refs/pr/"))
    return _token(hub, _WRITE)


def _require_token(call: Call, *prefixes: str) -> None:
    token = call.headers.get("authorization", "").removeprefix("Bearer ")
    if not token.startswith(prefixes):
        raise HubError(401, f"A token of the kind {' or '.join(prefixes)} is required")


@cdn_routes.on("POST", "/cas/v1/xorbs/default/{name}")
def add_xorb(hub: Hub, call: Call) -> Response:
    """Receive chunks."""
    _require_token(call, _WRITE)
    return JSONResponse({"was_inserted": hub.store.xet.add_xorb(call.args["name"], call.body)})


@cdn_routes.on("POST", "/cas/v1/shards")
def add_shard(hub: Hub, call: Call) -> Response:
    """Receive the list of the chunks that make up files."""
    _require_token(call, _WRITE)
    hub.store.xet.add_shard(call.body)
    return JSONResponse({"result": 1})


def _wanted_terms(store: XetStore, file: XetFile, start: int, stop: int) -> tuple[list[Term], int]:
    """The terms that cover a byte range of a file, and where in the first of them it starts."""
    terms, position, skip = [], 0, 0
    for term in file.terms:
        kept = []
        for index, chunk in enumerate(store.chunks(term.xorb)[term.start : term.stop], term.start):
            if position < stop and position + chunk.size > start:
                kept.append(index)
                skip = max(skip, start - position)
            position += chunk.size
        if kept:
            terms.append(Term(term.xorb, kept[0], kept[-1] + 1))
    return terms, skip


def _merged(terms: Iterable[Term]) -> list[Term]:
    """Disjoint runs that cover the terms of one xorb; the native client crashes on runs that overlap."""
    runs: list[Term] = []
    for term in sorted(terms, key=lambda t: t.start):
        if runs and term.start <= runs[-1].stop:
            term = Term(term.xorb, runs[-1].start, max(runs.pop().stop, term.stop))
        runs.append(term)
    return runs


@cdn_routes.on("GET", "/cas/v1/reconstructions/{name}")
def reconstruction(hub: Hub, call: Call) -> Response:
    """Say which parts of which xorbs make up a file, or a range of it."""
    _require_token(call, _READ, _WRITE)
    store, file = hub.store.xet, hub.store.xet.file(call.args["name"])
    if file is None:
        raise HubError(404, "File not found")
    start, stop = 0, file.size
    if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", call.headers.get("range", "")):
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, file.size)
        if start >= file.size:
            return Response(status_code=416)
    terms, skip = _wanted_terms(store, file, start, stop)
    listed, by_xorb = [], defaultdict(list)
    for term in terms:
        size = sum(chunk.size for chunk in store.chunks(term.xorb)[term.start : term.stop])
        by_xorb[term.xorb].append(term)
        listed.append({"hash": term.xorb, "unpacked_length": size, "range": {"start": term.start, "end": term.stop}})
    fetch: dict[str, list[dict[str, Any]]] = {}
    for xorb, used in by_xorb.items():
        chunks, url = store.chunks(xorb), f"{hub.cdn_url}/xorbs/{xorb}"
        fetch[xorb] = [
            {
                "range": {"start": run.start, "end": run.stop},
                "url": url,
                "url_range": {"start": chunks[run.start].offset, "end": chunks[run.stop - 1].end - 1},
            }
            for run in _merged(used)
        ]
    return JSONResponse({"offset_into_first_range": skip, "terms": listed, "fetch_info": fetch})


@cdn_routes.on("GET", "/xorbs/{name}")
def xorb(hub: Hub, call: Call) -> Response:
    """The bytes of a xorb, usually a range of them."""
    return file_bytes(call, hub.store.xet.xorb(call.args["name"]))


@cdn_routes.on("GET", "/cas/{path*}")
@cdn_routes.on("POST", "/cas/{path*}")
def unsupported(hub: Hub, call: Call) -> Response:
    """Everything that the client can do without."""
    raise HubError(404, "Not supported by this store")
