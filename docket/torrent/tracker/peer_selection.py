"""Which peers an announce is answered with: peers of the same zone first, and few outside it.

A zone is a network or a label. Its peers know each other. Only some of its leeches, its *gateways*,
get gateways of other zones and a seed outside too, so that about one copy of an image enters a
zone, however many peers it has. Connections go both ways, so one side needs the address; therefore
only gateways are named to gateways of other zones.

- How many gateways a zone has is in `PeerLimits`. Away from the registry its seeds count as
  gateways, since whoever knows a seed needs no more. The first hosts that fetch the torrent's piece
  hashes get a reservation, and call themselves gateways by their peer ids, so that gateways know
  each other. The claim counts only with the reservation, which belongs to the host's address.
- Away from the registry the zone gets one more for each interval that its oldest gateway has been
  fetching: two slow gateways must not delay their zone for ever. Twelve are seldom all slow, unless
  the links are; then more of them would only take more of the registry's link.
- A leech that announces before its time receives nothing from its peers: it becomes a gateway too,
  up to the limit.
- A gateway that hasn't connected to the registry's seed within `CONFIRM_SECONDS`, or that received
  nothing between two announces, loses its place: dead or invented peers keep none. Until then, an
  address that holds many places yields one to a host at an address with fewer.

So thousands of hosts don't split the registry's link into as many parts, none of which delivers a
piece in good time. Peers that aren't docket's always get the registry's seed in its own zone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from docket.torrent.zone import source_of

CONFIRM_SECONDS = 3.0
"""How long a gateway may take to connect to the registry's seed: libtorrent's connect timeout."""

OUTSIDERS = 12
"""Gateways that a gateway gets, of its own zone and of others."""

NEIGHBOURS = 6
"""Peers of its zone that a host gets; about as many others get it.

A host that serves a whole fleet at once completes no piece before each peer has a part of it.
"""

FURTHER = 3
"""The same at later announces in time: the host has neighbours, but some may have left."""

SEED_SHARE = 4
"""One place in this many goes to a seed, when there are more leeches than places."""


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """How many gateways a zone has at first, and at most when leeches starve or they are slow."""

    first: int
    most: int


REGISTRY_ZONE = PeerLimits(first=12, most=24)
"""In the zone of the registry."""

OTHER_ZONE = PeerLimits(first=2, most=8)
"""Elsewhere. With four gateways at first, up to 2.6 images entered a zone, with two 1.4."""


class Bag:
    """Endpoints by source, from which some are drawn in constant time.

    Sources are drawn first: an address with a thousand peers is drawn as often as one with one.
    """

    __slots__ = ("_by_source", "_indexes", "_places", "_sources")

    def __init__(self) -> None:
        self._indexes: dict[bytes, int] = {}  # of each endpoint in the list of its source
        self._by_source: dict[bytes, list[bytes]] = {}
        self._sources: list[bytes] = []
        self._places: dict[bytes, int] = {}  # of each source in the list of sources

    def __len__(self) -> int:
        return len(self._indexes)

    def __contains__(self, endpoint: bytes) -> bool:
        return endpoint in self._indexes

    def add(self, endpoint: bytes) -> None:
        """Put *endpoint* in, once."""
        if endpoint in self._indexes:
            return
        source = source_of(endpoint)
        members = self._by_source.setdefault(source, [])
        if not members:
            self._places[source] = len(self._sources)
            self._sources.append(source)
        self._indexes[endpoint] = len(members)
        members.append(endpoint)

    def discard(self, endpoint: bytes) -> None:
        """Take *endpoint* out, if it is in."""
        if endpoint not in self._indexes:
            return
        source = source_of(endpoint)
        members = self._by_source[source]
        _remove(endpoint, members, self._indexes)
        if not members:
            del self._by_source[source]
            _remove(source, self._sources, self._places)

    def draw(self, count: int, chance: random.Random) -> list[bytes]:
        """*count* endpoints or all, of as many sources as there are, from a random one on."""
        total = len(self._sources)
        if not total or count <= 0:
            return []
        # a run of sources is as good as a random choice: it starts elsewhere for each request
        start = int(chance.random() * total)
        run = self._sources[start : start + count]
        if len(run) < min(count, total):
            run += self._sources[: min(count - len(run), start)]
        return list(self._one_of_each(run, count, chance))

    def _one_of_each(
        self, sources: Sequence[bytes], count: int, chance: random.Random
    ) -> Iterator[bytes]:
        """*count* endpoints of *sources* or all: the first of each, then the second, and so on."""
        lists = [self._by_source[source] for source in sources]
        starts = [int(chance.random() * len(own)) if len(own) > 1 else 0 for own in lists]
        turn = 0
        while count > 0:
            row = [
                own[(start + turn) % len(own)]
                for own, start in zip(lists, starts, strict=True)
                if turn < len(own)
            ]
            if not row:
                return
            yield from row[:count]
            count -= len(row)
            turn += 1


def _remove(item: bytes, items: list[bytes], positions: dict[bytes, int]) -> None:
    """Take *item* out of *items*, whose places are *places*; the last one takes its place."""
    position = positions.pop(item)
    last = items.pop()
    if last != item:
        items[position] = last
        positions[last] = position


@dataclass(slots=True)
class Gateway:
    """A leech that gets peers outside its zone, *since* a time; *confirmed* when it uses that."""

    since: float
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Reservation:
    """A gateway's place for a host that hasn't announced yet, at the address of *source*."""

    since: float
    source: bytes


@dataclass(slots=True)
class Zone:
    """The peers of a torrent in one zone; gateways by endpoint, reservations by token, in order."""

    leeches: Bag = field(default_factory=Bag)
    seeds: Bag = field(default_factory=Bag)
    gateways: dict[bytes, Gateway] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether it has no peer and expects none."""
        return not (len(self.leeches) or len(self.seeds) or self.reservations)

    def expire_reservations(self, before: float) -> None:
        """Forget the hosts that reserved a place *before* that time and never announced."""
        for token, reservation in list(self.reservations.items()):
            if reservation.since >= before:
                break
            del self.reservations[token]

    def claim_reservation(self, source: bytes) -> bool:
        """Whether a host at *source* had reserved a place; the reservation ends."""
        for token, reservation in self.reservations.items():
            if reservation.source == source:
                del self.reservations[token]
                return True
        return False

    def unconfirmed(self, before: float) -> list[bytes]:
        """Gateways since *before* that time that haven't connected to the registry's seed."""
        return [
            endpoint
            for endpoint, gateway in self.gateways.items()
            if not gateway.confirmed and gateway.since < before
        ]

    def has_gateway_room(
        self, now: float, interval: float, *, in_registry_zone: bool, is_early: bool = False
    ) -> bool:
        """Whether one more of its leeches should get peers outside.

        *is_early*: it announces before its time. *in_registry_zone*: the registry is in this zone.
        """
        limits = REGISTRY_ZONE if in_registry_zone else OTHER_ZONE
        if is_early:
            return len(self.gateways) < limits.most
        expected = len(self.gateways) + len(self.reservations)
        if in_registry_zone:
            # the registry costs no more than seeds here do, and it stays
            return expected < limits.first
        most = limits.first
        if self.gateways:
            oldest = next(iter(self.gateways.values())).since
            most = min(most + int((now - oldest) / interval), limits.most)
        return expected + len(self.seeds) < most

    def largest_holder(self, source: bytes) -> bytes | str | None:
        """The oldest unproven place of the source that holds most of them, to give to *source*.

        An endpoint or a token; None where *source* would then hold as many as that one.
        """
        claims: list[tuple[bytes, bytes | str]] = [
            (reservation.source, token) for token, reservation in self.reservations.items()
        ]
        claims += [
            (source_of(endpoint), endpoint)
            for endpoint, gateway in self.gateways.items()
            if not gateway.confirmed
        ]
        counts = Counter(holder for holder, _ in claims)
        if not counts:
            return None
        largest, count = counts.most_common(1)[0]
        if count <= counts[source] + 1:
            return None
        return next(claim for holder, claim in claims if holder == largest)


def choose(
    zone: Zone,
    asker: bytes,
    *,
    wanted: int,
    is_leech: bool,
    gateways: Bag | None,
    chance: random.Random,
) -> list[bytes]:
    """At most *wanted* peers for *asker*, which is in *zone*; never itself.

    *gateways* are those of all zones, for a leech that is one; None for other peers. Leeches come
    first, then seeds, then gateways; a seed gets no seeds.
    """
    chosen_gateways = _others(gateways, asker, min(OUTSIDERS, wanted), chance) if gateways else []
    room = wanted - len(chosen_gateways)
    seeds = _others(zone.seeds, asker, room, chance, chosen_gateways) if is_leech else []
    kept = min(len(seeds), max(room // SEED_SHARE, room - len(zone.leeches)))
    leeches = _others(zone.leeches, asker, room - kept, chance, chosen_gateways)
    return leeches + seeds[: room - len(leeches)] + chosen_gateways


def _others(
    bag: Bag, asker: bytes, count: int, chance: random.Random, chosen_before: Sequence[bytes] = ()
) -> list[bytes]:
    drawn = bag.draw(
        count + 1 + len(chosen_before), chance
    )  # the asker and those may be among them
    return [endpoint for endpoint in drawn if endpoint != asker and endpoint not in chosen_before][
        : max(count, 0)
    ]
