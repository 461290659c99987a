"""Which hosts tell the piece hashes of a torrent to others, in the registry's place.

A torrent has 20 bytes for each 64 KiB. Out of the registry's own link to each of a thousand hosts
that is a third of the image. So a host that was told tells a few others of its zone, and they tell
more: the registry tells the first ones alone.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

TURNS = 4
"""How many hosts one host tells."""

TELLER_SECONDS = 15.0
"""How long a host is taken for one that is still there."""

_MOST_TELLERS = 100
_MOST_CROWDS = 1000


@dataclass(slots=True)
class _Teller:
    endpoint: str
    since: float
    turns: int = TURNS


class HashPeers:
    """The hosts that tell, oldest first, by torrent and zone; safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._crowds: OrderedDict[tuple[bytes, bytes], deque[_Teller]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, info_hash: bytes, zone: bytes, endpoint: str) -> None:
        """The host at *endpoint* (``address:port``) will tell; once more is a no-op.

        Where many tell already, it isn't needed.
        """
        with self._lock:
            crowd = self._crowds.setdefault((info_hash, zone), deque())
            self._crowds.move_to_end((info_hash, zone))
            self._forget_gone(crowd)
            if len(crowd) < _MOST_TELLERS and all(one.endpoint != endpoint for one in crowd):
                crowd.append(_Teller(endpoint, self._clock()))
            while len(self._crowds) > _MOST_CROWDS:
                self._crowds.popitem(last=False)

    def choose(self, info_hash: bytes, zone: bytes) -> str:
        """A host of *zone* that tells one more; empty when there is none."""
        with self._lock:
            crowd = self._crowds.get((info_hash, zone), deque())
            self._forget_gone(crowd)
            if not crowd:
                return ""
            crowd[0].turns -= 1
            return crowd[0].endpoint if crowd[0].turns else crowd.popleft().endpoint

    def remove(self, info_hash: bytes, zone: bytes, endpoint: str) -> None:
        """The host at *endpoint* told nothing, or nothing true."""
        with self._lock:
            crowd = self._crowds.get((info_hash, zone), deque())
            for one in [one for one in crowd if one.endpoint == endpoint]:
                crowd.remove(one)

    def _forget_gone(self, crowd: deque[_Teller]) -> None:
        while crowd and crowd[0].since < self._clock() - TELLER_SECONDS:
            crowd.popleft()
