"""Who of a crowd asks the registry for which pieces, so that it sends each of them about once.

Every piece has one owner among the hosts, which each of them works out by itself: the one with the
greatest weight, of those that are drawn with a peer's id as the seed (rendezvous hashing). Of the
pieces that only seeds have, a host asks for its own; with these done it takes over what others
come to last. Nobody says a word, and who comes or goes moves no more than its own part.

Where links are slow, the others' pieces aren't asked of a seed at all: they will come from their
owners. On fast ones, all may be here before this peer looks again.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Collection, Iterable, Sequence
from itertools import chain

FIRST = 3
LATER = 2
NOT_YET = 0
"""Priorities of pieces in libtorrent, which counts how rare a piece is only below 4."""

LOOK_SECONDS = 0.2
"""How often this peer looks at what the others have."""

_ON_ITS_WAY = 1
"""Who has so many pieces left has asked for them already."""

_SOON = 2
"""An owner is about to fetch so many of its pieces: nobody takes these over."""


def weights(peer_id: bytes, pieces: int) -> array[float]:
    """How much each piece is drawn to a peer: the same on every host, for it follows from the id."""
    drawn = random.Random(peer_id)  # noqa: S311
    return array("d", [drawn.random() for _ in range(pieces)])


class Shares:
    """This peer's share of the rare pieces, and the priorities that follow from it."""

    def __init__(self, own: bytes, wanted: Sequence[bool]) -> None:
        """*own* is this peer's id; *wanted* tells which pieces are to come at all."""
        self._own = own
        self._wanted = [piece for piece, is_wanted in enumerate(wanted) if is_wanted]
        self._weights = {own: weights(own, len(wanted))}
        self._owners = [own] * len(wanted)
        self._priorities = dict.fromkeys(self._wanted, LATER)
        self._rare: frozenset[int] = frozenset()
        self._shrank = 0.0
        self._taken: set[int] = set()
        self.waits = False
        """Whether seeds have nothing for this peer: what others own is all that is left to come."""

    @property
    def dealt(self) -> bool:
        """Whether there was anybody to share with when priorities were told last."""
        return len(self._weights) > 1

    def changes(
        self,
        have: Sequence[bool],
        availability: Sequence[int],
        *,
        seeds: int,
        others: Collection[bytes],
        now: float,
        pace: float,
        stalled: bool,
    ) -> list[tuple[int, int]]:
        """Pieces whose priority is another one now, with it.

        *have* are this peer's pieces, *availability* how many connected peers have each, *seeds*
        how many of them have all, and *others* the ids of those that still fetch. *pace* is what
        comes here, in pieces a second, at *now* in seconds. When it has *stalled*, nothing is left
        to others.
        """
        self._meet({self._own, *others})
        lacking = [one for one in self._wanted if not have[one]]
        rare = [one for one in lacking if availability[one] <= seeds] if others else []
        first = self._first(rare, now, pace)
        left: set[int] = set()
        if not stalled and len(rare) > LOOK_SECONDS * pace:
            left = set(rare) - first
            if len(left) == len(lacking):
                # with nothing to ask for, libtorrent would take itself for a seed
                left.discard(self._dearest(left))
        self.waits = bool(left) and not first
        changed = []
        for piece in lacking:
            priority = FIRST if piece in first else NOT_YET if piece in left else LATER
            if self._priorities[piece] != priority:
                self._priorities[piece] = priority
                changed.append((piece, priority))
        return changed

    def _meet(self, crowd: set[bytes]) -> None:
        """Hosts came or went: whose is each piece?"""
        gone = self._weights.keys() - crowd
        for peer_id in gone:
            del self._weights[peer_id]
        for piece in self._wanted if gone else ():
            if self._owners[piece] in gone:
                self._owners[piece] = self._heaviest(piece, self._weights)
        for peer_id in crowd - self._weights.keys():
            theirs = self._weights[peer_id] = weights(peer_id, len(self._owners))
            for piece in self._wanted:
                if theirs[piece] > self._weights[self._owners[piece]][piece]:
                    self._owners[piece] = peer_id

    def _first(self, rare: Sequence[int], now: float, pace: float) -> set[int]:
        """Those of *rare* that this peer is to fetch next: its own by their numbers, and what it took.

        It takes a piece when the last one before is on its way. In the end all owners are about to
        fetch what is left; then it waits as long as the seeds need to give a piece to each host
        twice (what comes here is what they give), and takes any if nothing got less rare meanwhile.
        """
        found = frozenset(rare)
        if not self._rare <= found or not rare:
            self._shrank = now
        self._rare = found
        self._taken &= found
        own = [one for one in rare if self._owners[one] == self._own]
        if len(own) + len(self._taken) <= _ON_ITS_WAY:
            spare = self._spare(rare) - self._taken
            if not spare and pace * (now - self._shrank) > 2 * len(self._weights):
                spare = set(rare) - self._taken
            if spare:
                self._taken.add(self._dearest(spare))
        soon = _SOON + int(2 * LOOK_SECONDS * pace)
        return {*own[:soon], *self._taken}

    def _spare(self, rare: Iterable[int]) -> set[int]:
        """What this peer may take over: of all that are done, it has the greatest weight for it."""
        owned: dict[bytes, list[int]] = {peer_id: [] for peer_id in self._weights}
        for piece in rare:
            owned[self._owners[piece]].append(piece)
        done = [one for one, pieces in owned.items() if len(pieces) <= _ON_ITS_WAY]
        late = chain.from_iterable(pieces[_SOON:] for pieces in owned.values())
        return {one for one in late if self._heaviest(one, done) == self._own}

    def _heaviest(self, piece: int, crowd: Iterable[bytes]) -> bytes:
        return max(crowd, key=lambda one: self._weights[one][piece])

    def _dearest(self, pieces: Iterable[int]) -> int:
        """One of *pieces*, and another one on each host."""
        mine = self._weights[self._own]
        return max(pieces, key=lambda one: mine[one])
