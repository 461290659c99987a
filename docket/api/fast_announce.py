"""A fast path for announces, before uvicorn's HTTP protocol.

A tracker gets one small request per connection, from every host, every 15 s. Through the whole
application each costs four times the CPU time, and several turns of the event loop, each of which
waits for the blobs that are being sent. A plain announce that can be answered from memory is
answered as soon as it is read. With any other request the connection becomes uvicorn's, and the
application answers.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from docket.api.services import Registry
from docket.api.tracker import MEDIA_TYPE, PATH, answer_at_once

FIRST_BYTE_SECONDS = 30.0
"""How long a new connection may send nothing."""

WRITE_SECONDS = 30.0
"""How long a peer may leave responses unread."""

_ANNOUNCE = re.compile(rb"GET (%b(?:/[\w.-]+)?)\?([!\"$-~]*) HTTP/1\.1\r\n" % PATH.encode())
_END = b"\r\n\r\n"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n" % MEDIA_TYPE.encode()

_UNUSUAL = re.compile(
    # a body, or more to come; or a proxy, and only the application knows which it trusts
    rb"content-length|transfer-encoding|expect:|upgrade:|x-forwarded-|\nforwarded:"
    # lines that aren't ended as HTTP says may be read in two ways
    rb"|[^\r]\n|\r[^\n]",
    re.IGNORECASE,
)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_MAX_REQUEST = 16 * 1024


class FastAnnounce(asyncio.Protocol):
    """A connection that has brought nothing but announces.

    The state of *config*'s app has the `Registry`, the table of connections and the HTTP protocol
    that all other requests get.
    """

    __slots__ = (
        "_arguments",
        "_changed",
        "_is_new",
        "_is_paused",
        "_keep_alive",
        "_loop",
        "_registry",
        "_table",
        "_timer",
        "_transport",
    )

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._arguments = (config, server_state, app_state, _loop)
        self._registry: Registry = config.app.state.registry
        self._table = config.app.state.connections
        self._keep_alive: float = config.timeout_keep_alive
        self._loop = _loop or asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self._changed = 0.0  # when it was made, or when its peer stopped reading
        self._is_new = True
        self._is_paused = False

    # -- the table's view

    def is_idle(self) -> bool:
        """Whether no response is on its way."""
        return not self._is_paused

    def is_overdue(self, now: float) -> bool:
        """Whether it has waited for its peer for too long."""
        if self._is_paused:
            return now - self._changed > WRITE_SECONDS
        return self._is_new and now - self._changed > FIRST_BYTE_SECONDS

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    # -- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = transport
        self._changed = self._loop.time()
        client = transport.get_extra_info("peername")
        if not self._table.admit(self, client[0] if client else ""):
            self._transport.abort()
            return
        self._arguments[1].connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """The client, or the registry, has closed it."""
        self._close_after(None)
        self._table.remove(self)
        self._arguments[1].connections.discard(self)

    def pause_writing(self) -> None:
        """The peer doesn't read: it gets no more responses."""
        self._is_paused = True
        self._changed = self._loop.time()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer has read."""
        self._is_paused = False
        self._transport.resume_reading()

    def shutdown(self) -> None:
        """Called by uvicorn when the registry stops; this one waits for nothing."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Answer an announce, or leave the connection to uvicorn."""
        self._close_after(None)
        self._is_new = False
        content = self._answer(data)
        if content is None:
            self._hand_over(data)
            return
        close = _CLOSE.search(data) is not None
        length = b"content-length: %d\r\n" % len(content)
        ending = b"connection: close\r\n" if close else b""
        self._transport.write(_HEAD + length + ending + b"\r\n" + content)
        if close:
            self._transport.close()
        else:
            self._close_after(self._keep_alive)

    def _answer(self, data: bytes) -> bytes | None:
        match = _ANNOUNCE.match(data) if len(data) <= _MAX_REQUEST else None
        if match is None or data.find(_END) != len(data) - len(_END) or _UNUSUAL.search(data):
            return None
        client = self._transport.get_extra_info("peername")
        server = self._transport.get_extra_info("sockname")
        if not client or not server:
            return None
        path, query = match.groups()
        return answer_at_once(
            self._registry, path.decode(), query, client=client[0], server=server[0]
        )

    def _hand_over(self, data: bytes) -> None:
        successor = self._arguments[0].app.state.http_protocol(*self._arguments)
        self._arguments[1].connections.discard(self)
        self._table.replace(self, successor)
        self._transport.set_protocol(successor)
        successor.connection_made(self._transport)
        successor.data_received(data)

    def _close_after(self, seconds: float | None) -> None:
        """Close the connection after *seconds* without a request; None: don't."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.shutdown) if seconds else None
