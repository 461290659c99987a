"""docket's own assignment of pieces, as the model calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from docket.config import PEER_TIMEOUT
from docket.torrent.peer.piece_assignment import PieceAssignment, Priority, stall_seconds, weights
from docket.torrent.peer.session_tuning import BLOCK, depth

IMPATIENT_SECONDS = PEER_TIMEOUT / 2
"""After so long without a byte it asks the tracker for other peers: half of docket's patience."""

# all hosts are in this process, and would each have those of all others
_weights = lru_cache(maxsize=None)(weights)

__all__ = ["IMPATIENT_SECONDS", "Policy", "Priority", "View"]


@dataclass(frozen=True, slots=True)
class View:
    """What a download sees at a look.

    Its pieces, how many peers have each, how many peers are *seeds*, and the number of pieces of
    each of the *others* by id; *rate* is what has come, in pieces a second, and nothing came for
    *quiet* seconds.
    """

    have: Sequence[bool]
    availability: Sequence[int]
    seeds: int
    others: Mapping[bytes, int]
    now: float
    rate: float
    quiet: float


class Policy:
    """What a host's download does at each look, but for libtorrent's part."""

    def __init__(self, own: bytes, pieces: int, piece_length: float) -> None:
        """*piece_length* is the average in bytes."""
        self._piece_length = piece_length
        self._assignment = PieceAssignment(own, [True] * pieces, weigh=_weights)

    @property
    def is_idle(self) -> bool:
        """Whether it disconnects from the registry."""
        return self._assignment.is_idle

    def stalled(self, view: View) -> bool:
        """Whether it asks others for what is on its way."""
        return view.quiet > stall_seconds(len(view.others) + 1, view.rate)

    def depth(self, view: View) -> int:
        """Blocks that it asks of each peer ahead. As in the laboratory, the registry is near."""
        rate = view.rate * self._piece_length
        return depth(len(view.others), rate=rate, trip_seconds=0.0)

    def update(self, view: View) -> list[tuple[int, Priority]]:
        """The pieces whose priority changed, with the new `Priority`."""
        if not view.others and not self._assignment.has_others:
            return []
        return self._assignment.update(
            view.have,
            view.availability,
            seeds=view.seeds,
            others=view.others,
            now=view.now,
            rate=view.rate,
            ahead=self.depth(view) * BLOCK / self._piece_length,
            stalled=self.stalled(view),
        )
