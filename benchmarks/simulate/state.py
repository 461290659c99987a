"""A host, and what it has of another: plain state of the model.

Sets of pieces are integers with a byte for each piece: 1, if it is in. So they are joined and cut
as a whole, and their bytes select from lists (`itertools.compress`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from benchmarks.simulate.policy import Policy


def all_pieces(pieces: int) -> int:
    """The set of all pieces."""
    return int.from_bytes(b"\x01" * pieces, "little")


def only(piece: int) -> int:
    """The set of one piece."""
    return 1 << (8 * piece)


@dataclass(slots=True, eq=False)
class Link:
    """What *taker* asks of *giver*; *requests* are not being sent yet, *outstanding* not here yet.

    *began* is when its first block came, *ahead* how many are asked ahead at first; *came* is what
    came in the second with the number *second*, *before* in the one before, all in blocks.
    """

    taker: Host
    giver: Host
    requests: list[int] = field(default_factory=list)
    outstanding: int = 0
    in_turn: bool = False
    gone: bool = False
    began: float = -1.0
    is_slow_start: bool = True
    ahead: int = 4
    second: int = 0
    came: int = 0
    before: int = 0


@dataclass(slots=True, eq=False)
class Host:
    """A peer of the swarm, or the registry, which has all pieces from the beginning.

    *announced* are the pieces that its peers know of; *open* those of which it may request a part,
    *first* those before others, *kept* those that it leaves to other hosts. *unasked* has the parts
    of each piece in *begun* that were requested of no peer, *asked* the links of each part on its
    way, and *missing* how many parts of a piece aren't here; *came* parts are. *idle* are the links
    of *takes* on which nothing is outstanding. *speed* is that of the uplink, in uplinks of hosts;
    messages will take *pending* seconds of it, and the downlink is free at *down_free*. The host
    *began* when it requested the piece hashes, *knows* them since a time, has sent them to all that
    requested them at *sends_until*, and *joined* the swarm.
    """

    number: int
    peer_id: bytes
    compact: bytes
    zone: bytes
    policy: Policy
    have: list[bool]
    availability: list[int]
    missing: list[int]
    announced: int = 0
    announced_count: int = 0
    lacking: int = 0
    open: int = 0
    first: int = 0
    kept: int = 0
    begun: int = 0
    unasked: dict[int, list[int]] = field(default_factory=dict)
    asked: dict[int, list[Link]] = field(default_factory=dict)
    came: int = 0
    gives: list[Link] = field(default_factory=list)
    takes: dict[int, Link] = field(default_factory=dict)
    idle: dict[int, Link] = field(default_factory=dict)
    turn: deque[Link] = field(default_factory=deque)
    sending: bool = False
    speed: float = 1.0
    pending: float = 0.0
    down_free: float = 0.0
    egress: float = 0.0
    seeds: int = 0
    is_shallow: bool = False
    has_changed: bool = True
    looked: float = 0.0
    is_urgent: bool = False
    is_disconnected: bool = False
    began: float = 0.0
    knows: float = 0.0
    sends_until: float = 0.0
    joined: float = 0.0
    moved: float = 0.0
    called: float = 0.0
    done: float | None = None
    dead: bool = False
