"""Who of a crowd asks the registry for which pieces, so that it sends each of them about once.

Pieces that only seeds have are dealt out in equal runs, one to each leech, by the order of the
leeches' peer ids. All leeches see about the same pieces and peers, so they come to about the same
shares without a word. Whoever is done with its share takes one of what is left then, so the share
of one that is slow or gone doesn't stay behind.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

FIRST = 3
LATER = 2
"""Priorities of pieces in libtorrent, which counts how rare a piece is only below 4."""


def share(rare: Sequence[int], own: bytes, others: Collection[bytes]) -> Sequence[int]:
    """The part of the pieces *rare* that the peer *own* is to fetch first, among *others*."""
    crowd = sorted({own, *others})
    rank = crowd.index(own)
    return rare[len(rare) * rank // len(crowd) : len(rare) * (rank + 1) // len(crowd)]


class Shares:
    """This peer's share, and the priorities that follow from it."""

    def __init__(self, own: bytes, wanted: Sequence[bool]) -> None:
        """*own* is this peer's id; *wanted* tells which pieces are to come at all."""
        self._own = own
        self._wanted = [piece for piece, is_wanted in enumerate(wanted) if is_wanted]
        self._others: frozenset[bytes] = frozenset()
        self._first: frozenset[int] = frozenset()

    @property
    def dealt(self) -> bool:
        """Whether this peer has a share now."""
        return bool(self._first)

    def changes(
        self,
        have: Sequence[bool],
        availability: Sequence[int],
        *,
        seeds: int,
        others: Collection[bytes],
    ) -> list[tuple[int, int]]:
        """Pieces whose priority is another one now, with it.

        *have* are this peer's pieces, *availability* how many connected peers have each, *seeds*
        how many of them have all, and *others* the ids of those that still fetch.
        """
        rare = [one for one in self._wanted if not have[one] and availability[one] <= seeds]
        first = self._first.intersection(rare)
        # what is left of a share stays: others count on it. The last piece is on its way already
        if self._others != set(others) or len(first) <= 1:
            self._others = frozenset(others)
            first = frozenset(share(rare, self._own, others)) if others else frozenset()
        changed = first ^ self._first
        self._first = first
        return [(piece, FIRST if piece in first else LATER) for piece in sorted(changed)]
