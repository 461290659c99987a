"""The messages of peers and trackers over HTTP (BEP 3, 7, 23, 48), as values and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from docket.errors import InvalidAnnounce
from docket.torrent.peer_id import ID_SIZE, is_docket, is_gateway
from docket.torrent.zone import COMPACT_4, COMPACT_6, compact, zone_of

MAX_PEERS = 50
"""Peers in one response, at most."""

STOPPED, COMPLETED, PAUSED = "stopped", "completed", "paused"
"""Events; a paused peer has all it wants, though not all of the torrent (BEP 21)."""

_MAX_QUERY = 2048
_MAX_SCRAPE = 8192
_MAX_KEY = 64


@dataclass(frozen=True, slots=True)
class Announce:
    """A peer's report; *compact* is its address and port as 6 or 18 bytes.

    Only the peer and the tracker know *key*: with it, a peer may move to another address. *left*
    are the bytes that it still lacks, *wanted* how many peers the response may name.
    """

    info_hash: bytes
    peer_id: bytes
    compact: bytes
    left: int
    event: str
    wanted: int
    key: bytes = b""
    zone: bytes = b""

    @property
    def is_leech(self) -> bool:
        """Whether the peer lacks something that it wants."""
        return self.left > 0 and self.event != PAUSED

    @property
    def is_docket(self) -> bool:
        """Whether the peer is a docket host, by its id."""
        return is_docket(self.peer_id)

    @property
    def is_gateway(self) -> bool:
        """Whether the peer calls itself a gateway; `Tracker` looks for its reservation."""
        return is_gateway(self.peer_id)

    @classmethod
    def parse(cls, query: bytes, *, address: str, zone: str = "") -> Announce:
        """The report in a raw *query*, from a peer at *address*; an ``ip`` in it is ignored.

        *zone* is the label that the peer chose, if any. Raises `InvalidAnnounce`.
        """
        if len(query) > _MAX_QUERY:
            raise InvalidAnnounce("the announce is too long")
        values = _values(query)
        for name in (b"info_hash", b"peer_id"):
            if len(values.get(name, b"")) != ID_SIZE:
                raise InvalidAnnounce(f"{name.decode()} must have 20 bytes")
        port = _count(values, b"port", default=None)
        if not 0 < port < 1 << 16:
            raise InvalidAnnounce("port must be between 1 and 65535")
        endpoint = compact(address, port)
        return cls(
            info_hash=values[b"info_hash"],
            peer_id=values[b"peer_id"],
            compact=endpoint,
            # a peer that doesn't report what it lacks may lack all
            left=_count(values, b"left", default=1),
            event=values.get(b"event", b"").decode("ascii", "replace"),
            wanted=_wanted(values),
            key=values.get(b"key", b"")[:_MAX_KEY],
            zone=zone_of(endpoint, zone),
        )


def scraped(query: bytes) -> list[bytes]:
    """The info-hashes in a raw scrape *query* (BEP 48)."""
    values = (pair.partition(b"=") for pair in query[:_MAX_SCRAPE].split(b"&"))
    hashes = [unquote_to_bytes(value) for name, _, value in values if name == b"info_hash"]
    return [info_hash for info_hash in hashes if len(info_hash) == ID_SIZE]


def answer(interval: int, complete: int, incomplete: int, peers: Sequence[bytes]) -> bytes:
    """The response: seconds until the next announce, counts, and compact endpoints of *peers*."""
    four = b"".join([endpoint for endpoint in peers if len(endpoint) == COMPACT_4])
    six = b"".join([endpoint for endpoint in peers if len(endpoint) == COMPACT_6])
    return (
        b"d8:completei%de10:incompletei%de8:intervali%de12:min intervali%de"
        b"5:peers%d:%b6:peers6%d:%be"
        % (complete, incomplete, interval, max(interval // 3, 1), len(four), four, len(six), six)
    )


def failure(reason: str) -> bytes:
    """The response that refuses a report (BEP 3)."""
    text = reason.encode()[:200]
    return b"d14:failure reason%d:%be" % (len(text), text)


def _wanted(values: dict[bytes, bytes]) -> int:
    """How many peers it requests; a negative number, as over UDP (BEP 15), means the maximum."""
    if values.get(b"numwant", b"").startswith(b"-"):
        return MAX_PEERS
    return min(_count(values, b"numwant", default=MAX_PEERS), MAX_PEERS)


def _values(query: bytes) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        values[name] = unquote_to_bytes(value) if b"%" in value else value
    return values


def _count(values: dict[bytes, bytes], name: bytes, *, default: int | None) -> int:
    text = values.get(name)
    if text is None and default is not None:
        return default
    if not text or not text.isdigit() or len(text) > 18:
        raise InvalidAnnounce(f"{name.decode()} must be a count")
    return int(text)
