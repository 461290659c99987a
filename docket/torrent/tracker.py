"""A tracker's peer table (BEP 3, 7, 23, 48), without sockets."""

from __future__ import annotations

import ipaddress
import random
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import unquote_to_bytes

from docket.errors import InvalidAnnounce

INTERVAL = 15
"""Seconds between a peer's announces; one that misses two is gone."""

MAX_PEERS = 50
"""Peers handed out in one answer."""

_PER_TORRENT = 20_000
_MAX_TORRENTS = 20_000
_MAX_TOTAL = 200_000
_ID_SIZE = 20
_MAX_QUERY = 2048
_MAX_SCRAPE = 8192
_SCRAPED = 64


@dataclass(frozen=True, slots=True)
class Announce:
    """A peer's report; *compact* is its address and port as 6 or 18 bytes."""

    info_hash: bytes
    peer_id: bytes
    compact: bytes
    left: int
    event: str
    wanted: int

    @classmethod
    def parse(cls, query: bytes, *, address: str) -> Announce:
        """The report in a raw *query*, from a peer at *address*; an ``ip`` in it is ignored.

        Raises `InvalidAnnounce`.
        """
        if len(query) > _MAX_QUERY:
            raise InvalidAnnounce("the announce is too long")
        values = _values(query)
        for name in ("info_hash", "peer_id"):
            if len(values.get(name, b"")) != _ID_SIZE:
                raise InvalidAnnounce(f"{name} must have 20 bytes")
        port = _count(values, "port", default=None)
        if not 0 < port < 1 << 16:
            raise InvalidAnnounce("port must be between 1 and 65535")
        return cls(
            info_hash=values["info_hash"],
            peer_id=values["peer_id"],
            compact=compact(address, port),
            # a peer that doesn't say how much it lacks may lack all
            left=_count(values, "left", default=1),
            event=values.get("event", b"").decode("ascii", "replace"),
            wanted=min(_count(values, "numwant", default=MAX_PEERS), MAX_PEERS),
        )


@dataclass(slots=True)
class _Peer:
    compact: bytes
    seen: float
    seed: bool


@dataclass(slots=True)
class _Swarm:
    """Peers by id, those that announced last at the end."""

    leeches: dict[bytes, _Peer] = field(default_factory=dict)
    seeds: dict[bytes, _Peer] = field(default_factory=dict)
    completed: int = 0
    swept: float = 0.0


class Tracker:
    """Who is in which swarm; safe to use from many threads."""

    def __init__(
        self,
        *,
        interval: int = INTERVAL,
        max_peers: int = _MAX_TOTAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*max_peers* of all torrents are remembered; one more is answered, but told to nobody."""
        self.interval = interval
        self._max_peers = max_peers
        self._clock = clock
        self._peers = 0
        self._swept = 0.0
        self._swarms: dict[bytes, _Swarm] = {}
        self._lock = threading.Lock()
        # it spreads peers; it guards nothing
        self._random = random.Random()  # noqa: S311

    def announce(self, report: Announce, *, extra: Sequence[tuple[str, int]] = ()) -> bytes:
        """Take *report* and answer it, bencoded.

        *extra* are seeds that don't announce, such as the registry's own; a peer that still lacks
        something always gets them, last.
        """
        with self._lock:
            swarm = self._swarm(report.info_hash)
            self._sweep(swarm)
            self._note(swarm, report)
            chosen = [] if report.event == "stopped" else self._choose(swarm, report)
            complete, incomplete = len(swarm.seeds), len(swarm.leeches)
        if report.left and report.event != "stopped":
            own = [compact(*one) for one in extra]
            chosen = [one for one in chosen if one not in own] + own
        return _answer(self.interval, complete + len(extra), incomplete, chosen)

    def scrape(self, info_hashes: Iterable[bytes]) -> bytes:
        """How many seeds and leeches each of these torrents has, bencoded (BEP 48)."""
        rows = []
        with self._lock:
            for info_hash in sorted(set(info_hashes))[:_SCRAPED]:
                if swarm := self._swarms.get(info_hash):
                    self._sweep(swarm)
                    counts = (len(swarm.seeds), swarm.completed, len(swarm.leeches))
                    rows.append(
                        b"20:%bd8:completei%de10:downloadedi%de10:incompletei%dee"
                        % (info_hash, *counts)
                    )
        return b"d5:filesd%bee" % b"".join(rows)

    def peers(self, info_hash: bytes) -> int:
        """How many peers the torrent has."""
        with self._lock:
            swarm = self._swarms.get(info_hash)
            return len(swarm.seeds) + len(swarm.leeches) if swarm else 0

    def _swarm(self, info_hash: bytes) -> _Swarm:
        swarm = self._swarms.get(info_hash)
        if swarm is None:
            if len(self._swarms) >= _MAX_TORRENTS:
                self._drop_empty()
            swarm = self._swarms.setdefault(info_hash, _Swarm())
        return swarm

    def _note(self, swarm: _Swarm, report: Announce) -> None:
        peer_id = report.peer_id
        was_leech = swarm.leeches.pop(peer_id, None)
        was_seed = swarm.seeds.pop(peer_id, None)
        known = was_leech or was_seed
        if known:
            self._peers -= 1
        if report.event == "stopped":
            return
        if report.event == "completed" and not was_seed:
            swarm.completed += 1
        full = len(swarm.leeches) + len(swarm.seeds) >= _PER_TORRENT
        if not known and (full or not self._has_room()):
            return
        peer = _Peer(report.compact, self._clock(), seed=not report.left)
        (swarm.seeds if peer.seed else swarm.leeches)[peer_id] = peer
        self._peers += 1

    def _has_room(self) -> bool:
        """Whether one more peer may be remembered; when not, look for gone ones once a second."""
        now = self._clock()
        if self._peers >= self._max_peers and now - self._swept >= 1.0:
            self._swept = now
            for swarm in self._swarms.values():
                self._sweep(swarm)
        return self._peers < self._max_peers

    def _choose(self, swarm: _Swarm, report: Announce) -> list[bytes]:
        """Other peers for this one, at random; leeches first, and no seeds for a seed."""
        others = self._sample(swarm.leeches, report)
        if report.left and len(others) < report.wanted:
            others += self._sample(swarm.seeds, report)
        return others[: report.wanted]

    def _sample(self, peers: dict[bytes, _Peer], report: Announce) -> list[bytes]:
        count = len(peers)
        if count <= report.wanted + 1:
            found = [one.compact for one in peers.values() if one.compact != report.compact]
            self._random.shuffle(found)
            return found
        # a run from a random place: the table is in the order of the last announces, which is
        # already as good as random, and looking at all peers would cost too much
        start = self._random.randrange(count - report.wanted)
        run = islice(peers.values(), start, start + report.wanted)
        return [one.compact for one in run if one.compact != report.compact]

    def _sweep(self, swarm: _Swarm) -> None:
        """Forget peers that missed two announces; at most once a second, oldest first."""
        now = self._clock()
        if now - swarm.swept < 1.0:
            return
        swarm.swept = now
        horizon = now - 2 * self.interval
        for table in (swarm.leeches, swarm.seeds):
            gone = []
            for peer_id, peer in table.items():
                if peer.seen >= horizon:
                    break  # each announce moves its peer to the end
                gone.append(peer_id)
            for peer_id in gone:
                del table[peer_id]
            self._peers -= len(gone)

    def _drop_empty(self) -> None:
        for info_hash, swarm in list(self._swarms.items()):
            self._sweep(swarm)
            if not swarm.leeches and not swarm.seeds:
                del self._swarms[info_hash]


def compact(address: str, port: int) -> bytes:
    """BEP 23 and BEP 7: 4 or 16 bytes of address, 2 of port. Raises `InvalidAnnounce`."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise InvalidAnnounce(f"{address!r} is no IP address") from error
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).packed + struct.pack(">H", port)


def scraped(query: bytes) -> list[bytes]:
    """The info-hashes that a raw scrape *query* asks about (BEP 48)."""
    values = (pair.partition(b"=") for pair in query[:_MAX_SCRAPE].split(b"&"))
    hashes = [unquote_to_bytes(value) for name, _, value in values if name == b"info_hash"]
    return [one for one in hashes if len(one) == _ID_SIZE]


def failure(reason: str) -> bytes:
    """The answer to a report that is refused (BEP 3)."""
    text = reason.encode()[:200]
    return b"d14:failure reason%d:%be" % (len(text), text)


def _answer(interval: int, complete: int, incomplete: int, peers: Sequence[bytes]) -> bytes:
    four = b"".join(one for one in peers if len(one) == 6)
    six = b"".join(one for one in peers if len(one) == 18)
    return (
        b"d8:completei%de10:incompletei%de8:intervali%de12:min intervali%de"
        b"5:peers%d:%b6:peers6%d:%be"
        % (complete, incomplete, interval, max(interval // 3, 1), len(four), four, len(six), six)
    )


def _values(query: bytes) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        values[name.decode("latin-1")] = unquote_to_bytes(value)
    return values


def _count(values: dict[str, bytes], name: str, *, default: int | None) -> int:
    text = values.get(name)
    if text is None and default is not None:
        return default
    if not text or not text.isdigit() or len(text) > 18:
        raise InvalidAnnounce(f"{name} must be a count")
    return int(text)
