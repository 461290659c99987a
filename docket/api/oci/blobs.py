"""The version check, and blobs of the OCI distribution API 1.1."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.responses import BlobResponse, empty_response, json_response
from docket.api.services import digest_of, registry_of, repository_of
from docket.api.upstream.arriving import ArrivingBlobResponse
from docket.errors import BlobUnknown
from docket.upstream.arriving import ArrivingBlob


async def version(_request: Request) -> Response:
    """GET /v2/: this is a registry."""
    return json_response({})


async def get_blob(request: Request) -> Response:
    """GET and HEAD a blob, whole or a range of it."""
    registry = registry_of(request)
    digest, repository = digest_of(request), repository_of(request)
    store, upstreams = registry.store, registry.upstreams
    try:
        blob = await registry.threads.read(lambda: store.blobs.get(digest, repository=repository))
    except BlobUnknown:
        if upstreams is None or not upstreams.covers(repository):
            raise
        fetched = await registry.threads.fetch(lambda: upstreams.blob(repository, digest))
        if isinstance(fetched, ArrivingBlob):
            return ArrivingBlobResponse(registry, fetched, request)
        blob = fetched
    return BlobResponse(registry, blob, request)


async def delete_blob(request: Request) -> Response:
    """DELETE a blob from this repository."""
    registry = registry_of(request)
    digest, repository = digest_of(request), repository_of(request)
    await registry.threads.write(lambda: registry.store.blobs.unlink(repository, digest))
    return empty_response(202, {})


ROUTES = [
    Route("/v2/", version),
    Route("/v2", version),
    Route("/v2/{name:path}/blobs/{digest}", get_blob, methods=["GET"]),
    Route("/v2/{name:path}/blobs/{digest}", delete_blob, methods=["DELETE"]),
]
