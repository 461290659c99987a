"""A tracker's peer table (BEP 3, 7, 21, 23, 48), without sockets."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from docket.torrent.tracker.announce import COMPLETED, STOPPED, Announce, answer
from docket.torrent.tracker.peer_selection import (
    CONFIRM_SECONDS,
    FURTHER,
    NEIGHBOURS,
    OUTSIDERS,
    Gateway,
    Reservation,
    Zone,
    choose,
)
from docket.torrent.tracker.swarm_peers import Peer, SwarmPeers
from docket.torrent.zone import compact, source_of, zone_of

INTERVAL = 15
"""Seconds between a peer's announces; one that misses two is gone."""

MAX_TOTAL = 100_000
"""Peers of all torrents that are remembered."""

MAX_OF_TORRENT = 20_000
"""Peers of one torrent that are remembered."""

MAX_OF_SOURCE, MAX_OF_SOURCE_IN_TORRENT = 10_000, 2_000
"""The same of one address, or one IPv6 /64: a thousand hosts may be behind it."""

MAX_RESERVATIONS = 10_000
"""Hosts with a reservation that haven't announced yet, of all torrents."""

MAX_RESERVATIONS_OF_SOURCE = 1_000
"""The same of one address, or one IPv6 /64."""

MAX_TORRENTS = 20_000
_SCRAPED = 64
_EARLY = 0.8
"""Which part of the interval a peer waits at least that receives something."""


class Tracker:
    """Which peers are in which swarm; safe to use from many threads."""

    def __init__(
        self,
        *,
        interval: int = INTERVAL,
        max_peers: int = MAX_TOTAL,
        max_torrents: int = MAX_TORRENTS,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        """*max_peers* of all torrents are remembered; one more is answered, but named to nobody.

        So is a peer of one torrent more than *max_torrents*. *chance* chooses among peers.
        """
        self.interval = interval
        self._max_peers = max_peers
        self._max_torrents = max_torrents
        self._clock = clock
        self._peers = 0
        self._swept = 0.0
        self._swarms: dict[bytes, SwarmPeers] = {}
        self._sources: Counter[bytes] = Counter()
        # time, info-hash, zone and source, in order
        self._reservations: deque[tuple[float, bytes, bytes, bytes]] = deque()
        self._reservations_of: Counter[bytes] = Counter()
        self._lock = threading.Lock()
        # it spreads peers; it guards nothing
        self._random = chance or random.Random()  # noqa: S311

    def admit(self, info_hash: bytes) -> None:
        """From now on the torrent is one of the registry's own."""
        with self._lock:
            self._swarm(info_hash).admitted = self._clock()

    def dismiss(self, info_hash: bytes) -> None:
        """The torrent is none of the registry's own any more."""
        with self._lock:
            if swarm := self._swarms.get(info_hash):
                swarm.admitted = None

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
        label, if any. Gateways get them, last; so do leeches of their zone that aren't docket's.
        """
        own = [compact(*endpoint) for endpoint in extra]
        in_registry_zone = any(zone_of(address, extra_zone) == report.zone for address in own)
        with self._lock:
            swarm = self._swarm(report.info_hash)
            self._sweep(swarm)
            chosen, is_gateway = self._take(swarm, report, in_registry_zone=in_registry_zone)
            complete, incomplete = swarm.complete, len(swarm.peers) - swarm.complete
        wants_peers = report.is_leech and report.event != STOPPED
        if wants_peers and (is_gateway or (in_registry_zone and not report.is_docket)):
            chosen = [endpoint for endpoint in chosen if endpoint not in own] + own
        return answer(self.interval, complete + len(own), incomplete, chosen)

    def reserve_gateway(
        self, info_hash: bytes, zone: bytes, *, token: str, source: bytes, in_registry_zone: bool
    ) -> bool:
        """Whether a host of *zone* at *source* should announce itself as a gateway.

        It may ask again with the same *token* and takes no second place. *in_registry_zone*: the
        registry is in that zone. A host that doesn't announce within an interval loses its place.
        """
        with self._lock:
            swarm = self._swarm(info_hash)
            self._sweep(swarm)
            now = self._clock()
            zone_peers = swarm.zones.get(zone) or Zone()
            if token in zone_peers.reservations:
                return True
            if (
                len(self._reservations) >= MAX_RESERVATIONS
                or self._reservations_of[source] >= MAX_RESERVATIONS_OF_SOURCE
                or not self._make_room(swarm, zone_peers, source, in_registry_zone=in_registry_zone)
            ):
                return False
            zone_peers.reservations[token] = Reservation(now, source)
            swarm.zones[zone] = zone_peers
            self._reservations.append((now, info_hash, zone, source))
            self._reservations_of[source] += 1
        return True

    def confirm_gateway(self, info_hash: bytes, peer_id: bytes, address: str) -> None:
        """A peer with that id, at *address*, has connected to the registry's seed."""
        with self._lock:
            if swarm := self._swarms.get(info_hash):
                swarm.confirm(peer_id, source_of(compact(address, 0)), self._clock())

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

    def _swarm(self, info_hash: bytes) -> SwarmPeers:
        swarm = self._swarms.get(info_hash)
        if swarm is None:
            swarm = SwarmPeers(totals=self._sources)
            if len(self._swarms) >= self._max_torrents and self._may_sweep():
                self._drop_empty()
            if len(self._swarms) < self._max_torrents:
                self._swarms[info_hash] = swarm
        return swarm

    def _take(
        self, swarm: SwarmPeers, report: Announce, *, in_registry_zone: bool
    ) -> tuple[list[bytes], bool]:
        """Remember *report*; which peers to name, and whether the peer is a gateway.

        A peer for which there is no room gets peers of its zone, or those outside when it has none.
        """
        now = self._clock()
        if report.event == STOPPED:
            with self._counting(swarm):
                swarm.remove(report)
            return [], False
        key = swarm.place_of(report)
        if key is None and not self._has_room(swarm, source_of(report.compact)):
            zone = swarm.zones.get(report.zone)
            is_first = zone is None
            chosen = self._choose(swarm, zone or Zone(), report, NEIGHBOURS, is_gateway=is_first)
            return chosen, is_first
        before = swarm.peers[key] if key else None
        if report.event == COMPLETED and not (before and before.is_complete):
            swarm.completed += 1
        # a peer that receives something waits for its time
        is_regular = before is not None and not report.event
        is_early = before is not None and is_regular and now - before.seen < _EARLY * self.interval
        if before and is_regular and not is_early and _is_stuck(before, report):
            swarm.fail_gateway(before)
        with self._counting(swarm):
            peer = swarm.put(report, now)
        self._admit_gateway(
            swarm,
            peer,
            may_claim=key is None and report.is_gateway,
            is_early=is_early,
            in_registry_zone=in_registry_zone,
        )
        is_gateway = peer.is_leech and peer.gateway is not None
        most = FURTHER if is_regular and not is_early else NEIGHBOURS
        chosen = self._choose(swarm, swarm.zones[peer.zone], report, most, is_gateway=is_gateway)
        return chosen, is_gateway

    def _admit_gateway(
        self,
        swarm: SwarmPeers,
        peer: Peer,
        *,
        may_claim: bool,
        is_early: bool,
        in_registry_zone: bool,
    ) -> None:
        """Make *peer* a gateway if it has a reservation, or if there is room for one."""
        zone = swarm.zones[peer.zone]
        self._expire_gateways(swarm, zone)
        source = source_of(peer.compact)
        has_reserved = may_claim and zone.claim_reservation(source)
        if not peer.is_leech or peer.gateway is not None or peer.has_failed:
            return
        if has_reserved or self._make_room(
            swarm, zone, source, is_early=is_early, in_registry_zone=in_registry_zone
        ):
            swarm.open_gateway(peer, Gateway(self._clock()))

    def _make_room(
        self,
        swarm: SwarmPeers,
        zone: Zone,
        source: bytes,
        *,
        in_registry_zone: bool,
        is_early: bool = False,
    ) -> bool:
        """Whether *zone* may have one more gateway, at *source*.

        Gateways that proved nothing in time lose their places first, then those of a source that
        has more unproven ones than this one would.
        """
        now = self._clock()
        self._expire_gateways(swarm, zone)
        while not zone.has_gateway_room(
            now, self.interval, in_registry_zone=in_registry_zone, is_early=is_early
        ):
            claim = zone.largest_holder(source)
            if claim is None:
                return False
            if isinstance(claim, str):
                del zone.reservations[claim]
            else:
                swarm.fail_gateway(swarm.peers[claim])
        return True

    def _expire_gateways(self, swarm: SwarmPeers, zone: Zone) -> None:
        """Take the places of gateways that haven't connected to the registry's seed in time."""
        for endpoint in zone.unconfirmed(self._clock() - CONFIRM_SECONDS):
            swarm.fail_gateway(swarm.peers[endpoint])

    def _choose(
        self,
        swarm: SwarmPeers,
        zone: Zone,
        report: Announce,
        neighbours: int,
        *,
        is_gateway: bool,
    ) -> list[bytes]:
        # other programs decide themselves how many
        most = neighbours + OUTSIDERS * is_gateway if report.is_docket else report.wanted
        return choose(
            zone,
            report.compact,
            wanted=min(report.wanted, most),
            is_leech=report.is_leech,
            gateways=swarm.gateways if is_gateway else None,
            chance=self._random,
        )

    def _has_room(self, swarm: SwarmPeers, source: bytes) -> bool:
        """Whether one more peer at *source* may be remembered.

        In a full table it takes the place of a peer whose source has more.
        """
        if (
            swarm.by_source[source] >= MAX_OF_SOURCE_IN_TORRENT
            or self._sources[source] >= MAX_OF_SOURCE
        ):
            return False
        if self._peers >= self._max_peers and self._may_sweep():
            for any_swarm in self._swarms.values():
                self._sweep(any_swarm)
        if len(swarm.peers) < MAX_OF_TORRENT and self._peers < self._max_peers:
            return True
        endpoint = swarm.older_of_larger_source(source)
        if endpoint is None:
            return False
        with self._counting(swarm):
            swarm.discard(endpoint)
        return True

    def _may_sweep(self) -> bool:
        """Whether all swarms may be swept now: once a second, since that takes long."""
        now = self._clock()
        if now - self._swept < 1.0:
            return False
        self._swept = now
        return True

    def _sweep(self, swarm: SwarmPeers) -> None:
        """Forget peers that missed two announces, oldest first, and reservations not used."""
        now = self._clock()
        while self._reservations and self._reservations[0][0] < now - self.interval:
            _, info_hash, zone, source = self._reservations.popleft()
            self._reservations_of[source] -= 1
            if not self._reservations_of[source]:
                del self._reservations_of[source]
            if reserved := self._swarms.get(info_hash):
                reserved.expire_reservations(zone, now - self.interval)
        horizon = now - 2 * self.interval
        with self._counting(swarm):
            while swarm.peers:
                endpoint, peer = next(iter(swarm.peers.items()))
                if peer.seen >= horizon:
                    break  # each announce moves its peer to the end
                swarm.discard(endpoint)

    @contextmanager
    def _counting(self, swarm: SwarmPeers) -> Iterator[None]:
        """Count the peers that *swarm* wins or loses meanwhile."""
        before = len(swarm.peers)
        yield
        self._peers += len(swarm.peers) - before

    def _drop_empty(self) -> None:
        for info_hash, swarm in list(self._swarms.items()):
            self._sweep(swarm)
            if not swarm.peers:
                del self._swarms[info_hash]


def _is_stuck(peer: Peer, report: Announce) -> bool:
    """Whether a gateway received nothing since its last announce."""
    return peer.gateway is not None and peer.is_leech and peer.left == report.left
