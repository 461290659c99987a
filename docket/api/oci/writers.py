"""Which request writes to an upload session; one takes over from a client that fell silent."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CancelScope, Event

from docket.errors import UploadConflict

SILENT_SECONDS = 10.0
"""A client that sent nothing for so long loses its session to another request.

Its machine may have died without closing the connection, and the other request may be its own.
"""


class Writer:
    """The request that writes to a session; used on the event loop alone."""

    def __init__(self) -> None:
        self.scope = CancelScope()
        self.ended = Event()
        self.has_left = False  # its client has closed the connection; it stores what had come
        self._waiting_since: float | None = None

    def is_silent(self) -> bool:
        """Whether its client has sent nothing for `SILENT_SECONDS`."""
        since = self._waiting_since
        return since is not None and time.monotonic() - since > SILENT_SECONDS

    async def watched(self, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same *blocks*; it is known when the client is waited for."""
        while True:
            self._waiting_since = time.monotonic()
            try:
                block = await anext(blocks)
            except StopAsyncIteration:
                return
            except BaseException:
                self.has_left = True
                raise
            finally:
                self._waiting_since = None
            yield block


class Writers:
    """All requests that write to sessions; used on the event loop alone."""

    def __init__(self) -> None:
        self._writers: dict[uuid.UUID, Writer] = {}

    @asynccontextmanager
    async def only(self, upload_id: uuid.UUID) -> AsyncIterator[Writer]:
        """Be the only writer of the session.

        Raises `UploadConflict` when another writes, or when another has taken over.
        """
        while current := self._writers.get(upload_id):
            if current.is_silent():
                current.scope.cancel()
            elif not current.has_left:
                raise UploadConflict(upload_id)
            await current.ended.wait()
        writer = Writer()
        self._writers[upload_id] = writer
        try:
            with writer.scope:
                yield writer
        finally:
            del self._writers[upload_id]
            writer.ended.set()
        if writer.scope.cancelled_caught:
            raise UploadConflict(upload_id)
