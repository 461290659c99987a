"""The OCI distribution API 1.1: blobs, uploads, manifests, tags, referrers, catalog."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

from anyio import sleep
from anyio.to_thread import run_sync
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.errors import problem
from docket.api.responses import API_VERSION, BlobAnswer, answer_empty, answer_json, read_body
from docket.api.services import registry_of, repository_of
from docket.errors import (
    DigestMismatch,
    InvalidReference,
    StoreFull,
    UploadOutOfOrder,
    UploadUnknown,
)
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.reference import is_tag, parse_repository, parse_target
from docket.store import Upload

_MAX_ROWS = 1000  # CVE-2023-2253: a client may not choose how much is listed

# blocks of a body are put together to this many bytes before a thread takes them
_BATCH = 1 << 20


def digest_of(request: Request) -> Digest:
    """The digest in the path. Raises `InvalidDigest`."""
    return Digest.parse(request.path_params["digest"])


async def version(_request: Request) -> Response:
    """GET /v2/: this is a registry."""
    return answer_json({})


async def get_blob(request: Request) -> Response:
    """GET and HEAD a blob, whole or a range of it."""
    store = registry_of(request).store
    blob = await run_sync(
        lambda: store.blobs.get(digest_of(request), repository=repository_of(request))
    )
    return BlobAnswer(store, blob, request, pace=registry_of(request).sending)


async def delete_blob(request: Request) -> Response:
    """DELETE a blob from this repository."""
    store = registry_of(request).store
    await run_sync(store.blobs.unlink, repository_of(request), digest_of(request))
    return answer_empty(202, {})


async def begin_upload(request: Request) -> Response:
    """POST: a session, a whole blob in one request, or a mount."""
    repository = repository_of(request)
    store = registry_of(request).store
    query = request.query_params
    if mount := query.get("mount"):
        digest = Digest.parse(mount)
        source = parse_repository(query["from"]) if "from" in query else None
        if await run_sync(lambda: store.blobs.mount(digest, repository=repository, source=source)):
            return _created(repository, digest)
    digest_text = query.get("digest")
    expected = Digest.parse(digest_text) if digest_text else None
    upload_id = await run_sync(store.uploads.begin, repository)
    if expected is None:
        return _session(repository, upload_id, 0, status=202)
    return await _finish(request, upload_id, expected)


async def patch_upload(request: Request) -> Response:
    """PATCH: the next part, of any length, of an upload."""
    repository, upload_id = _upload_of(request)
    store = registry_of(request).store
    try:
        with store.uploads.open(repository, upload_id, offset=_part_offset(request)) as upload:
            await _receive(request, upload)
            offset = await run_sync(lambda: upload.offset)
    except UploadOutOfOrder as error:
        return _out_of_order(repository, upload_id, error)
    return _session(repository, upload_id, offset, status=202)


async def put_upload(request: Request) -> Response:
    """PUT: the last part, which may be empty, and the digest of the whole."""
    repository, upload_id = _upload_of(request)
    expected = Digest.parse(request.query_params.get("digest", ""))
    try:
        return await _finish(request, upload_id, expected)
    except UploadOutOfOrder as error:
        return _out_of_order(repository, upload_id, error)


async def get_upload(request: Request) -> Response:
    """GET: how far the upload is."""
    repository, upload_id = _upload_of(request)
    store = registry_of(request).store
    offset = await run_sync(store.uploads.offset, repository, upload_id)
    return _session(repository, upload_id, offset, status=204)


async def delete_upload(request: Request) -> Response:
    """DELETE: cancel the upload."""
    await run_sync(registry_of(request).store.uploads.cancel, *_upload_of(request))
    return answer_empty(204, {})


async def get_manifest(request: Request) -> Response:
    """GET and HEAD a manifest: the exact bytes, and the type that it was pushed as."""
    store = registry_of(request).store
    target = parse_target(request.path_params["reference"])
    found = await run_sync(store.manifests.get, repository_of(request), target)
    headers = {
        **API_VERSION,
        "Docker-Content-Digest": str(found.digest),
        "Content-Type": found.media_type,
        "ETag": f'"{found.digest}"',
    }
    return Response(found.content, headers=headers)


async def put_manifest(request: Request) -> Response:
    """PUT a manifest under a tag or its digest."""
    repository = repository_of(request)
    target = parse_target(request.path_params["reference"])
    content = await read_body(request, limit=manifest.MAX_MANIFEST, what="the manifest")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    algorithm = target.algorithm if isinstance(target, Digest) else "sha256"
    if isinstance(target, Digest):
        actual = Digest.of(content, algorithm=algorithm)
        if actual != target:
            raise DigestMismatch(target, actual)
    parsed = manifest.parse(content, content_type=content_type)
    tags = [target] if isinstance(target, str) else _tags_asked(request)
    store = registry_of(request).store
    digest = await run_sync(
        lambda: store.manifests.put(repository, content, parsed, tags=tags, algorithm=algorithm)
    )
    headers = {
        "Location": f"/v2/{repository}/manifests/{digest}",
        "Docker-Content-Digest": str(digest),
    }
    if parsed.subject:
        headers["OCI-Subject"] = str(parsed.subject.digest)
    answer = answer_empty(201, headers)
    for tag in tags if isinstance(target, Digest) else []:
        answer.headers.append("OCI-Tag", tag)
    return answer


async def delete_manifest(request: Request) -> Response:
    """DELETE a tag, or a manifest with its tags."""
    store = registry_of(request).store
    target = parse_target(request.path_params["reference"])
    if isinstance(target, Digest):
        await run_sync(store.manifests.delete, repository_of(request), target)
    else:
        await run_sync(store.manifests.delete_tag, repository_of(request), target)
    return answer_empty(202, {})


async def list_tags(request: Request) -> Response:
    """GET the tags of a repository, sorted, page by page."""
    repository = repository_of(request)
    store = registry_of(request).store
    limit, last = _page(request)
    names = await run_sync(lambda: store.manifests.tags(repository, after=last, limit=limit + 1))
    path = f"/v2/{repository}/tags/list"
    return _listed({"name": repository, "tags": names[:limit]}, names, limit, path)


async def catalog(request: Request) -> Response:
    """GET the repositories, sorted, page by page."""
    store = registry_of(request).store
    limit, last = _page(request)
    names = await run_sync(lambda: store.manifests.repositories(after=last, limit=limit + 1))
    return _listed({"repositories": names[:limit]}, names, limit, "/v2/_catalog")


async def get_referrers(request: Request) -> Response:
    """GET the manifests whose subject is this digest: an index, empty rather than 404."""
    store = registry_of(request).store
    found = await run_sync(store.manifests.referrers, repository_of(request), digest_of(request))
    rows = []
    for one in found:
        annotations = manifest.parse(one.content, content_type=one.media_type).annotations
        row: dict[str, Any] = {
            "mediaType": one.media_type,
            "digest": str(one.digest),
            "size": len(one.content),
        }
        row |= {"artifactType": one.artifact_type} if one.artifact_type else {}
        row |= {"annotations": annotations} if annotations else {}
        rows.append(row)
    headers = {}
    if wanted := request.query_params.get("artifactType"):
        rows = [row for row in rows if row.get("artifactType") == wanted]
        headers["OCI-Filters-Applied"] = "artifactType"
    body = {"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": rows}
    return answer_json(body, media_type=manifest.OCI_INDEX, headers=headers)


async def _finish(request: Request, upload_id: uuid.UUID, expected: Digest) -> Response:
    """Take the rest of the body and make the upload the blob *expected*."""
    repository = repository_of(request)
    store = registry_of(request).store
    with store.uploads.open(repository, upload_id, offset=_part_offset(request)) as upload:
        await _receive(request, upload)
        await run_sync(store.uploads.finish, repository, upload, expected)
    return _created(repository, expected)


async def _receive(request: Request, upload: Upload) -> None:
    """Append the request's body to *upload*; what came before a broken connection stays.

    On a full disk the session ends: what it took is needed to delete and to collect garbage.
    """
    pace = registry_of(request).receiving
    try:
        async for block in _batched(request.stream(), pace.share(_BATCH)):
            await run_sync(upload.write, block)
            if wait := pace.delay(len(block)):
                await sleep(wait)
    except StoreFull:
        await run_sync(registry_of(request).store.uploads.discard, upload)
        raise


async def _batched(blocks: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    try:
        async for block in blocks:
            waiting.append(block)
            size += len(block)
            if size >= most:
                yield b"".join(waiting)
                waiting, size = [], 0
    except ClientDisconnect:
        if size:
            yield b"".join(waiting)
        raise
    if size:
        yield b"".join(waiting)


def _upload_of(request: Request) -> tuple[str, uuid.UUID]:
    text = request.path_params["upload"]
    try:
        return repository_of(request), uuid.UUID(text)
    except ValueError as error:
        raise UploadUnknown(text[:80]) from error


def _part_offset(request: Request) -> int | None:
    """Where the part begins, by its Content-Range (``first-last``, without a unit)."""
    header = request.headers.get("content-range")
    if header is None:
        return None
    first, dash, last = header.removeprefix("bytes ").partition("/")[0].partition("-")
    length = request.headers.get("content-length", "")
    if not (dash and _is_count(first) and _is_count(last)):
        raise HTTPException(400, f"Content-Range {header[:80]!r} is not first-last")
    if _is_count(length) and int(last) - int(first) + 1 != int(length):
        raise HTTPException(400, f"Content-Range {header[:80]!r} is not {length} bytes long")
    return int(first)


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) <= 18  # Python refuses to read thousands of digits


def _tags_asked(request: Request) -> list[str]:
    """The tags of ``?tag=…&tag=…``, which a push by digest may ask for (a draft behind 1.1)."""
    asked = list(dict.fromkeys(request.query_params.getlist("tag")))
    for one in asked:
        if not is_tag(one):
            raise InvalidReference(one, "it is no tag")
    return asked


def _page(request: Request) -> tuple[int, str]:
    text = request.query_params.get("n", str(_MAX_ROWS))
    if not text.isdecimal():
        raise HTTPException(400, "n must be a count")
    return min(int(text[:9]), _MAX_ROWS), request.query_params.get("last", "")


def _listed(body: dict[str, Any], names: list[str], limit: int, path: str) -> Response:
    headers = {}
    if 0 < limit < len(names):
        query = urlencode({"n": limit, "last": names[limit - 1]}, quote_via=quote)
        headers["Link"] = f'<{path}?{query}>; rel="next"'
    return answer_json(body, headers=headers)


def _created(repository: str, digest: Digest) -> Response:
    location = f"/v2/{repository}/blobs/{digest}"
    return answer_empty(201, {"Location": location, "Docker-Content-Digest": str(digest)})


def _session(repository: str, upload_id: uuid.UUID, offset: int, *, status: int) -> Response:
    return answer_empty(status, _session_headers(repository, upload_id, offset))


def _session_headers(repository: str, upload_id: uuid.UUID, offset: int) -> dict[str, str]:
    return {
        "Location": f"/v2/{repository}/blobs/uploads/{upload_id}",
        # an empty session's range is 0-0 too: that is how the reference registry spells it
        "Range": f"0-{max(offset - 1, 0)}",
        "Docker-Upload-UUID": str(upload_id),
    }


def _out_of_order(repository: str, upload_id: uuid.UUID, error: UploadOutOfOrder) -> Response:
    headers = {**API_VERSION, **_session_headers(repository, upload_id, error.offset)}
    return problem(416, "BLOB_UPLOAD_INVALID", str(error), headers)


ROUTES = [
    Route("/v2/", version),
    Route("/v2", version),
    Route("/v2/_catalog", catalog),
    Route("/v2/{name:path}/blobs/uploads/", begin_upload, methods=["POST"]),
    Route("/v2/{name:path}/blobs/uploads", begin_upload, methods=["POST"]),
    Route("/v2/{name:path}/blobs/uploads/{upload}", patch_upload, methods=["PATCH"]),
    Route("/v2/{name:path}/blobs/uploads/{upload}", put_upload, methods=["PUT"]),
    Route("/v2/{name:path}/blobs/uploads/{upload}", get_upload, methods=["GET"]),
    Route("/v2/{name:path}/blobs/uploads/{upload}", delete_upload, methods=["DELETE"]),
    Route("/v2/{name:path}/blobs/{digest}", get_blob, methods=["GET"]),
    Route("/v2/{name:path}/blobs/{digest}", delete_blob, methods=["DELETE"]),
    Route("/v2/{name:path}/manifests/{reference}", get_manifest, methods=["GET"]),
    Route("/v2/{name:path}/manifests/{reference}", put_manifest, methods=["PUT"]),
    Route("/v2/{name:path}/manifests/{reference}", delete_manifest, methods=["DELETE"]),
    Route("/v2/{name:path}/tags/list", list_tags),
    Route("/v2/{name:path}/referrers/{digest}", get_referrers),
]
