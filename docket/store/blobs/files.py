"""Blob files: where they lie, and how they come and go together with their records."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from docket.errors import BlobDamaged, BlobUnknown, DigestMismatch, IndexDamaged, InvalidDigest
from docket.oci.digest import Digest
from docket.store.blobs.ingest import Ingested, ingest_file
from docket.store.blobs.unpacking import IsStopped, Unpacked, unpack_file
from docket.store.filesystem import Filesystem
from docket.store.index.environment import Index
from docket.store.index.records import BlobRecord, key_of
from docket.store.index.tables import Transaction
from docket.store.layout import BLOBS, QUARANTINE, TRASH

QUARANTINE_SECONDS = 7 * 24 * 3600.0
"""How long gc keeps what fsck put into quarantine."""


class BlobFiles:
    """The folders ``blobs/``, ``trash/`` and ``quarantine/``.

    Whatever renames in ``blobs/`` holds the index's write transaction.
    """

    def __init__(self, location: Path, index: Index, filesystem: Filesystem) -> None:
        self.location = location
        self._blobs = location / BLOBS
        self._trash = location / TRASH
        self._quarantine = location / QUARANTINE
        self._index = index
        self._filesystem = filesystem
        self._quarantines: Counter[Digest] = Counter()

    def path(self, digest: Digest) -> Path:
        """Where the blob's file lies, or would lie."""
        return self._blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def record(self, txn: Transaction, digest: Digest) -> BlobRecord:
        """The record of a blob. Raises `BlobUnknown`, or `BlobDamaged` if it is in quarantine."""
        record = self._index.blobs.get(txn, key_of(digest))
        if record is None and (self._quarantine / _flat(digest)).exists():
            raise BlobDamaged(digest)
        if record is None:
            raise BlobUnknown(digest)
        return record

    def add(
        self, txn: Transaction, source: Path, ingested: Ingested, *, keep_source: bool = False
    ) -> BlobRecord:
        """Give the synced file *source* its place and its record; an equal blob is kept.

        With *keep_source* the file keeps its old name too.
        """
        final = self.path(ingested.digest)
        record = None
        with suppress(IndexDamaged):  # what comes now heals it
            record = self._index.blobs.get(txn, key_of(ingested.digest))
        if record and _has_size(final, record.size):
            return record
        if keep_source:
            self._filesystem.link(source, final)
        elif source.exists() or not final.exists():
            self._filesystem.place(source, final)
        # else the map had to grow after an earlier run of this change, which has placed the file
        return self.restore(txn, ingested)

    def restore(self, txn: Transaction, ingested: Ingested) -> BlobRecord:
        """Record the blob *ingested*, whose file is in its place."""
        key = key_of(ingested.digest)
        record = blob_row(ingested, time.time())
        self._index.blobs.put(txn, key, record)
        self._index.pieces.put(txn, key, ingested.piece_hashes)
        if record.diff_id:
            self._index.layers.add(txn, record.diff_id.encode(), key)
        elif ingested.is_packed:
            self._index.unmeasured.put(txn, key, record.stored)
        return record

    def forget(self, txn: Transaction, digest: Digest) -> None:
        """Drop the blob's records; the file is the caller's."""
        key = key_of(digest)
        with suppress(IndexDamaged):
            record = self._index.blobs.get(txn, key)
            if record and record.diff_id:
                self._index.layers.remove(txn, record.diff_id.encode(), key)
        self._index.blobs.delete(txn, key)
        self._index.pieces.delete(txn, key)
        self._index.unmeasured.delete(txn, key)

    def sweep(self, txn: Transaction, digest: Digest) -> None:
        """Drop the blob's records and move its file to the trash."""
        self.forget(txn, digest)
        self._filesystem.move(self.path(digest), self._trash / _flat(digest))

    def quarantine(self, txn: Transaction, digest: Digest) -> None:
        """Drop the blob's records and put its file, which is not what it says, out of reach."""
        self._quarantines[digest] += 1
        self.forget(txn, digest)
        self._filesystem.move(self.path(digest), self._quarantine / _flat(digest))

    def times_quarantined(self, digest: Digest) -> int:
        """How often this process has put the blob into quarantine: a reader sees it change."""
        return self._quarantines[digest]

    def reread(self, digest: Digest) -> Ingested | None:
        """All that the blob's file says; None if it is missing or isn't what its name says.

        Raises `StoreUnusable` if it can't be read: nobody knows then what it says.
        """
        try:
            with self._filesystem.reading(self.path(digest)):
                return ingest_file(self.path(digest), digest)
        except (DigestMismatch, FileNotFoundError):
            return None

    def unpack(self, digest: Digest, *, is_stopped: IsStopped) -> Unpacked | None:
        """What a compressed layer unpacks to; see `unpack_file`. Raises `StoreUnusable` too."""
        path = self.path(digest)
        with self._filesystem.reading(path):
            return unpack_file(path, is_stopped=is_stopped)

    def content(self, digest: Digest) -> bytes | None:
        """The bytes of a small blob, verified; None and errors as in `reread`."""
        try:
            with self._filesystem.reading(self.path(digest)):
                content = self.path(digest).read_bytes()
        except FileNotFoundError:
            return None
        return content if Digest.of(content, algorithm=digest.algorithm) == digest else None

    def recover(self) -> None:
        """After a transaction that didn't commit: put back what the index still knows."""
        for folder in (self._trash, self._quarantine):
            with self._index.read() as txn:
                for path in folder.iterdir():
                    digest = _unflat(path)
                    if digest and self._is_lost(txn, digest):
                        self._filesystem.move(path, self.path(digest))

    def empty_trash(self) -> None:
        """Free the disk space of swept blobs."""
        for path in self._trash.iterdir():
            self._filesystem.remove(path)

    def drop_quarantined(self, *, older_than: float, dry_run: bool = False) -> int:
        """Free what has been in quarantine since before *older_than*; the bytes."""
        freed = 0
        for path in self._quarantine.iterdir():
            status = path.stat()
            if status.st_ctime > time.time() + 1:  # a clock was ahead: it gets older from now on
                self._filesystem.touch(path)
            elif status.st_ctime < older_than:  # a rename sets it
                freed += status.st_size
                if not dry_run:
                    self._filesystem.remove(path)
        return freed

    def files(self) -> Iterator[list[Digest]]:
        """The digests of all files in ``blobs/``, a folder at a time.

        Raises `StoreUnusable` if a folder can't be read: its blobs are not gone.
        """
        for folder in [path for above in self._listed(self._blobs) for path in self._listed(above)]:
            names = [f"{folder.parent.name}:{path.name}" for path in self._listed(folder)]
            yield [digest for name in names if (digest := _digest(name))]

    def _listed(self, folder: Path) -> list[Path]:
        """What is in *folder*, sorted; nothing if it is a file. `Path.glob` hides errors."""
        with self._filesystem.reading(folder):
            return sorted(folder.iterdir()) if folder.is_dir() else []

    def drop_orphan(self, digest: Digest) -> None:
        """Move a file without a record to the trash; its caller holds the write transaction."""
        self._filesystem.move(self.path(digest), self._trash / _flat(digest))

    def _is_lost(self, txn: Transaction, digest: Digest) -> bool:
        recorded = self._index.blobs.has(txn, key_of(digest))
        return recorded and not self.path(digest).exists()


def blob_row(ingested: Ingested, now: float) -> BlobRecord:
    """The row of a blob that was read just *now*, in seconds since 1970."""
    plain, size = ingested.unpacked, ingested.size
    if plain is None:
        return BlobRecord(size, now, now)
    return BlobRecord(
        size,
        now,
        now,
        diff_id=str(plain.diff_id),
        plain_size=plain.size,
        compression=plain.compression,
        is_hint=ingested.is_hint,
    )


def _flat(digest: Digest) -> str:
    """A name for the blob's file in a folder without folders."""
    return f"{digest.algorithm}-{digest.hex}"


def _unflat(path: Path) -> Digest | None:
    return _digest(path.name.replace("-", ":", 1))


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except InvalidDigest:
        return None


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
