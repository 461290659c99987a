"""Opening a store: its folders, its format, its lock; and what all its calls share."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from typing import Self

from docket.config import PIN_SECONDS
from docket.errors import BlobUnknown, StoreFormat
from docket.oci.digest import Digest
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingest, Ingested, NewPieces
from docket.store.blobs.uploads import Uploads
from docket.store.filesystem import Filesystem, no_step
from docket.store.index.environment import Index
from docket.store.index.journal import Journal
from docket.store.index.records import scoped
from docket.store.index.tables import Transaction
from docket.store.layout import check_format
from docket.store.lock import Lock as OwnerLock
from docket.store.maintenance.rebuild import INDEX, is_lost
from docket.store.maintenance.verify import Verifier
from docket.store.pins import Pins
from docket.store.types import Blob


class OpenStore:
    """One location on disk, owned by one process; safe to use from many threads."""

    def __init__(
        self,
        location: Path,
        *,
        new_pieces: NewPieces,
        piece_length: int,
        owner: str = "docket",
        wait: Callable[[str], bool] = lambda _holder: False,
        pin_seconds: float = PIN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        step: Callable[[str], None] = no_step,
    ) -> None:
        """Open the store at *location*, or begin one there.

        *new_pieces* makes a running piece hash for *piece_length*, which a store keeps for life.
        *wait* is asked whether to wait while another process owns it. Pins run out by *clock*.
        Raises `StoreLocked`, `StoreFormat`, or `StoreFull`.
        """
        self.location = location
        self._filesystem = Filesystem(location, step=step)
        self._filesystem.make_folder(location)
        self._lock = OwnerLock(location / "lock")
        self._lock.acquire(owner, wait=wait)
        try:
            self._open(new_pieces, piece_length, Pins(pin_seconds, clock=clock))
        except BaseException:
            self._lock.release()
            raise

    def _open(self, new_pieces: NewPieces, piece_length: int, pins: Pins) -> None:
        check_format(self.location, self._filesystem, piece_length)
        for name in ("blobs", "uploads", "incoming", "swarm", "trash", "quarantine"):
            self._filesystem.make_folder(self.location / name)
        self.piece_length = piece_length
        self._new_pieces = new_pieces
        self._journal = Journal(self.location / "journal", self._filesystem)
        if is_lost(self.location):
            raise StoreFormat(
                f"the store at {self.location} has lost its index; run docket fsck --rebuild-index"
            )
        self._index = Index(self.location / INDEX, journal=self._journal, disk=self._filesystem)
        self._blobs = BlobFiles(self.location, self._index, self._filesystem)
        self._verifier = Verifier(self._index, self._blobs, new_pieces)
        self._uploads = Uploads(
            self.location / "uploads", self._index, self._filesystem, new_pieces
        )
        self._pins = pins
        self._one_check = Lock()
        self._blobs.recover()
        self._blobs.empty_trash()
        self._uploads.drop_strays()

    def close(self) -> None:
        """Give the store up to others."""
        self._uploads.close()
        self._index.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def space(self) -> AbstractContextManager[None]:
        """While files are written below the location: a full disk is `StoreFull`."""
        return self._filesystem.translated()

    def write_synced(self, path: Path, content: bytes) -> None:
        """A small file beside the blobs, such as an ``index.json`` that is to be seeded."""
        self._filesystem.make_folder(path.parent)
        self._filesystem.write_new(path, content)

    def _read_small(self, blob: Blob) -> bytes:
        try:
            content = blob.path.read_bytes()
        except FileNotFoundError as error:
            raise BlobUnknown(blob.digest) from error
        if Digest.of(content, algorithm=blob.digest.algorithm) != blob.digest:
            self._verifier.check(blob.digest, read=True)  # out of reach, so that a push heals it
            raise BlobUnknown(blob.digest)
        return content

    def _ingest_bytes(self, content: bytes, algorithm: str = "sha256") -> Ingested:
        ingest = Ingest(self._new_pieces, algorithm=algorithm)
        ingest.feed(content)
        return ingest.finish()

    def _commit_file(
        self,
        content: bytes,
        found: Ingested,
        repository: str | None,
        also: Callable[[Transaction], None] | None = None,
    ) -> None:
        """Write *content* beside the uploads, then make it a blob together with *also*."""
        temporary = self.location / "uploads" / f"small-{uuid.uuid4()}"

        def change(txn: Transaction) -> None:
            if also:
                also(txn)
            self._blobs.add(txn, temporary, found)
            if repository:
                self._index.links.put(txn, scoped(repository, found.digest), time.time())

        try:
            self._filesystem.write_new(temporary, content)
            self._index.update(change)
        finally:
            self._filesystem.remove(temporary)
