"""Peer ids by which docket's peers recognise each other (BEP 20)."""

from __future__ import annotations

HOST_PEER = b"-DK0100-"
"""How the id of a host begins."""

GATEWAY_PEER = b"-DG0100-"
"""The same of a host that may fetch from the registry's seed and from other zones."""

REGISTRY_PEER = b"-DR0100-"
"""The same of a registry's seed."""

ID_SIZE = 20
"""Bytes of a peer id, and of an info-hash."""

_PREFIX_SIZE = 3  # a dash and two letters; what follows is a version


def is_docket(peer_id: bytes) -> bool:
    """Whether the peer is a docket host of any version, a gateway or not."""
    return _is_like(peer_id, HOST_PEER) or is_gateway(peer_id)


def is_gateway(peer_id: bytes) -> bool:
    """Whether the peer is a docket host that calls itself a gateway."""
    return _is_like(peer_id, GATEWAY_PEER)


def is_registry(peer_id: bytes) -> bool:
    """Whether the peer is a registry's seed."""
    return _is_like(peer_id, REGISTRY_PEER)


def _is_like(peer_id: bytes, prefix: bytes) -> bool:
    return peer_id[:_PREFIX_SIZE] == prefix[:_PREFIX_SIZE]
