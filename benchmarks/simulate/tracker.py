"""Who hears of whom: docket's tracker, asked as hosts ask it."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

from benchmarks.simulate.state import Host
from docket.torrent.tracker.announce import MAX_PEERS, Announce
from docket.torrent.tracker.peers import Tracker

_INFO_HASH = b"simulated-info-hash!"
_PEERS = re.compile(rb"5:peers(\d+):")
_PORT = 6881


def endpoint(number: int) -> bytes:
    """Address and port of the host with this number, or of the registry, which is -1."""
    network, place = divmod(number + 1, 1 << 16)
    return struct.pack(">BBHH", 10, network, place, _PORT)


def zone(number: int, hosts: int) -> bytes:
    """Its zone, with so many *hosts* in each; 0: all are in one, and the registry too."""
    if not hosts:
        return b"all"
    return b"registry" if number < 0 else b"zone-%d" % (number // hosts)


class Meeting:
    """The tracker of one swarm, of which the registry is a seed that doesn't announce."""

    def __init__(
        self, registry: Host, hosts: Sequence[Host], clock: Callable[[], float], seed: int
    ) -> None:
        # it spreads peers; it guards nothing
        self._tracker = Tracker(clock=clock, chance=random.Random(seed))  # noqa: S311
        self._hosts = {one.compact: one for one in (registry, *hosts)}
        self._seeds = [_address(registry.compact)]
        self._zone = registry.zone.decode()

    @property
    def interval(self) -> int:
        """Seconds between a host's announces."""
        return self._tracker.interval

    def invite(self, host: Host) -> bool:
        """Whether *host* is to be one of those that ask the registry."""
        in_registry_zone = host.zone.decode() == self._zone
        token = str(host.number)
        return self._tracker.invite(
            _INFO_HASH, host.zone, token=token, in_registry_zone=in_registry_zone
        )

    def announce(self, host: Host, event: str) -> list[Host]:
        """What *host* hears of; the registry too, if it is a gateway."""
        report = Announce(
            info_hash=_INFO_HASH,
            peer_id=host.peer_id,
            compact=host.compact,
            left=int(host.done is None),
            event=event,
            wanted=MAX_PEERS,
            zone=host.zone,
        )
        told = self._tracker.announce(report, extra=self._seeds, extra_zone=self._zone)
        found = _PEERS.search(told)
        assert found
        start, size = found.end(), int(found[1])
        listed = [told[place : place + 6] for place in range(start, start + size, 6)]
        return [self._hosts[one] for one in listed]


def _address(compact: bytes) -> tuple[str, int]:
    return ".".join(map(str, compact[:4])), int.from_bytes(compact[4:], "big")
