"""What a host asks of a peer next, as libtorrent's piece picker chooses it."""

from __future__ import annotations

import random
from itertools import compress

from benchmarks.simulate.state import Host, Link, only

_PARTIALS = 1.5
"""With more begun pieces for each peer, it ends these first."""

_FIRST_WEIGHT, _LATER_WEIGHT = 5, 6
"""How much availability counts by priority: 8 levels in libtorrent, less the priority."""


class PiecePicker:
    """Chooses parts of pieces; a part has the number piece × *units* + its place."""

    def __init__(self, pieces: int, units: int, chance: random.Random) -> None:
        self._pieces = pieces
        self._units = units
        self._numbers = range(pieces)
        self._chance = chance

    def pick(self, link: Link) -> int | None:
        """A part that the giver has, and which is on its way from nobody, or None.

        In the end game, when all that is wanted is on its way, it is one that somebody else owes.
        """
        taker = link.taker
        choice = link.giver.announced & taker.open
        if choice:
            return self._take(taker, self._choose(taker, choice))
        if link.outstanding or not link.giver.announced & taker.lacking & ~taker.kept:
            return None
        return self._busy(link) if self.in_end_game(taker) else None

    def in_end_game(self, taker: Host) -> bool:
        """Whether all that it wants has been asked for, or nothing came for too long."""
        return taker.is_urgent or not taker.open & ~taker.begun

    def give_back(self, taker: Host, unit: int) -> None:
        """The part won't come from whom it was asked of."""
        piece = unit // self._units
        units = taker.unasked.setdefault(piece, [])
        units.append(unit)
        if len(units) == taker.missing[piece] == self._units:
            del taker.unasked[piece]
            taker.begun &= ~only(piece)
        else:
            taker.begun |= only(piece)
        self.reopen(taker, piece)

    def reopen(self, taker: Host, piece: int) -> None:
        """Ask for the piece again, as far as it is neither kept nor on its way."""
        bit = only(piece)
        untouched = taker.missing[piece] == self._units and not self._is_asked(taker, piece)
        if taker.lacking & bit and not taker.kept & bit and (piece in taker.unasked or untouched):
            taker.open |= bit

    def _is_asked(self, taker: Host, piece: int) -> bool:
        start = piece * self._units
        return any(unit in taker.asked for unit in range(start, start + self._units))

    def _choose(self, taker: Host, choice: int) -> int:
        partial = choice & taker.begun
        if partial and len(taker.unasked) > _PARTIALS * len(taker.takes):
            choice = partial
        first = choice & taker.first
        later = choice ^ first
        if not later:
            return self._rarest(taker, first)[1]
        if not first:
            return self._rarest(taker, later)[1]
        (least, first_piece), (count, later_piece) = (
            self._rarest(taker, first),
            self._rarest(taker, later),
        )
        return first_piece if least * _FIRST_WEIGHT <= count * _LATER_WEIGHT else later_piece

    def _rarest(self, taker: Host, choice: int) -> tuple[int, int]:
        """How many peers and this one have the rarest piece, and that piece; a begun one first."""
        flags = choice.to_bytes(self._pieces, "little")
        counts = list(compress(taker.availability, flags))
        least = min(counts)
        if counts.count(least) == 1:
            place = counts.index(least)
            return least - taker.seeds + 1, list(compress(self._numbers, flags))[place]
        listed = compress(self._numbers, flags)
        ties = [piece for piece, count in zip(listed, counts, strict=True) if count == least]
        if taker.unasked and (begun := [piece for piece in ties if piece in taker.unasked]):
            return least - taker.seeds + 1, begun[0]
        return least - taker.seeds + 1, self._chance.choice(ties)

    def _take(self, taker: Host, piece: int) -> int:
        units = taker.unasked.get(piece)
        if units is None:
            start = piece * self._units
            units = list(range(start + self._units - 1, start - 1, -1))
            if self._units > 1:
                taker.unasked[piece] = units
                taker.begun |= only(piece)
        unit = units.pop()
        if not units:
            bit = only(piece)
            taker.unasked.pop(piece, None)
            taker.begun &= ~bit
            taker.open &= ~bit
        return unit

    def _busy(self, link: Link) -> int | None:
        """One of the parts that the fewest peers owe, and not this one."""
        announced = link.giver.announced
        pending = [
            (len(links), unit)
            for unit, links in link.taker.asked.items()
            if announced >> (8 * (unit // self._units)) & 1 and link not in links
        ]
        if not pending:
            return None
        least = min(pending)[0]
        return self._chance.choice([unit for count, unit in pending if count == least])
