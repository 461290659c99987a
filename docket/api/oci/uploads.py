"""Upload sessions of the OCI distribution API 1.1: begin, append, finish, cancel."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CancelScope, sleep
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.errors import problem
from docket.api.oci.writers import Writer
from docket.api.responses import API_VERSION, empty_response
from docket.api.services import registry_of, repository_of
from docket.errors import StoreFull, UploadOutOfOrder, UploadUnknown
from docket.oci.digest import Digest
from docket.oci.reference import parse_repository
from docket.store import Upload

# blocks of a body are put together to this many bytes before a thread takes them
_BATCH = 1 << 20


async def begin_upload(request: Request) -> Response:
    """POST: a session, a whole blob in one request, or a mount."""
    repository = repository_of(request)
    registry = registry_of(request)
    store, query = registry.store, request.query_params
    if mount := query.get("mount"):
        digest = Digest.parse(mount)
        source = parse_repository(query["from"]) if "from" in query else None
        if await registry.threads.write(
            lambda: store.blobs.mount(digest, repository=repository, source=source)
        ):
            return _created(repository, digest)
    digest_text = query.get("digest")
    expected = Digest.parse(digest_text) if digest_text else None
    upload_id = await registry.threads.write(lambda: store.uploads.begin(repository))
    if expected is None:
        return _session(repository, upload_id, 0, status=202)
    return await _finish(request, upload_id, expected, is_whole=True)


async def patch_upload(request: Request) -> Response:
    """PATCH: the next part, of any length, of an upload."""
    repository, upload_id = _upload_of(request)
    try:
        async with _writing(request, repository, upload_id) as (upload, writer):
            await _receive(request, upload, writer)
            offset = await registry_of(request).threads.write(lambda: upload.offset)
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
    """GET: how many bytes the upload has."""
    repository, upload_id = _upload_of(request)
    registry = registry_of(request)
    offset = await registry.threads.read(
        lambda: registry.store.uploads.offset(repository, upload_id)
    )
    return _session(repository, upload_id, offset, status=204)


async def delete_upload(request: Request) -> Response:
    """DELETE: cancel the upload."""
    repository, upload_id = _upload_of(request)
    registry = registry_of(request)
    async with registry.writers.only(upload_id):
        await registry.threads.write(lambda: registry.store.uploads.cancel(repository, upload_id))
    return empty_response(204, {})


async def _finish(
    request: Request, upload_id: uuid.UUID, expected: Digest, *, is_whole: bool = False
) -> Response:
    """Take the rest of the body and make the upload the blob *expected*.

    If the request *is_whole*, the client knows no session: one that breaks off leaves none.
    """
    repository = repository_of(request)
    registry = registry_of(request)
    async with _writing(request, repository, upload_id) as (upload, writer):
        try:
            await _receive(request, upload, writer)
        except (ClientDisconnect, UploadOutOfOrder):
            if is_whole:
                await registry.threads.write(lambda: registry.store.uploads.discard(upload))
            raise
        await registry.threads.write(
            lambda: registry.store.uploads.finish(repository, upload, expected)
        )
    return _created(repository, expected)


@asynccontextmanager
async def _writing(
    request: Request, repository: str, upload_id: uuid.UUID
) -> AsyncIterator[tuple[Upload, Writer]]:
    """The session, open for this request alone; opened and closed in threads."""
    registry = registry_of(request)
    offset = _part_offset(request)
    async with registry.writers.only(upload_id) as writer:
        session = registry.store.uploads.open(repository, upload_id, offset=offset)
        upload = await registry.threads.write(session.__enter__)
        try:
            yield upload, writer
        finally:
            error = sys.exc_info()
            with CancelScope(shield=True):
                await registry.threads.write(lambda: session.__exit__(*error))


async def _receive(request: Request, upload: Upload, writer: Writer) -> None:
    """Append the request's body to *upload*; what came before a broken connection stays.

    On a full disk the session ends: what it took is needed to delete and to collect garbage.
    """
    registry = registry_of(request)
    rate_limiter = registry.receiving
    blocks = _batched(writer.watched(request.stream()), rate_limiter.share(_BATCH))
    try:
        async for block in blocks:
            await registry.threads.write(lambda block=block: upload.write(block))  # type: ignore[misc]
            if wait := rate_limiter.delay(len(block)):
                await sleep(wait)
    except StoreFull:
        await registry.threads.write(lambda: registry.store.uploads.discard(upload))
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
    # Python refuses to read thousands of digits
    return text.isascii() and text.isdigit() and len(text) <= 18


def _created(repository: str, digest: Digest) -> Response:
    location = f"/v2/{repository}/blobs/{digest}"
    return empty_response(201, {"Location": location, "Docker-Content-Digest": str(digest)})


def _session(repository: str, upload_id: uuid.UUID, offset: int, *, status: int) -> Response:
    return empty_response(status, _session_headers(repository, upload_id, offset))


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
    Route("/v2/{name:path}/blobs/uploads/", begin_upload, methods=["POST"]),
    Route("/v2/{name:path}/blobs/uploads", begin_upload, methods=["POST"]),
    Route("/v2/{name:path}/blobs/uploads/{upload}", patch_upload, methods=["PATCH"]),
    Route("/v2/{name:path}/blobs/uploads/{upload}", put_upload, methods=["PUT"]),
    Route("/v2/{name:path}/blobs/uploads/{upload}", get_upload, methods=["GET"]),
    Route("/v2/{name:path}/blobs/uploads/{upload}", delete_upload, methods=["DELETE"]),
]
