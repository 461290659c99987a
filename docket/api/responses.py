"""Bodies in and out: bounded reads, JSON, and blobs with a single Range (RFC 9110 § 14)."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from docket.errors import InvalidRequest, TooLarge
from docket.rate_limit import RateLimiter
from docket.store import Blob, BlobReader, Store

API_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
"""docker 20.10 asks for this header on every answer."""

# 1 MiB a read served twice what 64 KiB did
_BLOCK = 1 << 20

# more digits than any size has: not a number that Python should be asked to read
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")


def answer_json(
    body: Any,
    *,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """*body* as JSON."""
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type=media_type,
        headers={**API_VERSION, **(headers or {})},
    )


def answer_empty(status: int, headers: Mapping[str, str]) -> Response:
    """No body; a Content-Length all the same, for clients that wait for one."""
    return Response(status_code=status, headers={**API_VERSION, **headers})


def wanted_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one behind the last that a Range header asks of *size* bytes.

    None when the whole is to be sent: no header, several ranges, or one that isn't in bytes.
    ``(size, size)`` when it can't be satisfied.
    """
    match = _RANGE.match(header or "")
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last or size) + 1, size)
    return (start, end) if start < end else (size, size)


async def read_body(request: Request, *, limit: int, what: str) -> bytes:
    """The whole body. Raises `TooLarge` as soon as it is over *limit* bytes."""
    content = bytearray()
    async for block in request.stream():
        content += block
        if len(content) > limit:
            raise TooLarge(what, limit=limit)
    return bytes(content)


def decoded(body: bytes, kind: type[Any]) -> Any:
    """A JSON *body* as a value of *kind*. Raises `InvalidRequest`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the request is not what this call takes: {error}") from error


class BlobAnswer(Response):
    """A blob, or one range of it, read in threads, at a pace.

    Breaks off rather than send a wrong length, or more of a blob that was found to be wrong.
    """

    def __init__(self, store: Store, blob: Blob, request: Request, *, pace: RateLimiter) -> None:
        self._store = store
        self._blob = blob
        self._pace = pace
        self._quarantines = store.blobs.times_quarantined(blob.digest)
        self._head = request.method == "HEAD"
        self._start, self._end = 0, blob.size
        status = 200
        headers = {
            **API_VERSION,
            "Accept-Ranges": "bytes",
            "Docker-Content-Digest": str(blob.digest),
            "ETag": f'"{blob.digest}"',
            "Cache-Control": "max-age=31536000",
        }
        if found := wanted_range(request.headers.get("range"), blob.size):
            self._start, self._end = found
            status = 206
            headers["Content-Range"] = f"bytes {self._start}-{self._end - 1}/{blob.size}"
            if self._start == self._end:
                status = 416
                headers["Content-Range"] = f"bytes */{blob.size}"
        headers["Content-Length"] = str(self._end - self._start)
        super().__init__(status_code=status, headers=headers, media_type="application/octet-stream")

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        # open before the first byte of the answer: a blob that has just gone is a clean 404
        reader = await run_sync(self._store.blobs.open, self._blob.digest)
        with reader:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if not self._head:
                await self._send_body(reader, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_body(self, reader: BlobReader, send: Send) -> None:
        offset = self._start
        most = self._pace.share(_BLOCK)
        while offset < self._end:
            if self._store.blobs.times_quarantined(self._blob.digest) != self._quarantines:
                raise OSError(f"{self._blob.digest} was found to be wrong")
            count = min(most, self._end - offset)
            block: bytes | bytearray | None = _cached(reader.fileno(), count, offset)
            if block is None:
                block = await run_sync(reader.pread, count, offset)
            if not block:
                raise OSError(f"the file of {self._blob.digest} ends at byte {offset}")
            offset += len(block)
            await send({"type": "http.response.body", "body": block, "more_body": True})
            # a fast reader takes all at once: others are served between the blocks all the same
            await asyncio.sleep(self._pace.delay(len(block)))


def _cached(descriptor: int, count: int, offset: int) -> bytearray | None:
    """Bytes that the page cache holds, without going to a thread; None when a disk must be read."""
    block = bytearray(count)
    try:
        got = os.preadv(descriptor, [block], offset, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: not cached; EOPNOTSUPP: a filesystem that can't tell
        return None
    return block if got == count else None
