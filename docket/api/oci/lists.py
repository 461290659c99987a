"""Lists of the OCI distribution API 1.1, page by page: tags, repositories, referrers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.responses import API_VERSION, json_response
from docket.api.services import digest_of, registry_of, repository_of
from docket.oci import manifest
from docket.store import StoredManifest

_MAX_ROWS = 1000  # CVE-2023-2253: a client may not choose how much is listed
_MAX_PAGE = 4 << 20  # bytes of manifests that are read for one page of referrers


async def list_tags(request: Request) -> Response:
    """GET the tags of a repository, sorted, page by page."""
    repository = repository_of(request)
    registry = registry_of(request)
    limit, last = _page(request)
    names = await registry.threads.read(
        lambda: registry.store.manifests.tags(repository, after=last, limit=limit + 1)
    )
    path = f"/v2/{repository}/tags/list"
    return _listed({"name": repository, "tags": names[:limit]}, names, limit, path)


async def catalog(request: Request) -> Response:
    """GET the repositories, sorted, page by page."""
    registry = registry_of(request)
    limit, last = _page(request)
    names = await registry.threads.read(
        lambda: registry.store.manifests.repositories(after=last, limit=limit + 1)
    )
    return _listed({"repositories": names[:limit]}, names, limit, "/v2/_catalog")


async def get_referrers(request: Request) -> Response:
    """GET the manifests whose subject is this digest, page by page.

    The response is an index, empty rather than 404; a Link header leads to the next page.
    """
    registry = registry_of(request)
    repository, subject = repository_of(request), digest_of(request)
    artifact_type = request.query_params.get("artifactType", "")
    after = request.query_params.get("last", "")
    content, last = await registry.threads.parse(
        lambda: _referrers_page(
            registry.store.manifests.referrers(
                repository, subject, after=after, artifact_type=artifact_type
            )
        )
    )
    headers = {"OCI-Filters-Applied": "artifactType"} if artifact_type else {}
    if last:
        query = {"last": last} | ({"artifactType": artifact_type} if artifact_type else {})
        path = f"/v2/{repository}/referrers/{subject}?{urlencode(query, quote_via=quote)}"
        headers["Link"] = f'<{path}>; rel="next"'
    return Response(content, media_type=manifest.OCI_INDEX, headers=API_VERSION | headers)


class _Annotated(msgspec.Struct):
    annotations: Any = None


def _referrers_page(referrers: Iterator[StoredManifest]) -> tuple[bytes, str]:
    """An index of the first *referrers*, and the digest after which the next page begins, if any.

    A page ends after as many as were read in `_MAX_PAGE` bytes.
    """
    rows: list[dict[str, Any]] = []
    left, last = _MAX_PAGE, ""
    for stored in referrers:
        if rows and (left < len(stored.content) or len(rows) == _MAX_ROWS):
            last = str(rows[-1]["digest"])
            break
        left -= len(stored.content)
        rows.append(_referrer_row(stored))
    body = {"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": rows}
    return msgspec.json.encode(body), last


def _referrer_row(stored: StoredManifest) -> dict[str, Any]:
    row: dict[str, Any] = {
        "mediaType": stored.media_type,
        "digest": str(stored.digest),
        "size": len(stored.content),
    }
    annotations = _annotations(stored)
    row |= {"artifactType": stored.artifact_type} if stored.artifact_type else {}
    row |= {"annotations": annotations} if annotations else {}
    return row


def _annotations(stored: StoredManifest) -> dict[str, str]:
    """The annotations of a manifest that was checked when it was stored."""
    try:
        annotations = msgspec.json.decode(stored.content, type=_Annotated).annotations
    except msgspec.DecodeError:  # JSON that Python's parser takes, and this faster one doesn't
        return stored.parsed.annotations
    return annotations if isinstance(annotations, dict) else {}


def _page(request: Request) -> tuple[int, str]:
    text = request.query_params.get("n", str(_MAX_ROWS))
    if not (text.isascii() and text.isdigit()):
        raise HTTPException(400, "n must be a count")
    return min(int(text[:9]), _MAX_ROWS), request.query_params.get("last", "")


def _listed(body: dict[str, Any], names: list[str], limit: int, path: str) -> Response:
    headers = {}
    if 0 < limit < len(names):
        query = urlencode({"n": limit, "last": names[limit - 1]}, quote_via=quote)
        headers["Link"] = f'<{path}?{query}>; rel="next"'
    return json_response(body, headers=headers)


ROUTES = [
    Route("/v2/_catalog", catalog),
    Route("/v2/{name:path}/tags/list", list_tags),
    Route("/v2/{name:path}/referrers/{digest}", get_referrers),
]
