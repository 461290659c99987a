"""Building the index anew, from the blobs and the journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from docket.errors import StoreFormat
from docket.oci.digest import Digest
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingested, NewPieces
from docket.store.filesystem import Filesystem, no_step
from docket.store.index.environment import Index
from docket.store.index.journal import Journal
from docket.store.index.records import key_of
from docket.store.index.replay import replay
from docket.store.index.tables import Transaction
from docket.store.layout import check_format
from docket.store.lock import Lock
from docket.store.maintenance.edge_check import Structure
from docket.store.maintenance.fsck import FsckReport, OnBlob

INDEX = "index"
_NEW = "index.new"
_OLD = "index.old"


def rebuild_index(
    location: Path,
    *,
    new_pieces: NewPieces,
    piece_length: int,
    owner: str,
    on_blob: OnBlob = lambda _done, _total: None,
    step: Callable[[str], None] = no_step,
) -> FsckReport:
    """Make the index of the store at *location* anew; nobody may have it open.

    Returning means that the new one is in its place, and durable: all blobs whose bytes are what
    their names say, and all links, manifests, tags and torrents of the journal. What is wrong is in
    quarantine and in the report. Raises `StoreLocked`, or `StoreFormat` when there is no journal.
    """
    disk = Filesystem(location, step=step)
    lock = Lock(location / "lock")
    lock.acquire(owner)
    try:
        check_format(location, disk, piece_length)
        return _rebuild(location, disk, new_pieces, on_blob)
    finally:
        lock.release()


def _rebuild(
    location: Path, disk: Filesystem, new_pieces: NewPieces, on_blob: OnBlob
) -> FsckReport:
    journal = Journal(location / "journal", disk)
    if not journal.newest():
        raise StoreFormat(f"{location} has no journal: without it no tag can be told")
    disk.remove_folder(location / _NEW)
    report = FsckReport()
    index = Index(location / _NEW, disk=disk)
    try:
        _fill(index, location, disk, journal, new_pieces, on_blob, report)
    finally:
        index.close()
    # its journal is written from what was found, while the old index still stands
    Index(location / _NEW, journal=journal, disk=disk).close()
    _put_in_place(location, disk)
    return report


def is_lost(location: Path) -> bool:
    """Whether a store is without its index, such as between two renames of `rebuild`."""
    return not (location / INDEX / "data.mdb").exists() and any((location / "journal").glob("*"))


def _fill(
    index: Index,
    location: Path,
    disk: Filesystem,
    journal: Journal,
    new_pieces: NewPieces,
    on_blob: OnBlob,
    report: FsckReport,
) -> None:
    if damaged := replay(index, journal, None):
        report.add("journal", f"{damaged} lines", "left out")
    blobs = BlobFiles(location, index, disk)
    with index.read() as txn:
        total = index.blobs.count(txn)
    found: set[bytes] = set()
    for folder in blobs.files():
        for digest in folder:
            if told := blobs.reread(digest, new_pieces):
                index.update(lambda txn, told=told: _record(index, blobs, txn, told))  # type: ignore[misc]
                found.add(key_of(digest))
                report.read += told.size
            else:
                index.update(lambda txn, digest=digest: blobs.quarantine(txn, digest))  # type: ignore[misc]
                report.add("blob-bytes", digest, "in quarantine; push or pull it again")
                report.quarantined.append(digest)
            report.blobs += 1
            on_blob(report.blobs, max(total, report.blobs))
    report.read_blobs = report.blobs
    _drop_lost(index, found, report)
    structure = Structure(index, blobs)
    for table in (index.manifests, index.tags):
        for batch in index.batches(table):
            index.update(lambda txn, batch=batch, table=table: _link(structure, txn, table, batch))  # type: ignore[misc]
    with index.read() as txn:
        report.rows = sum(table.count(txn) for table in index.tables)


def _record(index: Index, blobs: BlobFiles, txn: Transaction, found: Ingested) -> None:
    """The blob's rows: times and encoder as the journal says, all else as the bytes say."""
    key = key_of(found.digest)
    said = index.blobs.get(txn, key)
    row = blobs.restore(txn, found)
    if said and row.diff_id:
        index.blobs.put(txn, key, replace(row, stored=said.stored, encoder=said.encoder))
    elif said:  # what it unpacks to was told with it: the bytes don't
        index.blobs.put(txn, key, replace(said, verified=row.verified, size=row.size))
        if said.diff_id:
            index.layers.add(txn, said.diff_id.encode(), key)


def _drop_lost(index: Index, found: set[bytes], report: FsckReport) -> None:
    for batch in index.batches(index.blobs):
        lost = [key for key in batch if key not in found]

        def change(txn: Transaction, lost: list[bytes] = lost) -> None:
            for key in lost:
                index.blobs.delete(txn, key)

        if lost:
            index.update(change)
        for key in lost:
            report.add("blob-missing", Digest.parse(key.decode()), "push or pull it again")


def _link(structure: Structure, txn: Transaction, table: object, batch: list[bytes]) -> None:
    for key in batch:
        for many, one, value in structure.follow_from(txn, table, key):  # type: ignore[arg-type]
            many.add(txn, one, value)


def _put_in_place(location: Path, disk: Filesystem) -> None:
    old = location / _OLD
    disk.remove_folder(old)
    if (location / INDEX).exists():
        disk.rename(location / INDEX, old)
    disk.rename(location / _NEW, location / INDEX)
    disk.remove_folder(old)
