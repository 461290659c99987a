"""Endpoints of peers in compact form, and the zones that they are in."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct

from docket.errors import InvalidAnnounce

COMPACT_4, COMPACT_6 = 6, 18
"""Bytes of a compact endpoint: an IPv4 or IPv6 address and a port (BEP 23, BEP 7)."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def compact(address: str, port: int) -> bytes:
    """An endpoint as 4 or 16 bytes of address and 2 of port. Raises `InvalidAnnounce`.

    An IPv4 address that is mapped into IPv6 counts as IPv4.
    """
    try:
        # almost all addresses are of this family, and it is four times as fast as `ipaddress`
        packed = socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        packed = _packed(address)
    return packed + struct.pack(">H", port)


def zone_of(endpoint: bytes, label: str = "") -> bytes:
    """The zone of a peer: its *label*, else its network (/24 in IPv4, /64 in IPv6).

    Raises `InvalidAnnounce` for a malformed label.
    """
    if label:
        return check_zone(label).encode()
    # no label begins with this byte
    return b"/" + (endpoint[:3] if len(endpoint) == COMPACT_4 else endpoint[:8])


def source_of(endpoint: bytes) -> bytes:
    """Whoever is behind a compact *endpoint*: its IPv4 address, or its IPv6 /64.

    A host has all addresses of a /64 at its disposal.
    """
    return endpoint[:4] if len(endpoint) == COMPACT_4 else endpoint[:8]


def check_zone(label: str) -> str:
    """*label* itself: letters, digits, dots, dashes. Raises `InvalidAnnounce`."""
    if not _LABEL.fullmatch(label):
        raise InvalidAnnounce("a zone has 1 to 64 letters, digits, dots and dashes")
    return label


def _packed(address: str) -> bytes:
    try:
        # a link-local address may name its interface
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError as error:
        raise InvalidAnnounce(f"{address!r} is no IP address") from error
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bytes((mapped or parsed).packed)
