"""Which hosts tell others: in what order, how often, for how long, and how many are remembered."""

from __future__ import annotations

import pytest

from docket.torrent.tellers import TELLER_SECONDS, TURNS, Tellers

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
def tellers(clock: Clock) -> Tellers:
    """Without any host."""
    return Tellers(clock)


def test_the_first_tells_a_few_then_the_next(tellers: Tellers) -> None:
    """Who came first has the hashes first; nobody tells more than its turns."""
    for one in ("a:1", "b:1", "a:1"):
        tellers.add(_HASH, _ZONE, one)
    chosen = [tellers.choose(_HASH, _ZONE) for _ in range(2 * TURNS + 1)]
    assert chosen == ["a:1"] * TURNS + ["b:1"] * TURNS + [""]


def test_torrents_and_zones_are_apart(tellers: Tellers) -> None:
    """A host tells its own torrent, in its own zone."""
    tellers.add(_HASH, _ZONE, "a:1")
    assert tellers.choose(_HASH, b"other") == ""
    assert tellers.choose(b"x" * 20, _ZONE) == ""
    assert tellers.choose(_HASH, _ZONE) == "a:1"


def test_who_told_nothing_is_removed(tellers: Tellers) -> None:
    """Others stay; removing one that isn't there is a no-op."""
    for one in ("a:1", "b:1"):
        tellers.add(_HASH, _ZONE, one)
    for one in ("a:1", "c:1"):
        tellers.remove(_HASH, _ZONE, one)
    tellers.remove(_HASH, b"other", "b:1")
    assert tellers.choose(_HASH, _ZONE) == "b:1"


def test_hosts_are_taken_for_gone_after_a_while(tellers: Tellers, clock: Clock) -> None:
    """Their pull is over, or they are."""
    tellers.add(_HASH, _ZONE, "a:1")
    clock.now = TELLER_SECONDS / 2
    tellers.add(_HASH, _ZONE, "b:1")
    clock.now = TELLER_SECONDS + 1
    assert tellers.choose(_HASH, _ZONE) == "b:1"
    clock.now = 3 * TELLER_SECONDS
    assert tellers.choose(_HASH, _ZONE) == ""


def test_memory_is_bounded(tellers: Tellers) -> None:
    """In one crowd, and over all of them: the oldest crowd is forgotten."""
    for number in range(1000):
        tellers.add(_HASH, _ZONE, f"a:{number}")
    told = 0
    while tellers.choose(_HASH, _ZONE):
        told += 1
    assert TURNS <= told <= 100 * TURNS
    for number in range(1001):
        tellers.add(b"%020d" % number, _ZONE, "a:1")
    assert tellers.choose(b"%020d" % 0, _ZONE) == ""
    assert tellers.choose(b"%020d" % 1000, _ZONE) == "a:1"
