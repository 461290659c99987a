"""The store: blobs by digest, repositories, tags; on disk as the design's invariants promise.

<location>/
  VERSION  lock
  index/                  the LMDB environment
  blobs/sha256/ab/<hex>   immutable files, 0444
  uploads/<uuid>          upload sessions
  incoming/               layers being fetched
  swarm/                  hard links that are being seeded
  trash/  quarantine/
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from docket.digest import READ_SIZE, Digest
from docket.errors import (
    BlobUnknown,
    DigestMismatch,
    ManifestUnknown,
    RepositoryUnknown,
    StoreFormat,
)
from docket.manifest import Index as ImageIndex
from docket.manifest import Manifest
from docket.store import records
from docket.store.blobs import BlobFiles
from docket.store.disk import Disk, no_step
from docket.store.gc import Collector, GcReport
from docket.store.index import BlobRecord, Index, Transaction, key_of, scoped, unscoped
from docket.store.ingest import Ingest, Ingested, NewPieces, Unpacked
from docket.store.lock import Lock
from docket.store.pins import PIN_SECONDS, Pins
from docket.store.uploads import UPLOAD_SECONDS, Upload, Uploads

__all__ = [
    "PIN_SECONDS",
    "Blob",
    "GcReport",
    "LayerBlob",
    "Store",
    "StoredManifest",
    "Tagged",
    "Upload",
]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob; *size* in bytes, *path* is immutable while the blob is held."""

    digest: Digest
    size: int
    path: Path


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A stored layer: its blob, and what it unpacks to; sizes in bytes.

    *encoder* says what compressed it, where its manifest told (see `ANNOTATION_ENCODER`).
    """

    digest: Digest
    size: int
    diff_id: Digest
    plain_size: int
    compression: str
    encoder: str


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest's exact bytes, and what it was pushed as."""

    digest: Digest
    media_type: str
    artifact_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tag of a repository, the manifest it points to, and when it got there."""

    repository: str
    tag: str
    digest: Digest
    moved: float


class Store:
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
        self._disk = Disk(location, step=step)
        self._disk.make_folder(location)
        self._lock = Lock(location / "lock")
        self._lock.acquire(owner, wait=wait)
        try:
            self._open(new_pieces, piece_length, Pins(pin_seconds, clock=clock))
        except BaseException:
            self._lock.release()
            raise

    def _open(self, new_pieces: NewPieces, piece_length: int, pins: Pins) -> None:
        self._check_format(piece_length)
        for name in ("blobs", "uploads", "incoming", "swarm", "trash", "quarantine"):
            self._disk.make_folder(self.location / name)
        self.piece_length = piece_length
        self._new_pieces = new_pieces
        self._index = Index(self.location / "index")
        self._blobs = BlobFiles(self.location, self._index, self._disk)
        self._uploads = Uploads(self.location / "uploads", self._index, self._disk, new_pieces)
        self._pins = pins
        self._blobs.recover()
        self._blobs.empty_trash()
        self._uploads.drop_strays()

    def close(self) -> None:
        """Give the store up to others."""
        self._uploads.close()
        self._index.close()
        self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # -- blobs

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

    def read(self, digest: Digest) -> bytes:
        """All bytes of a small blob, such as a config. Raises `BlobUnknown`."""
        return self._read_small(self.blob(digest))

    def adopt(self, path: Path, expected: Digest, *, unpacked: Unpacked | None = None) -> Blob:
        """Take the file at *path* into the store under *expected*; the file keeps its name too.

        Returning means the bytes are verified, durable and readable; adopting a digest that is
        held is a no-op. *unpacked* is recorded where the bytes don't tell. Raises
        `DigestMismatch`; then nothing is stored and *path* stays.
        """
        with suppress(BlobUnknown):
            return self.blob(expected)
        found = self._ingested(path, expected, unpacked)
        with path.open("rb") as file:
            self._disk.sync(file.fileno())
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
                        found[diff_id] = _layer_blob(key, record)
        return found

    def unpacked(self, digest: Digest) -> LayerBlob | None:
        """What the stored layer *digest* unpacks to, where that is known."""
        with self._index.read() as txn:
            record = self._index.blobs.get(txn, key_of(digest))
        return _layer_blob(key_of(digest), record) if record and record.diff_id else None

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

    # -- manifests and tags

    def put_manifest(
        self,
        repository: str,
        content: bytes,
        parsed: Manifest | ImageIndex,
        *,
        tags: Sequence[str] = (),
        algorithm: str = "sha256",
        complete: bool = True,
    ) -> Digest:
        """Store a manifest, in one transaction with its edges, *tags* and referrers.

        Unless *complete* is False every child must be in *repository*, in the size that is told:
        `ManifestBlobUnknown`, `SizeMismatch`.
        Returning means the image is durable and can be pulled.
        """
        found = self._ingest_bytes(content, algorithm)
        self._pins.pin(found.digest)

        def change(txn: Transaction) -> None:
            if complete:
                records.check_children(self._index, txn, repository, parsed)
            records.add_manifest(self._index, txn, repository, found.digest, parsed, len(content))
            for tag in tags:
                records.set_tag(self._index, txn, repository, tag, found.digest)

        self._commit_file(content, found, None, change)
        return found.digest

    def manifest(self, repository: str, target: str | Digest) -> StoredManifest:
        """The manifest of a tag or digest. Raises `ManifestUnknown`."""
        separator = ":" if isinstance(target, str) else "@"
        name = f"{repository}{separator}{target}"
        with self._index.read() as txn:
            digest = target if isinstance(target, Digest) else None
            if isinstance(target, str) and (
                tag := self._index.tags.get(txn, scoped(repository, target))
            ):
                digest = Digest.parse(tag.digest)
            record = digest and self._index.manifests.get(txn, scoped(repository, digest))
        if not digest or not record:
            raise ManifestUnknown(name)
        try:
            content = self._read_small(self.blob(digest))
        except BlobUnknown as error:
            raise ManifestUnknown(name) from error
        return StoredManifest(digest, record.media_type, record.artifact_type, content)

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete the tag; the manifest stays until gc. Raises `ManifestUnknown`."""

        def change(txn: Transaction) -> None:
            if not records.clear_tag(self._index, txn, repository, tag):
                raise ManifestUnknown(f"{repository}:{tag}")

        self._index.update(change)

    def delete_manifest(self, repository: str, digest: Digest) -> None:
        """Delete the manifest and the tags that point to it. Raises `ManifestUnknown`."""
        self._index.update(
            lambda txn: records.drop_manifest(self._index, txn, repository, str(digest))
        )

    def tags(self, repository: str, *, after: str = "", limit: int | None = None) -> list[str]:
        """The tags of *repository*, sorted, past *after*. Raises `RepositoryUnknown`."""
        with self._index.read() as txn:
            rows = self._index.tags.scan(
                txn, scoped(repository), after=scoped(repository, after) if after else None
            )
            names = [unscoped(key)[1] for key, _ in islice(rows, limit)]
            if not names and not self._is_repository(txn, repository):
                raise RepositoryUnknown(repository)
        return names

    def tagged(self, repository: str | None = None) -> list[Tagged]:
        """All tags (of *repository*), sorted by repository and tag."""
        prefix = scoped(repository) if repository else b""
        with self._index.read() as txn:
            return [
                Tagged(*unscoped(key), Digest.parse(tag.digest), tag.moved)
                for key, tag in self._index.tags.scan(txn, prefix)
            ]

    def repositories(self, *, after: str = "", limit: int | None = None) -> list[str]:
        """Repositories that have a manifest, sorted, past *after*."""
        names: list[str] = []
        # one seek a repository: \x01 sorts behind the NUL of all its keys
        last = f"{after}\x01".encode() if after else b""
        with self._index.read() as txn:
            while limit is None or len(names) < limit:
                row = next(self._index.manifests.scan(txn, after=last), None)
                if row is None:
                    break
                names.append(unscoped(row[0])[0])
                last = f"{names[-1]}\x01".encode()
        return names

    def referrers(self, repository: str, subject: Digest) -> list[StoredManifest]:
        """Manifests of *repository* whose subject is *subject*, sorted by digest."""
        with self._index.read() as txn:
            keys = list(self._index.referrers.values(txn, scoped(repository, subject)))
        return [self.manifest(repository, Digest.parse(key.decode())) for key in keys]

    def is_shared(self, digest: Digest, manifest: Digest) -> bool:
        """Whether any manifest but *manifest*, in any repository, lists the blob *digest*."""
        own = f"m{manifest}"
        with self._index.read() as txn:
            return any(
                unscoped(parent)[1] not in (own, "h")
                for parent in self._index.parents.values(txn, key_of(digest))
            )

    # -- torrents

    def record_torrent(self, info_hash: bytes, manifest: Digest) -> None:
        """Remember which manifest's torrent *info_hash* names."""
        with self._index.read() as txn:
            if self._index.torrents.get(txn, info_hash) == str(manifest):
                return
        self._index.update(lambda txn: self._index.torrents.put(txn, info_hash, str(manifest)))

    def torrent(self, info_hash: bytes) -> tuple[str, Digest] | None:
        """A repository and the manifest whose torrent *info_hash* names, if it is still here."""
        with self._index.read() as txn:
            digest = self._index.torrents.get(txn, info_hash)
            if digest is None:
                return None
            for parent in self._index.parents.values(txn, digest.encode()):
                repository, why = unscoped(parent)
                if why == "h":
                    return repository, Digest.parse(digest)
        return None

    # -- upkeep

    def gc(self, *, grace: float = PIN_SECONDS, dry_run: bool = False) -> GcReport:
        """Sweep garbage older than *grace* seconds that nobody was promised; see `GcReport`."""
        if not dry_run:
            self.expire()
        report = Collector(self._index, self._blobs, self._pins).collect(
            grace=grace, dry_run=dry_run
        )
        if not dry_run:
            self._drop_dead_torrents()
        return report

    def expire(self, *, uploads_after: float = UPLOAD_SECONDS) -> int:
        """End upload sessions that began over *uploads_after* seconds ago, and pins that are over.

        Gives how many sessions there were.
        """
        self._pins.drop_expired()
        return self._uploads.expire(older_than=uploads_after)

    def space(self) -> AbstractContextManager[None]:
        """While files are written below the location: a full disk is `StoreFull`."""
        return self._disk.translated()

    def write_synced(self, path: Path, content: bytes) -> None:
        """A small file beside the blobs, such as an ``index.json`` that is to be seeded."""
        self._disk.make_folder(path.parent)
        self._disk.write_new(path, content)

    def link_out(self, digest: Digest, path: Path) -> None:
        """A hard link to the blob at *path*. Raises `BlobUnknown`."""
        blob = self.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._disk.link(blob.path, path)
        except FileNotFoundError as error:
            raise BlobUnknown(digest) from error

    # -- inside

    def _check_format(self, piece_length: int) -> None:
        path = self.location / "VERSION"
        wanted = {"format": _FORMAT, "piece_length": piece_length}
        if not path.exists():
            if (self.location / "index").exists():
                raise StoreFormat(f"{self.location} has an index but no VERSION file")
            fresh = self.location / "VERSION.new"
            self._disk.write_new(fresh, json.dumps(wanted).encode() + b"\n")
            self._disk.place(fresh, path)
        elif (found := _version_in(path)) != wanted:
            raise StoreFormat(
                f"the store at {self.location} is {found}; this docket reads {wanted}"
            )

    def _check_linked(self, txn: Transaction, repository: str, digest: Digest) -> None:
        key = scoped(repository, digest)
        # a manifest is a blob too: clients may fetch it from either endpoint
        if self._index.links.get(txn, key) is None and not self._index.manifests.get(txn, key):
            raise BlobUnknown(digest)

    def _is_repository(self, txn: Transaction, repository: str) -> bool:
        tables = (self._index.manifests, self._index.links)
        return any(next(one.scan(txn, scoped(repository)), None) for one in tables)

    def _read_small(self, blob: Blob) -> bytes:
        try:
            content = blob.path.read_bytes()
        except FileNotFoundError as error:
            raise BlobUnknown(blob.digest) from error
        actual = Digest.of(content, algorithm=blob.digest.algorithm)
        if actual != blob.digest:
            raise DigestMismatch(blob.digest, actual)
        return content

    def _ingest_bytes(self, content: bytes, algorithm: str = "sha256") -> Ingested:
        ingest = Ingest(self._new_pieces, algorithm=algorithm)
        ingest.feed(content)
        return ingest.finish()

    def _ingested(self, path: Path, expected: Digest, unpacked: Unpacked | None) -> Ingested:
        """One read of *path*: is it *expected*?"""
        running = Ingest(self._new_pieces, algorithm=expected.algorithm, unpack=unpacked is None)
        with path.open("rb", buffering=0) as file:
            while block := file.read(READ_SIZE):
                running.feed(block)
        found = running.finish()
        if found.digest != expected:
            raise DigestMismatch(expected, found.digest)
        return found if unpacked is None else found.with_unpacked(unpacked)

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
            self._disk.write_new(temporary, content)
            self._index.update(change)
        finally:
            temporary.unlink(missing_ok=True)

    def _drop_dead_torrents(self) -> None:
        with self._index.read() as txn:
            hashes: Sequence[bytes] = [key for key, _ in self._index.torrents.scan(txn)]
        dead = [one for one in hashes if self.torrent(one) is None]
        if dead:
            self._index.update(lambda txn: [self._index.torrents.delete(txn, one) for one in dead])


def _version_in(path: Path) -> object:
    content = path.read_bytes()
    try:
        return json.loads(content)
    except ValueError:
        return content[:80]


def _layer_blob(key: bytes, record: BlobRecord) -> LayerBlob:
    return LayerBlob(
        digest=Digest.parse(key.decode()),
        size=record.size,
        diff_id=Digest.parse(record.diff_id),
        plain_size=record.plain_size,
        compression=record.compression,
        encoder=record.encoder,
    )
