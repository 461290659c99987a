"""The peer table: who is told of whom, and for how long."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_from_bytes

import pytest

from docket.errors import InvalidAnnounce
from docket.torrent.peer_id import (
    GATEWAY_PEER,
    HOST_PEER,
    REGISTRY_PEER,
    is_docket,
    is_gateway,
    is_registry,
)
from docket.torrent.tracker.announce import MAX_PEERS, Announce, failure
from docket.torrent.tracker.peers import INTERVAL, MAX_OF_SOURCE_IN_TORRENT, Tracker
from docket.torrent.zone import compact, zone_of
from tests.torrent.samples import decoded

_HASH = bytes(range(20))
_OTHER_HASH = b"\xff" * 20


@dataclass
class Clock:
    """A clock that a test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Swarm:
    """A tracker and the peers that announce to it, each by a number."""

    clock: Clock = field(default_factory=Clock)
    tracker: Tracker = field(init=False)

    def __post_init__(self) -> None:
        self.tracker = Tracker(clock=self.clock)

    def announce(
        self,
        number: int,
        *,
        left: int = 100,
        event: str = "",
        numwant: int | None = None,
        extra: tuple[tuple[str, int], ...] = (),
    ) -> dict[bytes, Any]:
        """What the peer with this number is answered."""
        query = _query(peer_id=b"-XX0001-%012d" % number, port=1000 + number, left=left)
        query += f"&event={event}".encode() if event else b""
        query += f"&numwant={numwant}".encode() if numwant is not None else b""
        report = Announce.parse(query, address=_address(number))
        answer: dict[bytes, Any] = decoded(self.tracker.announce(report, extra=extra))
        return answer

    def peers_for(self, number: int, **options: Any) -> list[int]:
        """The numbers of the peers that this one is told of, in no order."""
        ports = [port for _, port in _peers(self.announce(number, **options))]
        return sorted(port - 1000 for port in ports)


@pytest.fixture
def swarm() -> Swarm:
    """An empty swarm at a standing clock."""
    return Swarm()


def test_an_address_is_compact_in_six_or_eighteen_bytes() -> None:
    """BEP 23 and BEP 7: address and port in network order; mapped addresses are IPv4."""
    assert compact("10.1.2.3", 6881) == b"\x0a\x01\x02\x03\x1a\xe1"
    assert compact("2001:db8::1", 80) == socket.inet_pton(socket.AF_INET6, "2001:db8::1") + b"\0P"
    assert compact("::ffff:10.1.2.3", 6881) == compact("10.1.2.3", 6881)
    with pytest.raises(InvalidAnnounce):
        compact("registry.example", 80)


def test_peers_of_both_families_come_apart(swarm: Swarm) -> None:
    """IPv4 peers stand in peers, IPv6 peers in peers6."""
    swarm.announce(1)
    query = _query(peer_id=b"v6" * 10, port=7)
    swarm.tracker.announce(Announce.parse(query, address="2001:db8::7"))
    answer = swarm.announce(2)
    assert answer[b"peers"] == compact(_address(1), 1001)
    assert answer[b"peers6"] == compact("2001:db8::7", 7)


def test_a_peer_is_not_told_of_itself(swarm: Swarm) -> None:
    """The requester is left out, also when it was there before."""
    assert swarm.peers_for(1) == []
    assert swarm.peers_for(1) == []
    assert swarm.peers_for(2) == [1]
    assert swarm.peers_for(1) == [2]


def test_a_peer_that_came_back_is_not_told_of_its_old_self(swarm: Swarm) -> None:
    """A restarted peer has another id at the same address; that is no other peer."""
    for peer_id in (b"a" * 20, b"b" * 20):
        report = Announce.parse(_query(peer_id=peer_id, port=1001), address=_address(1))
        answer = decoded(swarm.tracker.announce(report))
    assert answer[b"peers"] == b""


def test_leeches_are_told_of_all_and_seeds_of_leeches(swarm: Swarm) -> None:
    """Two seeds have nothing to say to each other."""
    swarm.announce(1, left=0)
    swarm.announce(2, left=0)
    swarm.announce(3)
    assert swarm.peers_for(4) == [1, 2, 3]
    assert swarm.peers_for(1, left=0) == [3, 4]
    answer = swarm.announce(5)
    assert (answer[b"complete"], answer[b"incomplete"]) == (2, 3)


def test_swarms_are_apart(swarm: Swarm) -> None:
    """A peer of one torrent is none of another."""
    swarm.announce(1)
    report = Announce.parse(_query(info_hash=_OTHER_HASH), address="10.0.0.9")
    assert decoded(swarm.tracker.announce(report))[b"peers"] == b""
    assert swarm.tracker.peers(_HASH) == swarm.tracker.peers(_OTHER_HASH) == 1


def test_extra_seeds_come_last_and_to_leeches_alone(swarm: Swarm) -> None:
    """The registry's own seed is always named to a leech, after all others; never to a seed."""
    extra = (("10.9.9.9", 9999),)
    swarm.announce(1)
    answer = swarm.announce(2, extra=extra)
    assert _peers(answer) == [(_address(1), 1001), ("10.9.9.9", 9999)]
    assert answer[b"complete"] == 1
    assert _peers(swarm.announce(2, numwant=0, extra=extra)) == [("10.9.9.9", 9999)]
    assert _peers(swarm.announce(3, left=0, extra=extra))[-1][1] != 9999
    assert _peers(swarm.announce(2, event="stopped", numwant=0, extra=extra)) == []


def test_an_extra_seed_that_announces_too_is_named_once(swarm: Swarm) -> None:
    """The registry's seed stands once, even when it is in the table."""
    swarm.announce(1, left=0)
    extra = ((_address(1), 1001),)
    assert _peers(swarm.announce(2, extra=extra)) == [(_address(1), 1001)]


def test_a_full_table_takes_no_more_peers_until_others_are_gone() -> None:
    """There is a bound over all torrents: one more is answered, is told to nobody, and waits."""
    swarm = Swarm()
    swarm.tracker = Tracker(max_peers=3, clock=swarm.clock)
    announce = Announce(_OTHER_HASH, b"o" * 20, compact("10.0.0.9", 9), 1, "", 50)
    swarm.tracker.announce(announce)
    assert swarm.peers_for(1) == []
    assert swarm.peers_for(2) == [1]
    assert swarm.peers_for(3) == [1, 2]
    assert swarm.peers_for(1) == [2]
    swarm.announce(2, event="stopped")
    swarm.peers_for(4)
    assert swarm.peers_for(1) == [4]
    swarm.peers_for(5)
    assert swarm.peers_for(1) == [4]
    # the peer of the other torrent is gone, though nobody has asked for that torrent since
    swarm.clock.now += 2 * INTERVAL + 1
    swarm.peers_for(6)
    swarm.peers_for(7)
    swarm.peers_for(8)
    assert swarm.peers_for(6) == [7, 8]
    assert swarm.tracker.peers(_OTHER_HASH) == 0


def test_a_stopped_peer_is_gone_at_once(swarm: Swarm) -> None:
    """BEP 3: after stopped nobody is told of the peer, and it is told of nobody."""
    swarm.announce(1)
    swarm.announce(2)
    assert swarm.peers_for(1, event="stopped") == []
    assert swarm.peers_for(2) == []
    assert swarm.tracker.peers(_HASH) == 1


def test_a_peer_that_missed_two_announces_is_gone(swarm: Swarm) -> None:
    """A peer stays for two intervals after its last announce, and no longer."""
    swarm.announce(1)
    swarm.announce(2, left=0)
    swarm.clock.now += 2 * INTERVAL
    assert swarm.peers_for(3) == [1, 2]
    swarm.clock.now += 1.5
    assert swarm.peers_for(3) == []


def test_a_peer_that_announces_in_time_stays(swarm: Swarm) -> None:
    """Every announce counts anew, whoever came in between."""
    swarm.announce(1)
    swarm.announce(2)
    for _ in range(5):
        swarm.clock.now += INTERVAL
        swarm.announce(1)
    assert swarm.peers_for(3) == [1]


def test_a_dead_peer_is_gone_after_two_intervals_at_once(swarm: Swarm) -> None:
    """Whoever asked just before: no peer is told a moment longer than two intervals."""
    swarm.announce(1)
    swarm.clock.now += 2 * INTERVAL - 0.01
    assert swarm.peers_for(2) == [1]
    swarm.clock.now += 0.02
    assert swarm.peers_for(2) == []


def test_a_peer_that_moves_keeps_its_entry_by_its_key(swarm: Swarm) -> None:
    """Key: with the same id and key a peer at a new address is the peer that it was."""
    _come(swarm, "10.0.0.7", key=b"secret")
    _come(swarm, "10.0.0.8", key=b"secret")
    assert _peers(swarm.announce(1)) == [("10.0.0.8", 7000)]
    assert swarm.tracker.peers(_HASH) == 2
    _come(swarm, "10.0.0.9", key=b"secret", event="stopped")
    assert swarm.peers_for(1) == []


@pytest.mark.parametrize("key", [b"", b"guessed"])
@pytest.mark.parametrize("event", ["", "stopped"])
def test_nobody_takes_over_a_peer_without_its_key(swarm: Swarm, key: bytes, event: str) -> None:
    """Key: who knows but a peer's id can neither stop it nor send others elsewhere."""
    _come(swarm, "10.0.0.7", key=b"secret")
    _come(swarm, "10.0.0.66", key=key, event=event)
    assert ("10.0.0.7", 7000) in _peers(swarm.announce(1))


def test_a_peer_of_both_families_has_two_entries(swarm: Swarm) -> None:
    """BEP 7: a host announces over IPv4 and IPv6 with one id and key; both addresses are told."""
    _come(swarm, "10.0.0.7", key=b"secret")
    _come(swarm, "2001:db8::7", key=b"secret", zone="here")
    _come(swarm, "10.0.0.7", key=b"secret", zone="here")
    report = Announce.parse(_query(peer_id=b"a" * 20), address="10.0.0.1", zone="here")
    answer = decoded(swarm.tracker.announce(report))
    assert answer[b"peers"] == compact("10.0.0.7", 7000)
    assert answer[b"peers6"] == compact("2001:db8::7", 7000)


def test_a_paused_peer_wants_nothing(swarm: Swarm) -> None:
    """BEP 21: a peer with all that it wants gets no seeds, though it lacks some of the torrent."""
    swarm.announce(1, left=0)
    swarm.announce(2)
    extra = (("10.0.0.99", 9999),)
    assert _peers(swarm.announce(3, event="paused", extra=extra)) == [(_address(2), 1002)]
    assert swarm.peers_for(2) == [1, 3]
    assert _scraped(swarm.tracker, _HASH)[b"incomplete"] == 2


def test_a_torrent_too_many_is_answered_and_not_remembered(swarm: Swarm) -> None:
    """There is a bound of torrents; one whose peers are gone makes room."""
    swarm.tracker = Tracker(max_torrents=1, clock=swarm.clock)
    swarm.announce(1)
    announce = Announce(_OTHER_HASH, b"o" * 20, compact("10.0.0.9", 9), 1, "", 50)
    swarm.tracker.announce(announce)
    assert swarm.tracker.peers(_OTHER_HASH) == 0
    swarm.announce(1, event="stopped")
    swarm.clock.now += 1
    swarm.tracker.announce(announce)
    assert swarm.tracker.peers(_OTHER_HASH) == 1


@pytest.mark.parametrize("addresses", [["10.8.0.1"], ["fd00::1", "fd00::ffff:2"]])
def test_one_source_fills_no_table(swarm: Swarm, addresses: list[str]) -> None:
    """An address or /64 has a bound of places in a torrent, whatever ports it announces."""
    for number in range(MAX_OF_SOURCE_IN_TORRENT + 50):
        query = _query(peer_id=b"%020d" % number, port=1 + number)
        address = addresses[number % len(addresses)]
        swarm.tracker.announce(Announce.parse(query, address=address, zone="z"))
    assert swarm.tracker.peers(_HASH) == MAX_OF_SOURCE_IN_TORRENT
    swarm.announce(1)
    assert swarm.tracker.peers(_HASH) == MAX_OF_SOURCE_IN_TORRENT + 1


def test_in_a_full_table_a_new_source_takes_the_place_of_a_crowded_one() -> None:
    """Two addresses hold all places; a host at a third is remembered, one of theirs is not."""
    swarm = Swarm()
    swarm.tracker = Tracker(max_peers=40, clock=swarm.clock)
    for number in range(40):
        query = _query(peer_id=b"%020d" % number, port=1 + number)
        swarm.tracker.announce(Announce.parse(query, address=f"10.8.0.{number % 2}"))
    swarm.announce(1)
    assert swarm.peers_for(2) == [1]
    assert swarm.tracker.peers(_HASH) == 40


def test_a_thousand_hosts_behind_one_address_are_remembered(swarm: Swarm) -> None:
    """A bound of places must not refuse an honest fleet behind a NAT."""
    for number in range(1000):
        query = _query(peer_id=b"-DK0100-%012d" % number, port=1 + number)
        swarm.tracker.announce(Announce.parse(query, address="10.8.0.1"))
    assert swarm.tracker.peers(_HASH) == 1000


def test_the_tracker_knows_when_a_torrent_was_admitted(swarm: Swarm) -> None:
    """Known torrents only: how long ago the registry had one, which the caller may trust or not."""
    assert swarm.tracker.admitted_seconds(_HASH) is None
    swarm.tracker.admit(_HASH)
    swarm.clock.now += 2
    assert swarm.tracker.admitted_seconds(_HASH) == 2
    assert swarm.tracker.admitted_seconds(_OTHER_HASH) is None
    swarm.tracker.admit(_HASH)
    assert swarm.tracker.admitted_seconds(_HASH) == 0
    swarm.tracker.dismiss(_HASH)
    assert swarm.tracker.admitted_seconds(_HASH) is None


def test_a_leech_that_has_all_becomes_a_seed(swarm: Swarm) -> None:
    """A completed peer is counted once among the seeds, and as a download."""
    swarm.announce(1)
    swarm.announce(1, left=0, event="completed")
    swarm.announce(1, left=0)
    answer = swarm.announce(2)
    assert (answer[b"complete"], answer[b"incomplete"]) == (1, 1)
    assert _scraped(swarm.tracker, _HASH) == {b"complete": 1, b"downloaded": 1, b"incomplete": 1}


@pytest.mark.parametrize(
    ("numwant", "expected"),
    [
        (None, MAX_PEERS),
        (-1, MAX_PEERS),
        (0, 0),
        (1, 1),
        (7, 7),
        (200, MAX_PEERS),
        (10**17, MAX_PEERS),
    ],
)
def test_no_more_peers_are_told_than_asked_and_allowed(
    swarm: Swarm, numwant: int | None, expected: int
) -> None:
    """The answer has numwant peers, 50 at most, all of them different and none the requester.

    A negative number means that the tracker is to choose, as over UDP (BEP 15).
    """
    for number in range(200):
        swarm.announce(number)
    for number in (0, 99, 199):
        answered = swarm.peers_for(number, numwant=numwant)
        assert len(set(answered)) == len(answered) == expected
        assert number not in answered


def test_leeches_of_a_crowd_are_told_of_different_peers(swarm: Swarm) -> None:
    """Answers are spread: over some of them, far more peers are named than one answer has."""
    for number in range(200):
        swarm.announce(number)
    named = {peer for _ in range(40) for peer in swarm.peers_for(5)}
    assert len(named) > 3 * MAX_PEERS


def test_the_interval_is_told(swarm: Swarm) -> None:
    """Peers learn when to come again."""
    answer = swarm.announce(1)
    assert answer[b"interval"] == INTERVAL
    assert 0 < answer[b"min interval"] < INTERVAL


def test_the_query_is_read_as_bytes() -> None:
    """BEP 3: info_hash and peer_id are percent-encoded bytes, of any value."""
    everything = bytes(range(236, 256))
    report = Announce.parse(
        b"info_hash=%s&peer_id=%s&port=6881&left=5&event=started&compact=1&numwant=9&ip=6.6.6.6"
        % (quote_from_bytes(everything).encode(), quote_from_bytes(_HASH, safe="").encode()),
        address="10.0.0.1",
    )
    assert report == Announce(
        info_hash=everything,
        peer_id=_HASH,
        compact=compact("10.0.0.1", 6881),
        left=5,
        event="started",
        wanted=9,
        zone=zone_of(compact("10.0.0.1", 6881)),
    )


def test_a_peer_that_does_not_say_what_it_lacks_is_a_leech() -> None:
    """Without left a peer is told of seeds too."""
    query = b"info_hash=%s&peer_id=%s&port=1" % (b"a" * 20, b"b" * 20)
    assert Announce.parse(query, address="10.0.0.1").left > 0


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"&&&===",
        b"\xff\xfe\x00",
        b"hello",
        b"info_hash=short&peer_id=" + b"b" * 20 + b"&port=1",
        b"info_hash=" + b"a" * 21 + b"&peer_id=" + b"b" * 20 + b"&port=1",
        b"info_hash=" + b"a" * 20 + b"&port=1",
        b"info_hash=" + b"a" * 20 + b"&peer_id=&port=1",
        *(
            b"info_hash=" + b"a" * 20 + b"&peer_id=" + b"b" * 20 + target
            for target in (
                b"",
                b"&port=",
                b"&port=0",
                b"&port=-1",
                b"&port=65536",
                b"&port=http",
                b"&port=%D9%A3",
                b"&port=1&left=-5",
                b"&port=1&left=lots",
                b"&port=1&left=",
                b"&port=1&left=" + b"9" * 19,
                b"&port=1&numwant=1.5",
                b"&port=1&key=" + b"x" * 3000,
            )
        ),
    ],
)
def test_a_report_that_is_none_is_refused(query: bytes) -> None:
    """What doesn't follow BEP 3 is refused as such, whatever it is."""
    with pytest.raises(InvalidAnnounce):
        Announce.parse(query, address="10.0.0.1")


@pytest.mark.parametrize("label", ["a b", "-a", "a/b", "ä", "x" * 65, "."])
def test_a_label_that_is_none_is_refused(label: str) -> None:
    """A zone's label is a part of a path, so it has letters, digits, dots and dashes alone."""
    with pytest.raises(InvalidAnnounce):
        Announce.parse(_query(), address="10.0.0.1", zone=label)


@pytest.mark.parametrize(
    ("begins", "kinds"),
    [
        (HOST_PEER, (True, False, False)),
        (GATEWAY_PEER, (True, True, False)),
        (REGISTRY_PEER, (False, False, True)),
        (b"-DE2110-", (False, False, False)),
        (b"\0" * 8, (False, False, False)),
    ],
)
def test_a_peer_id_tells_what_a_peer_is_in_any_version(
    begins: bytes, kinds: tuple[bool, bool, bool]
) -> None:
    """BEP 20: a dash and two letters; hosts of two versions meet in one crowd."""
    for version in (begins, begins[:3] + b"9900-"):
        peer_id = version + b"x" * 12
        assert (is_docket(peer_id), is_gateway(peer_id), is_registry(peer_id)) == kinds


def test_a_report_from_no_address_is_refused() -> None:
    """A peer without an IP address can't be told to others."""
    with pytest.raises(InvalidAnnounce):
        Announce.parse(_query(), address="")


def test_a_refusal_is_said_in_bencoding() -> None:
    """BEP 3: failure reason, of a length that clients show."""
    assert decoded(failure("no such torrent")) == {b"failure reason": b"no such torrent"}
    assert len(decoded(failure("x" * 1000))[b"failure reason"]) == 200


def test_scrape_counts_the_torrents_asked_for(swarm: Swarm) -> None:
    """BEP 48: counts by info-hash, without those that are unknown."""
    swarm.announce(1, left=0)
    swarm.announce(2)
    swarm.announce(3)
    answer = decoded(swarm.tracker.scrape([_HASH, _OTHER_HASH, _HASH]))
    assert answer == {b"files": {_HASH: {b"complete": 1, b"downloaded": 0, b"incomplete": 2}}}
    assert decoded(swarm.tracker.scrape([])) == {b"files": {}}


def test_scrape_does_not_count_who_is_gone(swarm: Swarm) -> None:
    """Peers that missed two announces are no longer counted."""
    swarm.announce(1)
    swarm.clock.now += 2 * INTERVAL + 2
    assert _scraped(swarm.tracker, _HASH) == {b"complete": 0, b"downloaded": 0, b"incomplete": 0}


def test_many_threads_announce_at_once(swarm: Swarm) -> None:
    """Nothing is lost or broken when peers come from many threads."""

    def come(first: int) -> None:
        for number in range(first, first + 50):
            swarm.announce(number, left=number % 2)

    threads = [threading.Thread(target=come, args=(first,)) for first in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert swarm.tracker.peers(_HASH) == 400
    answer = swarm.announce(0, left=0)
    assert (answer[b"complete"], answer[b"incomplete"]) == (200, 200)


def _come(swarm: Swarm, address: str, *, key: bytes, event: str = "", zone: str = "") -> None:
    """The peer that moves announces from *address*."""
    query = _query(peer_id=b"m" * 20, port=7000) + b"&key=%b&event=%b" % (key, event.encode())
    swarm.tracker.announce(Announce.parse(query, address=address, zone=zone))


def _address(number: int) -> str:
    return f"10.0.{number // 200}.{number % 200 + 1}"


def _query(
    *, info_hash: bytes = _HASH, peer_id: bytes = b"p" * 20, port: int = 1, left: int = 1
) -> bytes:
    named = quote_from_bytes(info_hash), quote_from_bytes(peer_id)
    return f"info_hash={named[0]}&peer_id={named[1]}&port={port}&left={left}&compact=1".encode()


def _peers(answer: dict[bytes, Any]) -> list[tuple[str, int]]:
    """Addresses and ports in the answer's compact peers."""
    packed = answer[b"peers"]
    rows = [packed[at : at + 6] for at in range(0, len(packed), 6)]
    return [(socket.inet_ntoa(row[:4]), int.from_bytes(row[4:], "big")) for row in rows]


def _scraped(tracker: Tracker, info_hash: bytes) -> dict[bytes, int]:
    files: dict[bytes, dict[bytes, int]] = decoded(tracker.scrape([info_hash]))[b"files"]
    return files[info_hash]
