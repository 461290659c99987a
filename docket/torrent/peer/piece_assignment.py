"""Who of a crowd asks the registry for which pieces, so that it sends each of them about once.

Every piece has one owner among the hosts, which each of them works out by itself: the one with the
greatest weight, of those that are drawn with a peer's id as the seed (rendezvous hashing). Of the
pieces that only seeds have, a host asks for its own; with these done it takes over what others
come to last. Nobody says a word, and who comes or goes moves no more than its own part. Who came
late, or is slow, owns nothing: its link is full of what others have already. In a large crowd only
gateways own pieces, for only they hear of the registry (`docket.torrent.tracker.peer_selection`).

Where links are slow, the others' pieces aren't asked of a seed at all: they will come from their
owners. On fast ones, all may be here before this peer looks again.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain

from docket.torrent.tracker.announce import is_gateway

FIRST = 3
LATER = 2
NOT_YET = 0
"""Priorities of pieces in libtorrent, which counts how rare a piece is only below 4."""

LOOK_SECONDS = 0.2
"""How often this peer looks at what the others have."""

_STALL_SECONDS = 0.5
_LONGEST_STALL_SECONDS = 2.0


def weights(peer_id: bytes, pieces: int) -> array[float]:
    """How much each piece is drawn to a peer; every host gets the same from its id."""
    drawn = random.Random(peer_id)  # noqa: S311
    return array("d", [drawn.random() for _ in range(pieces)])


def stall_seconds(hosts: int, pace: float) -> float:
    """How long nothing may come: as long as a piece for each of *hosts*, but two seconds at most.

    *pace* is what comes, in pieces a second.
    """
    turn = hosts / pace if pace else _LONGEST_STALL_SECONDS
    return min(max(turn, _STALL_SECONDS), _LONGEST_STALL_SECONDS)


class PieceAssignment:
    """This peer's share of the rare pieces, and the priorities that follow from it."""

    def __init__(
        self,
        own: bytes,
        wanted: Sequence[bool],
        *,
        weigh: Callable[[bytes, int], array[float]] = weights,
    ) -> None:
        """*own* is this peer's id; *wanted* tells which pieces are to come at all.

        *weigh* gives what `weights` does: many peers in one process may share what it gives.
        """
        self._own = own
        self._weigh = weigh
        self._wanted = [piece for piece, is_wanted in enumerate(wanted) if is_wanted]
        self._own_weights = weigh(own, len(wanted))
        self._owners = [own] * len(wanted)
        self._weights = {own: self._own_weights}
        self._priorities = dict.fromkeys(self._wanted, LATER)
        self._rare: frozenset[int] | None = None
        self._shrank = 0.0
        self._taken: set[int] = set()
        self.is_dealt = False
        """Whether there was anybody to share with when priorities were told last."""
        self.waits = False
        """Whether seeds have nothing for this peer: what others own is all that is left to come."""

    def changes(
        self,
        have: Sequence[bool],
        availability: Sequence[int],
        *,
        seeds: int,
        others: Mapping[bytes, int],
        now: float,
        pace: float,
        ahead: float,
        stalled: bool,
    ) -> list[tuple[int, int]]:
        """Pieces whose priority is another one now, with it.

        *have* are this peer's pieces, *availability* how many connected peers have each, *seeds*
        how many of them have all, and *others* the ids of those that still fetch, with the number
        of pieces that they have. *pace* is what comes here, in pieces a second, at *now* in
        seconds, and *ahead* how many pieces may be asked of a peer at a time. When it has
        *stalled*, nothing is left to others.
        """
        self.is_dealt = bool(others)
        lacking = [one for one in self._wanted if not have[one]]
        rare = [one for one in lacking if availability[one] <= seeds] if others else []
        crowd = {**others, self._own: sum(have)}
        self._deal(_in_step(self._owning(crowd), len(have) - len(rare)))
        first = self._first(rare, now, pace, len(crowd), 1 + int(ahead))
        left: set[int] = set()
        if seeds and not stalled and len(rare) > LOOK_SECONDS * pace:
            left = {one for one in rare if self._owners[one] != self._own} - first
            if len(left) == len(lacking):
                # with nothing to ask for, libtorrent would take itself for a seed
                left.discard(self._dearest(left))
        # what all others have by then is left to them too
        self.waits = not first and not stalled and bool(others) and (self.waits or bool(left))
        changed = []
        for piece in lacking:
            priority = FIRST if piece in first else NOT_YET if piece in left else LATER
            if self._priorities[piece] != priority:
                self._priorities[piece] = priority
                changed.append((piece, priority))
        return changed

    def _deal(self, owners: set[bytes]) -> None:
        """Make *owners* those of all pieces; each piece that needn't change hands doesn't."""
        gone = self._weights.keys() - owners
        new = owners - self._weights.keys()
        for peer_id in new:
            is_own = peer_id == self._own
            drawn = self._own_weights if is_own else self._weigh(peer_id, len(self._owners))
            self._weights[peer_id] = drawn
        for peer_id in gone:
            del self._weights[peer_id]
        for piece in self._wanted if gone or new else ():
            if self._owners[piece] in gone:
                self._owners[piece] = self._heaviest(piece, self._weights)
            elif new:
                self._owners[piece] = self._heaviest(piece, (self._owners[piece], *new))

    def told(self, pieces: Collection[int]) -> list[tuple[int, int]]:
        """The priorities of *pieces* that were told last, of those that are wanted."""
        return [(one, self._priorities[one]) for one in pieces if one in self._priorities]

    def _owning(self, crowd: Mapping[bytes, int]) -> Mapping[bytes, int]:
        """Those of *crowd* that may ask the registry; all, if none says that it may.

        A host that isn't one of them may be asking other seeds, or have been told of the registry
        because they were slow: for itself it owns as much as each of them all.
        """
        found = {one: pieces for one, pieces in crowd.items() if is_gateway(one)}
        return found if found and is_gateway(self._own) else crowd

    def _first(
        self, rare: Sequence[int], now: float, pace: float, hosts: int, asked: int
    ) -> set[int]:
        """Those of *rare* that this peer is to fetch next: its own in order, and what it took over.

        It takes a piece when the last one before is on its way. In the end all owners are about to
        fetch what is left; then it waits as long as the seeds need to give a piece to each host
        twice (what comes here is what they give), and takes any if nothing got less rare meanwhile.
        """
        found = frozenset(rare)
        if self._rare is None or not self._rare <= found or not rare:
            self._shrank = now
        self._rare = found
        self._taken &= found
        own = [one for one in rare if self._owners[one] == self._own]
        # so many are on their way already
        room = asked + 1 - len(own) - len(self._taken)
        if room > 0:
            spare = [one for one in self._spare(rare, asked) if one not in self._taken]
            rest = found - self._taken
            if spare:
                self._taken.update(spare[-room:])
            elif rest and pace * (now - self._shrank) > 2 * hosts:
                self._taken.add(self._dearest(rest))
        return {*own[: asked + 1], *self._taken}

    def _spare(self, rare: Iterable[int], asked: int) -> list[int]:
        """What this peer may take over: of all owners that are done, it is the one for it.

        Each has *asked* for so many pieces and comes to one more next; what is farthest comes last.
        """
        owned: dict[bytes, list[int]] = {peer_id: [] for peer_id in self._weights}
        for piece in rare:
            owned[self._owners[piece]].append(piece)
        done = [one for one, pieces in owned.items() if len(pieces) <= asked]
        if self._own not in done:
            return []
        late = sorted(
            chain.from_iterable(enumerate(pieces[asked + 1 :]) for pieces in owned.values())
        )
        return [piece for _, piece in late if self._heaviest(piece, done) == self._own]

    def _heaviest(self, piece: int, crowd: Iterable[bytes]) -> bytes:
        return max(crowd, key=lambda one: self._weights[one][piece])

    def _dearest(self, pieces: Iterable[int]) -> int:
        """One of *pieces*, and another one on each host."""
        return max(pieces, key=lambda one: self._own_weights[one])


def _in_step(crowd: Mapping[bytes, int], out: int) -> set[bytes]:
    """Those of *crowd*, with their pieces, that have about half of what is *out* with any host."""
    found = {peer_id for peer_id, pieces in crowd.items() if 2 * pieces + len(crowd) >= out}
    return found or {*crowd}
