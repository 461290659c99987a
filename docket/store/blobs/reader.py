"""Reading a stored blob without knowing where its bytes lie."""

from __future__ import annotations

import os
from typing import BinaryIO, Self

from docket.oci.digest import Digest
from docket.store.filesystem import Filesystem


class BlobReader:
    """A blob that is open for reading; *size* in bytes. Reads from many threads don't interfere."""

    def __init__(self, digest: Digest, size: int, descriptor: int, filesystem: Filesystem) -> None:
        """Takes over *descriptor*, which `close` closes."""
        self.digest = digest
        self.size = size
        self._descriptor = descriptor
        self._filesystem = filesystem

    def fileno(self) -> int:
        """A file descriptor of the bytes, for `os.preadv` and the like; valid until `close`."""
        return self._descriptor

    def pread(self, count: int, offset: int) -> bytes:
        """At most *count* bytes from *offset* on; none behind the end.

        Raises `StoreUnusable` when the disk can't read them.
        """
        with self._filesystem.reading(self.digest):
            return os.pread(self._descriptor, count, offset)

    def detach(self) -> BinaryIO:
        """The bytes as a file from offset 0 on, which its caller closes instead of this reader."""
        descriptor, self._descriptor = self._descriptor, -1
        return os.fdopen(descriptor, "rb")

    def close(self) -> None:
        """Give the file descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
