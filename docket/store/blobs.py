"""Blob files: where they lie, and how they come and go together with their records."""

from __future__ import annotations

import time
from pathlib import Path

from docket.digest import Digest
from docket.errors import BlobUnknown, InvalidDigest
from docket.store.disk import Disk
from docket.store.index import BlobRecord, Index, Transaction, key_of
from docket.store.ingest import Ingested


class BlobFiles:
    """The folders ``blobs/`` and ``trash/``. Whatever renames in ``blobs/`` holds the writer."""

    def __init__(self, location: Path, index: Index, disk: Disk) -> None:
        self._blobs = location / "blobs"
        self._trash = location / "trash"
        self._index = index
        self._disk = disk

    def path(self, digest: Digest) -> Path:
        """Where the blob's file lies, or would lie."""
        return self._blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def record(self, txn: Transaction, digest: Digest) -> BlobRecord:
        """The record of a blob. Raises `BlobUnknown`."""
        record = self._index.blobs.get(txn, key_of(digest))
        if record is None:
            raise BlobUnknown(digest)
        return record

    def add(
        self, txn: Transaction, source: Path, found: Ingested, *, keep_source: bool = False
    ) -> BlobRecord:
        """Give the synced file *source* its place and its record; an equal blob is kept.

        With *keep_source* the file keeps its old name too.
        """
        there = self._index.blobs.get(txn, key_of(found.digest))
        final = self.path(found.digest)
        if there and final.exists():
            return there
        if keep_source:
            self._disk.link(source, final)
        elif source.exists() or not final.exists():
            self._disk.place(source, final)
        # else the map had to grow after an earlier run of this change, which has placed the file
        now = time.time()
        diff_id = str(found.unpacked.diff_id) if found.unpacked else ""
        plain_size = found.unpacked.size if found.unpacked else 0
        compression = found.unpacked.compression if found.unpacked else ""
        record = BlobRecord(found.size, now, now, diff_id, plain_size, compression)
        self._index.blobs.put(txn, key_of(found.digest), record)
        self._index.pieces.put(txn, key_of(found.digest), found.pieces)
        if diff_id:
            self._index.layers.add(txn, diff_id.encode(), key_of(found.digest))
        return record

    def sweep(self, txn: Transaction, digest: Digest) -> None:
        """Drop the blob's records and move its file to the trash."""
        key = key_of(digest)
        record = self._index.blobs.get(txn, key)
        self._index.blobs.delete(txn, key)
        self._index.pieces.delete(txn, key)
        if record and record.diff_id:
            self._index.layers.remove(txn, record.diff_id.encode(), key)
        self._disk.move(self.path(digest), self._trash / f"{digest.algorithm}-{digest.hex}")

    def recover(self) -> None:
        """After a transaction that didn't commit: put back what the index still knows."""
        with self._index.read() as txn:
            for path in self._trash.iterdir():
                digest = _trashed(path)
                if digest and self._index.blobs.get(txn, key_of(digest)):
                    self._disk.move(path, self.path(digest))

    def empty_trash(self) -> None:
        """Free the disk space of swept blobs."""
        for path in self._trash.iterdir():
            self._disk.remove(path)


def _trashed(path: Path) -> Digest | None:
    try:
        return Digest.parse(path.name.replace("-", ":", 1))
    except InvalidDigest:
        return None
