"""Which host requests which pieces of the registry, so that it sends each piece about once.

Every piece has one owner among the hosts, and each host computes it alone: of weights drawn with
each peer's id as the seed, the greatest owns the piece (rendezvous hashing). Of the rare pieces,
which only seeds have, a host requests its own; when it has them it takes over those that their
owners would fetch last. No coordination: a host that joins or leaves moves only its own pieces. A
host that came late, or is slow, owns nothing: its link is full of pieces that others have already.
In a large swarm only gateways own pieces, since only they know the registry's seed
(`docket.torrent.tracker.peer_selection`).

Where links are slow, pieces of other owners aren't requested of a seed at all: they will come from
their owners. On fast links, everything may be here before this peer looks again.
"""

from __future__ import annotations

import enum
import random
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain

from docket.torrent.peer_id import is_gateway


class Priority(enum.IntEnum):
    """Priorities of pieces in libtorrent, which counts how rare a piece is only below 4."""

    SKIP = 0
    NORMAL = 2
    HIGH = 3


LOOK_SECONDS = 0.2
"""How often a large download looks at the pieces of its peers."""

SHORTEST_LOOK_SECONDS = 0.03
"""How often a small one does: 0.2 s are a tenth of a layer of 6 MB on a link of 20 Mb/s."""

_LOOK_SHARE = 20  # looking takes at most a 20th of the time

_STALL_SECONDS = 0.5
_LONGEST_STALL_SECONDS = 2.0


def weights(peer_id: bytes, pieces: int) -> array[float]:
    """A peer's weight for each piece; every host draws the same from its id."""
    drawn = random.Random(peer_id)  # noqa: S311
    return array("d", [drawn.random() for _ in range(pieces)])


def pause_after_look(seconds: float) -> float:
    """How long to wait after a look that took *seconds*: it grows with pieces and peers."""
    return min(max(seconds * _LOOK_SHARE, SHORTEST_LOOK_SECONDS), LOOK_SECONDS)


def stall_seconds(hosts: int, rate: float) -> float:
    """Seconds without a byte that mean a stall: the time of a piece for each of *hosts*.

    At least 0.5 s and at most 2 s. *rate* is the download rate in pieces a second.
    """
    turn = hosts / rate if rate else _LONGEST_STALL_SECONDS
    return min(max(turn, _STALL_SECONDS), _LONGEST_STALL_SECONDS)


class PieceAssignment:
    """The rare pieces that this peer owns, and the priorities that follow."""

    def __init__(
        self,
        own: bytes,
        wanted: Sequence[bool],
        *,
        weigh: Callable[[bytes, int], array[float]] = weights,
    ) -> None:
        """*own* is this peer's id; *wanted* marks the pieces that it downloads at all.

        *weigh* returns what `weights` does: many peers in one process may share its results.
        """
        self._own = own
        self._weigh = weigh
        self._wanted = [piece for piece, is_wanted in enumerate(wanted) if is_wanted]
        self._own_weights = weigh(own, len(wanted))
        self._owners = [own] * len(wanted)
        self._weights = {own: self._own_weights}
        self._priorities: dict[int, Priority] = dict.fromkeys(self._wanted, Priority.NORMAL)
        self._rare: frozenset[int] | None = None
        self._shrank = 0.0
        self._taken: set[int] = set()
        self.has_others = False
        """Whether other hosts were fetching at the last update."""
        self.is_idle = False
        """Whether seeds have nothing for this peer: other hosts own all that it lacks."""

    def update(
        self,
        have: Sequence[bool],
        availability: Sequence[int],
        *,
        seeds: int,
        others: Mapping[bytes, int],
        now: float,
        rate: float,
        ahead: float,
        stalled: bool,
        pause: float = LOOK_SECONDS,
    ) -> list[tuple[int, Priority]]:
        """The pieces whose priority changes, with the new one.

        *have* are this peer's pieces, *availability* how many connected peers have each, *seeds*
        how many of them have all, and *others* the ids of those that still fetch, with the number
        of pieces that they have. *rate* is this peer's, in pieces a second, at *now* in seconds,
        and *ahead* how many pieces may be outstanding at a peer. When it has *stalled*, no piece is
        left to other hosts. The next update follows after *pause* seconds: what arrives until then
        isn't left to them either.
        """
        self.has_others = bool(others)
        lacking = [piece for piece in self._wanted if not have[piece]]
        rare = [piece for piece in lacking if availability[piece] <= seeds] if others else []
        hosts = {**others, self._own: sum(have)}
        self._set_owners(_in_step(self._may_own(hosts), len(have) - len(rare)))
        first = self._first(rare, now, rate, len(hosts), 1 + int(ahead))
        left: set[int] = set()
        if seeds and not stalled and len(rare) > pause * rate:
            left = {piece for piece in rare if self._owners[piece] != self._own} - first
            if len(left) == len(lacking):
                # with nothing to request, libtorrent would call itself a seed
                left.discard(self._heaviest_own(left))
        # what all other hosts have by then is left to them too
        self.is_idle = not first and not stalled and bool(others) and (self.is_idle or bool(left))
        return self._changed((piece, _priority(piece, first, left)) for piece in lacking)

    def before_others(self, have: Sequence[bool], count: int) -> list[tuple[int, Priority]]:
        """The changes with which only *count* pieces are requested: those that it likely will own.

        For a peer that knows that others start at this moment, but not yet which. At random, ten
        hosts would request a tenth of a small layer twice.
        """
        lacking = [piece for piece in self._wanted if not have[piece]]
        heaviest = sorted(lacking, key=lambda piece: -self._own_weights[piece])[:count]
        wanted = frozenset(heaviest)
        return self._changed(
            (piece, Priority.HIGH if piece in wanted else Priority.SKIP) for piece in lacking
        )

    def alone(self, have: Sequence[bool]) -> list[tuple[int, Priority]]:
        """The changes with which all that is missing is requested again."""
        return self._changed((piece, Priority.NORMAL) for piece in self._wanted if not have[piece])

    def _changed(self, priorities: Iterable[tuple[int, Priority]]) -> list[tuple[int, Priority]]:
        """Those of *priorities* that differ from what was set before."""
        changes = []
        for piece, priority in priorities:
            if self._priorities[piece] != priority:
                self._priorities[piece] = priority
                changes.append((piece, priority))
        return changes

    def current_priorities(self, pieces: Collection[int]) -> list[tuple[int, Priority]]:
        """The priorities that `update` set last, of those *pieces* that are wanted."""
        return [(piece, self._priorities[piece]) for piece in pieces if piece in self._priorities]

    def _set_owners(self, owners: set[bytes]) -> None:
        """Assign all pieces to *owners*; a piece changes hands only if it has to."""
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

    def _may_own(self, hosts: Mapping[bytes, int]) -> Mapping[bytes, int]:
        """Those of *hosts* that may fetch from the registry; all, if none calls itself a gateway.

        A host that is no gateway may know other seeds, or have got the registry's since the
        gateways were slow: in its own view it owns as much as all of them.
        """
        gateways = {peer_id: pieces for peer_id, pieces in hosts.items() if is_gateway(peer_id)}
        return gateways if gateways and is_gateway(self._own) else hosts

    def _first(
        self, rare: Sequence[int], now: float, rate: float, hosts: int, requested: int
    ) -> set[int]:
        """Those of *rare* that this peer fetches next: its own in order, and those it took over.

        It takes over a piece when the last one before is on its way. In the end all owners are
        about to fetch what is left; then it waits as long as the seeds need to send each host a
        piece twice (at the *rate* that arrives here), and takes any piece if none got less rare.
        """
        still_rare = frozenset(rare)
        if self._rare is None or not self._rare <= still_rare or not rare:
            self._shrank = now
        self._rare = still_rare
        self._taken &= still_rare
        own = [piece for piece in rare if self._owners[piece] == self._own]
        # that many are on their way already
        room = requested + 1 - len(own) - len(self._taken)
        if room > 0:
            spare = [piece for piece in self._spare(rare, requested) if piece not in self._taken]
            unassigned = still_rare - self._taken
            if spare:
                self._taken.update(spare[-room:])
            elif unassigned and rate * (now - self._shrank) > 2 * hosts:
                self._taken.add(self._heaviest_own(unassigned))
        return {*own[: requested + 1], *self._taken}

    def _spare(self, rare: Iterable[int], requested: int) -> list[int]:
        """What this peer may take over: the pieces for which it is heaviest of all idle owners.

        Each owner has *requested* that many pieces and requests one more next. Those that their
        owners would fetch last come last.
        """
        owned: dict[bytes, list[int]] = {peer_id: [] for peer_id in self._weights}
        for piece in rare:
            owned[self._owners[piece]].append(piece)
        idle = [peer_id for peer_id, pieces in owned.items() if len(pieces) <= requested]
        if self._own not in idle:
            return []
        late = sorted(
            chain.from_iterable(enumerate(pieces[requested + 1 :]) for pieces in owned.values())
        )
        return [piece for _, piece in late if self._heaviest(piece, idle) == self._own]

    def _heaviest(self, piece: int, owners: Iterable[bytes]) -> bytes:
        return max(owners, key=lambda peer_id: self._weights[peer_id][piece])

    def _heaviest_own(self, pieces: Iterable[int]) -> int:
        """The piece of *pieces* with this peer's greatest weight: another one on each host."""
        return max(pieces, key=lambda piece: self._own_weights[piece])


def _priority(piece: int, first: Collection[int], left: Collection[int]) -> Priority:
    if piece in left:
        return Priority.SKIP
    return Priority.HIGH if piece in first else Priority.NORMAL


def _in_step(hosts: Mapping[bytes, int], spread: int) -> set[bytes]:
    """Those of *hosts* that have at least half of the *spread* pieces, which some host has."""
    near = {peer_id for peer_id, pieces in hosts.items() if 2 * pieces + len(hosts) >= spread}
    return near or {*hosts}
