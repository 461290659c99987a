"""Bodies in and out: bounded reads, JSON, and blobs with a single Range (RFC 9110 § 14)."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from docket.api.services import Threads, registry_of
from docket.errors import InvalidRequest, TooLarge, WrongMediaType
from docket.rate_limit import RateLimiter
from docket.store import Blob, BlobReader, Store

API_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
"""docker 20.10 needs this header on every response."""

_BLOCK = 128 * 1024
"""Bytes of a blob that are read at a time: two such blocks are held for each slow reader."""

_SMALL_BLOCK = 64 * 1024

_T = TypeVar("_T")

# more digits than any size has: not a number that Python should be asked to read
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})\Z")


def json_response(
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


def empty_response(status: int, headers: Mapping[str, str]) -> Response:
    """No body; a Content-Length all the same, for clients that wait for one."""
    return Response(status_code=status, headers={**API_VERSION, **headers})


def wanted_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the end (exclusive) that a Range header requests of *size* bytes.

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


async def read_json(
    request: Request, message_type: type[_T], *, limit: int, optional: bool = False
) -> _T:
    """The body as a value of *kind*; with *optional*, an empty one is ``{}``.

    A web page can send other types than application/json to any server without a preflight request,
    so they are refused. Raises `InvalidRequest`, `WrongMediaType`, or `TooLarge`.
    """
    body = await read_body(request, limit=limit, what="the request")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and (body or media_type or not optional):
        raise WrongMediaType(media_type)
    return await registry_of(request).threads.parse(lambda: decoded(body or b"{}", message_type))


async def read_body(request: Request, *, limit: int, what: str) -> bytes:
    """The whole body. Raises `TooLarge` as soon as it exceeds *limit* bytes."""
    content = bytearray()
    async for block in request.stream():
        content += block
        if len(content) > limit:
            raise TooLarge(what, limit=limit)
    return bytes(content)


def decoded(body: bytes, message_type: type[_T]) -> _T:
    """A JSON *body* as a value of *kind*. Raises `InvalidRequest`."""
    try:
        return msgspec.json.decode(body, type=message_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the request is not what this call takes: {error}") from error


class StreamedBytes(Response):
    """*parts* in sequence, in small blocks: no copy of them is held for a slow reader."""

    def __init__(self, parts: Sequence[memoryview], *, headers: Mapping[str, str]) -> None:
        self._parts = parts
        length = {"Content-Length": str(sum(map(len, parts)))}
        super().__init__(headers={**headers, **length}, media_type="application/octet-stream")

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        for part in self._parts if scope["method"] != "HEAD" else ():
            for offset in range(0, len(part), _SMALL_BLOCK):
                block = bytes(part[offset : offset + _SMALL_BLOCK])
                await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class BlobSource(Protocol):
    """What sends blobs: a store, the threads that read it, and the rate that all share."""

    @property
    def store(self) -> Store: ...
    @property
    def threads(self) -> Threads: ...
    @property
    def sending(self) -> RateLimiter: ...


class BlobResponse(Response):
    """A blob, or one range of it, read in threads, at a limited rate.

    Breaks off rather than send a wrong length, or more of a blob that turned out damaged.
    """

    def __init__(self, source: BlobSource, blob: Blob, request: Request) -> None:
        self._store = source.store
        self._threads = source.threads
        self._rate_limiter = source.sending
        self._blob = blob
        self._quarantines = self._store.blobs.times_quarantined(blob.digest)
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
        if wanted := wanted_range(request.headers.get("range"), blob.size):
            self._start, self._end = wanted
            status = 206
            headers["Content-Range"] = f"bytes {self._start}-{self._end - 1}/{blob.size}"
            if self._start == self._end:
                status = 416
                headers["Content-Range"] = f"bytes */{blob.size}"
        headers["Content-Length"] = str(self._end - self._start)
        super().__init__(status_code=status, headers=headers, media_type="application/octet-stream")

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        if self._blob.size <= _BLOCK and not self._head:
            await self._send_small(send)
            return
        # open before the first byte of the response: a blob that has just gone is a clean 404
        reader = await self._threads.read(lambda: self._store.blobs.open(self._blob.digest))
        with reader:
            # so is a disk that fails at the first bytes a clean 503
            block = b"" if self._head else await self._read(reader, self._start)
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            await self._send_body(reader, block, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_small(self, send: Send) -> None:
        """A small blob, such as a config, is verified each time: it is unknown if it has rotted."""
        content = await self._threads.read(lambda: self._store.blobs.read(self._blob.digest))
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        body = content[self._start : self._end]
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _send_body(self, reader: BlobReader, block: bytes | bytearray, send: Send) -> None:
        offset = self._start
        while block:
            offset += len(block)
            await send({"type": "http.response.body", "body": block, "more_body": True})
            # a fast reader takes all at once: others are served between the blocks all the same
            await asyncio.sleep(self._rate_limiter.delay(len(block)))
            block = await self._read(reader, offset)

    async def _read(self, reader: BlobReader, offset: int) -> bytes | bytearray:
        """The next block from *offset* on; empty at the end of what is to be sent."""
        if offset >= self._end:
            return b""
        if self._store.blobs.times_quarantined(self._blob.digest) != self._quarantines:
            raise OSError(f"{self._blob.digest} is damaged")
        count = min(self._rate_limiter.share(_BLOCK), self._end - offset)
        block: bytes | bytearray | None = _cached(reader.fileno(), count, offset)
        if block is None:
            block = await self._threads.read_block(partial(reader.pread, count, offset))
        if not block:
            raise OSError(f"the file of {self._blob.digest} ends at byte {offset}")
        return block


def _cached(descriptor: int, count: int, offset: int) -> bytearray | None:
    """Bytes that the page cache holds, without going to a thread; None when a disk must be read."""
    block = bytearray(count)
    try:
        got = os.preadv(descriptor, [block], offset, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: not cached; EOPNOTSUPP: a filesystem that can't tell
        return None
    return block if got == count else None
