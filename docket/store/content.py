"""A store's blobs and layers, and the uploads that become blobs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from docket.errors import BlobUnknown, DigestMismatch
from docket.oci.digest import Digest
from docket.store.blobs.ingest import KnownPieces, Unpacked, ingest_file
from docket.store.blobs.uploads import Upload
from docket.store.index.records import key_of, scoped
from docket.store.index.tables import Transaction
from docket.store.opening import OpenStore
from docket.store.types import Blob, LayerBlob, layer_blob


class Content(OpenStore):
    """Blobs by digest, layers by diff_id, upload sessions."""

    def blob(self, digest: Digest, *, repository: str | None = None) -> Blob:
        """The blob, pinned so that it stays a while. Raises `BlobUnknown`.

        With *repository*, only when that repository has it.
        """
        self._pins.pin(digest)
        with self._index.read() as txn:
            if repository is not None:
                self._check_linked(txn, repository, digest)
            record = self._blobs.record(txn, digest)
        return Blob(digest, record.size, self._blobs.path(digest))

    def has(self, digest: Digest) -> bool:
        """Whether the blob is held; no promise that it stays."""
        with self._index.read() as txn:
            return self._index.blobs.get(txn, key_of(digest)) is not None

    def times_quarantined(self, digest: Digest) -> int:
        """How often the blob was found wrong since the start.

        Who reads its file for long sees by a change that what is open is not to be trusted.
        """
        return self._blobs.times_quarantined(digest)

    def read(self, digest: Digest) -> bytes:
        """All bytes of a small blob, such as a config. Raises `BlobUnknown`."""
        return self._read_small(self.blob(digest))

    def adopt(
        self,
        path: Path,
        expected: Digest,
        *,
        unpacked: Unpacked | None = None,
        pieces: bytes | None = None,
    ) -> Blob:
        """Take the file at *path* into the store under *expected*; the file keeps its name too.

        Returning means the bytes are verified, durable and readable; adopting a digest that is
        held is a no-op. *unpacked* is recorded where the bytes don't tell, and so are *pieces*, the
        SHA-1s that the file has been checked with. Raises `DigestMismatch`; then nothing is stored
        and *path* stays.
        """
        with suppress(BlobUnknown):
            return self.blob(expected)
        new_pieces = self._new_pieces if pieces is None else partial(KnownPieces, pieces)
        found = ingest_file(path, expected, new_pieces, unpacked=unpacked)
        with path.open("rb") as file:
            self._filesystem.sync(file.fileno())
        self._pins.pin(expected)
        self._index.update(lambda txn: self._blobs.add(txn, path, found, keep_source=True))
        return Blob(expected, found.size, self._blobs.path(expected))

    def put(self, content: bytes, *, repository: str | None = None) -> Blob:
        """Store small *content*, such as a config, and link it to *repository*."""
        found = self._ingest_bytes(content)
        self._pins.pin(found.digest)
        self._commit_file(content, found, repository)
        return Blob(found.digest, found.size, self._blobs.path(found.digest))

    def unlink(self, repository: str, digest: Digest) -> None:
        """Delete the blob from *repository*; other repositories keep it. Raises `BlobUnknown`."""

        def change(txn: Transaction) -> None:
            if not self._index.links.delete(txn, scoped(repository, digest)):
                raise BlobUnknown(digest)

        self._index.update(change)

    def mount(self, digest: Digest, *, repository: str, source: str | None = None) -> bool:
        """Link a blob of repository *source* (None: of any) to *repository*; whether it could."""
        self._pins.pin(digest)

        def change(txn: Transaction) -> bool:
            linked = source is None or self._index.links.get(txn, scoped(source, digest))
            if not linked or self._index.blobs.get(txn, key_of(digest)) is None:
                return False
            self._index.links.put(txn, scoped(repository, digest), time.time())
            return True

        return self._index.update(change)

    def layers(self, diff_ids: Iterable[Digest]) -> dict[Digest, LayerBlob]:
        """Which of *diff_ids* are held, and as what; those are pinned."""
        found: dict[Digest, LayerBlob] = {}
        for diff_id in diff_ids:
            with self._index.read() as txn:
                keys = list(self._index.layers.values(txn, key_of(diff_id)))
            self._pins.pin(*(Digest.parse(key.decode()) for key in keys))
            with self._index.read() as txn:
                for key in keys:
                    if record := self._index.blobs.get(txn, key):
                        found[diff_id] = layer_blob(key, record)
        return found

    def unpacked(self, digest: Digest) -> LayerBlob | None:
        """What the stored layer *digest* unpacks to, where that is known."""
        with self._index.read() as txn:
            record = self._index.blobs.get(txn, key_of(digest))
        return layer_blob(key_of(digest), record) if record and record.diff_id else None

    def pieces(self, digests: Iterable[Digest]) -> dict[Digest, bytes]:
        """The SHA-1s of every piece of each blob; no blob is read. Raises `BlobUnknown`."""
        found: dict[Digest, bytes] = {}
        with self._index.read() as txn:
            for digest in digests:
                hashes = self._index.pieces.get(txn, key_of(digest))
                if hashes is None:
                    raise BlobUnknown(digest)
                found[digest] = hashes
        return found

    def link_out(self, digest: Digest, path: Path) -> None:
        """A hard link to the blob at *path*. Raises `BlobUnknown`."""
        blob = self.blob(digest)
        try:
            self._filesystem.link(blob.path, path)
        except FileNotFoundError as error:
            raise BlobUnknown(digest) from error

    # -- uploads

    def begin_upload(self, repository: str) -> uuid.UUID:
        """A new upload session of *repository*."""
        return self._uploads.begin(repository)

    def upload_offset(self, repository: str, upload_id: uuid.UUID) -> int:
        """Bytes that the session has. Raises `UploadUnknown`."""
        return self._uploads.get(repository, upload_id).offset

    @contextmanager
    def upload(
        self, repository: str, upload_id: uuid.UUID, *, offset: int | None = None
    ) -> Iterator[Upload]:
        """The session, for its one writer, at *offset* where that is given.

        Raises `UploadUnknown`, `UploadConflict`, or `UploadOutOfOrder`.
        """
        with self._uploads.writer(repository, upload_id, offset=offset) as upload:
            yield upload

    def finish_upload(self, repository: str, upload: Upload, expected: Digest) -> Blob:
        """The session's bytes become the blob *expected* of *repository*.

        Returning means that they are verified, durable and readable. Raises `DigestMismatch`;
        then the session is gone and nothing is stored.
        """
        try:
            found = upload.finish(expected)
        except DigestMismatch:
            self._uploads.discard(upload)
            raise
        self._pins.pin(expected)

        def change(txn: Transaction) -> None:
            self._blobs.add(txn, upload.path, found)
            self._index.links.put(txn, scoped(repository, expected), time.time())
            self._uploads.forget(txn, upload.id)

        self._index.update(change)
        self._uploads.discard(upload)
        return Blob(expected, found.size, self._blobs.path(expected))

    def drop_upload(self, upload: Upload) -> None:
        """End a session whose writer the caller is; nothing of it is left."""
        self._uploads.discard(upload)

    def cancel_upload(self, repository: str, upload_id: uuid.UUID) -> None:
        """End the session. Raises `UploadUnknown`, or `UploadConflict`."""
        self._uploads.cancel(repository, upload_id)

    # -- inside

    def _check_linked(self, txn: Transaction, repository: str, digest: Digest) -> None:
        key = scoped(repository, digest)
        # a manifest is a blob too: clients may fetch it from either endpoint
        if self._index.links.get(txn, key) is None and not self._index.manifests.get(txn, key):
            raise BlobUnknown(digest)
