"""Rebuilding the index from the blobs and the journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from docket.errors import StoreFormat, StoreUnusable
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingested
from docket.store.filesystem import Filesystem, no_step
from docket.store.index.environment import Index
from docket.store.index.journal import Journal
from docket.store.index.records import digest_of, key_of
from docket.store.index.replay import replay
from docket.store.index.tables import Transaction
from docket.store.layout import INDEX, JOURNAL, OLD_INDEX, repair_format
from docket.store.lock import Lock
from docket.store.maintenance.edge_check import Structure
from docket.store.maintenance.fsck import FsckReport, OnBlob

_NEW = "index.new"


def rebuild_index(
    location: Path,
    *,
    owner: str,
    on_blob: OnBlob = lambda _done, _total: None,
    step: Callable[[str], None] = no_step,
) -> FsckReport:
    """Rebuild the index of the store at *location*; nobody may have it open.

    Returning means that the new one is in its place, and durable: all blobs whose bytes are what
    their names say, and all links, manifests, tags and torrents of the journal. What is wrong is in
    quarantine and in the report; the old index and journal are set aside (``*.old``). Raises
    `StoreLocked`, `StoreFormat` when there is no journal, or `StoreUnusable` when a blob can't be
    read: it may be as good as ever.
    """
    filesystem = Filesystem(location, step=step)
    lock = Lock(filesystem)
    lock.acquire(owner)
    try:
        repair_format(location, filesystem)
        return _rebuild(location, filesystem, on_blob)
    except StoreUnusable as error:
        advice = "the old index stays; repair this or move the file away, and run it again"
        raise StoreUnusable(location, f"{error.why}; {advice}") from error
    finally:
        lock.release()


def _rebuild(location: Path, filesystem: Filesystem, on_blob: OnBlob) -> FsckReport:
    journal = Journal(location / JOURNAL, filesystem)
    if not journal.newest():
        raise StoreFormat(f"{location} has no journal: without it no tag can be restored")
    filesystem.remove_folder(location / _NEW)
    report = FsckReport()
    index = Index(location / _NEW, filesystem=filesystem)
    try:
        _fill(index, location, filesystem, journal, on_blob, report)
    finally:
        index.close()
    # its journal is written from what was found, while the old index still stands
    Index(location / _NEW, journal=journal, renew_journal=True, filesystem=filesystem).close()
    _put_in_place(location, filesystem)
    journal.set_aside(journal.newest())
    return report


def _fill(
    index: Index,
    location: Path,
    filesystem: Filesystem,
    journal: Journal,
    on_blob: OnBlob,
    report: FsckReport,
) -> None:
    if damaged := replay(index, journal, None):
        report.add("journal", f"{damaged} lines", "left out")
    files = BlobFiles(location, index, filesystem)
    with index.read() as txn:
        total = index.blobs.count(txn)
    sound: set[bytes] = set()
    for folder in files.files():
        for digest in folder:
            if ingested := files.reread(digest):
                index.update(lambda txn, ingested=ingested: _record(index, files, txn, ingested))  # type: ignore[misc]
                sound.add(key_of(digest))
                report.read += ingested.size
            else:
                index.update(lambda txn, digest=digest: files.quarantine(txn, digest))  # type: ignore[misc]
                report.add("blob-bytes", digest, "in quarantine; push or pull it again")
                report.quarantined.append(digest)
            report.blobs += 1
            on_blob(report.blobs, max(total, report.blobs))
    report.read_blobs = report.blobs
    _drop_lost(index, sound, report)
    structure = Structure(index, files)
    for table in (index.manifests, index.tags):
        for batch in index.batches(table):
            index.update(lambda txn, batch=batch, table=table: _link(structure, txn, table, batch))  # type: ignore[misc]
    with index.read() as txn:
        report.rows = sum(table.count(txn) for table in index.tables)


def _record(index: Index, files: BlobFiles, txn: Transaction, ingested: Ingested) -> None:
    """The blob's rows: times as the journal says, all else as the bytes say."""
    key = key_of(ingested.digest)
    journaled = index.blobs.get(txn, key)
    row = files.restore(txn, ingested)
    if journaled and row.diff_id:
        index.blobs.put(txn, key, replace(row, stored=journaled.stored))
    elif journaled:  # what it unpacks to was recorded with it: the bytes don't say so
        index.blobs.put(txn, key, replace(journaled, verified=row.verified, size=row.size))
        if journaled.diff_id:
            index.layers.add(txn, journaled.diff_id.encode(), key)


def _drop_lost(index: Index, sound: set[bytes], report: FsckReport) -> None:
    for batch in index.batches(index.blobs):
        lost = [key for key in batch if key not in sound]

        def change(txn: Transaction, lost: list[bytes] = lost) -> None:
            for key in lost:
                index.blobs.delete(txn, key)

        if lost:
            index.update(change)
        for key in lost:
            report.add("blob-missing", digest_of(key), "push or pull it again")


def _link(structure: Structure, txn: Transaction, table: object, batch: list[bytes]) -> None:
    for row_key in batch:
        for edge_table, key, value in structure.follow_from(txn, table, row_key):  # type: ignore[arg-type]
            edge_table.add(txn, key, value)


def _put_in_place(location: Path, filesystem: Filesystem) -> None:
    old = location / OLD_INDEX
    filesystem.remove_folder(old)
    if (location / INDEX).exists():
        filesystem.rename(location / INDEX, old)
    filesystem.rename(location / _NEW, location / INDEX)
