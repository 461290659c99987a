"""The peers of one torrent, as the tracker remembers them."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from docket.torrent.tracker.announce import Announce
from docket.torrent.tracker.peer_selection import Bag, Gateway, Zone
from docket.torrent.zone import source_of

_CANDIDATES = 8


@dataclass(slots=True)
class Peer:
    """A peer; *identity* is its id and key, empty without a key; *left* what it lacks, in bytes.

    *has_failed*: it was a gateway and lost its place, so it gets none before it proves itself.
    """

    compact: bytes
    peer_id: bytes
    identity: bytes
    zone: bytes
    seen: float
    left: int
    is_leech: bool
    is_complete: bool
    gateway: Gateway | None = None
    has_failed: bool = False


@dataclass(slots=True)
class SwarmPeers:
    """Peers by endpoint, those that announced last at the end.

    No peer announces from another's endpoint, so none replaces or stops another one; only with its
    id and its key a peer takes its entry along to a new address. *totals* counts the peers of each
    source in all torrents, *by_source* those of this one; *unproven* are endpoints by peer id.
    """

    totals: Counter[bytes] = field(default_factory=Counter)
    peers: OrderedDict[bytes, Peer] = field(default_factory=OrderedDict)
    by_identity: dict[bytes, bytes] = field(default_factory=dict)
    by_source: Counter[bytes] = field(default_factory=Counter)
    zones: dict[bytes, Zone] = field(default_factory=dict)
    gateways: Bag = field(default_factory=Bag)
    unproven: dict[bytes, dict[bytes, None]] = field(default_factory=dict)
    complete: int = 0
    completed: int = 0
    admitted: float | None = None

    def place_of(self, report: Announce) -> bytes | None:
        """The endpoint at which this peer is remembered, which may differ from its present one."""
        if report.compact in self.peers:
            return report.compact
        return self.by_identity.get(identity_of(report))

    def put(self, report: Announce, now: float) -> Peer:
        """Remember a peer as it reports itself, instead of its former entry."""
        identity = identity_of(report)
        before = self.peers.get(report.compact)
        if (
            before is not None
            and (before.identity, before.peer_id) == (identity, report.peer_id)
            and before.zone == report.zone
            and before.is_leech == report.is_leech
        ):
            before.seen, before.left = now, report.left
            self.peers.move_to_end(report.compact)
            return before
        known = self.remove(report)
        peer = Peer(
            compact=report.compact,
            peer_id=report.peer_id,
            identity=identity,
            zone=report.zone,
            seen=now,
            left=report.left,
            is_leech=report.is_leech,
            is_complete=not report.left,
            has_failed=bool(known and known.has_failed),
        )
        self.peers[peer.compact] = peer
        self._count(source_of(peer.compact), 1)
        if peer.has_failed:
            self._await_proof(peer)
        if identity:
            self.by_identity[identity] = peer.compact
        self.complete += peer.is_complete
        zone = self.zones.setdefault(peer.zone, Zone())
        (zone.leeches if peer.is_leech else zone.seeds).add(peer.compact)
        if known and known.gateway is not None:
            self.open_gateway(peer, known.gateway)
        return peer

    def open_gateway(self, peer: Peer, gateway: Gateway) -> None:
        """The peer gets peers outside its zone, and they get it."""
        peer.gateway = gateway
        self.gateways.add(peer.compact)
        if not gateway.confirmed:
            self._await_proof(peer)
        if peer.is_leech:
            self.zones[peer.zone].gateways[peer.compact] = gateway

    def confirm(self, peer_id: bytes, source: bytes, now: float) -> None:
        """A peer of that id at *source* has connected to the registry's seed: it holds its place.

        A connection proves one endpoint: the newest at *source*, or else anywhere.
        """
        endpoints = self.unproven.get(peer_id, {})
        newest = sorted(endpoints, key=lambda endpoint: source_of(endpoint) == source)[-1:]
        for endpoint in newest:
            peer = self.peers[endpoint]
            self._prove(peer)
            if peer.has_failed:
                peer.has_failed = False
                self.open_gateway(peer, Gateway(now, confirmed=True))
            elif peer.gateway is not None:
                peer.gateway.confirmed = True

    def fail_gateway(self, peer: Peer) -> None:
        """The peer loses its place as a gateway, until it connects to the registry's seed."""
        self._close_gateway(peer)
        peer.has_failed = True
        self._await_proof(peer)

    def remove(self, report: Announce) -> Peer | None:
        """Forget the peer that reports, wherever it is remembered; the result is what it was."""
        moved = self.by_identity.get(identity_of(report))
        peer = self.discard(report.compact)
        return (self.discard(moved) if moved else None) or peer

    def discard(self, endpoint: bytes) -> Peer | None:
        """Forget the peer at *endpoint*, if there is one; the result is what it was."""
        peer = self.peers.pop(endpoint, None)
        if peer is None:
            return None
        if self.by_identity.get(peer.identity) == endpoint:
            del self.by_identity[peer.identity]
        self.complete -= peer.is_complete
        self._count(source_of(endpoint), -1)
        gateway = peer.gateway
        self._close_gateway(peer)
        peer.gateway = gateway  # what it was
        zone = self.zones[peer.zone]
        (zone.leeches if peer.is_leech else zone.seeds).discard(endpoint)
        if zone.is_empty:
            del self.zones[peer.zone]
        return peer

    def older_of_larger_source(self, source: bytes) -> bytes | None:
        """One of the oldest peers whose source has more peers than *source*; None without one."""
        for endpoint, _ in zip(self.peers, range(_CANDIDATES), strict=False):
            if self.by_source[source_of(endpoint)] > self.by_source[source] + 1:
                return endpoint
        return None

    def expire_reservations(self, label: bytes, before: float) -> None:
        """Forget a zone's reservations *before* that time, and the zone if it is empty then."""
        if zone := self.zones.get(label):
            zone.expire_reservations(before)
            if zone.is_empty:
                del self.zones[label]

    def _close_gateway(self, peer: Peer) -> None:
        peer.gateway = None
        self.gateways.discard(peer.compact)
        self.zones[peer.zone].gateways.pop(peer.compact, None)
        self._prove(peer)

    def _await_proof(self, peer: Peer) -> None:
        self.unproven.setdefault(peer.peer_id, {})[peer.compact] = None

    def _prove(self, peer: Peer) -> None:
        if endpoints := self.unproven.get(peer.peer_id):
            endpoints.pop(peer.compact, None)
            if not endpoints:
                del self.unproven[peer.peer_id]

    def _count(self, source: bytes, change: int) -> None:
        for counts in (self.by_source, self.totals):
            counts[source] += change
            if not counts[source]:
                del counts[source]


def identity_of(report: Announce) -> bytes:
    """What only this peer can send; it has one for each family of addresses (BEP 7)."""
    if not report.key:
        return b""
    return b"%b%b%d" % (report.peer_id, report.key, len(report.compact))
