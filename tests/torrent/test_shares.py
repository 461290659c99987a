"""The shares of a crowd: no piece is two peers' share, and none is nobody's."""

from __future__ import annotations

import os
import random

import pytest

from docket.torrent.shares import FIRST, LATER, Shares, share


@pytest.mark.parametrize(("pieces", "peers"), [(800, 50), (7, 3), (3, 7), (1, 1), (0, 4)])
def test_a_crowd_shares_all_pieces_out(pieces: int, peers: int) -> None:
    """Shares don't overlap, have all pieces together, and differ by one piece at most."""
    crowd = [os.urandom(20) for _ in range(peers)]
    rare = sorted(random.sample(range(10_000), pieces))
    shares = [share(rare, one, [other for other in crowd if other != one]) for one in crowd]
    assert sorted(piece for one in shares for piece in one) == rare
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_is_what_only_seeds_have() -> None:
    """Pieces that are here, that another host has or that nobody wants are in no share."""
    shares = Shares(b"a", wanted=[True, True, True, True, False])
    found = shares.changes(
        have=[True, False, False, False, False],
        availability=[1, 2, 1, 1, 1],
        seeds=1,
        others={b"b"},
    )
    assert found == [(2, FIRST)]


def test_a_share_follows_the_crowd() -> None:
    """Each change is told once: pieces that become somebody else's go back to the others."""
    shares = Shares(b"a", wanted=[True] * 4)
    have, availability = [False] * 4, [1] * 4
    first = shares.changes(have, availability, seeds=1, others={b"b"})
    assert first == [(0, FIRST), (1, FIRST)]
    assert shares.changes(have, availability, seeds=1, others={b"b"}) == []
    assert shares.changes(have, availability, seeds=1, others={b"b", b"c", b"d"}) == [(1, LATER)]


def test_a_share_is_kept_until_it_is_done() -> None:
    """What others fetch moves no border; who has one piece to go is dealt one of what is left."""
    shares = Shares(b"b", wanted=[True] * 8)
    have, availability = [False] * 8, [1] * 8
    shares.changes(have, availability, seeds=1, others={b"a"})
    have[4:6] = [True, True]
    availability[0] = 2
    assert shares.changes(have, availability, seeds=1, others={b"a"}) == [(4, LATER), (5, LATER)]
    have[6] = True
    assert shares.changes(have, availability, seeds=1, others={b"a"}) == [
        (3, FIRST),
        (6, LATER),
    ]


def test_who_is_alone_has_no_share() -> None:
    """Without other hosts that fetch, all pieces are alike."""
    shares = Shares(b"a", wanted=[True] * 4)
    shares.changes([False] * 4, [1] * 4, seeds=1, others={b"b"})
    assert shares.dealt
    assert shares.changes([False] * 4, [1] * 4, seeds=1, others=()) == [(0, LATER), (1, LATER)]
    assert not shares.dealt
