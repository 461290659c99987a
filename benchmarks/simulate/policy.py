"""The one place where the model meets docket's policy of who asks for which pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from docket.config import PEER_TIMEOUT
from docket.torrent.peer.piece_assignment import FIRST, PieceAssignment, stall_seconds, weights
from docket.torrent.peer.session_tuning import BLOCK, depth

IMPATIENT_SECONDS = PEER_TIMEOUT / 2
"""After so long without a byte it asks the tracker for other peers: half of docket's patience."""

# all hosts are in this process, and would each have those of all others
_weights = lru_cache(maxsize=None)(weights)

__all__ = ["FIRST", "IMPATIENT_SECONDS", "Policy", "View"]


@dataclass(frozen=True, slots=True)
class View:
    """What a download sees at a look.

    Its pieces, how many peers have each, how many peers are *seeds*, and the number of pieces of
    each of the *others* by id; *pace* is what has come, in pieces a second, and nothing came for
    *quiet* seconds.
    """

    have: Sequence[bool]
    availability: Sequence[int]
    seeds: int
    others: Mapping[bytes, int]
    now: float
    pace: float
    quiet: float


class Policy:
    """What a host's download does at each look, but for libtorrent's part."""

    def __init__(self, own: bytes, pieces: int, piece_length: float) -> None:
        """*piece_length* in bytes, as long as one is in the mean."""
        self._piece_length = piece_length
        self._shares = PieceAssignment(own, [True] * pieces, weigh=_weights)

    @property
    def waits(self) -> bool:
        """Whether it hangs up on the registry, or calls it again."""
        return self._shares.waits

    def stalled(self, view: View) -> bool:
        """Whether it asks others for what is on its way."""
        return view.quiet > stall_seconds(len(view.others) + 1, view.pace)

    def depth(self, view: View) -> int:
        """Blocks that it asks of each peer ahead. As in the laboratory, the registry is near."""
        rate = view.pace * self._piece_length
        return depth(len(view.others), rate=rate, trip_seconds=0.0)

    def changes(self, view: View) -> list[tuple[int, int]]:
        """Pieces with another priority now, with it: 0 is not yet, `FIRST` before others."""
        if not view.others and not self._shares.is_dealt:
            return []
        return self._shares.changes(
            view.have,
            view.availability,
            seeds=view.seeds,
            others=view.others,
            now=view.now,
            pace=view.pace,
            ahead=self.depth(view) * BLOCK / self._piece_length,
            stalled=self.stalled(view),
        )
