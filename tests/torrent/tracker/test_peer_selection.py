"""Who hears of whom: zones, their gateways, and the choice of peers."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from docket.torrent.peer_id import GATEWAY_PEER, HOST_PEER
from docket.torrent.tracker.announce import MAX_PEERS, Announce
from docket.torrent.tracker.peer_selection import (
    CONFIRM_SECONDS,
    FURTHER,
    NEIGHBOURS,
    OTHER_ZONE,
    OUTSIDERS,
    REGISTRY_ZONE,
    SEED_SHARE,
    Bag,
    Gateway,
    Zone,
    choose,
)
from docket.torrent.tracker.peers import (
    INTERVAL,
    MAX_RESERVATIONS,
    MAX_RESERVATIONS_OF_SOURCE,
    Tracker,
)
from docket.torrent.zone import compact, source_of
from tests.torrent.samples import decoded

_HASH = b"z" * 20
_REGISTRY = ("192.0.2.1", 9999)
_SHARED = "10.7.0.1"

Peer = tuple[str, int]
SEED: Peer = ("registry", 0)


@dataclass
class Fleet:
    """A tracker whose registry is elsewhere, and hosts by zone and number.

    Hosts receive something between two announces, and connect to the registry's seed when they get
    it, unless *are_dead*.
    """

    now: float = 1000.0
    registry_zone: str = ""
    are_dead: bool = False
    names: dict[bytes, Peer] = field(default_factory=lambda: {compact(*_REGISTRY): SEED})
    tracker: Tracker = field(init=False)
    requests: int = 0
    left: int = 1_000_000

    def __post_init__(self) -> None:
        self.tracker = Tracker(clock=lambda: self.now)

    def peers_for(
        self,
        zone: str,
        number: int,
        *,
        address: str = "",
        left: int | None = None,
        event: str = "",
        prefix: bytes = b"",
    ) -> set[Peer]:
        """Zone and number of the peers that a host gets when it announces."""
        self.left -= 1
        label = "" if address and not zone.startswith("=") else zone.removeprefix("=")
        endpoint = _endpoint(zone, number, address)
        peer_id = _peer_id(prefix, endpoint[1])
        report = Announce.parse(
            b"info_hash=%b&peer_id=%b&port=%d&left=%d&event=%b"
            % (
                _HASH,
                peer_id,
                endpoint[1],
                (0 if self.are_dead else self.left) + 1 if left is None else left,
                event.encode(),
            ),
            address=endpoint[0],
            zone=label,
        )
        self.names[compact(*endpoint)] = (zone, number)
        answer: dict[bytes, Any] = decoded(
            self.tracker.announce(report, extra=[_REGISTRY], extra_zone=self.registry_zone)
        )
        peers = set(self._named(answer))
        if SEED in peers and not self.are_dead:
            self.tracker.confirm_gateway(_HASH, peer_id, endpoint[0])
        return peers

    def reserved(
        self, zone: str, token: str = "", *, number: int | None = None, address: str = ""
    ) -> bool:
        """Whether a host of *zone* gets a reservation; without *token*, one that never asked.

        It is at *address*, or at that of the host with *number*.
        """
        self.requests += 1
        token = token or str(self.requests)
        number = self.requests if number is None else number
        host = address or _endpoint(zone, number, "")[0]
        label = zone.removeprefix("=")
        return self.tracker.reserve_gateway(
            _HASH,
            label.encode(),
            token=token,
            source=source_of(compact(host, 0)),
            in_registry_zone=label == self.registry_zone,
        )

    def joined(self, zone: str, number: int, **more: Any) -> set[Peer]:
        """What a host gets that reserves a gateway's place, and announces itself as one."""
        self.reserved(zone, number=number, address=more.get("address", ""))
        return self.peers_for(zone, number, prefix=GATEWAY_PEER, **more)

    def outside(self, zone: str, number: int, **more: Any) -> set[Peer]:
        """Those of them that aren't in the host's zone."""
        return {peer for peer in self.peers_for(zone, number, **more) if peer[0] != zone}

    def _named(self, answer: dict[bytes, Any]) -> Iterable[Peer]:
        for key, width in ((b"peers", 6), (b"peers6", 18)):
            for at in range(0, len(answer[key]), width):
                yield self.names[answer[key][at : at + width]]


KINDS = pytest.mark.parametrize("prefix", [b"", HOST_PEER], ids=["foreign", "docket"])
"""What the hosts of a test are: other programs, or docket's that nobody invited."""


@pytest.fixture
def fleet() -> Fleet:
    """No host has come."""
    return Fleet()


def test_only_the_first_leeches_of_a_zone_hear_of_the_outside(fleet: Fleet) -> None:
    """Two gateways hear of the registry's seed; whoever comes later hears of the zone alone."""
    for number in range(OTHER_ZONE.first):
        assert fleet.outside("a", number) == {SEED}
    for number in range(OTHER_ZONE.first, 20):
        assert fleet.peers_for("a", number) == {("a", neighbour) for neighbour in range(number)}


def test_gates_hear_of_the_gates_of_other_zones_and_of_no_one_else_there(fleet: Fleet) -> None:
    """Zones give to each other through their gateways, since connections go both ways."""
    for number in range(10):
        fleet.peers_for("a", number)
    assert fleet.outside("b", 0) == {SEED, ("a", 0), ("a", 1)}
    for number in range(1, 10):
        fleet.peers_for("b", number)
    assert fleet.outside("a", 0) == {SEED, ("b", 0), ("b", 1)}
    assert fleet.outside("a", 10) == set()


@KINDS
def test_a_gate_that_stops_has_a_successor(fleet: Fleet, prefix: bytes) -> None:
    """Who announces next takes its place; nobody hears of the one that stopped."""
    for number in range(5):
        fleet.peers_for("a", number, prefix=prefix)
    fleet.peers_for("a", 0, event="stopped", prefix=prefix)
    fleet.now += INTERVAL
    assert fleet.outside("a", 4, prefix=prefix) == {SEED}
    assert fleet.outside("b", 0, prefix=prefix) == {SEED, ("a", 1), ("a", 4)}


@KINDS
def test_gates_that_die_have_successors(fleet: Fleet, prefix: bytes) -> None:
    """Two intervals after the gateways' last word others are gateways."""
    for number in range(4):
        fleet.peers_for("a", number, prefix=prefix)
    fleet.now += INTERVAL
    fleet.peers_for("a", 3, event="started", prefix=prefix)
    fleet.now += INTERVAL + 1
    assert fleet.peers_for("a", 3, prefix=prefix) == {SEED}


def test_a_zone_with_seeds_of_its_own_needs_no_gates(fleet: Fleet) -> None:
    """Seeds count as gateways do."""
    fleet.peers_for("a", 0, left=0)
    assert fleet.outside("a", 1) == {SEED}
    fleet.peers_for("a", 2, left=0)
    assert fleet.peers_for("a", 3) == {("a", 0), ("a", 1), ("a", 2)}


def test_a_gate_that_has_all_is_still_told_outside(fleet: Fleet) -> None:
    """Other zones go on hearing of it, while it hears of its own zone's leeches alone."""
    for number in range(3):
        fleet.peers_for("a", number)
    assert fleet.peers_for("a", 0, left=0, event="completed") == {("a", 1), ("a", 2)}
    assert fleet.outside("b", 0) == {SEED, ("a", 0), ("a", 1)}


@KINDS
def test_slow_gates_get_company(fleet: Fleet, prefix: bytes) -> None:
    """One more for each interval that the oldest gateway has been fetching, and not without end."""
    for number in range(20):
        fleet.peers_for("a", number, prefix=prefix)
    for more in range(1, 12):
        fleet.now += INTERVAL
        gateways = {number for number in range(20) if fleet.outside("a", number, prefix=prefix)}
        assert len(gateways) == min(OTHER_ZONE.first + more, OTHER_ZONE.most)


def test_gates_near_the_registry_get_no_company_for_being_slow() -> None:
    """There are enough of them: where all are slow, it is the links that are."""
    fleet = Fleet(registry_zone="a")
    for _ in range(10):
        answers = [fleet.peers_for("a", number, prefix=HOST_PEER) for number in range(40)]
        assert sum(SEED in answer for answer in answers) == REGISTRY_ZONE.first
        fleet.now += INTERVAL


@KINDS
def test_a_leech_that_cannot_wait_becomes_a_gate(fleet: Fleet, prefix: bytes) -> None:
    """Announcing before its time means getting nothing; there is a bound to this, too."""
    for number in range(20):
        fleet.peers_for("a", number, prefix=prefix)
    fleet.now += INTERVAL / 3
    outsiders = [
        number
        for number in range(OTHER_ZONE.first, 20)
        if fleet.outside("a", number, prefix=prefix)
    ]
    assert outsiders == list(range(OTHER_ZONE.first, OTHER_ZONE.most))


def test_a_host_near_the_registry_that_cannot_wait_hears_of_its_seed() -> None:
    """However many gateways there were at first, there is room for some that starve."""
    fleet = Fleet(registry_zone="a")
    for number in range(40):
        fleet.joined("a", number)
    fleet.now += INTERVAL / 3
    starving = range(REGISTRY_ZONE.first, 40)
    admitted = [
        number for number in starving if SEED in fleet.peers_for("a", number, prefix=HOST_PEER)
    ]
    assert admitted == list(range(REGISTRY_ZONE.first, REGISTRY_ZONE.most))


def test_without_labels_a_network_is_a_zone(fleet: Fleet) -> None:
    """Peers of a /24 are together; in IPv6 those of a /64 are."""
    for number in range(1, 5):
        fleet.peers_for("one", number, address=f"10.0.1.{number}")
        fleet.peers_for("two", number, address=f"10.0.2.{number}")
        fleet.peers_for("six", number, address=f"2001:db8:0:6::{number}")
        fleet.peers_for("seven", number, address=f"2001:db8:0:7::{number}")
    assert fleet.peers_for("one", 5, address="10.0.1.5") == {
        ("one", number) for number in range(1, 5)
    }
    assert fleet.peers_for("six", 5, address="2001:db8:0:6::5") == {
        ("six", number) for number in range(1, 5)
    }
    assert fleet.outside("one", 1, address="10.0.1.1") == {
        SEED,
        *((zone, number) for zone in ("two", "six", "seven") for number in (1, 2)),
    }


def test_other_programs_in_the_registrys_zone_hear_of_its_seed_always() -> None:
    """By its label, or else by its network; of docket's hosts only gateways do."""
    labelled = Fleet(registry_zone="a")
    plain = Fleet()
    for number in range(1, REGISTRY_ZONE.most + 10):
        assert SEED in labelled.peers_for("a", number)
        assert SEED in plain.peers_for("near", number, address=f"192.0.2.{number + 1}")
    assert [SEED in labelled.peers_for("b", number) for number in range(3)] == [True, True, False]


def test_hosts_in_the_registrys_zone_are_invited_up_to_a_number() -> None:
    """They hear of the seed; docket's other hosts there hear of them, and of no seed."""
    fleet = Fleet(registry_zone="a")
    reserved = [fleet.reserved("a") for _ in range(REGISTRY_ZONE.first + 2)]
    assert reserved == [True] * REGISTRY_ZONE.first + [False, False]
    for number, is_gateway in enumerate(reserved, 1):
        answers = fleet.peers_for("a", number, prefix=GATEWAY_PEER if is_gateway else HOST_PEER)
        assert (SEED in answers) is is_gateway
    assert fleet.reserved("b")


def test_an_invitation_that_nobody_follows_is_forgotten() -> None:
    """A host that got the torrent and never came leaves its place to others."""
    fleet = Fleet(registry_zone="a")
    for _ in range(REGISTRY_ZONE.first):
        assert fleet.reserved("a")
    assert not fleet.reserved("a")
    assert SEED not in fleet.peers_for("a", 0, prefix=HOST_PEER)
    fleet.now += INTERVAL + 1
    assert fleet.reserved("a")
    assert SEED in fleet.peers_for("a", 0, prefix=HOST_PEER)


def test_who_asks_again_takes_no_second_place() -> None:
    """A host that got no answer asks with the same token, and is answered the same."""
    fleet = Fleet(registry_zone="a")
    assert [fleet.reserved("a", "one") for _ in range(REGISTRY_ZONE.first + 2)] == [True] * (
        REGISTRY_ZONE.first + 2
    )
    others = [fleet.reserved("a") for _ in range(REGISTRY_ZONE.first)]
    assert others == [True] * (REGISTRY_ZONE.first - 1) + [False]


def test_who_was_not_invited_takes_no_invitation(fleet: Fleet) -> None:
    """Another program, or a host that is no gateway, leaves the place to who was told yes."""
    reserved = [fleet.reserved("a", number=2 + more) for more in range(OTHER_ZONE.first + 1)]
    assert reserved == [True] * OTHER_ZONE.first + [False]
    for number, prefix in enumerate((b"", HOST_PEER)):
        assert SEED not in fleet.peers_for("a", number, prefix=prefix)
    assert not fleet.reserved("a")
    assert SEED in fleet.peers_for("a", 2, prefix=GATEWAY_PEER)
    assert not fleet.reserved("a")


def test_zones_that_only_asked_are_forgotten(fleet: Fleet) -> None:
    """Hostile input: a flood of labels takes memory for an interval, and up to a bound."""
    before = _zones()
    fleet.peers_for("a", 0)
    reserved = [
        fleet.reserved(f"zone{number}", address=f"10.{number >> 8}.{number & 255}.1")
        for number in range(MAX_RESERVATIONS + 2)
    ]
    assert reserved == [True] * MAX_RESERVATIONS + [False] * 2
    fleet.now += INTERVAL + 1
    assert fleet.reserved("b", number=1)
    assert _zones() == before + 2


@pytest.mark.parametrize("event", ["stopped", ""])
def test_a_zone_whose_last_peer_went_while_one_was_invited(fleet: Fleet, event: str) -> None:
    """It is forgotten with the invitation."""
    before = _zones()
    fleet.peers_for("a", 0)
    assert fleet.reserved("a")
    if event:
        fleet.peers_for("a", 0, event=event)
    fleet.now += 2 * INTERVAL + 1
    fleet.tracker.scrape([_HASH])
    assert _zones() == before


def test_gates_of_a_zone_hear_of_all_of_them() -> None:
    """However many hosts there are, those that share the registry's seed know each other."""
    fleet = Fleet(registry_zone="a")
    for number in range(100):
        fleet.joined("a", number)
    answers = fleet.peers_for("a", 0, prefix=GATEWAY_PEER)
    assert answers >= {SEED, *(("a", number) for number in range(1, REGISTRY_ZONE.first))}


def test_where_the_registry_is_seeds_do_not_take_its_place() -> None:
    """They may be gone without a word; the registry isn't."""
    fleet = Fleet(registry_zone="a")
    for number in range(REGISTRY_ZONE.first):
        fleet.peers_for("a", number, left=0)
    assert fleet.reserved("a", number=99)
    assert SEED in fleet.peers_for("a", 99, prefix=GATEWAY_PEER)


def test_a_host_hears_of_few_others_and_of_fewer_when_it_has_met_some(fleet: Fleet) -> None:
    """Docket's hosts; who announces before its time gets nothing, and hears of as many again."""
    for number in range(100):
        fleet.peers_for("a", number, prefix=HOST_PEER)
    fleet.now += INTERVAL / 3
    for number in range(OTHER_ZONE.most):
        fleet.peers_for("a", number, prefix=HOST_PEER)
    assert len(fleet.peers_for("a", 100, prefix=HOST_PEER)) == NEIGHBOURS
    fleet.now += INTERVAL
    assert len(fleet.peers_for("a", 100, prefix=HOST_PEER)) == FURTHER
    fleet.now += 1
    assert len(fleet.peers_for("a", 100, prefix=HOST_PEER)) == NEIGHBOURS
    assert len(fleet.peers_for("a", 101, prefix=b"-lt0D80-")) > NEIGHBOURS


def test_a_label_counts_more_than_the_network(fleet: Fleet) -> None:
    """Two racks in one network are two zones when they say so."""
    fleet.peers_for("one", 1, address="10.0.1.1")
    fleet.peers_for("rack", 2)
    endpoint = compact("10.0.1.9", 9)
    report = Announce.parse(
        b"info_hash=%b&peer_id=%b&port=9" % (_HASH, b"p" * 20), address="10.0.1.9", zone="rack"
    )
    fleet.names[endpoint] = ("rack", 9)
    fleet.tracker.announce(report)
    assert fleet.peers_for("rack", 2) >= {("rack", 9)}
    fleet.peers_for("one", 3, address="10.0.1.3")
    assert fleet.peers_for("one", 4, address="10.0.1.4") == {("one", 1), ("one", 3)}


def test_a_zone_is_forgotten_with_its_last_peer(fleet: Fleet) -> None:
    """A flood of labels leaves nothing behind: the next one there is the first."""
    fleet.peers_for("a", 0)
    fleet.peers_for("a", 0, event="stopped")
    fleet.peers_for("a", 1)
    assert fleet.outside("a", 2) == {SEED}
    assert fleet.outside("a", 3) == set()


@pytest.mark.parametrize(
    ("leeches", "seeds", "of_leeches", "of_seeds"),
    [
        (200, 200, MAX_PEERS - MAX_PEERS // SEED_SHARE, MAX_PEERS // SEED_SHARE),
        (200, 3, MAX_PEERS - 3, 3),
        (10, 200, 10, MAX_PEERS - 10),
        (0, 200, 0, MAX_PEERS),
        (200, 0, MAX_PEERS, 0),
        (3, 4, 3, 4),
    ],
)
def test_leeches_come_first_and_leave_room_for_some_seeds(
    leeches: int, seeds: int, of_leeches: int, of_seeds: int
) -> None:
    """A leech hears of both, as far as there are places; a seed hears of leeches alone."""
    zone = _zone(leeches, seeds)
    asker = _peer("x", 0)
    for chance in map(random.Random, range(20)):
        chosen = choose(zone, asker, wanted=MAX_PEERS, is_leech=True, gateways=None, chance=chance)
        assert [endpoint[:1] for endpoint in chosen] == [b"l"] * of_leeches + [b"s"] * of_seeds
        assert len(set(chosen)) == len(chosen)
        chosen = choose(zone, asker, wanted=MAX_PEERS, is_leech=False, gateways=None, chance=chance)
        assert [endpoint[:1] for endpoint in chosen] == [b"l"] * min(leeches, MAX_PEERS)


@pytest.mark.parametrize("wanted", [0, 1, OUTSIDERS, MAX_PEERS])
def test_a_gate_keeps_places_for_outsiders(wanted: int) -> None:
    """However many are in its zone, a gateway hears of some of the outside, and of itself never."""
    zone = _zone(100, 100)
    gateways = Bag()
    for number in range(3):
        endpoint = _peer("l", number)
        zone.gateways[endpoint] = Gateway(0.0)
        gateways.add(endpoint)
    for number in range(40):
        gateways.add(_peer("o", number))
    for chance in map(random.Random, range(20)):
        chosen = choose(
            zone, _peer("l", 0), wanted=wanted, is_leech=True, gateways=gateways, chance=chance
        )
        assert len(chosen) == wanted == len(set(chosen))
        last = chosen[-min(wanted, OUTSIDERS) or len(chosen) :]
        assert all(gateway in gateways for gateway in last)
        assert len(last) == min(wanted, OUTSIDERS)
        assert _peer("l", 0) not in chosen


def test_invented_gateways_keep_out_nobody() -> None:
    """24 announces with dead ports and a gateway's id, from the address of an honest host."""
    fleet = Fleet(registry_zone="a", are_dead=True)
    for number in range(REGISTRY_ZONE.most):
        fleet.peers_for("=a", number, prefix=GATEWAY_PEER, address=_SHARED)
    fleet.are_dead = False
    fleet.now += CONFIRM_SECONDS + 0.1
    assert fleet.reserved("=a", number=50, address=_SHARED)
    assert SEED in fleet.peers_for("=a", 50, prefix=GATEWAY_PEER, address=_SHARED)
    fleet.are_dead = True
    for _ in range(3):
        for number in range(REGISTRY_ZONE.most):
            fleet.peers_for("=a", number, prefix=GATEWAY_PEER, address=_SHARED, event="started")
        fleet.now += 10
    for number in range(REGISTRY_ZONE.most):
        peers = fleet.peers_for("=a", number, prefix=GATEWAY_PEER, address=_SHARED, event="started")
        assert SEED not in peers


def test_one_address_leaves_places_to_hosts_at_others() -> None:
    """While nothing has been proven yet: reservations and invented gateways alike."""
    fleet = Fleet(registry_zone="a", are_dead=True)
    for number in range(REGISTRY_ZONE.first // 2):
        fleet.peers_for("=a", number, address=_SHARED, prefix=HOST_PEER)
        assert fleet.reserved("=a", address=_SHARED)
    assert not fleet.reserved("=a", address=_SHARED)
    fleet.are_dead = False
    assert fleet.reserved("=a", number=60, address="10.7.0.60")
    assert SEED in fleet.peers_for("=a", 60, address="10.7.0.60", prefix=GATEWAY_PEER)
    assert SEED in fleet.peers_for("=a", 61, address="10.7.0.61", prefix=HOST_PEER)


def test_gateways_that_proved_themselves_yield_to_nobody() -> None:
    """Hosts behind one NAT that are connected keep their places, whoever comes later."""
    fleet = Fleet(registry_zone="a")
    for number in range(REGISTRY_ZONE.first):
        assert SEED in fleet.peers_for("=a", number, address=_SHARED, prefix=HOST_PEER)
    fleet.now += CONFIRM_SECONDS + 1
    assert not fleet.reserved("=a", address="10.7.0.60")
    assert SEED not in fleet.peers_for("=a", 60, address="10.7.0.60", prefix=HOST_PEER)


def test_a_gateway_that_receives_nothing_loses_its_place(fleet: Fleet) -> None:
    """Connected to the seed, but with the same number of bytes missing after an interval."""
    for number in range(OTHER_ZONE.first):
        assert SEED in fleet.peers_for("a", number, left=500)
    assert SEED not in fleet.peers_for("a", 8)
    fleet.now += INTERVAL
    assert SEED not in fleet.peers_for("a", 0, left=500)
    assert SEED in fleet.peers_for("a", 1, left=499)
    assert SEED in fleet.peers_for("a", 8)


def test_a_gateway_that_connects_late_gets_its_place_back(fleet: Fleet) -> None:
    """It proves itself whenever it connects; until then others may take the place."""
    fleet.are_dead = True
    assert SEED in fleet.peers_for("a", 0, left=500)
    fleet.now += CONFIRM_SECONDS + 1
    fleet.are_dead = False
    for number in range(1, 1 + OTHER_ZONE.first):
        assert SEED in fleet.peers_for("a", number)
    assert SEED not in fleet.peers_for("a", 0, left=400)
    endpoint = _endpoint("a", 0, "")
    fleet.tracker.confirm_gateway(_HASH, _peer_id(b"", endpoint[1]), endpoint[0])
    fleet.now += INTERVAL
    assert SEED in fleet.peers_for("a", 0, left=300)


def test_one_connection_proves_one_gateway() -> None:
    """A peer id that many endpoints announce counts for the newest of its address alone."""
    tracker = Tracker(clock=lambda: 0.0)
    for port in range(1, 1 + REGISTRY_ZONE.first):
        query = b"info_hash=%b&peer_id=%b&port=%d&left=9" % (_HASH, b"-DK0100-aaaaaaaaaaaa", port)
        report = Announce.parse(query, address=_SHARED, zone="a")
        tracker.announce(report, extra=[_REGISTRY], extra_zone="a")
    tracker.confirm_gateway(_HASH, b"-DK0100-aaaaaaaaaaaa", _SHARED)
    (zone,) = tracker._swarms[_HASH].zones.values()
    assert [gateway.confirmed for gateway in zone.gateways.values()].count(True) == 1


def test_one_address_reserves_a_bounded_number(fleet: Fleet) -> None:
    """A flood of labels leaves reservations to hosts at other addresses."""
    reserved = [
        fleet.reserved(f"zone{number}", address=_SHARED)
        for number in range(MAX_RESERVATIONS_OF_SOURCE + 1)
    ]
    assert reserved == [True] * MAX_RESERVATIONS_OF_SOURCE + [False]
    assert fleet.reserved("b", number=1)


def test_a_reservation_belongs_to_its_address(fleet: Fleet) -> None:
    """A gateway's peer id alone takes no place; the host that reserved it does."""
    for number in (5, 6):
        assert fleet.reserved("a", number=number)
    assert SEED not in fleet.peers_for("a", 7, prefix=GATEWAY_PEER)
    assert SEED in fleet.peers_for("a", 5, prefix=GATEWAY_PEER)


@pytest.mark.parametrize("addresses", [("10.3.3.3", "10.3.3.3"), ("fd00::1", "fd00::ffff")])
def test_an_address_with_many_peers_is_drawn_no_oftener(addresses: tuple[str, str]) -> None:
    """A thousand peers at one IPv4 address or /64, and ten hosts at their own."""
    bag = Bag()
    for number in range(1000):
        bag.add(compact(addresses[number % 2], 1000 + number))
    for number in range(10):
        bag.add(compact(f"10.1.1.{number}", 99))
    drawn = bag.draw(6, random.Random(3))
    assert sum(source_of(endpoint)[:2] != b"\x0a\x01" for endpoint in drawn) <= 1
    drawn_all = bag.draw(2000, random.Random(3))
    assert len(drawn_all) == len(set(drawn_all)) == len(bag) == 1010


def test_all_of_a_bag_are_drawn_alike() -> None:
    """Over many draws everyone comes up, about as often as others, and never twice in one."""
    bag = Bag()
    for number in range(30):
        bag.add(_peer("p", number))
        bag.add(_peer("p", number))
    for number in range(0, 30, 3):
        bag.discard(_peer("p", number))
        bag.discard(_peer("p", number))
    chance = random.Random(5)
    counts = dict.fromkeys((_peer("p", number) for number in range(30) if number % 3), 0)
    for _ in range(4000):
        drawn = bag.draw(5, chance)
        assert len(set(drawn)) == 5
        for endpoint in drawn:
            counts[endpoint] += 1
    assert max(counts.values()) < 1.3 * min(counts.values())
    assert sorted(bag.draw(99, chance)) == sorted(counts)
    assert bag.draw(0, chance) == Bag().draw(3, chance) == []


def _zones() -> int:
    """How many zones there are in memory."""
    gc.collect()
    return sum(isinstance(thing, Zone) for thing in gc.get_objects())


def _zone(leeches: int, seeds: int) -> Zone:
    zone = Zone()
    for number in range(leeches):
        zone.leeches.add(_peer("l", number))
    for number in range(seeds):
        zone.seeds.add(_peer("s", number))
    return zone


def _peer(kind: str, number: int) -> bytes:
    return kind.encode() + number.to_bytes(3, "big") + b"\0\1"


def _endpoint(zone: str, number: int, address: str) -> tuple[str, int]:
    if address:
        return address, 5000 + number
    return f"10.9.{number}.1", 20_000 + 100 * ord(zone[0]) + number


def _peer_id(prefix: bytes, number: int) -> bytes:
    return prefix + b"%0*d" % (20 - len(prefix), number)
