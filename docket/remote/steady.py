"""HTTP connections whose responses must keep coming, and whose lines end.

A socket's timeout is for each read alone: a server that sends a byte a minute would be waited for
forever. These count the seconds of all reads of a response, its headers included.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any, cast
from weakref import WeakSet

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

SLOWEST_RATE = 4096
"""Bytes a second that a response must have on average, beyond the socket's timeout."""

_MAX_LINE = 65540
"""More than `http.client` takes for a header; urllib3 has no limit for the size of a chunk."""


class TooSlow(OSError):
    """A response came too slowly."""


class _Incoming(io.RawIOBase):
    """A socket's bytes. Raises `TooSlow` when they don't keep up with `SLOWEST_RATE`."""

    def __init__(self, source: socket.SocketIO, seconds: float) -> None:
        self._source = source
        self._seconds = seconds
        self._waited = 0.0
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int | None:
        began = time.monotonic()
        count = self._source.readinto(target)
        self._waited += time.monotonic() - began
        self._received += count or 0
        if self._waited > self._seconds + self._received / SLOWEST_RATE:
            raise TooSlow(f"only {self._received} bytes came in {self._waited:.0f} s")
        return count

    def fileno(self) -> int:
        return self._source.fileno()

    def close(self) -> None:
        self._source.close()
        super().close()


class _BoundedLines(io.BufferedReader):
    """Buffered bytes; a line of `_MAX_LINE` bytes or more is an OSError."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(_MAX_LINE if size is None or size < 0 else size)
        if len(line) >= _MAX_LINE:
            raise OSError("a line has no end")
        return line


class _SteadyResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        seconds = sock.gettimeout()
        if seconds is not None:
            incoming = _Incoming(cast(socket.SocketIO, self.fp.detach()), seconds)
            self.fp = _BoundedLines(incoming)


class _Plain(HTTPConnection):
    response_class = _SteadyResponse
    sockets: WeakSet[socket.socket]

    def connect(self) -> None:
        super().connect()
        self.sockets.add(self.sock)


class _Encrypted(HTTPSConnection):
    response_class = _SteadyResponse
    sockets: WeakSet[socket.socket]

    def connect(self) -> None:
        super().connect()
        self.sockets.add(self.sock)


def make_steady(pool: urllib3.PoolManager, sockets: WeakSet[socket.socket]) -> None:
    """From now on, *pool* makes connections of this module; their sockets are in *sockets*."""
    plain = type("Plain", (_Plain,), {"sockets": sockets})
    encrypted = type("Encrypted", (_Encrypted,), {"sockets": sockets})
    pool.pool_classes_by_scheme = {
        "http": type("PlainPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type(
            "EncryptedPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": encrypted}
        ),
    }
