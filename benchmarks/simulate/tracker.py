"""docket's tracker, with the requests that hosts make."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

from benchmarks.simulate.state import Host
from docket.torrent.tracker.admission import Admission, JoiningHost, join
from docket.torrent.tracker.announce import MAX_PEERS, Announce
from docket.torrent.tracker.hash_peers import HashPeers
from docket.torrent.tracker.peers import Tracker
from docket.torrent.zone import source_of

_INFO_HASH = b"simulated-info-hash!"
_PEERS = re.compile(rb"5:peers(\d+):")
_PORT = 6881


def endpoint(number: int) -> bytes:
    """Address and port of the host with this number, or of the registry, which is -1."""
    network, host_part = divmod(number + 1, 1 << 16)
    return struct.pack(">BBHH", 10, network, host_part, _PORT)


def zone(number: int, hosts: int) -> bytes:
    """Its zone, with so many *hosts* in each; 0: all are in one, and the registry too."""
    if not hosts:
        return b"all"
    return b"registry" if number < 0 else b"zone-%d" % (number // hosts)


class SimulatedTracker:
    """The tracker of one swarm, of which the registry is a seed that doesn't announce."""

    def __init__(
        self, registry: Host, hosts: Sequence[Host], clock: Callable[[], float], seed: int
    ) -> None:
        # it spreads peers; it guards nothing
        self._tracker = Tracker(clock=clock, chance=random.Random(seed))  # noqa: S311
        self._hash_peers = HashPeers(clock)
        self._hosts = {host.compact: host for host in (registry, *hosts)}
        self._seeds = [_address(registry.compact)]
        self._zone = registry.zone.decode()

    @property
    def interval(self) -> int:
        """Seconds between a host's announces."""
        return self._tracker.interval

    def join(self, host: Host) -> Admission:
        """Whether *host* becomes a gateway; its hash peer is the number of a host."""
        joining = JoiningHost(
            zone=host.zone,
            source=source_of(host.compact),
            in_registry_zone=host.zone.decode() == self._zone,
            token=str(host.number),
            hash_server=f"{host.number}:{_PORT}",
        )
        return join(self._tracker, self._hash_peers, _INFO_HASH, joining)

    def connected(self, host: Host) -> None:
        """*host* has connected to the registry's seed."""
        address, _ = _address(host.compact)
        self._tracker.confirm_gateway(_INFO_HASH, host.peer_id, address)

    def announce(self, host: Host, event: str) -> list[Host]:
        """The peers that *host* gets; the registry too, if it is a gateway."""
        report = Announce(
            info_hash=_INFO_HASH,
            peer_id=host.peer_id,
            compact=host.compact,
            left=host.lacking.bit_count() if host.done is None else 0,
            event=event,
            wanted=MAX_PEERS,
            zone=host.zone,
        )
        response = self._tracker.announce(report, extra=self._seeds, extra_zone=self._zone)
        peers = _PEERS.search(response)
        assert peers
        start, size = peers.end(), int(peers[1])
        endpoints = [response[at : at + 6] for at in range(start, start + size, 6)]
        return [self._hosts[endpoint] for endpoint in endpoints]


def _address(compact: bytes) -> tuple[str, int]:
    return ".".join(map(str, compact[:4])), int.from_bytes(compact[4:], "big")
