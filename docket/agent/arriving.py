"""A layer that is on its way in: its bytes are readable as soon as their piece is verified."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from pathlib import Path

from docket.errors import BlobUnknown, DocketError, LayerFailed
from docket.oci.digest import Digest
from docket.pieces import HASH_SIZE, piece_count


class ArrivingLayer:
    """One layer of *size* bytes; reads never wait. Safe to use from many threads.

    Until the whole layer is in the store, each piece that is read is checked against its SHA-1:
    what BitTorrent has announced may not be on the disk yet.
    """

    def __init__(self, digest: Digest, size: int) -> None:
        self.digest = digest
        self.size = size
        self._path: Path | None = None
        self._hashes = b""
        self._piece_length = 0
        self._verified = bytearray()
        self._descriptor = -1
        self._closing: weakref.finalize[..., ArrivingLayer] | None = None
        self._is_adopted = False
        self._error: DocketError | None = None
        self._lock = threading.Lock()

    def begin(self, path: Path, hashes: bytes, piece_length: int) -> None:
        """From now on bytes come into the file at *path*, whose pieces have these *hashes*."""
        with self._lock:
            self._path, self._hashes, self._piece_length = path, hashes, piece_length
            self._verified = bytearray(piece_count(self.size, piece_length))

    def adopted(self, path: Path) -> None:
        """All of it is verified: the file at *path* is a blob of the store."""
        with self._lock:
            self._path = path
            self._open()  # now: a reader that begins later would not find the download's folder
            self._is_adopted = True

    def fail(self, error: DocketError) -> None:
        """It does not come; what was read of it stays right."""
        with self._lock:
            if not self._is_adopted:
                self._error = error

    @property
    def is_adopted(self) -> bool:
        """Whether the store has it."""
        return self._is_adopted

    def read(self, offset: int, count: int) -> bytes:
        """Verified bytes from *offset* on, at most *count*; none when they are not here yet.

        Raises `LayerFailed` when they will not come.
        """
        with self._lock:
            is_adopted = self._is_adopted
            if self._error and not is_adopted:
                raise LayerFailed(self.digest, self._error)
            if self._descriptor < 0 and not self._open():
                if is_adopted:
                    raise LayerFailed(self.digest, BlobUnknown(self.digest))
                return b""
            descriptor = self._descriptor
        # outside the lock: parallel ranges of one layer don't wait for each other
        if is_adopted:
            return os.pread(descriptor, count, offset)
        return self._read_verified(descriptor, offset, count)

    def _open(self) -> bool:
        try:
            if self._path and self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                # the last reader that lets go of the layer closes the file
                self._closing = weakref.finalize(self, os.close, self._descriptor)
        except FileNotFoundError:
            return False
        return self._descriptor >= 0

    def _read_verified(self, descriptor: int, offset: int, count: int) -> bytes:
        """Whole pieces from the one that contains *offset* on, as far as they are right."""
        length = self._piece_length
        if not length:
            return b""
        first = offset // length
        skip = offset - first * length
        end = min(-(-(offset + count) // length), len(self._verified))
        content = os.pread(descriptor, max(end - first, 0) * length, first * length)
        view = memoryview(content)
        right = 0
        for number in range(first, end):
            piece = view[right : right + length]
            if not self._is_right(number, piece):
                break
            right += len(piece)
        return content[skip : min(right, skip + count)]

    def _is_right(self, number: int, piece: memoryview) -> bool:
        """Whether *piece* is that piece of the layer; the last one is hashed with zeros added."""
        size = min(self._piece_length, self.size - number * self._piece_length)
        if len(piece) != size:
            return False
        if not self._verified[number]:
            running = hashlib.sha1(piece)
            running.update(bytes(self._piece_length - size))
            at = number * HASH_SIZE
            self._verified[number] = running.digest() == self._hashes[at : at + HASH_SIZE]
        return bool(self._verified[number])
