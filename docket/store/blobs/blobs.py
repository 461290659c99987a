"""A store's blobs by digest: their bytes, their piece hashes, and the repositories that have them.

A blob is readable through a repository that has a link to it, or a manifest of that digest.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from docket.errors import BlobDamaged, BlobUnknown
from docket.oci.digest import Digest
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingested, ingest_bytes, ingest_file
from docket.store.blobs.reader import BlobReader
from docket.store.blobs.unpacking import Unpacked
from docket.store.blobs.verify import Verifier
from docket.store.filesystem import Filesystem
from docket.store.index.environment import Index
from docket.store.index.records import key_of, scoped
from docket.store.index.tables import Transaction
from docket.store.layout import UPLOADS
from docket.store.pins import Pins
from docket.store.types import Blob

SMALL = 1 << 20
"""Bytes of the largest blob that is verified whenever it is read, such as configs."""


class Blobs:
    """Blobs by digest."""

    def __init__(
        self,
        index: Index,
        files: BlobFiles,
        verifier: Verifier,
        pins: Pins,
        filesystem: Filesystem,
    ) -> None:
        self._index = index
        self._files = files
        self._verifier = verifier
        self._pins = pins
        self._filesystem = filesystem

    def get(self, digest: Digest, *, repository: str | None = None) -> Blob:
        """The blob, pinned so that it stays a while. Raises `BlobUnknown`.

        With *repository*, only when that repository has it.
        """
        self._find(digest, repository)  # what isn't here gets no pin, which is memory
        self._pins.pin(digest)
        return self._find(digest, repository)

    def has(self, digest: Digest) -> bool:
        """Whether the blob is held; no promise that it stays."""
        with self._index.read() as txn:
            return self._index.blobs.get(txn, key_of(digest)) is not None

    def total_size(self) -> int:
        """The bytes of all blobs: a look at each row of the index, none at the disk."""
        with self._index.read() as txn:
            return sum(record.size for _, record in self._index.blobs.scan(txn))

    def open(self, digest: Digest, *, repository: str | None = None) -> BlobReader:
        """The blob, pinned, open for reading. Raises `BlobUnknown`.

        A file of another size than the index says is put into quarantine, and so is a blob of at
        most `SMALL` bytes that has rotted: it is verified each time. One that can't be read is
        `StoreUnusable`, and stays.
        """
        blob = self.get(digest, repository=repository)
        try:
            with self._filesystem.reading(digest):
                descriptor = os.open(self._files.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise BlobUnknown(digest) from error
        reader = BlobReader(digest, blob.size, descriptor, self._filesystem)
        if os.fstat(descriptor).st_size != blob.size:
            reader.close()
            self.check(digest)
            raise BlobDamaged(digest)
        try:
            self._verify_small(reader)
        except BaseException:
            reader.close()
            raise
        return reader

    def read(self, digest: Digest) -> bytes:
        """All bytes of a small blob, such as a config, verified. Raises `BlobUnknown`."""
        with self.open(digest) as reader:
            content = reader.pread(reader.size, 0)
        if Digest.of(content, algorithm=digest.algorithm) != digest:
            self.check(digest)  # it is unknown from now on, so that a push heals it
            raise BlobDamaged(digest)
        return content

    def link_out(self, digest: Digest, path: Path) -> None:
        """Make a hard link to the blob at *path*. Raises `BlobUnknown`.

        A small blob is verified first, as in `open`.
        """
        self.open(digest).close()
        try:
            self._filesystem.link(self._files.path(digest), path)
        except FileNotFoundError as error:
            raise BlobUnknown(digest) from error

    def times_quarantined(self, digest: Digest) -> int:
        """How often the blob was found damaged since the start.

        A change shows a slow reader that the file it has open can't be trusted.
        """
        return self._files.times_quarantined(digest)

    def check(self, digest: Digest) -> None:
        """Verify the bytes of a blob that seems damaged; if they are, it is unknown from now on."""
        self._verifier.check(digest, read=True)

    def piece_hashes(self, digests: Iterable[Digest]) -> dict[Digest, bytes]:
        """The SHA-1s of every piece of each blob; no blob is read. Raises `BlobUnknown`."""
        hashes: dict[Digest, bytes] = {}
        with self._index.read() as txn:
            for digest in digests:
                row = self._index.pieces.get(txn, key_of(digest))
                if row is None:
                    raise BlobUnknown(digest)
                hashes[digest] = row
        return hashes

    def put(self, content: bytes, *, repository: str | None = None) -> Blob:
        """Store small *content*, such as a config, and link it to *repository*."""
        ingested = ingest_bytes(content)

        def link(txn: Transaction) -> None:
            if repository:
                self._index.links.put(txn, scoped(repository, ingested.digest), time.time())

        self.put_with(content, ingested, link)
        return Blob(ingested.digest, ingested.size)

    def put_with(
        self, content: bytes, ingested: Ingested, change: Callable[[Transaction], None]
    ) -> None:
        """Store small *content* in one transaction with *change*, which runs first."""
        self._pins.pin(ingested.digest)
        temporary = self._filesystem.location / UPLOADS / f"small-{uuid.uuid4()}"

        def store(txn: Transaction) -> None:
            change(txn)
            self._files.add(txn, temporary, ingested)

        try:
            self._filesystem.write_new(temporary, content)
            self._index.update(store)
        finally:
            self._filesystem.remove(temporary)

    def adopt(
        self,
        path: Path,
        expected: Digest,
        *,
        unpacked: Unpacked | None = None,
        piece_hashes: bytes | None = None,
    ) -> Blob:
        """Take the file at *path* into the store under *expected*; the file keeps its name too.

        Returning means the bytes are verified, durable and readable; adopting a digest that is
        held is a no-op. *unpacked* is recorded as a hint of what a compressed layer unpacks to, and
        *piece_hashes* as those that the file has been checked with. Raises `DigestMismatch`; then
        nothing is stored and *path* stays.
        """
        with suppress(BlobUnknown):
            return self.get(expected)
        ingested = ingest_file(path, expected, unpacked=unpacked, piece_hashes=piece_hashes)
        with path.open("rb") as file:
            self._filesystem.sync(file.fileno())
        self._pins.pin(expected)
        self._index.update(lambda txn: self._files.add(txn, path, ingested, keep_source=True))
        return Blob(expected, ingested.size)

    def unlink(self, repository: str, digest: Digest) -> None:
        """Delete the blob from *repository*; other repositories keep it. Raises `BlobUnknown`."""

        def change(txn: Transaction) -> None:
            if not self._index.links.delete(txn, scoped(repository, digest)):
                raise BlobUnknown(digest)

        self._index.update(change)

    def mount(self, digest: Digest, *, repository: str, source: str | None = None) -> bool:
        """Link a blob of repository *source* (None: of any) to *repository*; whether it could."""
        return digest in self.mount_all([digest], repository=repository, source=source)

    def mount_all(
        self, digests: Iterable[Digest], *, repository: str, source: str | None = None
    ) -> set[Digest]:
        """Link all blobs that *source* (None: any repository) has to *repository*; which these are.

        One transaction for all of them, and none if *repository* has them already.
        """
        wanted = list(dict.fromkeys(digests))
        with self._index.read() as txn:
            stored = [digest for digest in wanted if self._index.blobs.has(txn, key_of(digest))]
        self._pins.pin(*stored)
        with self._index.read() as txn:
            readable = {digest for digest in stored if self._can_mount(txn, digest, source)}
            linked = {d for d in readable if self._index.links.has(txn, scoped(repository, d))}
        if linked == readable:
            return readable

        def change(txn: Transaction) -> set[Digest]:
            still = {digest for digest in readable if self._can_mount(txn, digest, source)}
            for digest in still:
                self._index.links.put(txn, scoped(repository, digest), time.time())
            return still

        return self._index.update(change)

    # -- inside

    def _find(self, digest: Digest, repository: str | None) -> Blob:
        with self._index.read() as txn:
            if repository is not None:
                self._check_linked(txn, repository, digest)
            record = self._files.record(txn, digest)
        return Blob(digest, record.size)

    def _verify_small(self, reader: BlobReader) -> None:
        if reader.size > SMALL:
            return
        content = reader.pread(reader.size, 0)
        digest = reader.digest
        if Digest.of(content, algorithm=digest.algorithm) != digest:
            self.check(digest)
            raise BlobDamaged(digest)

    def _can_mount(self, txn: Transaction, digest: Digest, source: str | None) -> bool:
        linked = source is None or self._index.links.has(txn, scoped(source, digest))
        return linked and self._index.blobs.get(txn, key_of(digest)) is not None

    def _check_linked(self, txn: Transaction, repository: str, digest: Digest) -> None:
        key = scoped(repository, digest)
        # a manifest is a blob too: clients may fetch it from either endpoint
        if self._index.links.get(txn, key) is None and not self._index.manifests.get(txn, key):
            raise BlobUnknown(digest)
