"""The shares of a crowd: seeds are asked for each piece by one host, whatever others do."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

import pytest

from docket.torrent.peer.piece_assignment import (
    LOOK_SECONDS,
    SHORTEST_LOOK_SECONDS,
    PieceAssignment,
    Priority,
    pause_after_look,
    weights,
)
from docket.torrent.peer_id import GATEWAY_PEER, HOST_PEER

SLOW = 0.5
"""Pieces a second: all that seeds alone have is a long way off."""

FAST = 1e6

SHALLOW = 0.5
"""Pieces that a peer is asked for ahead in a crowd."""

WEIGHTS = [0.86301, 0.090092, 0.46637]


class Host:
    """A host of a crowd, with what is seen from there."""

    def __init__(self, own: bytes, pieces: int, *, wanted: Sequence[bool] | None = None) -> None:
        self.own = own
        self.assignment = PieceAssignment(own, wanted or [True] * pieces)
        self.have = [False] * pieces
        self.availability = [1] * pieces
        self.priorities = [Priority.NORMAL] * pieces

    def look(
        self,
        others: Mapping[bytes, int] | Collection[bytes],
        *,
        rate: float = SLOW,
        now: float = 0.0,
        ahead: float = SHALLOW,
        stalled: bool = False,
    ) -> list[tuple[int, Priority]]:
        """See what changed; one seed is there."""
        crowd = others if isinstance(others, Mapping) else dict.fromkeys(others, 0)
        changes = self.assignment.update(
            self.have,
            self.availability,
            seeds=1,
            others=crowd,
            now=now,
            rate=rate,
            ahead=ahead,
            stalled=stalled,
        )
        for piece, priority in changes:
            self.priorities[piece] = priority
        return changes

    def fetch_first(self) -> list[int]:
        """Get what has the first priority; which pieces were it?"""
        chosen = self.first()
        for piece in chosen:
            self.have[piece] = True
        return chosen

    def first(self) -> list[int]:
        """Pieces that are asked for before all others."""
        return [
            piece
            for piece, priority in enumerate(self.priorities)
            if priority == Priority.HIGH and not self.have[piece]
        ]


def crowd_of(count: int, pieces: int) -> dict[bytes, Host]:
    """So many hosts that have nothing yet."""
    ids = [os.urandom(20) for _ in range(count)]
    return {host_id: Host(host_id, pieces) for host_id in ids}


def share_of(host: Host, others: Mapping[bytes, int] | Collection[bytes]) -> set[int]:
    """All pieces of a host, of those that are rare: what it doesn't leave to others.

    It must have more of them than are asked for ahead, or it takes over others' at once.
    """
    host.look(others)
    rare = [piece for piece, peers in enumerate(host.availability) if peers == 1]
    return {
        piece for piece in rare if not host.have[piece] and host.priorities[piece] != Priority.SKIP
    }


@pytest.mark.parametrize(("pieces", "hosts"), [(800, 50), (90, 3), (400, 9)])
def test_every_piece_has_one_owner(pieces: int, hosts: int) -> None:
    """PieceAssignment of hosts that see the same don't overlap, and have all pieces together."""
    crowd = crowd_of(hosts, pieces)
    shares = [share_of(host, crowd.keys() - {host.own}) for host in crowd.values()]
    assert sorted(piece for share in shares for piece in share) == list(range(pieces))


def test_weights_are_the_same_everywhere() -> None:
    """Hosts with other versions of Python agree: so the first values are written down here."""
    drawn = weights(b"-DK0100-abcdefghijkl", 3)
    assert [round(weight, 6) for weight in drawn] == WEIGHTS


def test_only_pieces_that_seeds_alone_have_are_dealt() -> None:
    """Pieces that are here, that another host has or that nobody wants are in no share."""
    host = Host(b"a", 5, wanted=[True, True, True, True, False])
    host.have[0] = True
    host.availability[1] = 2
    host.look({b"b"}, stalled=True)
    assert set(host.first()) <= {2, 3}
    assert host.priorities[:2] == [Priority.NORMAL, Priority.NORMAL]
    assert host.priorities[4] == Priority.NORMAL  # it was none of this peer's priorities


def test_others_pieces_are_left_to_them_where_links_are_slow() -> None:
    """They aren't asked for at all, until another host has them; on fast links they just wait."""
    host = Host(b"a", 100)
    host.look({b"b", b"c"})
    left = [piece for piece, priority in enumerate(host.priorities) if priority == Priority.SKIP]
    assert len(left) > 50
    host.availability[left[0]] = 2
    assert (left[0], Priority.NORMAL) in host.look({b"b", b"c"})
    host.look({b"b", b"c"}, rate=FAST)
    assert Priority.SKIP not in host.priorities


def test_nothing_is_left_to_others_when_nothing_comes() -> None:
    """Then anything may be asked of anybody."""
    host = Host(b"a", 100)
    host.look({b"b", b"c"})
    host.look({b"b", b"c"}, stalled=True)
    assert Priority.SKIP not in host.priorities


def test_a_newcomer_moves_its_own_part_only() -> None:
    """No piece changes hands between those who were there."""
    crowd = crowd_of(4, 400)
    new = os.urandom(20)
    for host in crowd.values():
        before = share_of(Host(host.own, 400), crowd.keys() - {host.own})
        after = share_of(Host(host.own, 400), (crowd.keys() | {new}) - {host.own})
        assert after < before


def test_pieces_of_one_that_left_are_dealt_to_the_others() -> None:
    """Those who stay have all pieces between them again, and none twice."""
    crowd = crowd_of(4, 200)
    gone = crowd.popitem()[0]
    for host in crowd.values():
        host.look((crowd.keys() | {gone}) - {host.own})
    shares = [share_of(host, crowd.keys() - {host.own}) for host in crowd.values()]
    assert sorted(piece for share in shares for piece in share) == list(range(200))


def test_changes_are_told_once() -> None:
    """What is as before isn't told again."""
    host = Host(b"a", 50)
    assert host.look({b"b"})
    assert host.look({b"b"}) == []


def test_who_is_far_behind_owns_nothing() -> None:
    """A host that came late leaves seeds alone; the others don't wait for it."""
    pieces = 400
    late, early = os.urandom(20), os.urandom(20)
    out = list(range(200))
    newcomer, host = Host(late, pieces), Host(early, pieces)
    for piece in out:
        newcomer.availability[piece] = host.availability[piece] = 2
        host.have[piece] = True
    newcomer.look({early: len(out)})
    assert newcomer.first() == []
    assert newcomer.assignment.is_idle
    assert share_of(host, {late: 0}) == set(range(200, 400))


def test_where_there_are_gates_they_own_all_pieces() -> None:
    """Others don't hear of the registry; where nobody was told whether he is one, all are."""
    gateways = [kind + os.urandom(12) for kind in (GATEWAY_PEER, GATEWAY_PEER, b"-DG9900-")]
    hosts = [HOST_PEER + os.urandom(12) for _ in range(5)]
    crowd = {gateway: Host(gateway, 400) for gateway in gateways}
    shares = [share_of(host, {*gateways, *hosts} - {own}) for own, host in crowd.items()]
    assert sorted(piece for share in shares for piece in share) == list(range(400))
    alone = {host: Host(host, 400) for host in hosts}
    shares_alone = [share_of(host, alone.keys() - {own}) for own, host in alone.items()]
    assert sorted(piece for share in shares_alone for piece in share) == list(range(400))


def test_who_is_done_takes_over_what_owners_come_to_last() -> None:
    """One piece while the one before comes, and of no owner what it is about to fetch."""
    crowd = crowd_of(10, 400)
    shares = {own: share_of(host, crowd.keys() - {own}) for own, host in crowd.items()}
    about = {piece for share in shares.values() for piece in sorted(share)[:2]}
    own = next(iter(crowd))
    others = dict.fromkeys(crowd.keys() - {own}, 50)
    host = Host(own, 400)
    for piece in shares[own]:
        host.have[piece] = True
    host.look(others)
    taken = host.first()
    assert len(taken) == 2
    assert not about.intersection(taken)
    host.look(others)
    assert host.first() == taken
    host.have[taken[0]] = True
    host.look(others)
    assert len(host.first()) == 2


def test_where_peers_are_asked_for_much_ahead_more_is_taken_over_at_once() -> None:
    """What they are not asked for is what others have, and that would be asked of the registry."""
    own, neighbour = os.urandom(20), os.urandom(20)
    host, owner = Host(own, 100), Host(neighbour, 100)
    for piece in set(range(100)) - share_of(owner, {own}):
        host.have[piece] = True
    host.look({neighbour: 50}, ahead=16)
    assert len(host.first()) > 2


def test_who_came_late_takes_nothing_before_it_has_looked_for_a_while() -> None:
    """However long its machine has been up: the owners are about to fetch what is left."""
    late, early = os.urandom(20), os.urandom(20)
    newcomer = Host(late, 100)
    for piece in range(98):
        newcomer.availability[piece] = 2
    newcomer.look({early: 98}, now=1e6, rate=1.0)
    assert newcomer.first() == []
    assert newcomer.assignment.is_idle


def test_a_host_that_is_no_gate_asks_other_seeds_than_the_registry() -> None:
    """It needn't wait for what a gateway owns: of seeds that it knows it may ask its own share."""
    gateway, own = GATEWAY_PEER + os.urandom(12), HOST_PEER + os.urandom(12)
    host = Host(own, 400)
    share = share_of(host, {gateway: 40})
    assert 100 < len(share) < 300
    assert not host.assignment.is_idle


def test_priorities_can_be_told_again() -> None:
    """Those that were told last, of the pieces that are wanted."""
    host = Host(b"a", 50, wanted=[True] * 49 + [False])
    host.look({b"b"})
    assert dict(host.assignment.current_priorities(range(50))) == dict(
        enumerate(host.priorities[:49])
    )


def test_who_has_nothing_to_fetch_waits_but_not_for_ever() -> None:
    """An owner's last pieces are left to it, until nothing got less rare for two rounds."""
    own, neighbour = os.urandom(20), os.urandom(20)
    host, owner = Host(own, 100), Host(neighbour, 100)
    last = sorted(share_of(owner, {own}))[-2:]
    for piece in range(100):
        host.have[piece] = piece not in last
    host.look({neighbour: 98}, now=10.0, rate=0.1)
    assert host.assignment.is_idle
    assert not host.first()
    host.look({neighbour: 98}, now=30.0, rate=0.1)
    assert not host.first()
    host.look({neighbour: 98}, now=51.0, rate=0.1)
    assert host.first()
    assert not host.assignment.is_idle


def test_something_is_always_wanted() -> None:
    """With all pieces left to others, libtorrent would take itself for a seed and hang up."""
    own, neighbour = os.urandom(20), os.urandom(20)
    host, owner = Host(own, 100), Host(neighbour, 100)
    last = sorted(share_of(owner, {own}))[-2:]
    for piece in range(100):
        host.have[piece] = piece not in last
    host.look({neighbour: 98}, rate=0.1)
    assert [host.priorities[piece] for piece in last].count(Priority.SKIP) == 1


def test_who_is_alone_has_no_share() -> None:
    """Without other hosts that fetch, all pieces are alike."""
    host = Host(b"a", 40)
    host.look({b"b"})
    assert host.assignment.has_others
    host.look(())
    assert set(host.priorities) == {Priority.NORMAL}
    assert not host.assignment.has_others


def test_hosts_that_start_together_request_different_pieces_before_they_have_met() -> None:
    """Each requests few, mostly those it will own; once it knows the others, its own ones."""
    hosts = [PieceAssignment(os.urandom(20), [True] * 90) for _ in range(10)]
    requested = []
    for host in hosts:
        changes = dict(host.before_others([False] * 90, 2))
        assert sorted(changes) == list(range(90))
        requested += [piece for piece, priority in changes.items() if priority == Priority.HIGH]
        assert list(changes.values()).count(Priority.SKIP) == 88
        assert host.before_others([False] * 90, 2) == []
    assert len(requested) == 20
    assert len(set(requested)) > 14


def test_a_host_whose_others_do_not_come_requests_everything() -> None:
    """What it has stays out of it."""
    host = PieceAssignment(os.urandom(20), [True] * 10)
    have = [True, *[False] * 9]
    host.before_others(have, 2)
    assert sorted(host.alone(have)) == [(piece, Priority.NORMAL) for piece in range(1, 10)]


def test_what_arrives_before_the_next_look_is_not_left_to_others() -> None:
    """A look that comes sooner leaves more of the last pieces to their owners."""
    for pause, is_left in ((LOOK_SECONDS, False), (SHORTEST_LOOK_SECONDS, True)):
        host = PieceAssignment(b"a", [True] * 5)
        changes = host.update(
            [False] * 5,
            [1] * 5,
            seeds=1,
            others={b"b": 0, b"c": 0},
            now=0.0,
            rate=30.0,
            ahead=0.0,
            stalled=False,
            pause=pause,
        )
        assert (Priority.SKIP in dict(changes).values()) is is_left


def test_looks_take_a_twentieth_of_the_time() -> None:
    """They come between 0.03 and 0.2 s apart."""
    assert pause_after_look(0.0001) == SHORTEST_LOOK_SECONDS
    assert pause_after_look(0.004) == pytest.approx(0.08)
    assert pause_after_look(1.0) == LOOK_SECONDS
