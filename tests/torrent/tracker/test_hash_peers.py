"""Which hosts tell others: in what order, how often, for how long, and how many are remembered."""

from __future__ import annotations

import pytest

from docket.torrent.tracker.hash_peers import FAILED_SECONDS, HOST_SECONDS, RECIPIENTS, HashPeers

_HASH, _ZONE, _SOURCE = b"h" * 20, b"zone", b"\x0a\0\0\1"


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
    for address in ("a:1", "b:1", "a:1"):
        hash_peers.add(_HASH, _ZONE, address)
    chosen = [hash_peers.choose(_HASH, _ZONE, source=_SOURCE) for _ in range(2 * RECIPIENTS + 1)]
    assert chosen == ["a:1"] * RECIPIENTS + ["b:1"] * RECIPIENTS + [""]


def test_torrents_and_zones_are_apart(hash_peers: HashPeers) -> None:
    """A host tells its own torrent, in its own zone."""
    hash_peers.add(_HASH, _ZONE, "a:1")
    assert hash_peers.choose(_HASH, b"other", source=_SOURCE) == ""
    assert hash_peers.choose(b"x" * 20, _ZONE, source=_SOURCE) == ""
    assert hash_peers.choose(_HASH, _ZONE, source=_SOURCE) == "a:1"


def test_one_failure_drops_an_address(hash_peers: HashPeers, clock: Clock) -> None:
    """All of its ports, for a while, in that torrent and zone; hosts at others stay."""
    for endpoint in ("a:1", "a:2", "[::1]:1", "b:1"):
        hash_peers.add(_HASH, _ZONE, endpoint)
    hash_peers.add(_HASH, b"other", "a:1")
    assert hash_peers.choose(_HASH, _ZONE, source=_SOURCE) == "a:1"
    hash_peers.remove(_HASH, _ZONE, "a:1", source=_SOURCE)
    hash_peers.add(_HASH, _ZONE, "a:3")
    assert hash_peers.choose(_HASH, _ZONE, source=_SOURCE) == "[::1]:1"
    assert hash_peers.choose(_HASH, b"other", source=_SOURCE) == "a:1"
    clock.now = FAILED_SECONDS + 1
    hash_peers.add(_HASH, _ZONE, "a:3")
    assert hash_peers.choose(_HASH, _ZONE, source=_SOURCE) == "a:3"


def test_only_hosts_that_it_was_named_to_drop_an_address(hash_peers: HashPeers) -> None:
    """A report about a host that was named to nobody, or to another source, is a no-op."""
    hash_peers.add(_HASH, _ZONE, "a:1")
    hash_peers.remove(_HASH, _ZONE, "a:1", source=_SOURCE)
    assert hash_peers.choose(_HASH, _ZONE, source=_SOURCE) == "a:1"
    hash_peers.remove(_HASH, _ZONE, "a:1", source=b"\x0a\0\0\2")
    hash_peers.remove(_HASH, b"other", "a:1", source=_SOURCE)
    assert hash_peers.choose(_HASH, _ZONE, source=_SOURCE) == "a:1"


def test_one_address_takes_few_places(hash_peers: HashPeers) -> None:
    """A host that registers a hundred ports leaves room for hosts at other addresses."""
    for port in range(100):
        hash_peers.add(_HASH, _ZONE, f"a:{port}")
    hash_peers.add(_HASH, _ZONE, "b:1")
    chosen = [hash_peers.choose(_HASH, _ZONE, source=_SOURCE) for _ in range(100 * RECIPIENTS)]
    assert "b:1" in chosen
    assert len({host for host in chosen if host.startswith("a")}) <= 10


def test_hosts_are_taken_for_gone_after_a_while(hash_peers: HashPeers, clock: Clock) -> None:
    """Their pull is over, or they are."""
    hash_peers.add(_HASH, _ZONE, "a:1")
    clock.now = HOST_SECONDS / 2
    hash_peers.add(_HASH, _ZONE, "b:1")
    clock.now = HOST_SECONDS + 1
    assert hash_peers.choose(_HASH, _ZONE, source=_SOURCE) == "b:1"
    clock.now = 3 * HOST_SECONDS
    assert hash_peers.choose(_HASH, _ZONE, source=_SOURCE) == ""


def test_memory_is_bounded(hash_peers: HashPeers) -> None:
    """In one crowd, and over all of them: the oldest crowd is forgotten."""
    for number in range(1000):
        hash_peers.add(_HASH, _ZONE, f"a:{number}")
    named = 0
    while hash_peers.choose(_HASH, _ZONE, source=_SOURCE):
        named += 1
    assert RECIPIENTS <= named <= 100 * RECIPIENTS
    for number in range(1001):
        hash_peers.add(b"%020d" % number, _ZONE, "a:1")
    assert hash_peers.choose(b"%020d" % 0, _ZONE, source=_SOURCE) == ""
    assert hash_peers.choose(b"%020d" % 1000, _ZONE, source=_SOURCE) == "a:1"
