"""How a session behaves towards its peers, by what each of its downloads meets in its swarm."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import libtorrent as lt

from docket.torrent.tracker.announce import is_registry

BLOCK = 16 * 1024
"""Bytes that a peer asks for at a time."""

REQUEST_DEPTH = 64
"""Blocks that a peer may ask of this one ahead.

It is told at the beginning of a connection and can't follow the crowd; `SessionTuning.expect` can.
With latency it is the ceiling: 64 bring 1 MB a round trip.
"""

CROWD_DEPTH = 2
"""The same in a crowd, or where that is enough."""

CROWD = 8
"""With so many others that fetch, two blocks on the way from each peer are enough.

They are 0.3 MB then: what 10 Gb/s bring in 0.2 ms.
"""

_ANSWER_SECONDS = 0.001
"""What a peer takes to answer, whatever the network does."""

_BANS_OF_ADDRESS = 2  # one may have been a neighbour behind the same address
_BLOCKED = 1  # libtorrent's flag of an address that is not talked to

Endpoint = tuple[str, int]


def depth(others: int, *, rate: float, trip_seconds: float) -> int:
    """Blocks to ask of each peer ahead, with so many *others* that fetch what is fetched here.

    Blocks that several have asked of one seed wait there, for seconds on slow links, and whoever
    could have had them from somebody else meanwhile gets them from there too. So it is little as
    long as twice of what comes until a message is answered fits in: then the links are full.
    *rate* is that of what comes, in bytes a second; *trip_seconds* that to the registry and back.
    """
    if not others:
        return REQUEST_DEPTH
    fits = CROWD_DEPTH * BLOCK * (others + 1)
    needed = 2 * rate * (trip_seconds + _ANSWER_SECONDS)
    return CROWD_DEPTH if others >= CROWD or needed < fits else REQUEST_DEPTH


class SessionTuning:
    """The settings of one libtorrent session that follow its downloads, each by its info hash.

    A session has one of each: what one of its downloads needs, all do.
    """

    def __init__(self, session: Callable[[], Any]) -> None:
        """*session* gives the libtorrent session, or None when it has been closed."""
        self._session = session
        self._lock = threading.Lock()  # the alert thread bans while others fetch
        self._shallow: set[bytes] = set()
        self._hurried: set[bytes] = set()
        self._apart: dict[bytes, set[Endpoint]] = {}
        self._bans: Counter[str] = Counter()

    def expect(self, info_hash: bytes, blocks: int) -> None:
        """Ask each peer for so many *blocks* ahead at most: `CROWD_DEPTH`, or `REQUEST_DEPTH`."""
        # so many seconds of what a peer sends, or two blocks
        self._follow(self._shallow, info_hash, blocks == CROWD_DEPTH, "request_queue_time", (1, 0))

    def hurry(self, info_hash: bytes, stalled: bool) -> None:
        """Nothing comes: blocks that a peer owes are asked of others too, until something does.

        Strictly, that would begin after 5 s only; always, hosts would get 3 to 10 % twice.
        """
        self._follow(self._hurried, info_hash, stalled, "strict_end_game_mode", (True, False))

    def part(self, torrent: Any, is_apart: bool) -> None:
        """Hang up on the registry's seed, or call it again.

        As long as there is a connection, a peer with nothing else to do asks the seed for what it
        could have from other hosts, and takes the seed's time from those who need it.
        An address is all that can be hung up on: one that hosts share with the registry is let be.
        """
        info_hash = torrent.info_hash().to_bytes()
        with self._lock:
            before = self._apart.get(info_hash, set())
        if is_apart:
            peers = torrent.get_peer_info()
            seeds = {one.ip for one in peers if is_registry(one.pid.to_bytes())}
            shared = {one.ip[0] for one in peers if one.ip not in seeds}
            self._stay_apart(info_hash, before | {one for one in seeds if one[0] not in shared})
        elif before:
            self._stay_apart(info_hash, set())
            for endpoint in before:
                torrent.connect_peer(endpoint)

    def ban(self, address: str) -> None:
        """Shut *address* out when a peer there gave wrong bytes for the second time.

        libtorrent bans a peer by its port, and forgets that when the peer comes from another one.
        """
        with self._lock:
            self._bans[address] += 1
            if self._bans[address] == _BANS_OF_ADDRESS:
                self._shut_out()

    def end(self, info_hash: bytes) -> None:
        """The download is over: behave as if it had never been."""
        self.expect(info_hash, REQUEST_DEPTH)
        self.hurry(info_hash, stalled=False)
        self._stay_apart(info_hash, set())

    def _follow(
        self,
        whose: set[bytes],
        info_hash: bytes,
        is_one: bool,
        setting: str,
        values: tuple[object, object],
    ) -> None:
        """Note in *whose* whether the download is one; *setting* tells whether any is."""
        with self._lock:
            before = bool(whose)
            (whose.add if is_one else whose.discard)(info_hash)
            # a session that was closed meanwhile tells those who fetch by itself: see `Closed`
            if before != bool(whose) and (session := self._session()):
                session.apply_settings({setting: values[bool(whose)]})

    def _stay_apart(self, info_hash: bytes, endpoints: set[Endpoint]) -> None:
        with self._lock:
            if endpoints == self._apart.get(info_hash, set()):
                return
            self._apart[info_hash] = endpoints
            if not endpoints:
                del self._apart[info_hash]
            self._shut_out()

    def _shut_out(self) -> None:
        """Those that gave wrong bytes twice, and those that a download has hung up on."""
        shut_out = lt.ip_filter()
        banned = {one for one, bans in self._bans.items() if bans >= _BANS_OF_ADDRESS}
        apart = {address for endpoints in self._apart.values() for address, _ in endpoints}
        for address in banned | apart:
            shut_out.add_rule(address, address, _BLOCKED)
        if session := self._session():
            session.set_ip_filter(shut_out)
