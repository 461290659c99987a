"""Garbage collection: online, in short transactions, never taking what someone was promised."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from docket.digest import Digest
from docket.store.blobs import BlobFiles
from docket.store.index import Index, Table, Transaction, scoped, unscoped
from docket.store.pins import Pins
from docket.store.records import drop_manifest

_BATCH = 500

T = TypeVar("T")
IsPinned = Callable[[Digest], bool]


@dataclass(slots=True)
class GcReport:
    """What a collection freed (or would free) and why it kept what it kept; sizes in bytes."""

    dry_run: bool = False
    manifests: int = 0
    blobs: int = 0
    freed: int = 0
    kept_blobs: int = 0
    kept: int = 0
    pinned_blobs: int = 0
    pinned: int = 0
    pinned_manifests: int = 0


class Collector:
    """Sweeps manifests that nothing names, then repository links, then blobs."""

    def __init__(self, index: Index, blobs: BlobFiles, pins: Pins) -> None:
        self._index = index
        self._blobs = blobs
        self._pins = pins

    def collect(self, *, grace: float, dry_run: bool = False) -> GcReport:
        """Sweep what is garbage and older than *grace* seconds.

        Returning means that what the report calls freed is gone from the index and the disk. A
        *dry_run* finds out the same and changes nothing.
        """
        report = GcReport(dry_run=dry_run)
        horizon = time.time() - grace
        dead: set[bytes] = set()
        while self._sweep_manifests(report, horizon, dead):
            pass  # a manifest that went may have been the last parent of another
        if not dry_run:
            self._sweep_links(horizon)
        self._sweep_blobs(report, horizon, dead)
        if not dry_run:
            self._blobs.empty_trash()
        return report

    def _sweep_manifests(self, report: GcReport, horizon: float, dead: set[bytes]) -> bool:
        def sweep(txn: Transaction, batch: list[bytes], pinned: IsPinned) -> tuple[set[bytes], int]:
            swept: set[bytes] = set()
            kept = 0
            for key in batch:
                record = self._index.manifests.get(txn, key)
                if record is None or key in dead or self._is_named(txn, key, dead):
                    continue
                repository, digest = unscoped(key)
                if pinned(Digest.parse(digest)) or record.pushed > horizon:
                    kept += 1
                    continue
                swept.add(key)
                if not report.dry_run:
                    drop_manifest(self._index, txn, repository, digest)
            return swept, kept

        before = len(dead)
        report.pinned_manifests = 0
        for batch in self._batches(self._index.manifests):
            swept, kept = self._settled(sweep, batch, dry_run=report.dry_run)
            dead |= swept
            report.pinned_manifests += kept
        report.manifests = len(dead)
        return len(dead) > before

    def _is_named(self, txn: Transaction, key: bytes, dead: set[bytes]) -> bool:
        """Whether a tag, a living manifest or the subject names the manifest of *key*."""
        repository, digest = unscoped(key)
        for parent in self._index.parents.values(txn, digest.encode(), scoped(repository)):
            why = unscoped(parent)[1]
            if why[0] != "h" and scoped(repository, why[1:]) not in dead:
                return True
        return False

    def _sweep_links(self, horizon: float) -> None:
        """Drop the links of blobs that no manifest of the repository names."""

        def sweep(txn: Transaction, batch: list[bytes], pinned: IsPinned) -> None:
            for key in batch:
                repository, digest = unscoped(key)
                linked = self._index.links.get(txn, key)
                named = self._index.parents.has(txn, digest.encode(), scoped(repository))
                young = linked is None or linked > horizon
                if not (named or young or pinned(Digest.parse(digest))):
                    self._index.links.delete(txn, key)

        for batch in self._batches(self._index.links):
            self._settled(sweep, batch)

    def _sweep_blobs(self, report: GcReport, horizon: float, dead: set[bytes]) -> None:
        def sweep(txn: Transaction, batch: list[bytes], pinned: IsPinned) -> _Sizes:
            sizes = _Sizes([], [], [])
            for key in batch:
                record = self._index.blobs.get(txn, key)
                if record is None:
                    continue
                digest = Digest.parse(key.decode())
                if self._has_living_parent(txn, key, dead):
                    sizes.kept.append(record.size)
                elif pinned(digest) or record.stored > horizon:
                    sizes.pinned.append(record.size)
                else:
                    sizes.freed.append(record.size)
                    if not report.dry_run:
                        self._blobs.sweep(txn, digest)
            return sizes

        for batch in self._batches(self._index.blobs):
            sizes = self._settled(sweep, batch, dry_run=report.dry_run)
            report.blobs += len(sizes.freed)
            report.freed += sum(sizes.freed)
            report.kept_blobs += len(sizes.kept)
            report.kept += sum(sizes.kept)
            report.pinned_blobs += len(sizes.pinned)
            report.pinned += sum(sizes.pinned)

    def _has_living_parent(self, txn: Transaction, key: bytes, dead: set[bytes]) -> bool:
        for parent in self._index.parents.values(txn, key):
            repository, why = unscoped(parent)
            holder = why[1:] if why[0] == "m" else key.decode()
            if scoped(repository, holder) not in dead:
                return True
        return False

    def _settled(
        self,
        sweep: Callable[[Transaction, list[bytes], IsPinned], T],
        batch: list[bytes],
        *,
        dry_run: bool = False,
    ) -> T:
        """Run *sweep* while pins stand still, until its changes are committed."""
        with self._pins.settled() as pinned:
            if dry_run:
                with self._index.read() as txn:
                    return sweep(txn, batch, pinned)
            try:
                return self._index.update(lambda txn: sweep(txn, batch, pinned))
            except BaseException:
                self._blobs.recover()
                raise

    def _batches(self, table: Table[Any]) -> Iterator[list[bytes]]:
        """The keys of *table*, some at a time, each time in a transaction of its own."""
        after: bytes | None = None
        while True:
            with self._index.read() as txn:
                batch = [key for key, _ in islice(table.scan(txn, after=after), _BATCH)]
            if not batch:
                return
            yield batch
            after = batch[-1]


class _Sizes(NamedTuple):
    """Sizes of blobs by what became of them."""

    freed: list[int]
    kept: list[int]
    pinned: list[int]
