"""What a simulated run is made of."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.bound import HEADERS, t_star
from docket.pieces import HASH_SIZE
from docket.torrent.peer.session_tuning import BLOCK

MESSAGE = 80
"""Bytes on a link of a message to one peer about one piece."""

_ANSWER = 500
"""Bytes of a response with hashes beside these: HTTP's headers."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """So many *hosts* that pull *payload* bytes in *pieces* over links of *mbit*.

    They begin within *spread* seconds; a word takes *delay* seconds from host to host. *zone* hosts
    share a network of their own apart from the registry's; with 0 all are in one with it. *grain*
    blocks move at once, and each host looks at its peers every *look* seconds. The host with each
    number in *deaths* is gone so many seconds after its start. The same *seed* gives the same run;
    none goes on for longer than *limit* seconds. The registry's link has *registry_mbit*; with 0 it
    is as fast as a host's.
    """

    hosts: int
    mbit: float = 10.0
    pieces: int = 789
    payload: int = 51_671_816
    spread: float = 1.0
    delay: float = 0.05
    zone: int = 0
    grain: int = 1
    look: float = 0.2
    seed: int = 1
    limit: float = 3600.0
    deaths: tuple[tuple[int, float], ...] = ()
    registry_mbit: float = 0.0

    def __post_init__(self) -> None:
        if (
            min(self.hosts, self.pieces, self.payload, self.grain) < 1
            or min(self.mbit, self.look) <= 0
        ):
            raise ValueError("hosts, pieces, bytes, blocks, looks and the rate must be positive")
        if min(self.spread, self.delay, self.zone, self.registry_mbit) < 0:
            raise ValueError("no time, no zone and no rate is below zero")

    @property
    def bound(self) -> float:
        """T*: seconds in which all hosts could have all, if every link were always full."""
        return t_star(self.payload, pieces=self.pieces, hosts=self.hosts, mbit=self.mbit)

    @property
    def torrent(self) -> int:
        """Bytes of the piece hashes that a host receives before it joins the swarm."""
        return self.pieces * HASH_SIZE + _ANSWER

    @property
    def registry_speed(self) -> float:
        """How many times as fast as a host's the registry's link is."""
        return (self.registry_mbit or self.mbit) / self.mbit

    @property
    def units(self) -> int:
        """In how many parts a piece comes."""
        blocks = -(-self.payload // (self.pieces * BLOCK))
        return -(-blocks // self.grain)

    @property
    def unit_bytes(self) -> float:
        """Payload of such a part; all are of one size."""
        return self.payload / (self.pieces * self.units)

    @property
    def unit_seconds(self) -> float:
        """How long a link is busy with it."""
        return self.seconds(self.unit_bytes * HEADERS)

    def seconds(self, size: float) -> float:
        """How long a link is busy with *size* bytes, headers among them."""
        return size * 8 / (self.mbit * 1e6)
