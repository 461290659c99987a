"""Verifying a stored blob: its bytes, once more, against its name and its piece hashes."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from docket.errors import IndexDamaged
from docket.oci.digest import Digest
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingest, NewPieces
from docket.store.index.environment import Index
from docket.store.index.records import BlobRecord, key_of
from docket.store.index.tables import Transaction

READ_BLOCK = 1 << 20


class BlobStatus(enum.Enum):
    """What a look at a blob found."""

    SOUND = "sound"
    GONE = "gone"
    MISSING = "missing"
    WRONG_SIZE = "wrong size"
    WRONG_BYTES = "wrong bytes"
    UNREADABLE = "unreadable"
    WRONG_PIECES = "wrong pieces"
    """The bytes are right; the index had other piece hashes, and was mended."""


LOST = frozenset(
    {BlobStatus.MISSING, BlobStatus.WRONG_SIZE, BlobStatus.WRONG_BYTES, BlobStatus.UNREADABLE}
)
"""Verdicts on blobs that are out of reach now."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A verdict, and the bytes that were read for it."""

    verdict: BlobStatus
    read: int = 0


class Verifier:
    """Looks at blobs while the store is in use, and takes what is wrong out of reach."""

    def __init__(self, index: Index, blobs: BlobFiles, new_pieces: NewPieces) -> None:
        self._index = index
        self._blobs = blobs
        self._new_pieces = new_pieces

    def check(
        self, digest: Digest, *, read: bool, on_block: Callable[[int], None] = lambda _count: None
    ) -> Verified:
        """Look at the blob's file; with *read*, at each of its bytes, past the page cache.

        Returning means that a blob whose bytes are not sound is no longer served: its file is in
        quarantine and its record is gone, or it had none. *on_block* gets the bytes of each read,
        and may take its time. A row of the index that is damaged is `IndexDamaged`.
        """
        with self._index.read() as txn:
            record = self._index.blobs.get(txn, key_of(digest))
        if record is None:
            return Verified(BlobStatus.GONE)
        verdict = self._look(digest, record)
        if verdict is BlobStatus.SOUND and read:
            return self._read(digest, record, on_block)
        if verdict is not BlobStatus.SOUND and not self._quarantine(digest, record):
            verdict = BlobStatus.GONE
        return Verified(verdict)

    def _look(self, digest: Digest, record: BlobRecord) -> BlobStatus:
        try:
            size = self._blobs.path(digest).stat().st_size
        except FileNotFoundError:
            return BlobStatus.MISSING
        except OSError:
            return BlobStatus.UNREADABLE
        return BlobStatus.SOUND if size == record.size else BlobStatus.WRONG_SIZE

    def _read(
        self, digest: Digest, record: BlobRecord, on_block: Callable[[int], None]
    ) -> Verified:
        running = Ingest(self._new_pieces, algorithm=digest.algorithm, unpack=False)
        try:
            _feed(running, str(self._blobs.path(digest)), on_block)
        except FileNotFoundError:
            return Verified(BlobStatus.GONE, running.size)  # swept while it was read
        except OSError:
            condemned = self._quarantine(digest, record)
            return Verified(BlobStatus.UNREADABLE if condemned else BlobStatus.GONE, running.size)
        found = running.finish()
        if found.digest != digest:
            condemned = self._quarantine(digest, record)
            return Verified(BlobStatus.WRONG_BYTES if condemned else BlobStatus.GONE, found.size)
        if self._has_pieces(digest, found.pieces):
            return Verified(BlobStatus.SOUND, found.size)
        self._index.update(lambda txn: self._put_pieces(txn, digest, found.pieces))
        return Verified(BlobStatus.WRONG_PIECES, found.size)

    def stamp(self, digests: Iterable[Digest]) -> None:
        """Record that the blobs were found sound just now, those that are still here."""
        keys = [key_of(one) for one in digests]

        def change(txn: Transaction) -> None:
            for key in keys:
                if record := self._index.blobs.get(txn, key):
                    self._index.blobs.put(txn, key, replace(record, verified=time.time()))

        if keys:
            self._index.update(change)

    def _has_pieces(self, digest: Digest, pieces: bytes) -> bool:
        try:
            with self._index.read() as txn:
                return self._index.pieces.get(txn, key_of(digest)) == pieces
        except IndexDamaged:
            return False

    def _put_pieces(self, txn: Transaction, digest: Digest, pieces: bytes) -> None:
        if self._index.blobs.has(txn, key_of(digest)):
            self._index.pieces.put(txn, key_of(digest), pieces)

    def _quarantine(self, digest: Digest, seen: BlobRecord) -> bool:
        """Put the blob into quarantine, unless it isn't the one that was seen any more."""

        def change(txn: Transaction) -> bool:
            now = self._index.blobs.get(txn, key_of(digest))
            if now is None or now.stored != seen.stored:
                return False
            self._blobs.quarantine(txn, digest)
            return True

        try:
            return self._index.update(change)
        except BaseException:
            self._blobs.recover()
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
