"""All connections of the registry: how many an address may have, and which have waited too long."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Container
from typing import Protocol

_SHARE = 3
"""Descriptors a connection may need: its socket, a blob that it reads, one it writes."""

_RESERVED = 256
"""Descriptors that are left for the store and the seed."""

_MOST = 20_000

log = logging.getLogger("docket")


class Connection(Protocol):
    """A connection, whatever it is used for at the moment."""

    def is_idle(self) -> bool:
        """Whether nothing of a request has come, and no response is on its way."""

    def is_overdue(self, now: float) -> bool:
        """Whether it has waited for its client for too long; *now* as the event loop's time."""

    def abort(self) -> None:
        """End it at once."""


class ConnectionTable:
    """Bounds connections in all and by address; idle ones make room for new ones."""

    def __init__(self, descriptors: int, *, unlimited: Container[str] = ()) -> None:
        """*descriptors* are those of the process. An *unlimited* address may have all connections:
        that of a proxy."""
        self.limit = max(min((descriptors - _RESERVED) // _SHARE, _MOST), 64)
        # enough for a fleet behind one address, and not all
        self.limit_by_address = self.limit * 3 // 4
        self._unlimited = unlimited
        self._addresses: dict[Connection, str] = {}  # oldest first
        self._counts: Counter[str] = Counter()
        self._is_refusing = False

    def __len__(self) -> int:
        return len(self._addresses)

    def admit(self, connection: Connection, address: str) -> bool:
        """Take the new *connection* from *address*; False when it has no place."""
        key = _key(address)
        if self._counts[key] >= self.limit_by_address and address not in self._unlimited:
            if not self._end_idle(key):
                return False
        elif len(self) >= self.limit and not self._end_idle(None):
            return False
        self._addresses[connection] = key
        self._counts[key] += 1
        self._is_refusing = False
        return True

    def replace(self, connection: Connection, successor: Connection) -> None:
        """The same connection with another protocol."""
        if (key := self._addresses.pop(connection, None)) is not None:
            self._addresses[successor] = key

    def remove(self, connection: Connection) -> None:
        """The connection is closed; a no-op when it isn't here."""
        if (key := self._addresses.pop(connection, None)) is None:
            return
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]

    def end_overdue(self, now: float) -> None:
        """End the connections that have waited for their clients for too long."""
        overdue = [connection for connection in self._addresses if connection.is_overdue(now)]
        for connection in overdue:
            connection.abort()

    def _end_idle(self, key: str | None) -> bool:
        """Close the oldest idle connection (of the address *key*); whether there was one."""
        for connection, address in self._addresses.items():
            if key in (None, address) and connection.is_idle():
                self.remove(connection)
                connection.abort()
                return True
        if not self._is_refusing:
            log.warning("%d connections are open and none is idle; refusing new ones", len(self))
        self._is_refusing = True
        return False


def _key(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: one host may have all addresses in it."""
    if ":" not in address:
        return address
    if "." in address:
        return address.rpartition(":")[2]
    try:
        return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8].hex()
    except OSError:
        return address
