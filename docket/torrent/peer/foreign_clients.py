"""Peers that are other programs than docket: while one is here, its requests aren't cut short.

A host of docket's asks a peer for no more blocks ahead than that one takes. Other clients needn't:
libtorrent drops what is too much, and rtorrent then waits a minute for what was dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from docket.torrent.tracker.announce import is_docket, is_registry

_FIRST_LOOK_SECONDS = 0.02
_MEET_SECONDS = 1.0  # after a connection, for its handshake
_SHARE = 20  # looking takes at most one part of so many of the time

_UNKNOWN = bytes(20)

Endpoint = tuple[str, int]


class ForeignClients:
    """Who of a session's peers is a guest; for its alert thread alone."""

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        """*on_change* is told when the first guest has come, and when the last one has left."""
        self._on_change = on_change
        self._foreign_clients: set[Endpoint] = set()
        self._new: dict[Any, float] = {}
        self._next = 0.0

    @property
    def patience(self) -> float | None:
        """Seconds until the next look; None: as long as no peer comes."""
        return max(self._next - time.monotonic(), 0.001) if self._new else None

    def came(self, torrent: Any) -> None:
        """A peer of *torrent* connected; who it is will be known after its handshake."""
        now = time.monotonic()
        if not self._new:
            self._next = max(self._next, now + _FIRST_LOOK_SECONDS)
        self._new[torrent] = now + _MEET_SECONDS

    def left(self, endpoint: Endpoint) -> None:
        """A peer disconnected."""
        if endpoint in self._foreign_clients:
            self._foreign_clients.discard(endpoint)
            if not self._foreign_clients:
                self._on_change(False)

    def look(self) -> None:
        """Find out who came, if it is time to."""
        began = time.monotonic()
        if not self._new or began < self._next:
            return
        before = bool(self._foreign_clients)
        for torrent, until in list(self._new.items()):
            if self._all_known(torrent) or began > until:
                del self._new[torrent]
        now = time.monotonic()
        # a seed with a thousand peers is not to look at them all the time
        self._next = now + max(_FIRST_LOOK_SECONDS, _SHARE * (now - began))
        if self._foreign_clients and not before:
            self._on_change(True)

    def _all_known(self, torrent: Any) -> bool:
        known = True
        with suppress(RuntimeError):  # the torrent has left the session
            for peer in torrent.get_peer_info():
                peer_id = peer.pid.to_bytes()
                if peer_id == _UNKNOWN:
                    known = False
                elif not (is_docket(peer_id) or is_registry(peer_id)):
                    self._foreign_clients.add(peer.ip)
        return known
