"""The hosts whose agents are connected, or were not long ago."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from docket.wire import HostInfo, HostRow

MAX_KNOWN = 50_000
"""Hosts that are remembered; the longest gone are forgotten first."""

MAX_IMAGES = 200_000
"""Different images that hosts may hold in all; more are not remembered."""


@dataclass(slots=True)
class Host:
    """A host: what its agent said, where it connects from, and when it was seen last."""

    info: HostInfo
    address: str
    seen: float
    is_connected: bool = True
    held: array[int] = field(default_factory=lambda: array("I"))


@dataclass(frozen=True, slots=True)
class Selector:
    """Which hosts: of *zone* and with all of *labels* (empty: any), or exactly those of *names*."""

    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()

    def matches(self, info: HostInfo) -> bool:
        """Whether the host is meant."""
        if self.names:
            return info.name in self.names
        in_zone = not self.zone or info.zone == self.zone
        return in_zone and self.labels.items() <= info.labels.items()


class Hosts:
    """All hosts by the ids of their agents. Not thread-safe: it belongs to the event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._hosts: dict[str, Host] = {}
        # a fleet's hosts hold the same images: a number an image keeps 10,000 lists small
        self._numbers: dict[str, int] = {}
        self._digests: list[str] = []

    def __len__(self) -> int:
        return len(self._hosts)

    def connect(self, info: HostInfo, address: str) -> Host:
        """The agent of a host has connected, or describes its host again."""
        host = self._hosts.pop(info.id, None)
        held = array("I", sorted(self._numbered(info.held)))
        slim = HostInfo(**{name: getattr(info, name) for name in _KEPT})
        if host is None:
            host = Host(slim, address, self._clock())
        host.info, host.address, host.seen = slim, address, self._clock()
        host.is_connected, host.held = True, held
        self._hosts[info.id] = host
        self._forget_oldest()
        return host

    def disconnect(self, host_id: str) -> None:
        """The agent's connection has ended."""
        if host := self._hosts.get(host_id):
            host.is_connected = False
            host.seen = self._clock()

    def see(self, host_id: str) -> Host | None:
        """The host, which has just reported; None when it never connected."""
        host = self._hosts.get(host_id)
        if host:
            host.seen = self._clock()
        return host

    def get(self, host_id: str) -> Host | None:
        """The host with this id."""
        return self._hosts.get(host_id)

    def select(self, selector: Selector) -> Iterator[tuple[str, Host]]:
        """The hosts that *selector* means, connected or not."""
        return (row for row in self._hosts.items() if selector.matches(row[1].info))

    def holders(self, digests: Iterable[str]) -> Iterator[tuple[str, Host]]:
        """Connected hosts that hold one of the images *digests*."""
        numbers = {self._numbers[digest] for digest in digests if digest in self._numbers}
        for host_id, host in self._hosts.items():
            if host.is_connected and not numbers.isdisjoint(host.held):
                yield host_id, host

    def holds(self, host: Host, digest: str) -> bool:
        """Whether *host* said that it holds the image manifest *digest*."""
        number = self._numbers.get(digest)
        return number is not None and number in host.held

    def rows(self, selector: Selector) -> list[HostRow]:
        """Rows for people, by name."""
        rows = [self._row(host) for _, host in self.select(selector)]
        return sorted(rows, key=page_key)

    def _row(self, host: Host) -> HostRow:
        info = host.info
        return HostRow(
            id=info.id[:8],
            name=info.name,
            address=host.address,
            zone=info.zone,
            labels=info.labels,
            version=info.version,
            engine=info.engine,
            platform=info.platform,
            held=len(host.held),
            disk_free=info.disk_free,
            disk_used=info.disk_used,
            connected=host.is_connected,
            seen=host.seen,
        )

    def _numbered(self, digests: Iterable[str]) -> set[int]:
        if len(self._digests) > MAX_IMAGES:
            self._compact()
        for digest in digests:
            if digest not in self._numbers and len(self._digests) <= MAX_IMAGES:
                self._numbers[digest] = len(self._digests)
                self._digests.append(digest)
        return {self._numbers[digest] for digest in digests if digest in self._numbers}

    def _compact(self) -> None:
        """Forget the images that no host holds any more."""
        live = sorted({number for host in self._hosts.values() for number in host.held})
        renumbered = {number: place for place, number in enumerate(live)}
        self._digests = [self._digests[number] for number in live]
        self._numbers = {digest: number for number, digest in enumerate(self._digests)}
        for host in self._hosts.values():
            host.held = array("I", sorted(renumbered[number] for number in host.held))

    def _forget_oldest(self) -> None:
        while len(self._hosts) > MAX_KNOWN:
            gone = next((key for key, host in self._hosts.items() if not host.is_connected), None)
            if gone is None:
                return
            del self._hosts[gone]


def page_key(row: HostRow) -> str:
    """What rows are sorted by, and what names the last one of a page."""
    return f"{row.name} {row.id}"


_KEPT = tuple(name for name in HostInfo.__struct_fields__ if name != "held")
