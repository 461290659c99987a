"""Piece hashes of a blob, as if it stood alone on a piece boundary (BEP 3 pieces, BEP 47 pads)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

PIECE_LENGTH = 64 * 1024
"""Bytes a piece. One constant: another one would split every swarm."""

HASH_SIZE = 20


def piece_count(size: int, piece_length: int = PIECE_LENGTH) -> int:
    """Pieces of a blob of *size* bytes; the last may be shorter."""
    return -(-size // piece_length)


def hashes_size(size: int, piece_length: int = PIECE_LENGTH) -> int:
    """Bytes that the piece hashes of a blob of *size* bytes have."""
    return piece_count(size, piece_length) * HASH_SIZE


class PieceHasher:
    """The SHA-1 of each piece of a stream; the last piece is hashed with zeros up to its length."""

    def __init__(self, piece_length: int = PIECE_LENGTH) -> None:
        self._length = piece_length
        self._hashes = bytearray()
        self._piece = hashlib.sha1()
        self._filled = 0

    def update(self, block: bytes | memoryview) -> None:
        """The next bytes, however many."""
        view = memoryview(block)
        while view:
            taken = view[: self._length - self._filled]
            self._piece.update(taken)
            self._filled += len(taken)
            view = view[len(taken) :]
            if self._filled == self._length:
                self._end_piece()

    def finish(self) -> bytes:
        """All hashes, 20 bytes a piece; no bytes give no piece."""
        if self._filled:
            self._piece.update(bytes(self._length - self._filled))
            self._end_piece()
        return bytes(self._hashes)

    def _end_piece(self) -> None:
        self._hashes += self._piece.digest()
        self._piece = hashlib.sha1()
        self._filled = 0


def have_pieces(path: Path, size: int, hashes: bytes, piece_length: int) -> list[bool]:
    """Which pieces of a blob of *size* bytes the file at *path* has, right and whole.

    The file may be missing, sparse or short. Holes are not read.
    """
    count = len(hashes) // HASH_SIZE
    have = [False] * count
    if not path.exists():
        return have
    with path.open("rb", buffering=0) as file:
        for number in range(count):
            start = number * piece_length
            wanted = min(piece_length, size - start)
            if not _has_bytes(file.fileno(), start, wanted):
                continue
            block = os.pread(file.fileno(), wanted, start)
            if len(block) == wanted:
                piece = hashlib.sha1(block)
                piece.update(bytes(piece_length - wanted))
                at = number * HASH_SIZE
                have[number] = piece.digest() == hashes[at : at + HASH_SIZE]
    return have


def _has_bytes(descriptor: int, start: int, count: int) -> bool:
    """Whether anything was ever written in that range; a hole is no piece."""
    try:
        return os.lseek(descriptor, start, os.SEEK_DATA) < start + count
    except OSError:  # ENXIO: nothing but holes from there on
        return False
