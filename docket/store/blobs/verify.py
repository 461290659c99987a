"""Verifying a stored blob: its bytes, once more, against its name and its piece hashes."""

from __future__ import annotations

import enum
import errno
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from docket.errors import IndexDamaged, StoreUnusable
from docket.oci.digest import Digest
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingest, Ingested
from docket.store.index.environment import Index
from docket.store.index.records import BlobRecord, key_of
from docket.store.index.tables import Transaction

READ_BLOCK = 1 << 20

_BAD_FILE = frozenset(
    {errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO}
)
"""What a disk or filesystem reports of one file that it has lost: bad sectors, wrong checksums."""


class BlobStatus(enum.Enum):
    """What a check of a blob found."""

    SOUND = "sound"
    GONE = "gone"
    MISSING = "missing"
    WRONG_SIZE = "wrong size"
    WRONG_BYTES = "wrong bytes"
    UNREADABLE = "unreadable"
    WRONG_PIECES = "wrong pieces"
    """The bytes are right; the index had other piece hashes, and was repaired."""


UNAVAILABLE = frozenset(
    {BlobStatus.MISSING, BlobStatus.WRONG_SIZE, BlobStatus.WRONG_BYTES, BlobStatus.UNREADABLE}
)
"""The states of blobs that are no longer served."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A blob's *status*, the bytes that were read to find it out, and what sound ones say."""

    status: BlobStatus
    read: int = 0
    ingested: Ingested | None = None


class Verifier:
    """Checks blobs while the store is in use, and puts damaged ones into quarantine."""

    def __init__(self, index: Index, files: BlobFiles) -> None:
        self._index = index
        self._files = files

    def check(
        self, digest: Digest, *, read: bool, on_block: Callable[[int], None] = lambda _count: None
    ) -> Verified:
        """Check the size of the blob's file; with *read*, each of its bytes, past the page cache.

        Returning means that a blob whose bytes are not sound is no longer served: its file is in
        quarantine and its record is gone, or it had none. *on_block* gets the bytes of each read,
        and may take its time. A row of the index that is damaged is `IndexDamaged`. A file that
        can't be read for now, such as for lack of permission, is `StoreUnusable` and stays.
        """
        with self._index.read() as txn:
            record = self._index.blobs.get(txn, key_of(digest))
        if record is None:
            return Verified(BlobStatus.GONE)
        status = self._look(digest, record)
        if status is BlobStatus.SOUND and read:
            return self._read(digest, record, on_block)
        if status is not BlobStatus.SOUND and not self._quarantine(digest, record):
            status = BlobStatus.GONE
        return Verified(status)

    def _look(self, digest: Digest, record: BlobRecord) -> BlobStatus:
        try:
            size = self._files.path(digest).stat().st_size
        except FileNotFoundError:
            return BlobStatus.MISSING
        except OSError as error:
            self._raise_unless_lost(digest, error)
            return BlobStatus.UNREADABLE
        return BlobStatus.SOUND if size == record.size else BlobStatus.WRONG_SIZE

    def _read(
        self, digest: Digest, record: BlobRecord, on_block: Callable[[int], None]
    ) -> Verified:
        running = Ingest(algorithm=digest.algorithm)
        try:
            _feed(running, str(self._files.path(digest)), on_block)
        except FileNotFoundError:
            return Verified(BlobStatus.GONE, running.size)  # swept while it was read
        except OSError as error:
            self._raise_unless_lost(digest, error)
            quarantined = self._quarantine(digest, record)
            return Verified(BlobStatus.UNREADABLE if quarantined else BlobStatus.GONE, running.size)
        ingested = running.finish()
        if ingested.digest != digest:
            quarantined = self._quarantine(digest, record)
            return Verified(
                BlobStatus.WRONG_BYTES if quarantined else BlobStatus.GONE, ingested.size
            )
        if self._has_piece_hashes(digest, ingested.piece_hashes):
            return Verified(BlobStatus.SOUND, ingested.size, ingested)
        self._index.update(lambda txn: self._put_piece_hashes(txn, digest, ingested.piece_hashes))
        return Verified(BlobStatus.WRONG_PIECES, ingested.size, ingested)

    def _raise_unless_lost(self, digest: Digest, error: OSError) -> None:
        """Raises `StoreUnusable` unless the file itself is bad.

        If all of the disk is, the change of the index fails that would put it into quarantine.
        """
        if error.errno not in _BAD_FILE:
            raise StoreUnusable(self._files.location, f"{digest}: {error.strerror}") from error

    def stamp(self, digests: Iterable[Digest]) -> None:
        """Record that the blobs were found sound just now, those that are still here."""
        keys = [key_of(digest) for digest in digests]

        def change(txn: Transaction) -> None:
            for key in keys:
                if record := self._index.blobs.get(txn, key):
                    self._index.blobs.put(txn, key, replace(record, verified=time.time()))

        if keys:
            self._index.update(change)

    def _has_piece_hashes(self, digest: Digest, hashes: bytes) -> bool:
        try:
            with self._index.read() as txn:
                return self._index.pieces.get(txn, key_of(digest)) == hashes
        except IndexDamaged:
            return False

    def _put_piece_hashes(self, txn: Transaction, digest: Digest, hashes: bytes) -> None:
        if self._index.blobs.has(txn, key_of(digest)):
            self._index.pieces.put(txn, key_of(digest), hashes)

    def _quarantine(self, digest: Digest, seen: BlobRecord) -> bool:
        """Put the blob into quarantine, unless it isn't the one that was seen any more."""

        def change(txn: Transaction) -> bool:
            now = self._index.blobs.get(txn, key_of(digest))
            if now is None or now.stored != seen.stored:
                return False
            self._files.quarantine(txn, digest)
            return True

        try:
            return self._index.update(change)
        except BaseException:
            self._files.recover()
            raise


def _feed(running: Ingest, path: str, on_block: Callable[[int], None]) -> None:
    """All of the file, as the disk has it: what the page cache holds may hide what rotted."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        offset = 0
        while True:
            os.posix_fadvise(descriptor, offset, READ_BLOCK, os.POSIX_FADV_DONTNEED)
            block = os.pread(descriptor, READ_BLOCK, offset)
            if not block:
                return
            running.feed(block)
            offset += len(block)
            on_block(len(block))
    finally:
        os.close(descriptor)
