"""Upload sessions: partial blobs that come in parts and survive a restart."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from docket.errors import DigestMismatch, UploadConflict, UploadOutOfOrder, UploadUnknown
from docket.oci.digest import READ_SIZE, Digest
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingest, Ingested
from docket.store.blobs.measuring import Measuring
from docket.store.filesystem import Filesystem
from docket.store.index.environment import Index
from docket.store.index.records import UploadRecord, scoped
from docket.store.index.tables import Transaction
from docket.store.layout import UPLOADS
from docket.store.pins import Pins
from docket.store.types import Blob

UPLOAD_SECONDS = 24 * 3600.0
"""How long an unfinished upload is kept after its last byte."""

_REMEMBERED = 1000


class Upload:
    """One session, open for one writer: `write` appends, `close` keeps the bytes for later."""

    def __init__(self, upload_id: uuid.UUID, path: Path, filesystem: Filesystem) -> None:
        self.id = upload_id
        self.path = path
        self._filesystem = filesystem
        self._busy = threading.Lock()
        self._file: FileIO | None = None
        self._ingest: Ingest | None = None

    @property
    def offset(self) -> int:
        """Bytes that have arrived. Raises `UploadUnknown` when another request ended it."""
        if ingest := self._ingest:
            return ingest.size
        try:
            return self.path.stat().st_size
        except FileNotFoundError as error:
            raise UploadUnknown(self.id) from error

    def write(self, block: bytes) -> None:
        """Append *block*."""
        file, ingest = self._opened(Ingest() if self._ingest is None else None)
        try:
            self._filesystem.append(file, block)
        except BaseException:
            # a part of the block may be in the file: what is there is hashed again later
            self.forget()
            raise
        ingest.feed(block)

    def finish(self, expected: Digest) -> Ingested:
        """All bytes are here: sync them and return what they are. Raises `DigestMismatch`."""
        ingest = None
        if self._ingest is None or expected.algorithm != "sha256":
            # the one second read: sessions that outlived a restart, and digests of another kind
            ingest = Ingest(algorithm=expected.algorithm)
        file, running = self._opened(ingest)
        self._filesystem.sync(file.fileno())
        ingested = running.finish()
        self._ingest = None
        self.close()
        if ingested.digest != expected:
            raise DigestMismatch(expected, ingested.digest)
        return ingested

    def close(self) -> None:
        """Let go of the file; the bytes stay."""
        if self._file:
            self._file.close()
        self._file = None

    def forget(self) -> None:
        """Forget what is known of the bytes; the file stays, and is read again if need be."""
        self.close()
        self._ingest = None

    @contextmanager
    def writer(self) -> Iterator[Upload]:
        """Be the only writer. Raises `UploadConflict` when there is one already."""
        if not self._busy.acquire(blocking=False):
            raise UploadConflict(self.id)
        try:
            yield self
        finally:
            self._busy.release()

    def _opened(self, fresh: Ingest | None) -> tuple[FileIO, Ingest]:
        if fresh is not None:
            with self._filesystem.reading(self.path), self.path.open("rb", buffering=0) as file:
                while block := file.read(READ_SIZE):
                    fresh.feed(block)
            self._ingest = fresh
        if self._file is None:
            self._file = FileIO(self.path, "ab")
        assert self._ingest is not None
        return self._file, self._ingest


class Uploads:
    """The sessions of a store."""

    def __init__(
        self,
        index: Index,
        files: BlobFiles,
        measuring: Measuring,
        pins: Pins,
        filesystem: Filesystem,
    ) -> None:
        self._folder = filesystem.location / UPLOADS
        self._index = index
        self._files = files
        self._measuring = measuring
        self._pins = pins
        self._filesystem = filesystem
        self._open: dict[uuid.UUID, Upload] = {}
        self._lock = threading.Lock()

    def begin(self, repository: str) -> uuid.UUID:
        """A new, empty session of *repository*; it survives a restart."""
        upload_id = uuid.uuid4()
        record = UploadRecord(repository, time.time())
        try:
            self._filesystem.write_new(self._path(upload_id), b"")
            self._index.update(lambda txn: self._index.uploads.put(txn, _key(upload_id), record))
        except BaseException:
            self._filesystem.remove(self._path(upload_id))
            raise
        return upload_id

    def _session(self, repository: str, upload_id: uuid.UUID) -> Upload:
        """The session. Raises `UploadUnknown` unless it is one of *repository*."""
        with self._index.read() as txn:
            record = self._index.uploads.get(txn, _key(upload_id))
        if record is None or record.repository != repository:
            raise UploadUnknown(upload_id)
        path = self._path(upload_id)
        if not path.exists():
            raise UploadUnknown(upload_id)
        with self._lock:
            if upload_id not in self._open:
                self._open[upload_id] = Upload(upload_id, path, self._filesystem)
            return self._open[upload_id]

    def offset(self, repository: str, upload_id: uuid.UUID) -> int:
        """Bytes that the session has. Raises `UploadUnknown`."""
        return self._session(repository, upload_id).offset

    @contextmanager
    def open(
        self, repository: str, upload_id: uuid.UUID, *, offset: int | None = None
    ) -> Iterator[Upload]:
        """The session, for one writer that goes on at *offset* (None: wherever it stands).

        Raises `UploadUnknown`, `UploadConflict`, or `UploadOutOfOrder`.
        """
        upload = self._session(repository, upload_id)
        with upload.writer():
            with self._lock:
                if self._open.get(upload_id) is not upload:  # over since `_session` looked
                    raise UploadUnknown(upload_id)
            if offset is not None and offset != upload.offset:
                raise UploadOutOfOrder(upload_id, offset=upload.offset)
            try:
                yield upload
            finally:
                upload.close()  # sessions that nobody goes on with must not use up descriptors
                self._bound_memory()

    def finish(self, repository: str, upload: Upload, expected: Digest) -> Blob:
        """The session's bytes become the blob *expected* of *repository*.

        Returning means that they are verified, durable and readable; what a layer unpacks to is
        found out later, see `Layers.wait`. Raises `DigestMismatch`; then the session is gone and
        nothing is stored.
        """
        try:
            ingested = upload.finish(expected)
        except DigestMismatch:
            self.discard(upload)
            raise
        self._pins.pin(expected)

        def change(txn: Transaction) -> None:
            self._files.add(txn, upload.path, ingested)
            self._index.links.put(txn, scoped(repository, expected), time.time())
            self._forget(txn, upload.id)

        self._index.update(change)
        self.discard(upload)
        if ingested.is_packed:
            self._measuring.later(expected)
        return Blob(expected, ingested.size)

    def cancel(self, repository: str, upload_id: uuid.UUID) -> None:
        """End the session; nothing of it is left. Raises `UploadUnknown`, `UploadConflict`."""
        with self.open(repository, upload_id) as upload:
            self.discard(upload)

    def discard(self, upload: Upload) -> None:
        """Take away all that is left of *upload*, which its caller is the writer of."""
        upload.forget()
        # the file goes first: without it nobody can open the session, and on a full disk the index
        # needs the space that it frees
        self._filesystem.remove(upload.path)
        self._index.update(lambda txn: self._forget(txn, upload.id))
        with self._lock:
            self._open.pop(upload.id, None)

    def expire(self, *, older_than: float = UPLOAD_SECONDS) -> int:
        """End sessions that got no byte for *older_than* seconds; how many there were.

        One that is being written stays.
        """
        return sum(self._is_cancelled(*session) for session in self._idle(older_than))

    def idle_bytes(self, *, older_than: float) -> int:
        """The disk space of the sessions that `expire` would end."""
        paths = [self._path(upload_id) for _, upload_id in self._idle(older_than)]
        return sum(path.stat().st_blocks * 512 for path in paths if path.exists())

    def _idle(self, seconds: float) -> list[tuple[str, uuid.UUID]]:
        with self._index.read() as txn:
            sessions = [
                (record.repository, uuid.UUID(key.decode()))
                for key, record in self._index.uploads.scan(txn)
            ]
        now = time.time()
        return [
            (repository, upload_id)
            for repository, upload_id in sessions
            if now - self._filesystem.changed(self._path(upload_id), now=now) >= seconds
        ]

    def _is_cancelled(self, repository: str, upload_id: uuid.UUID) -> bool:
        try:
            self.cancel(repository, upload_id)
        except (UploadUnknown, UploadConflict):
            return False
        return True

    def _bound_memory(self) -> None:
        """Forget the hashes of sessions that were left first, where there are many."""
        with self._lock:
            left = list(self._open.values())[:-_REMEMBERED]
        for upload in left:
            with suppress(UploadConflict), upload.writer():
                upload.forget()

    def drop_strays(self) -> None:
        """Remove files without a session and sessions without a file, as a crash leaves them."""
        with self._index.read() as txn:
            recorded = {key.decode() for key, _ in self._index.uploads.scan(txn)}
        on_disk = {path.name for path in self._folder.iterdir()}
        for name in on_disk - recorded:
            self._filesystem.remove(self._folder / name)
        for name in recorded - on_disk:
            self._index.update(lambda txn, name=name: self._forget(txn, uuid.UUID(name)))  # type: ignore[misc]

    def close(self) -> None:
        """Let go of all sessions; they go on after the next start."""
        with self._lock:
            for upload in self._open.values():
                upload.forget()
            self._open.clear()

    def _forget(self, txn: Transaction, upload_id: uuid.UUID) -> None:
        self._index.uploads.delete(txn, _key(upload_id))

    def _path(self, upload_id: uuid.UUID) -> Path:
        return self._folder / str(upload_id)


def _key(upload_id: uuid.UUID) -> bytes:
    return str(upload_id).encode()
