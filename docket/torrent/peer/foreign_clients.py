"""Notices who connects: docket's peers, and BitTorrent clients other than docket.

A docket host requests no more blocks ahead than its peer accepts. Other clients may: libtorrent
drops the surplus, and rtorrent then waits a minute for what was dropped. So while such a client is
connected, the session accepts longer request queues.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from docket.torrent.peer.handles import Endpoint, TorrentHandle
from docket.torrent.peer_id import is_docket, is_registry

_FIRST_LOOK_SECONDS = 0.02
_HANDSHAKE_SECONDS = 1.0
_LOOK_SHARE = 20  # looking takes at most a 20th of the time

_UNKNOWN = bytes(20)


class ForeignClients:
    """Which peers of a session aren't docket's; for its alert thread alone."""

    def __init__(
        self,
        on_change: Callable[[bool], None],
        on_peer: Callable[[bytes, bytes, str], None] = lambda *_peer: None,
    ) -> None:
        """*on_change* is called with whether any is connected, when that changes.

        *on_peer* is called with info-hash, id and address of each peer after its handshake.
        """
        self._on_change = on_change
        self._on_peer = on_peer
        self._met: set[Endpoint] = set()
        self._foreign_clients: set[Endpoint] = set()
        self._new: dict[TorrentHandle, float] = {}
        self._next = 0.0

    @property
    def next_look_seconds(self) -> float | None:
        """Seconds until the next look; None as long as no peer connects."""
        return max(self._next - time.monotonic(), 0.001) if self._new else None

    def connected(self, torrent: TorrentHandle) -> None:
        """A peer of *torrent* connected; its id will be known after its handshake."""
        now = time.monotonic()
        if not self._new:
            self._next = max(self._next, now + _FIRST_LOOK_SECONDS)
        self._new[torrent] = now + _HANDSHAKE_SECONDS

    def disconnected(self, endpoint: Endpoint) -> None:
        """A peer disconnected."""
        self._met.discard(endpoint)
        if endpoint in self._foreign_clients:
            self._foreign_clients.discard(endpoint)
            if not self._foreign_clients:
                self._on_change(False)

    def look(self) -> None:
        """Read the ids of new peers, if it is time to."""
        began = time.monotonic()
        if not self._new or began < self._next:
            return
        before = bool(self._foreign_clients)
        for torrent, until in list(self._new.items()):
            if self._all_known(torrent) or began > until:
                del self._new[torrent]
        now = time.monotonic()
        # listing a thousand peers takes milliseconds
        self._next = now + max(_FIRST_LOOK_SECONDS, _LOOK_SHARE * (now - began))
        if self._foreign_clients and not before:
            self._on_change(True)

    def _all_known(self, torrent: TorrentHandle) -> bool:
        is_listed = True
        with suppress(RuntimeError):  # the torrent has left the session
            info_hash = torrent.info_hash().to_bytes()
            for peer in torrent.get_peer_info():
                peer_id = peer.pid.to_bytes()
                if peer_id == _UNKNOWN:
                    is_listed = False
                elif peer.ip not in self._met:
                    self._met.add(peer.ip)
                    self._on_peer(info_hash, peer_id, peer.ip[0])
                    if not (is_docket(peer_id) or is_registry(peer_id)):
                        self._foreign_clients.add(peer.ip)
        return is_listed
