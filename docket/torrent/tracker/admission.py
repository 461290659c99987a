"""How a host joins a swarm: whether it becomes a gateway, and which host sends it piece hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from docket.torrent.tracker.hash_peers import HashPeers
from docket.torrent.tracker.peers import Tracker
from docket.torrent.zone import compact, source_of, zone_of

_MAX_TOKEN = 64
_PORT = re.compile("[1-9][0-9]{0,4}")


@dataclass(frozen=True, slots=True)
class JoiningHost:
    """A host that is about to fetch a torrent.

    Without a *token* of its own it only looks, and gets no gateway's place: it would take that of a
    host that joins. *hash_server* is the ``address:port`` at which it will serve piece hashes;
    empty means that it serves and wants none from another host. *failed_peer* is one that was named
    to it and sent nothing.
    """

    zone: bytes
    source: bytes
    in_registry_zone: bool
    token: str = ""
    hash_server: str = ""
    failed_peer: str = ""

    @classmethod
    def parse(
        cls,
        address: str,
        *,
        registry_address: str,
        registry_zone: str = "",
        zone: str = "",
        token: str = "",
        hash_port: str = "",
        failed_peer: str = "",
    ) -> JoiningHost:
        """The host at *address*, as its request describes it. Raises `InvalidAnnounce`.

        A *hash_port* that is no port counts as none.
        """
        endpoint = compact(address, 0)
        own = zone_of(endpoint, zone)
        registry = zone_of(compact(registry_address, 0), registry_zone)
        hash_server = ""
        if _PORT.fullmatch(hash_port) and int(hash_port) < 1 << 16:
            hash_server = f"[{address}]:{hash_port}" if ":" in address else f"{address}:{hash_port}"
        return cls(
            zone=own,
            source=source_of(endpoint),
            in_registry_zone=own == registry,
            token=token[:_MAX_TOKEN],
            hash_server=hash_server,
            failed_peer=failed_peer,
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether the host should be a gateway, and the host that sends it hashes.

    *hash_peer* is empty when the registry sends them itself.
    """

    is_gateway: bool
    hash_peer: str = ""


def join(tracker: Tracker, hash_peers: HashPeers, info_hash: bytes, host: JoiningHost) -> Admission:
    """Admit *host* to the swarm of a torrent.

    The registry sends gateways their hashes itself: the sooner they begin, the sooner pieces leave
    it. Another host gets them from one that joined before, and may be named to later ones.
    """
    is_gateway = bool(host.token) and tracker.reserve_gateway(
        info_hash,
        host.zone,
        token=host.token,
        source=host.source,
        in_registry_zone=host.in_registry_zone,
    )
    if host.failed_peer:
        hash_peers.remove(info_hash, host.zone, host.failed_peer, source=host.source)
    hash_peer = ""
    if host.hash_server:
        if not is_gateway:
            hash_peer = hash_peers.choose(info_hash, host.zone, source=host.source)
        hash_peers.add(info_hash, host.zone, host.hash_server)
    return Admission(is_gateway, hash_peer)
