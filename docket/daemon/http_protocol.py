"""uvicorn's HTTP with bounds on what a client may make the registry hold, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from docket.daemon.connection_table import ConnectionTable

MAX_HEADER_BYTES = 64 * 1024
"""Bytes of a request line with its header fields; of what follows a body too."""

MAX_HEADERS = 128
"""Header fields of one request."""

MAX_PIPELINED = 64
"""Requests that wait on one connection for the response to an earlier one."""

FIRST_BYTE_SECONDS = 30.0
HEADER_SECONDS = 30.0
"""From the first byte of a request to the end of its header fields."""

BODY_SECONDS = 60.0
"""Between two blocks of a body."""

WRITE_SECONDS = 60.0
"""How long a client may take nothing of a response."""

UNREAD_SECONDS = 10.0
"""How long the rest of a body may come after the response has been sent."""


class _TooMuch(Exception):
    """A client sent more than a bound allows; *status* is the response."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


class BoundedHttp(HttpToolsProtocol):
    """A connection that sends HTTP requests; its app's state has the `ConnectionTable`."""

    def __init__(self, config: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        self._table: ConnectionTable = config.app.state.connections
        self._in_headers = False
        self._in_message = False
        self._header_count = 0
        self._unparsed = 0  # bytes since the last block of a body, or since a request began
        self._status = 400
        self._changed = 0.0  # when the client last sent or took something
        self._unsent = 0
        self._running: Any = None

    # -- the table's view

    def is_idle(self) -> bool:
        """Whether nothing of a request has come, and no response is on its way."""
        return not self._in_message and (self.cycle is None or self.cycle.response_complete)

    def is_overdue(self, now: float) -> bool:
        """Whether it has waited for its client for too long."""
        if self.flow.write_paused:
            return self._is_stalled(now)
        return now - self._changed > self._patience()

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def _is_stalled(self, now: float) -> bool:
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._changed = unsent, now
        return now - self._changed > WRITE_SECONDS

    def _patience(self) -> float:
        """How long the client may take for what is expected of it next."""
        cycle = self.cycle
        if self.flow.read_paused:
            return float("inf")  # the registry's turn
        if self._in_headers:
            return HEADER_SECONDS
        if cycle is None:
            return FIRST_BYTE_SECONDS
        if cycle.response_complete:
            return UNREAD_SECONDS if self._in_message else float("inf")
        if cycle.more_body and not cycle.waiting_for_100_continue:
            return BODY_SECONDS
        return float("inf")

    # -- asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection begins, or is taken over with its first bytes."""
        super().connection_made(transport)
        self._changed = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client, or the registry, has closed it."""
        self._table.remove(self)
        self.flow.read_paused = False  # a closed transport can't be told to read on
        if self._running and not self._running.response_complete:
            # uvicorn tells the latest request alone, though an earlier one may be running
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless there is too much of it."""
        if not self._in_headers and not (self.cycle and self.cycle.response_complete):
            self._changed = self.loop.time()
        self._unparsed += len(data)
        super().data_received(data)
        # what isn't finished yet is kept by the parser
        if self._unparsed - len(data) > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._status = 431
            self.send_400_response("Too much before a body or after it.")

    def resume_writing(self) -> None:
        """The client has taken what was sent."""
        self._changed = self.loop.time()
        super().resume_writing()

    # -- the parser's callbacks; an exception ends the connection

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_headers = self._in_message = True
        self._header_count = 0
        self._changed = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        super().on_url(url)
        if len(self.url) > MAX_HEADER_BYTES:
            self._refuse(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or one behind a body, of which docket has no use."""
        self._header_count += 1
        if self._header_count > MAX_HEADERS:
            self._refuse(431)
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._in_headers = False
        self._unparsed = 0
        self._changed = self.loop.time()
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINED:
            self._refuse(429)

    def on_body(self, body: bytes) -> None:
        """A block of a body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_message = False
        self._unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The response is whole; the rest of the request may not take long."""
        self._changed = self.loop.time()
        super().on_response_complete()
        if self.pipeline and not self.transport.is_closing():
            self.flow.pause_reading()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, or too much of one, and close the connection."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # a second response in the middle of the first would be noise
            return
        code = "UNSUPPORTED" if self._status == 400 else "SIZE_INVALID"
        body = msgspec.json.encode({"errors": [{"code": code, "message": msg, "detail": None}]})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[self._status] + head % len(body) + body)
        self.transport.close()

    def _refuse(self, status: int) -> None:
        self._status = status
        raise _TooMuch(status)
