"""Taking bytes in: one pass gives the digest, the piece hashes, and whether it may be a layer."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from docket.compression import LAYER_FORMATS, sniff
from docket.errors import DigestMismatch
from docket.oci.digest import READ_SIZE, Digest, new_hash
from docket.pieces import PieceHasher
from docket.store.blobs.unpacking import Unpacked, unpack_file

_TAR_MAGIC = b"ustar"
_TAR_MAGIC_AT = 257
_HEAD = _TAR_MAGIC_AT + len(_TAR_MAGIC)
# below this many bytes a thread costs more than it saves
_SMALL_BLOCK = 1 << 16

# hashing releases the GIL; all that comes in shares as many threads as there are processors
_hashing = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hash")


@dataclass(frozen=True, slots=True)
class Ingested:
    """All that one pass over a blob finds out.

    *unpacked* is None if it is no layer; or if it *is_packed*: its first bytes are those of
    a compressed stream, which nobody has unpacked. It *is_hint* when somebody else has said it.
    """

    digest: Digest
    size: int
    piece_hashes: bytes
    unpacked: Unpacked | None
    is_packed: bool = False
    is_hint: bool = False


class Ingest:
    """A blob on its way in: `feed` it block by block, then `finish`. It holds no thread."""

    def __init__(self, *, algorithm: str = "sha256", piece_hashes: bytes | None = None) -> None:
        """*piece_hashes* are those of the bytes, if they have been checked already."""
        self._algorithm = algorithm
        self._hash = new_hash(algorithm)
        self._piece_hashes = piece_hashes
        self._pieces = PieceHasher()
        self._head = b""
        self._running: list[Future[None]] = []
        self.size = 0

    def feed(self, block: bytes) -> None:
        """The next bytes. They are hashed while the caller gets those that follow."""
        self._settle()
        self._head += block[: _HEAD - len(self._head)]
        if len(block) < _SMALL_BLOCK:
            for hasher in self._hashers():
                hasher(block)
        else:
            self._running = [_hashing.submit(hasher, block) for hasher in self._hashers()]
        self.size += len(block)

    def finish(self) -> Ingested:
        """What was found out; nothing may be fed after it."""
        self._settle()
        digest = Digest(self._algorithm, self._hash.hexdigest())
        hashes = self._pieces.finish() if self._piece_hashes is None else self._piece_hashes
        is_tar = self._head[_TAR_MAGIC_AT:] == _TAR_MAGIC and self._algorithm == "sha256"
        unpacked = Unpacked(digest, self.size) if is_tar else None
        is_packed = sniff(self._head) in LAYER_FORMATS
        return Ingested(digest, self.size, hashes, unpacked, is_packed)

    def _hashers(self) -> list[Callable[[bytes], None]]:
        has_hashes = self._piece_hashes is not None
        return [self._hash.update] if has_hashes else [self._hash.update, self._pieces.update]

    def _settle(self) -> None:
        """Wait until all that was fed is hashed."""
        for hashed in self._running:
            hashed.result()
        self._running = []


def ingest_bytes(content: bytes, *, algorithm: str = "sha256") -> Ingested:
    """All that small *content* says, without unpacking it."""
    running = Ingest(algorithm=algorithm)
    running.feed(content)
    return running.finish()


def ingest_file(
    path: Path,
    expected: Digest,
    *,
    unpacked: Unpacked | None = None,
    piece_hashes: bytes | None = None,
) -> Ingested:
    """All that the file at *path* says. Raises `DigestMismatch` when it isn't *expected*.

    With *unpacked*, a hint of what a compressed layer unpacks to, nothing is decompressed. With
    *piece_hashes*, which have been checked, no pieces are hashed.
    """
    running = Ingest(algorithm=expected.algorithm, piece_hashes=piece_hashes)
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_SIZE):
            running.feed(block)
    ingested = running.finish()
    if ingested.digest != expected:
        raise DigestMismatch(expected, ingested.digest)
    if not ingested.is_packed:
        return ingested
    measured = unpacked or unpack_file(path)
    return replace(ingested, unpacked=measured, is_packed=False, is_hint=unpacked is not None)
