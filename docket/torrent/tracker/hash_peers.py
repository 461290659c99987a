"""Which hosts serve the piece hashes of a torrent to other hosts, in place of the registry.

A torrent has 20 bytes for each 64 KiB. Sent from the registry's own link to each of a thousand
hosts, that is a third of the image. So a host that has the hashes sends them to a few others of its
zone, and they to more: the registry sends them to the first hosts alone.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

RECIPIENTS = 4
"""To how many hosts one host sends the hashes."""

HOST_SECONDS = 15.0
"""How long a host counts as present."""

FAILED_SECONDS = 60.0
"""How long an address that sent nothing, or nothing true, isn't named again for that torrent."""

_MAX_OF_ADDRESS = 10  # of a torrent and zone: several hosts may share an address
_MAX_HOSTS = 100
_MAX_GROUPS = 1000
_MAX_REMEMBERED = 10_000

_Group = tuple[bytes, bytes]
_Key = TypeVar("_Key")


@dataclass(slots=True)
class _HashPeer:
    address: str
    port: str
    since: float
    left: int = RECIPIENTS

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"


class HashPeers:
    """The hosts that serve hashes, oldest first, by torrent and zone; safe to use from threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._groups: OrderedDict[_Group, deque[_HashPeer]] = OrderedDict()
        self._named: OrderedDict[tuple[_Group, str, bytes], float] = OrderedDict()
        self._failed: OrderedDict[tuple[_Group, str], float] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, info_hash: bytes, zone: bytes, endpoint: str) -> None:
        """The host at *endpoint* (``address:port``) will serve hashes; once more is a no-op.

        So is one at an address that failed lately, or where enough hosts serve already.
        """
        group = info_hash, zone
        address, _, port = endpoint.rpartition(":")
        with self._lock:
            if self._has_failed(group, address):
                return
            hosts = self._groups.setdefault(group, deque())
            self._groups.move_to_end(group)
            self._forget_gone(hosts)
            of_address = [host.port for host in hosts if host.address == address]
            if (
                len(hosts) < _MAX_HOSTS
                and len(of_address) < _MAX_OF_ADDRESS
                and port not in of_address
            ):
                hosts.append(_HashPeer(address, port, self._clock()))
            while len(self._groups) > _MAX_GROUPS:
                self._groups.popitem(last=False)

    def choose(self, info_hash: bytes, zone: bytes, *, source: bytes) -> str:
        """A host of *zone* that serves one more, for one at *source*; empty if there is none."""
        group = info_hash, zone
        with self._lock:
            hosts = self._groups.get(group, deque())
            self._forget_gone(hosts)
            if not hosts:
                return ""
            host = hosts[0]
            host.left -= 1
            if not host.left:
                hosts.popleft()
            _remember(self._named, (group, host.address, source), self._clock())
            return host.endpoint

    def remove(self, info_hash: bytes, zone: bytes, endpoint: str, *, source: bytes) -> None:
        """A host at *source* got nothing in time from *endpoint*, or nothing true.

        Then its address isn't named for a while. A no-op if none of it was named to *source*.
        """
        group = info_hash, zone
        address = endpoint.rpartition(":")[0]
        with self._lock:
            if (group, address, source) not in self._named:
                return
            hosts = self._groups.get(group, deque())
            for host in [host for host in hosts if host.address == address]:
                hosts.remove(host)
            _remember(self._failed, (group, address), self._clock() + FAILED_SECONDS)

    def _has_failed(self, group: _Group, address: str) -> bool:
        return self._failed.get((group, address), 0.0) > self._clock()

    def _forget_gone(self, hosts: deque[_HashPeer]) -> None:
        while hosts and hosts[0].since < self._clock() - HOST_SECONDS:
            hosts.popleft()


def _remember(table: OrderedDict[_Key, float], key: _Key, value: float) -> None:
    """Put *key* at the end of a table that forgets the oldest of too many."""
    table[key] = value
    table.move_to_end(key)
    while len(table) > _MAX_REMEMBERED:
        table.popitem(last=False)
