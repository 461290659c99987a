"""A blob that is on its way here from another registry, sent while it comes."""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from docket.api.responses import API_VERSION, BlobResponse, wanted_range
from docket.api.services import Registry
from docket.errors import DocketError
from docket.upstream.arriving import ArrivingBlob

_BLOCK = 128 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
"""Seconds between two looks at a blob that has not come further."""


class ArrivingBlobResponse(Response):
    """A blob, or one range of it; breaks off when it doesn't come, or turns out to be wrong."""

    def __init__(self, registry: Registry, blob: ArrivingBlob, request: Request) -> None:
        self._registry = registry
        self._blob = blob
        self._request = request
        self._start, self._end = 0, blob.size
        status = 200
        headers = {
            **API_VERSION,
            "Accept-Ranges": "bytes",
            "Docker-Content-Digest": str(blob.digest),
            "ETag": f'"{blob.digest}"',
        }
        if chosen := wanted_range(request.headers.get("range"), blob.size):
            self._start, self._end = chosen
            status = 206 if self._start < self._end else 416
            part = f"{self._start}-{self._end - 1}" if status == 206 else "*"
            headers["Content-Range"] = f"bytes {part}/{blob.size}"
        headers["Content-Length"] = str(self._end - self._start)
        super().__init__(status_code=status, headers=headers, media_type="application/octet-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._blob.opened() as is_open:
            if is_open:
                await self._send(send)
                return
        # it came meanwhile
        registry, digest = self._registry, self._blob.digest
        stored = await registry.threads.read(lambda: registry.store.blobs.get(digest))
        await BlobResponse(registry, stored, self._request)(scope, receive, send)

    async def _send(self, send: Send) -> None:
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        if self._request.method != "HEAD":
            try:
                await self._send_body(send)
            except DocketError:  # the fetch has logged it
                return  # the server closes a connection whose response has no end
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_body(self, send: Send) -> None:
        offset, pause = self._start, _FIRST_PAUSE
        limiter = self._registry.sending
        most = limiter.share(_BLOCK)
        while offset < self._end:
            count = min(most, self._end - offset)
            block = await self._registry.threads.read_block(partial(self._blob.read, offset, count))
            if block:
                offset, pause = offset + len(block), _FIRST_PAUSE
                await send({"type": "http.response.body", "body": block, "more_body": True})
                await asyncio.sleep(limiter.delay(len(block)))
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)
