"""Scrubbing: reading every blob again once in a while, slowly, before anyone needs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import nsmallest
from threading import Event

from docket.errors import IndexDamaged, StoreUnusable
from docket.oci.digest import Digest
from docket.store.blobs.verify import UNAVAILABLE, BlobStatus, Verifier
from docket.store.index.environment import Index
from docket.store.index.records import digest_of

_AT_ONCE = 1000


@dataclass(slots=True)
class ScrubReport:
    """What was read again, *read* in bytes; *quarantined* is what was not as it should be."""

    blobs: int = 0
    read: int = 0
    quarantined: list[Digest] = field(default_factory=list)


class Scrub:
    """Reads blobs that were not verified for a while, those longest ago first."""

    def __init__(self, index: Index, verifier: Verifier) -> None:
        self._index = index
        self._verifier = verifier
        self._unusable: StoreUnusable | None = None

    def run(self, *, older_than: float, rate: float, stop: Event) -> ScrubReport:
        """Read all that was last verified before *older_than*, in seconds since 1970.

        At most *rate* bytes a second on average. Ends early when *stop* is set. Blobs that can't be
        read for now stay; the first of them is raised as `StoreUnusable` at the end.
        """
        report = ScrubReport()
        pace = _pace(rate, stop)
        while not stop.is_set() and (due := self._due(older_than)):
            before = report.blobs
            for digest in due:
                if stop.is_set():
                    break
                self._read(digest, report, pace)
            if report.blobs == before:
                break  # nothing of it could be read; not for ever
        if self._unusable:
            raise self._unusable
        return report

    def _due(self, older_than: float) -> list[Digest]:
        rows: list[tuple[float, bytes]] = []
        for batch in self._index.batches(self._index.blobs):
            rows = nsmallest(_AT_ONCE, [*rows, *self._rows(batch, older_than)])
        return [digest_of(key) for _, key in rows]

    def _rows(self, batch: list[bytes], older_than: float) -> list[tuple[float, bytes]]:
        oldest: list[tuple[float, bytes]] = []
        with self._index.read() as txn:
            for key in batch:
                try:
                    row = self._index.blobs.get(txn, key)
                except IndexDamaged:
                    continue  # fsck repairs it
                if row and row.verified < older_than:
                    oldest.append((row.verified, key))
        return oldest

    def _read(self, digest: Digest, report: ScrubReport, pace: Callable[[int], None]) -> None:
        try:
            verified = self._verifier.check(digest, read=True, on_block=pace)
        except (_Stopped, IndexDamaged):
            return
        except StoreUnusable as error:
            self._unusable = self._unusable or error
            return
        report.blobs += 1
        report.read += verified.read
        if verified.status in UNAVAILABLE:
            report.quarantined.append(digest)
        elif verified.status is not BlobStatus.GONE:
            self._verifier.stamp([digest])


class _Stopped(Exception):
    """The process ends; the blob is read another time."""


def _pace(rate: float, stop: Event) -> Callable[[int], None]:
    """Called with the bytes of each read: waits until they are due."""
    began = time.monotonic()
    total = 0

    def pace(count: int) -> None:
        nonlocal total
        total += count
        if stop.wait(max(0.0, total / rate - (time.monotonic() - began))):
            raise _Stopped

    return pace
