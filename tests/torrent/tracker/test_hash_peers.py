"""Which hosts tell others: in what order, how often, for how long, and how many are remembered."""

from __future__ import annotations

import pytest

from docket.torrent.tracker.hash_peers import TELLER_SECONDS, TURNS, HashPeers

_HASH, _ZONE = b"h" * 20, b"zone"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """At zero."""
    return Clock()


@pytest.fixture
def hash_peers(clock: Clock) -> HashPeers:
    """Without any host."""
    return HashPeers(clock)


def test_the_first_tells_a_few_then_the_next(hash_peers: HashPeers) -> None:
    """Who came first has the hashes first; nobody tells more than its turns."""
    for one in ("a:1", "b:1", "a:1"):
        hash_peers.add(_HASH, _ZONE, one)
    chosen = [hash_peers.choose(_HASH, _ZONE) for _ in range(2 * TURNS + 1)]
    assert chosen == ["a:1"] * TURNS + ["b:1"] * TURNS + [""]


def test_torrents_and_zones_are_apart(hash_peers: HashPeers) -> None:
    """A host tells its own torrent, in its own zone."""
    hash_peers.add(_HASH, _ZONE, "a:1")
    assert hash_peers.choose(_HASH, b"other") == ""
    assert hash_peers.choose(b"x" * 20, _ZONE) == ""
    assert hash_peers.choose(_HASH, _ZONE) == "a:1"


def test_who_told_nothing_is_removed(hash_peers: HashPeers) -> None:
    """Others stay; removing one that isn't there is a no-op."""
    for one in ("a:1", "b:1"):
        hash_peers.add(_HASH, _ZONE, one)
    for one in ("a:1", "c:1"):
        hash_peers.remove(_HASH, _ZONE, one)
    hash_peers.remove(_HASH, b"other", "b:1")
    assert hash_peers.choose(_HASH, _ZONE) == "b:1"


def test_hosts_are_taken_for_gone_after_a_while(hash_peers: HashPeers, clock: Clock) -> None:
    """Their pull is over, or they are."""
    hash_peers.add(_HASH, _ZONE, "a:1")
    clock.now = TELLER_SECONDS / 2
    hash_peers.add(_HASH, _ZONE, "b:1")
    clock.now = TELLER_SECONDS + 1
    assert hash_peers.choose(_HASH, _ZONE) == "b:1"
    clock.now = 3 * TELLER_SECONDS
    assert hash_peers.choose(_HASH, _ZONE) == ""


def test_memory_is_bounded(hash_peers: HashPeers) -> None:
    """In one crowd, and over all of them: the oldest crowd is forgotten."""
    for number in range(1000):
        hash_peers.add(_HASH, _ZONE, f"a:{number}")
    told = 0
    while hash_peers.choose(_HASH, _ZONE):
        told += 1
    assert TURNS <= told <= 100 * TURNS
    for number in range(1001):
        hash_peers.add(b"%020d" % number, _ZONE, "a:1")
    assert hash_peers.choose(b"%020d" % 0, _ZONE) == ""
    assert hash_peers.choose(b"%020d" % 1000, _ZONE) == "a:1"
