"""A short way for announces, before uvicorn's HTTP protocol.

A tracker gets one small request a connection, from every host, again and again. Through the whole
application it costs four times the CPU time, and several turns of the event loop, each of which
waits for the blobs that are being sent. A plain announce that can be answered from memory is
answered as soon as it is read; the connection of every other request is uvicorn's from then on, and
the application answers, announces too.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from docket.api.services import Registry
from docket.api.tracker import MEDIA_TYPE, PATH, answer_at_once

_ANNOUNCE = re.compile(rb"GET (%b(?:/[\w.-]+)?)\?([!\"$-~]*) HTTP/1\.1\r\n" % PATH.encode())
_END = b"\r\n\r\n"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n" % MEDIA_TYPE.encode()

_UNUSUAL = re.compile(
    # a body, or more to come; or a proxy, and uvicorn knows whom it trusts
    rb"content-length|transfer-encoding|expect:|upgrade:|x-forwarded-"
    # lines that aren't ended as HTTP says may be read in two ways
    rb"|[^\r]\n|\r[^\n]",
    re.IGNORECASE,
)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


class TrackerFirst(asyncio.Protocol):
    """A connection that has brought nothing but announces; *config*'s app has the `Registry`."""

    __slots__ = ("_arguments", "_loop", "_patience", "_registry", "_timer", "_transport")

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._arguments = (config, server_state, app_state, _loop)
        self._registry: Registry = config.app.state.registry
        self._patience: float = config.timeout_keep_alive
        self._loop = _loop or asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = transport
        self._arguments[1].connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """The client, or we, have gone."""
        self._rest(None)
        self._arguments[1].connections.discard(self)

    def shutdown(self) -> None:
        """uvicorn asks all its connections to end; this one waits for nothing."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Answer an announce, or leave the connection to uvicorn."""
        self._rest(None)
        content = self._answer(data)
        if content is None:
            self._give_up(data)
            return
        close = _CLOSE.search(data) is not None
        length = b"content-length: %d\r\n" % len(content)
        ending = b"connection: close\r\n" if close else b""
        self._transport.write(_HEAD + length + ending + b"\r\n" + content)
        if close:
            self._transport.close()
        else:
            self._rest(self._patience)

    def _answer(self, data: bytes) -> bytes | None:
        found = _ANNOUNCE.match(data)
        if found is None or data.find(_END) != len(data) - len(_END) or _UNUSUAL.search(data):
            return None
        client = self._transport.get_extra_info("peername")
        server = self._transport.get_extra_info("sockname")
        if not client or not server:
            return None
        path, query = found.groups()
        return answer_at_once(
            self._registry, path.decode(), query, client=client[0], server=server[0]
        )

    def _give_up(self, data: bytes) -> None:
        usual = HttpToolsProtocol(*self._arguments)
        self._arguments[1].connections.discard(self)
        self._transport.set_protocol(usual)
        usual.connection_made(self._transport)
        usual.data_received(data)

    def _rest(self, seconds: float | None) -> None:
        """End the connection after so many *seconds* without a request; None: don't."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.shutdown) if seconds else None
