"""Settings of a session that follow what its downloads meet in their swarms."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, Protocol

from docket.torrent.peer_id import is_registry

BLOCK = 16 * 1024
"""Bytes of a block: what a peer requests at a time (BEP 3)."""

REQUEST_DEPTH = 64
"""Blocks that a peer may have requested of another and not received yet.

A peer announces it when it connects and can't change it later, so a download lowers its own depth
with `SessionTuning.set_request_depth`. With latency it limits the rate: 64 bring 1 MB a round trip.
"""

SWARM_DEPTH = 2
"""The same in a large swarm, or where that is enough."""

LARGE_SWARM = 8
"""With this many other hosts that fetch, two outstanding blocks from each are enough.

They are 0.3 MB then: what 10 Gb/s bring in 0.2 ms.
"""

_ANSWER_SECONDS = 0.001
"""How long a peer takes to answer, beside the network's latency."""

_FAILURES_TO_BAN = 2  # the first may have been another host behind the same address

Endpoint = tuple[str, int]


class Tunable(Protocol):
    """The part of a session whose settings change; calls after its end are no-ops."""

    def apply(self, name: str, value: object) -> None: ...
    def block_addresses(self, addresses: set[str]) -> None: ...


def depth(others: int, *, rate: float, trip_seconds: float) -> int:
    """How many blocks to have outstanding at each peer, with *others* hosts that fetch here too.

    Blocks that several hosts requested of one seed wait in its queue, for seconds on slow links;
    meanwhile a host that could get them from other hosts gets them twice. So the depth is low as
    long as it holds twice the bytes that arrive in a round trip: then the links are full.
    *rate* is the download rate in bytes a second; *trip_seconds* the round trip to the registry.
    """
    if not others:
        return REQUEST_DEPTH
    fits = SWARM_DEPTH * BLOCK * (others + 1)
    needed = 2 * rate * (trip_seconds + _ANSWER_SECONDS)
    return SWARM_DEPTH if others >= LARGE_SWARM or needed < fits else REQUEST_DEPTH


class SessionTuning:
    """The settings of one session that follow its downloads, each by its info-hash.

    A setting belongs to the whole session: it is changed as long as any download needs it.
    """

    def __init__(self, session: Tunable) -> None:
        self._session = session
        self._lock = threading.Lock()  # the alert thread bans while others fetch
        self._shallow: set[bytes] = set()
        self._in_end_game: set[bytes] = set()
        self._disconnected: dict[bytes, set[Endpoint]] = {}
        self._failures: Counter[str] = Counter()

    def set_request_depth(self, info_hash: bytes, blocks: int) -> None:
        """Have at most *blocks* outstanding at each peer: `SWARM_DEPTH` or `REQUEST_DEPTH`."""
        # libtorrent counts in seconds of what a peer sends; 0 means two blocks
        values = (1, 0)
        is_shallow = blocks == SWARM_DEPTH
        self._set(self._shallow, info_hash, is_shallow, "request_queue_time", values)

    def set_end_game(self, info_hash: bytes, stalled: bool) -> None:
        """When nothing arrives, request outstanding blocks of other peers too.

        libtorrent's strict rule does so after 5 s only; always, hosts would get 3 to 10 % twice.
        """
        values = (True, False)
        self._set(self._in_end_game, info_hash, stalled, "strict_end_game_mode", values)

    def disconnect_registry(self, torrent: Any, is_idle: bool) -> None:
        """Disconnect from the registry's seed while the download *is_idle*; then reconnect.

        While connected, a peer with nothing else to request asks the seed for what it could have
        from other hosts, and takes the seed's time from those who need it. Only a whole address can
        be blocked, so one that other peers share with the registry stays connected.
        """
        info_hash = torrent.info_hash().to_bytes()
        with self._lock:
            before = self._disconnected.get(info_hash, set())
        if is_idle:
            peers = torrent.get_peer_info()
            seeds = {peer.ip for peer in peers if is_registry(peer.pid.to_bytes())}
            shared = {peer.ip[0] for peer in peers if peer.ip not in seeds}
            alone = {endpoint for endpoint in seeds if endpoint[0] not in shared}
            self._set_disconnected(info_hash, before | alone)
        elif before:
            self._set_disconnected(info_hash, set())
            for endpoint in before:
                torrent.connect_peer(endpoint)

    def ban(self, address: str) -> None:
        """Note that a peer at *address* sent wrong bytes; the second time, block the address.

        libtorrent bans a peer by its port, and forgets that when the peer comes from another one.
        """
        with self._lock:
            self._failures[address] += 1
            if self._failures[address] == _FAILURES_TO_BAN:
                self._block()

    def end(self, info_hash: bytes) -> None:
        """The download has ended: undo all that was set for it."""
        self.set_request_depth(info_hash, REQUEST_DEPTH)
        self.set_end_game(info_hash, stalled=False)
        self._set_disconnected(info_hash, set())

    def _set(
        self,
        downloads: set[bytes],
        info_hash: bytes,
        is_needed: bool,
        name: str,
        values: tuple[object, object],
    ) -> None:
        """Note in *downloads* whether this one needs the second of *values* for setting *name*."""
        with self._lock:
            before = bool(downloads)
            (downloads.add if is_needed else downloads.discard)(info_hash)
            if before != bool(downloads):
                self._session.apply(name, values[bool(downloads)])

    def _set_disconnected(self, info_hash: bytes, endpoints: set[Endpoint]) -> None:
        with self._lock:
            if endpoints == self._disconnected.get(info_hash, set()):
                return
            self._disconnected[info_hash] = endpoints
            if not endpoints:
                del self._disconnected[info_hash]
            self._block()

    def _block(self) -> None:
        """Block addresses that sent wrong bytes twice, and those of disconnected registries."""
        banned = {address for address, count in self._failures.items() if count >= _FAILURES_TO_BAN}
        away = {address for endpoints in self._disconnected.values() for address, _ in endpoints}
        self._session.block_addresses(banned | away)
