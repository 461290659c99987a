"""Sharing bytes with another program on this host: one file on the disk, a hard link for each.

A container engine keeps blobs under their digests too. Nothing of its folder is changed: the store
takes a link to the other program's file, in place of its own copy if it has one.
"""

from __future__ import annotations

import os
import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from docket.errors import BlobUnknown, DigestMismatch, SharingRefused
from docket.oci.digest import Digest, new_hash
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingest, Ingested
from docket.store.blobs.unpacking import unpack_file
from docket.store.filesystem import Filesystem
from docket.store.index.environment import Index
from docket.store.index.records import key_of
from docket.store.index.tables import Transaction
from docket.store.layout import INCOMING, SWARM, UPLOADS
from docket.store.pins import Pins
from docket.store.types import Blob

# below the size that `Ingest` hashes in threads of all: this work has a low priority
_BLOCK = (1 << 16) - 1

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

OnBlock = Callable[[int], None]


class Sharing:
    """Links between blobs and the files of other programs.

    Each file is read once, in the caller's thread, and *on_block* gets the bytes of each read: it
    may take its time, or raise to stop. Raises `SharingRefused` for a file on another file system
    or one that other users may write, `DigestMismatch`, and OSError for one that can't be read.
    """

    def __init__(self, index: Index, files: BlobFiles, pins: Pins, filesystem: Filesystem) -> None:
        self._index = index
        self._files = files
        self._pins = pins
        self._filesystem = filesystem

    def is_shared(self, path: Path, digest: Digest) -> bool:
        """Whether the file at *path* is the blob's own."""
        with suppress(OSError):
            return path.samefile(self._files.path(digest))
        return False

    def adopt(
        self, path: Path, digest: Digest, *, on_block: OnBlock, stop: threading.Event
    ) -> Blob:
        """Take the file at *path* into the store; a blob that is held already is a no-op.

        Returning means the bytes are verified and durable, and that piece hashes and, of a layer,
        what it unpacks to are known. *stop* ends unpacking.
        """
        with self._opened(path) as (descriptor, source):
            running = Ingest(algorithm=digest.algorithm)
            _read(descriptor, running.feed, on_block)
            ingested = running.finish()
            if ingested.digest != digest:
                raise DigestMismatch(digest, ingested.digest)
            if ingested.is_packed:
                unpacked = unpack_file(source, is_stopped=stop.is_set)
                ingested = replace(ingested, unpacked=unpacked, is_packed=False)
            self._pins.pin(digest)
            with self._linked(descriptor) as temporary:
                self._index.update(lambda txn: self._add(txn, temporary, ingested))
        return Blob(digest, ingested.size)

    def replace(self, path: Path, digest: Digest, *, on_block: OnBlock) -> int:
        """Make the equal file at *path* the held blob's own; the bytes that this saves.

        Whoever reads the old file goes on, and links to it below the location are replaced too.
        Returning means that the bytes of *path* are verified. Raises `BlobUnknown`.
        """
        if self.is_shared(path, digest):
            return 0
        with self._opened(path) as (descriptor, _):
            running = new_hash(digest.algorithm)
            _read(descriptor, running.update, on_block)
            actual = Digest(digest.algorithm, running.hexdigest())
            if actual != digest:
                raise DigestMismatch(digest, actual)
            self._pins.pin(digest)
            old = _inode(self._files.path(digest))
            with self._linked(descriptor) as temporary:
                self._index.update(lambda txn: self._replace(txn, temporary, digest))
            for name in self._names(digest, old):
                with suppress(FileNotFoundError), self._linked(descriptor) as temporary:
                    self._filesystem.place(temporary, name)
            return os.fstat(descriptor).st_size

    # -- inside

    @contextmanager
    def _opened(self, path: Path) -> Iterator[tuple[int, Path]]:
        """The file's descriptor and a path that leads to exactly what it is open for."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            self._check(path, os.fstat(descriptor))
            yield descriptor, _path_of(descriptor)
        finally:
            os.close(descriptor)

    def _check(self, path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise SharingRefused(path, "it is no regular file")
        if status.st_dev != self._filesystem.location.stat().st_dev:
            raise SharingRefused(path, "it is on another file system")
        # whoever may write the file could change it after it was verified
        is_ours = status.st_uid in (0, os.geteuid())
        if not is_ours or status.st_mode & _WRITABLE_BY_OTHERS:
            raise SharingRefused(path, "other users may write it")

    @contextmanager
    def _linked(self, descriptor: int) -> Iterator[Path]:
        """A temporary name, in the store, of the file that is open."""
        temporary = self._filesystem.location / UPLOADS / f"shared-{uuid.uuid4()}"
        self._filesystem.sync(descriptor)
        self._filesystem.link_open(descriptor, temporary)
        try:
            yield temporary
        finally:
            self._filesystem.remove(temporary)

    def _add(self, txn: Transaction, temporary: Path, ingested: Ingested) -> None:
        self._files.add(txn, temporary, ingested)

    def _replace(self, txn: Transaction, temporary: Path, digest: Digest) -> None:
        if not self._index.blobs.has(txn, key_of(digest)):
            raise BlobUnknown(digest)
        if temporary.exists():  # else an earlier run of this change has placed it
            self._filesystem.place(temporary, self._files.path(digest))

    def _names(self, digest: Digest, inode: int) -> list[Path]:
        """The links to *inode* in folders that are seeded."""
        location = self._filesystem.location
        paths = [
            path
            for folder in (INCOMING, SWARM)
            for path in (location / folder).glob(f"*/{digest.layout_path}")
        ]
        return [path for path in paths if _inode(path) == inode]


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")


def _inode(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_ino
    return 0


def _read(descriptor: int, feed: Callable[[bytes], None], on_block: OnBlock) -> None:
    offset = 0
    while block := os.pread(descriptor, _BLOCK, offset):
        feed(block)
        offset += len(block)
        on_block(len(block))
