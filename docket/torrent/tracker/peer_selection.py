"""Who hears of whom: peers of one zone first, and few of them of the world outside.

A zone is a network or a label. Its peers hear of each other. Only some of its leeches, its
*gateways*, hear of the gateways of other zones and of a seed outside too, so that about one copy of
an image comes into a zone, however many peers it has. Connections go both ways, so that telling one
side is telling both: nobody but gateways is told to gateways of other zones.

- A zone has `GATEWAYS` gateways, and `NEAR_GATEWAYS` where the registry is. Elsewhere its seeds
  count as such, since who has a seed needs no more. The first hosts that ask for the torrent are
  invited to be gateways, and then say so by their peer ids, so that the gateways know each other.
- Away from the registry, one more for each interval that its oldest gateway has been fetching, up
  to `MOST_GATEWAYS`: two slow gateways must not hold up their zone for ever. All of twelve are
  seldom slow, unless the links are; then more of them only cost more of the registry's.
- A leech that announces before its time gets nothing where it is: it becomes one, too, up to
  `MOST_GATEWAYS`, and `MOST_NEAR_GATEWAYS` where the registry is.

So a crowd of thousands doesn't split the registry's link into as many parts, of which none brings a
piece in good time. Peers that aren't docket's, where the registry is, hear of it always.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

GATEWAYS = 2
"""Leeches of a zone that fetch from outside, to begin with."""

NEAR_GATEWAYS = 12
"""The same in the zone of the registry."""

MOST_GATEWAYS = 8
"""Gateways of a zone when those that it had are slow, or leeches starve."""

MOST_NEAR_GATEWAYS = 24
"""The same in the zone of the registry."""

OUTSIDERS = 12
"""Gateways that a gateway is told of, of its own zone and of others."""

NEIGHBOURS = 6
"""Others of its zone that a host is told of; as many hear of it, in the mean.

A host that serves all of a crowd at once ends no piece before each of them has a part of it.
"""

FURTHER = 3
"""The same when it announces again in time: it has neighbours, but some may have left."""

SEED_SHARE = 4
"""One place in so many goes to a seed, when there are more leeches than places."""


class Bag:
    """Endpoints that come and go, of which some are drawn without looking at all."""

    __slots__ = ("_endpoints", "_places")

    def __init__(self) -> None:
        self._endpoints: list[bytes] = []
        self._places: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._endpoints)

    def __contains__(self, endpoint: bytes) -> bool:
        return endpoint in self._places

    def add(self, endpoint: bytes) -> None:
        """Put *endpoint* in, once."""
        if endpoint not in self._places:
            self._places[endpoint] = len(self._endpoints)
            self._endpoints.append(endpoint)

    def discard(self, endpoint: bytes) -> None:
        """Take *endpoint* out, if it is in."""
        place = self._places.pop(endpoint, None)
        if place is None:
            return
        last = self._endpoints.pop()
        if last != endpoint:
            self._endpoints[place] = last
            self._places[last] = place

    def draw(self, count: int, chance: random.Random) -> list[bytes]:
        """*count* of them or all, beginning at a random place."""
        total = len(self._endpoints)
        if not total or count <= 0:
            return []
        # a run is as good as a choice of each: its place is another one for each asker
        start = int(chance.random() * total)
        run = self._endpoints[start : start + count]
        if len(run) < min(count, total):
            run += self._endpoints[: min(count - len(run), start)]
        return run


@dataclass(slots=True)
class Zone:
    """The peers of a torrent in one zone; *gateways* are leeches, with the time they became
    gateways.

    *invited* are hosts that were and didn't come yet, by their tokens, with the times, in order.
    """

    leeches: Bag = field(default_factory=Bag)
    seeds: Bag = field(default_factory=Bag)
    gateways: dict[bytes, float] = field(default_factory=dict)
    invited: dict[str, float] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here or about to come."""
        return not (len(self.leeches) or len(self.seeds) or self.invited)

    def forget_invited(self, before: float) -> None:
        """Whoever was invited *before* that doesn't come any more."""
        for token, invited in list(self.invited.items()):
            if invited >= before:
                break
            del self.invited[token]

    def claim_reservation(self) -> None:
        """One of those that were invited is here."""
        if self.invited:
            del self.invited[next(iter(self.invited))]

    def has_gateway_room(
        self, now: float, interval: float, *, in_registry_zone: bool, is_early: bool = False
    ) -> bool:
        """Whether one more of its leeches, that *is_early* or not, should hear of the outside.

        *in_registry_zone* tells whether the registry is in this zone.
        """
        if is_early:
            return len(self.gateways) < (MOST_NEAR_GATEWAYS if in_registry_zone else MOST_GATEWAYS)
        coming = len(self.gateways) + len(self.invited)
        if in_registry_zone:
            # the registry costs no more than seeds here do, and it is surely there
            return coming < NEAR_GATEWAYS
        most = GATEWAYS
        if self.gateways:
            oldest = next(iter(self.gateways.values()))
            most = min(most + int((now - oldest) / interval), MOST_GATEWAYS)
        return coming + len(self.seeds) < most


def choose(
    zone: Zone,
    asker: bytes,
    *,
    wanted: int,
    is_leech: bool,
    gateways: Bag | None,
    chance: random.Random,
) -> list[bytes]:
    """At most *wanted* peers for *asker*, who is in *zone*; never itself.

    *gateways* are those of all zones, for a leech that is one; None for others. Leeches come first,
    then seeds, then gateways; a seed hears of no seeds.
    """
    known = _others(gateways, asker, min(OUTSIDERS, wanted), chance) if gateways else []
    room = wanted - len(known)
    seeds = _others(zone.seeds, asker, room, chance, known) if is_leech else []
    kept = min(len(seeds), max(room // SEED_SHARE, room - len(zone.leeches)))
    leeches = _others(zone.leeches, asker, room - kept, chance, known)
    return leeches + seeds[: room - len(leeches)] + known


def _others(
    bag: Bag, asker: bytes, count: int, chance: random.Random, known: Sequence[bytes] = ()
) -> list[bytes]:
    drawn = bag.draw(count + 1 + len(known), chance)  # the asker and the known may be among them
    return [one for one in drawn if one != asker and one not in known][: max(count, 0)]
