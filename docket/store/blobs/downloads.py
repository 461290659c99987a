"""Layers on their way in from other hosts: their folder, what is written there, who still uses it.

libtorrent writes into a folder that is laid out as the torrent is (an OCI image layout), so a
download has one, ``incoming/<manifest hex>``; whatever else is written there goes through here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docket.errors import DigestMismatch
from docket.oci.digest import Digest
from docket.pieces import have_pieces
from docket.store.blobs.blobs import Blobs
from docket.store.blobs.incoming import folder_in_use
from docket.store.blobs.unpacking import Unpacked
from docket.store.filesystem import Filesystem
from docket.store.layout import INCOMING
from docket.store.types import Blob


class Download:
    """The layers of one image that are being downloaded; *folder* is laid out as its torrent is."""

    def __init__(self, folder: Path, blobs: Blobs, filesystem: Filesystem) -> None:
        self.folder = folder
        self._blobs = blobs
        self._filesystem = filesystem
        filesystem.make_folder(folder)

    def has_file(self, digest: Digest) -> bool:
        """Whether any byte of the blob was downloaded."""
        return self._path(digest).exists()

    def have_pieces(
        self, digest: Digest, size: int, hashes: bytes, *, piece_length: int
    ) -> list[bool]:
        """Which pieces of a blob of *size* bytes are here from an earlier attempt."""
        return have_pieces(self._path(digest), size, hashes, piece_length)

    def link_held(self, digest: Digest) -> None:
        """Lay a blob of the store out in the folder, so that it is seeded. Raises `BlobUnknown`."""
        self._blobs.link_out(digest, self._path(digest))

    def write_file(self, name: str, content: bytes) -> None:
        """Write a small file of the torrent that is no blob, such as ``index.json``."""
        self._filesystem.replace_file(self.folder / name, content)

    @contextmanager
    def writer(self, digest: Digest) -> Iterator[DownloadWriter]:
        """The blob's file, open for writing; what it has already stays."""
        path = self._path(digest)
        self._filesystem.make_folder(path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        self._filesystem.leave_to_owner(path)
        try:
            yield DownloadWriter(descriptor, self._filesystem)
        finally:
            os.close(descriptor)

    def adopt(
        self, digest: Digest, *, unpacked: Unpacked | None = None, piece_hashes: bytes | None = None
    ) -> Blob:
        """The downloaded file becomes a blob of the store; see `Blobs.adopt`.

        Raises `DigestMismatch`; then the file is removed, since none of it can be trusted.
        """
        path = self._path(digest)
        try:
            return self._blobs.adopt(path, digest, unpacked=unpacked, piece_hashes=piece_hashes)
        except DigestMismatch:
            self._filesystem.remove(path)
            raise

    def _path(self, digest: Digest) -> Path:
        return self.folder / digest.layout_path


class DownloadWriter:
    """A blob that is being downloaded. Nothing is synced before it is adopted."""

    def __init__(self, descriptor: int, filesystem: Filesystem) -> None:
        self._descriptor = descriptor
        self._filesystem = filesystem

    def write(self, block: bytes, offset: int) -> None:
        """Write all of *block* at *offset*. Raises `StoreFull`."""
        self._filesystem.write_part(self._descriptor, block, offset)


class Downloads:
    """The downloads of a store, by the manifest of their image."""

    def __init__(self, blobs: Blobs, filesystem: Filesystem) -> None:
        self._blobs = blobs
        self._filesystem = filesystem

    def get(self, manifest: Digest) -> Download:
        """The download of an image, for the holder of `open`."""
        return Download(self._folder(manifest), self._blobs, self._filesystem)

    @contextmanager
    def open(self, manifest: Digest) -> Iterator[Download]:
        """The download of an image, while this process fetches into it or seeds from it.

        May outlast the store: then its folder is seeded, and nothing is written or adopted. The
        last process to leave removes the folder, unless it leaves with an error: then the next
        download continues with what is there.
        """
        with folder_in_use(self._folder(manifest), self._filesystem):
            yield self.get(manifest)

    def _folder(self, manifest: Digest) -> Path:
        return self._filesystem.location / INCOMING / manifest.hex
