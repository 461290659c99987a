"""A tracker's peer table (BEP 3, 7, 21, 23, 48), without sockets."""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from docket.torrent.tracker.announce import COMPLETED, STOPPED, Announce, answer
from docket.torrent.tracker.peer_selection import FURTHER, NEIGHBOURS, OUTSIDERS, Bag, Zone, choose
from docket.torrent.zone import compact, zone_of

INTERVAL = 15
"""Seconds between a peer's announces; one that misses two is gone."""


MAX_TOTAL = 100_000
"""Peers of all torrents that are remembered."""

MAX_INVITED = 10_000
"""Hosts that are invited and didn't come yet, of all torrents."""

MAX_TORRENTS = 20_000
_PER_TORRENT = 20_000
_SCRAPED = 64


@dataclass(slots=True)
class _Peer:
    """*identity* is id and key, empty without a key; *gateway* is since when it is one, or None."""

    compact: bytes
    identity: bytes
    zone: bytes
    seen: float
    is_leech: bool
    is_complete: bool
    gateway: float | None = None


@dataclass(slots=True)
class _Swarm:
    """Peers by endpoint, those that announced last at the end.

    Nobody announces from another's endpoint, so nobody replaces or stops another peer; only with
    its id and its key a peer takes its entry along to a new address.
    """

    peers: OrderedDict[bytes, _Peer] = field(default_factory=OrderedDict)
    by_identity: dict[bytes, bytes] = field(default_factory=dict)
    zones: dict[bytes, Zone] = field(default_factory=dict)
    gateways: Bag = field(default_factory=Bag)
    complete: int = 0
    completed: int = 0
    admitted: float | None = None

    def place_of(self, report: Announce) -> bytes | None:
        """The endpoint at which this peer is remembered, be it another than it has now."""
        if report.compact in self.peers:
            return report.compact
        return self.by_identity.get(_identity(report))

    def put(self, report: Announce, now: float) -> _Peer:
        """Remember a peer as it reports itself, in the place of what it was."""
        identity = _identity(report)
        before = self.peers.get(report.compact)
        if (
            before is not None
            and before.identity == identity
            and before.zone == report.zone
            and before.is_leech == report.is_leech
        ):
            before.seen = now
            self.peers.move_to_end(report.compact)
            return before
        known = self.remove(report)
        peer = _Peer(report.compact, identity, report.zone, now, report.is_leech, not report.left)
        self.peers[peer.compact] = peer
        if identity:
            self.by_identity[identity] = peer.compact
        self.complete += peer.is_complete
        zone = self.zones.setdefault(peer.zone, Zone())
        (zone.leeches if peer.is_leech else zone.seeds).add(peer.compact)
        if known and known.gateway is not None:
            self.open_gate(peer, known.gateway)
        return peer

    def open_gate(self, peer: _Peer, since: float) -> None:
        """The peer hears of the outside, and the outside of it."""
        peer.gateway = since
        self.gateways.add(peer.compact)
        if peer.is_leech:
            self.zones[peer.zone].gateways[peer.compact] = since

    def remove(self, report: Announce) -> _Peer | None:
        """Forget the peer that reports, wherever it is remembered; what was it?"""
        moved = self.by_identity.get(_identity(report))
        known = self.discard(report.compact)
        return (self.discard(moved) if moved else None) or known

    def discard(self, endpoint: bytes) -> _Peer | None:
        """Forget the peer at *endpoint*, if there is one; what was it?"""
        peer = self.peers.pop(endpoint, None)
        if peer is None:
            return None
        if self.by_identity.get(peer.identity) == endpoint:
            del self.by_identity[peer.identity]
        self.complete -= peer.is_complete
        self.gateways.discard(endpoint)
        zone = self.zones[peer.zone]
        zone.gateways.pop(endpoint, None)
        (zone.leeches if peer.is_leech else zone.seeds).discard(endpoint)
        if zone.is_empty:
            del self.zones[peer.zone]
        return peer

    def forget_invited(self, label: bytes, before: float) -> None:
        """Forget who was invited in a zone *before* that, and the zone if it is empty then."""
        if zone := self.zones.get(label):
            zone.forget_invited(before)
            if zone.is_empty:
                del self.zones[label]


class Tracker:
    """Who is in which swarm; safe to use from many threads."""

    def __init__(
        self,
        *,
        interval: int = INTERVAL,
        max_peers: int = MAX_TOTAL,
        max_torrents: int = MAX_TORRENTS,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        """*max_peers* of all torrents are remembered; one more is answered, but told to nobody.

        So is a peer of one torrent more than *max_torrents*. *chance* chooses among peers.
        """
        self.interval = interval
        self._max_peers = max_peers
        self._max_torrents = max_torrents
        self._clock = clock
        self._peers = 0
        self._swept = 0.0
        self._swarms: dict[bytes, _Swarm] = {}
        self._invited: deque[tuple[float, bytes, bytes]] = deque()  # when, info-hash, zone
        self._lock = threading.Lock()
        # it spreads peers; it guards nothing
        self._random = chance or random.Random()  # noqa: S311

    def admit(self, info_hash: bytes) -> None:
        """The torrent is one of the registry's own now."""
        with self._lock:
            self._swarm(info_hash).admitted = self._clock()

    def dismiss(self, info_hash: bytes) -> None:
        """The torrent is none of the registry's own any more."""
        with self._lock:
            self._swarm(info_hash).admitted = None

    def admitted_seconds(self, info_hash: bytes) -> float | None:
        """How long ago the torrent was admitted last; None: not at all."""
        swarm = self._swarms.get(info_hash)
        if swarm is None or swarm.admitted is None:
            return None
        return self._clock() - swarm.admitted

    def announce(
        self, report: Announce, *, extra: Sequence[tuple[str, int]] = (), extra_zone: str = ""
    ) -> bytes:
        """Take *report* and answer it, bencoded.

        *extra* are seeds that don't announce, such as the registry's own, and *extra_zone* is their
        label, if they have one. Gateways get them, last; and leeches near by, if not docket's.
        """
        own = [compact(*one) for one in extra]
        in_registry_zone = any(zone_of(one, extra_zone) == report.zone for one in own)
        with self._lock:
            swarm = self._swarm(report.info_hash)
            self._sweep(swarm)
            chosen, is_gateway = self._take(swarm, report, in_registry_zone=in_registry_zone)
            complete, incomplete = swarm.complete, len(swarm.peers) - swarm.complete
        asks = report.is_leech and report.event != STOPPED
        if asks and (is_gateway or (in_registry_zone and not report.is_docket)):
            chosen = [one for one in chosen if one not in own] + own
        return answer(self.interval, complete + len(own), incomplete, chosen)

    def invite(self, info_hash: bytes, zone: bytes, *, token: str, in_registry_zone: bool) -> bool:
        """Whether a host of *zone* should say by its peer id that it is a gateway.

        With the same *token* it may ask again, and takes no second place. *in_registry_zone* tells
        whether the registry is in that zone. Who doesn't come within an interval is forgotten.
        """
        with self._lock:
            swarm = self._swarm(info_hash)
            self._sweep(swarm)
            now = self._clock()
            place = swarm.zones.get(zone) or Zone()
            if token in place.invited:
                return True
            has_room = len(self._invited) < MAX_INVITED
            if not has_room or not place.has_gateway_room(
                now, self.interval, in_registry_zone=in_registry_zone
            ):
                return False
            place.invited[token] = now
            swarm.zones[zone] = place
            self._invited.append((now, info_hash, zone))
        return True

    def scrape(self, info_hashes: Iterable[bytes]) -> bytes:
        """How many seeds and leeches each of these torrents has, bencoded (BEP 48)."""
        rows = []
        with self._lock:
            for info_hash in sorted(set(info_hashes))[:_SCRAPED]:
                if swarm := self._swarms.get(info_hash):
                    self._sweep(swarm)
                    incomplete = len(swarm.peers) - swarm.complete
                    rows.append(
                        b"20:%bd8:completei%de10:downloadedi%de10:incompletei%dee"
                        % (info_hash, swarm.complete, swarm.completed, incomplete)
                    )
        return b"d5:filesd%bee" % b"".join(rows)

    def peers(self, info_hash: bytes) -> int:
        """How many peers the torrent has."""
        with self._lock:
            swarm = self._swarms.get(info_hash)
            return len(swarm.peers) if swarm else 0

    def _swarm(self, info_hash: bytes) -> _Swarm:
        swarm = self._swarms.get(info_hash)
        if swarm is None:
            swarm = _Swarm()
            if len(self._swarms) >= self._max_torrents:
                self._drop_empty()
            if len(self._swarms) < self._max_torrents:
                self._swarms[info_hash] = swarm
        return swarm

    def _take(
        self, swarm: _Swarm, report: Announce, *, in_registry_zone: bool
    ) -> tuple[list[bytes], bool]:
        """Remember what *report* says; whom to tell the peer, and whether it hears of the outside.

        A peer for which there is no room hears of its zone, or of the outside when it has none.
        """
        now = self._clock()
        before = len(swarm.peers)
        if report.event == STOPPED:
            swarm.remove(report)
            self._peers += len(swarm.peers) - before
            return [], False
        place = swarm.place_of(report)
        if place is None and not self._has_room(swarm):
            zone = swarm.zones.get(report.zone)
            is_first = zone is None
            return self._choose(
                swarm, zone or Zone(), report, NEIGHBOURS, is_gateway=is_first
            ), is_first
        known = swarm.peers[place] if place else None
        if report.event == COMPLETED and not (known and known.is_complete):
            swarm.completed += 1
        # it gets nothing where it is, or it would wait for its time
        early = known is not None and not report.event and now - known.seen < 0.8 * self.interval
        peer = swarm.put(report, now)
        self._peers += len(swarm.peers) - before
        zone = swarm.zones[peer.zone]
        if (
            peer.is_leech
            and peer.gateway is None
            and (
                report.is_gateway
                or zone.has_gateway_room(
                    now, self.interval, in_registry_zone=in_registry_zone, is_early=early
                )
            )
        ):
            swarm.open_gate(peer, now)
        if place is None and report.is_gateway:
            zone.claim_reservation()
        is_gateway = peer.is_leech and peer.gateway is not None
        is_in_time = known is not None and not early and not report.event
        most = FURTHER if is_in_time else NEIGHBOURS
        return self._choose(swarm, zone, report, most, is_gateway=is_gateway), is_gateway

    def _choose(
        self, swarm: _Swarm, zone: Zone, report: Announce, neighbours: int, *, is_gateway: bool
    ) -> list[bytes]:
        # other programs choose for themselves
        most = neighbours + OUTSIDERS * is_gateway if report.is_docket else report.wanted
        return choose(
            zone,
            report.compact,
            wanted=min(report.wanted, most),
            is_leech=report.is_leech,
            gateways=swarm.gateways if is_gateway else None,
            chance=self._random,
        )

    def _has_room(self, swarm: _Swarm) -> bool:
        """Whether one more peer may be remembered; when not, look for gone ones once a second."""
        if len(swarm.peers) >= _PER_TORRENT:
            return False
        now = self._clock()
        if self._peers >= self._max_peers and now - self._swept >= 1.0:
            self._swept = now
            for one in self._swarms.values():
                self._sweep(one)
        return self._peers < self._max_peers

    def _sweep(self, swarm: _Swarm) -> None:
        """Forget peers that missed two announces, oldest first, and who was invited in vain."""
        now = self._clock()
        while self._invited and self._invited[0][0] < now - self.interval:
            _, info_hash, zone = self._invited.popleft()
            if inviting := self._swarms.get(info_hash):
                inviting.forget_invited(zone, now - self.interval)
        horizon = now - 2 * self.interval
        while swarm.peers:
            endpoint, peer = next(iter(swarm.peers.items()))
            if peer.seen >= horizon:
                break  # each announce moves its peer to the end
            swarm.discard(endpoint)
            self._peers -= 1

    def _drop_empty(self) -> None:
        for info_hash, swarm in list(self._swarms.items()):
            self._sweep(swarm)
            if not swarm.peers:
                del self._swarms[info_hash]


def _identity(report: Announce) -> bytes:
    """What only this peer can say; it has one for each family of addresses (BEP 7)."""
    if not report.key:
        return b""
    return b"%b%b%d" % (report.peer_id, report.key, len(report.compact))
