"""What peers and trackers say to each other over HTTP (BEP 3, 7, 23, 48), as values and bytes."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from docket.errors import InvalidAnnounce

MAX_PEERS = 50
"""Peers handed out in one answer."""

STOPPED, COMPLETED, PAUSED = "stopped", "completed", "paused"
"""Events; a paused peer has all that it wants, though not all of the torrent (BEP 21)."""

HOST_PEER = b"-DK0100-"
GATEWAY_PEER = b"-DG0100-"
REGISTRY_PEER = b"-DR0100-"
"""How peer ids of docket's begin (BEP 20): hosts, hosts that may ask the registry, its own seed."""

_KIND_SIZE = 3  # a dash and two letters; what follows is a version
_ID_SIZE = 20
_MAX_QUERY = 2048
_MAX_SCRAPE = 8192
_MAX_KEY = 64
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Announce:
    """A peer's report; *compact* is its address and port as 6 or 18 bytes.

    *key* is known to the peer and the tracker alone: with it a peer may come from another address.
    *zone* is where the peer is, see `zone_of`.
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
        """Whether the peer wants something."""
        return self.left > 0 and self.event != PAUSED

    @property
    def is_docket(self) -> bool:
        """Whether the peer is a host of docket's, by its id."""
        return is_docket(self.peer_id)

    @property
    def is_gateway(self) -> bool:
        """Whether it was invited to ask the registry's seed."""
        return is_gateway(self.peer_id)

    @classmethod
    def parse(cls, query: bytes, *, address: str, zone: str = "") -> Announce:
        """The report in a raw *query*, from a peer at *address*; an ``ip`` in it is ignored.

        *zone* is the label that the peer gave itself, if any. Raises `InvalidAnnounce`.
        """
        if len(query) > _MAX_QUERY:
            raise InvalidAnnounce("the announce is too long")
        values = _values(query)
        for name in (b"info_hash", b"peer_id"):
            if len(values.get(name, b"")) != _ID_SIZE:
                raise InvalidAnnounce(f"{name.decode()} must have 20 bytes")
        port = _count(values, b"port", default=None)
        if not 0 < port < 1 << 16:
            raise InvalidAnnounce("port must be between 1 and 65535")
        endpoint = compact(address, port)
        return cls(
            info_hash=values[b"info_hash"],
            peer_id=values[b"peer_id"],
            compact=endpoint,
            # a peer that doesn't say how much it lacks may lack all
            left=_count(values, b"left", default=1),
            event=values.get(b"event", b"").decode("ascii", "replace"),
            wanted=_wanted(values),
            key=values.get(b"key", b"")[:_MAX_KEY],
            zone=zone_of(endpoint, zone),
        )


def is_docket(peer_id: bytes) -> bool:
    """Whether that is a host of docket's, a gateway or not, of any version."""
    return _is_like(peer_id, HOST_PEER) or is_gateway(peer_id)


def is_gateway(peer_id: bytes) -> bool:
    """Whether that is a host of docket's that was invited to ask the registry's seed."""
    return _is_like(peer_id, GATEWAY_PEER)


def is_registry(peer_id: bytes) -> bool:
    """Whether that is a registry's seed."""
    return _is_like(peer_id, REGISTRY_PEER)


def zone_of(endpoint: bytes, label: str = "") -> bytes:
    """The zone of a peer: that of its *label*, else its network (/24 in IPv4, /64 in IPv6).

    Raises `InvalidAnnounce` when the label is none.
    """
    if label:
        return check_zone(label).encode()
    # no label begins with this byte
    return b"/" + (endpoint[:3] if len(endpoint) == 6 else endpoint[:8])


def check_zone(label: str) -> str:
    """*label* as it is: letters, digits, dots, dashes. Raises `InvalidAnnounce`."""
    if not _ZONE.fullmatch(label):
        raise InvalidAnnounce("a zone has 1 to 64 letters, digits, dots and dashes")
    return label


def compact(address: str, port: int) -> bytes:
    """BEP 23 and BEP 7: 4 or 16 bytes of address, 2 of port. Raises `InvalidAnnounce`."""
    try:
        # what almost all addresses are, and four times as fast as the module
        packed = socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        packed = _packed(address)
    return packed + struct.pack(">H", port)


def scraped(query: bytes) -> list[bytes]:
    """The info-hashes that a raw scrape *query* asks about (BEP 48)."""
    values = (pair.partition(b"=") for pair in query[:_MAX_SCRAPE].split(b"&"))
    hashes = [unquote_to_bytes(value) for name, _, value in values if name == b"info_hash"]
    return [one for one in hashes if len(one) == _ID_SIZE]


def answer(interval: int, complete: int, incomplete: int, peers: Sequence[bytes]) -> bytes:
    """What a peer is told: seconds to its next announce, counts, and *peers*, always compact."""
    four = b"".join([one for one in peers if len(one) == 6])
    six = b"".join([one for one in peers if len(one) == 18])
    return (
        b"d8:completei%de10:incompletei%de8:intervali%de12:min intervali%de"
        b"5:peers%d:%b6:peers6%d:%be"
        % (complete, incomplete, interval, max(interval // 3, 1), len(four), four, len(six), six)
    )


def failure(reason: str) -> bytes:
    """The answer to a report that is refused (BEP 3)."""
    text = reason.encode()[:200]
    return b"d14:failure reason%d:%be" % (len(text), text)


def _is_like(peer_id: bytes, kind: bytes) -> bool:
    return peer_id[:_KIND_SIZE] == kind[:_KIND_SIZE]


def _packed(address: str) -> bytes:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise InvalidAnnounce(f"{address!r} is no IP address") from error
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bytes((mapped or parsed).packed)


def _wanted(values: dict[bytes, bytes]) -> int:
    """How many peers it asks for; a negative number, as over UDP (BEP 15), leaves it to us."""
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
