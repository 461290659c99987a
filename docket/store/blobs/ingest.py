"""Taking bytes in: one pass gives the digest, the piece hashes and, of a layer, the diff_id."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from docket.compression import LAYER_FORMATS, NONE, sniff
from docket.decompression import MAX_WINDOW, Decompressor, WorkBudget
from docket.errors import DigestMismatch, InvalidInput, WindowTooLarge
from docket.oci.digest import READ_SIZE, Digest, new_hash
from docket.pieces import PieceHasher

_TAR_MAGIC = b"ustar"
_TAR_MAGIC_AT = 257
_HEAD = _TAR_MAGIC_AT + len(_TAR_MAGIC)
_MAX_PLAIN = 1 << 40
# beside one more for each 2 MiB: 60 GB of zeros at 200 MB/s; only the diff_id of a bomb is lost
_UNPACK_SECONDS = 300
# what each upload may take to look back; zstd asks for more from level 20 on, or with --long
_WINDOW_BESIDE = 8 << 20
_QUEUE = 4
# below this many bytes a thread costs more than it saves
_BESIDE = 1 << 16

# layers that need more are unpacked one at a time
_alone = threading.Lock()

# hashing releases the GIL; all that comes in shares as many threads as there are processors
_hashing = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hash")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a layer unpacks to: its diff_id, the bytes of the plain tar, and what compressed it."""

    diff_id: Digest
    size: int
    compression: str = NONE


@dataclass(frozen=True, slots=True)
class Ingested:
    """All that one pass over a blob finds out. *unpacked* is None when it is no layer."""

    digest: Digest
    size: int
    piece_hashes: bytes
    unpacked: Unpacked | None


class Ingest:
    """A blob on its way in; `feed` it block by block, then `finish`, or `abandon` it.

    With *unpack* a compressed layer is decompressed beside, to learn its diff_id.
    """

    def __init__(
        self,
        *,
        algorithm: str = "sha256",
        unpack: bool = True,
        piece_hashes: bytes | None = None,
    ) -> None:
        """*piece_hashes* are those of the bytes, if they have been checked already."""
        self._unpack = unpack
        self._algorithm = algorithm
        self._hash = new_hash(algorithm)
        self._piece_hashes = piece_hashes
        self._pieces = PieceHasher()
        self._head = b""
        self._unpacking: _Unpacking | None = None
        self._beside: list[Future[None]] = []
        self.size = 0

    def feed(self, block: bytes) -> None:
        """The next bytes. They are hashed while the caller gets those that follow."""
        self._feed_unpacking(block)
        self._settle()
        if len(block) < _BESIDE:
            for hasher in self._hashers():
                hasher(block)
        else:
            self._beside = [_hashing.submit(hasher, block) for hasher in self._hashers()]
        self.size += len(block)

    def finish(self, path: Path | None = None) -> Ingested:
        """What was found out; nothing may be fed after it.

        All that was fed lies at *path*, where that is given: a layer that needs much memory is read
        again there, when no other is.
        """
        self._settle()
        digest = Digest(self._algorithm, self._hash.hexdigest())
        hashes = self._pieces.finish() if self._piece_hashes is None else self._piece_hashes
        return Ingested(digest, self.size, hashes, self._unpacked(digest, path))

    def abandon(self) -> None:
        """End what runs beside; the bytes are not wanted any more."""
        if self._unpacking:
            self._unpacking.finish()

    def _hashers(self) -> list[Callable[[bytes], None]]:
        known = self._piece_hashes is not None
        return [self._hash.update] if known else [self._hash.update, self._pieces.update]

    def _settle(self) -> None:
        """Wait until all that was fed is hashed."""
        for hashed in self._beside:
            hashed.result()
        self._beside = []

    def _feed_unpacking(self, block: bytes) -> None:
        if self._unpacking:
            self._unpacking.feed(block)
        elif len(self._head) < _HEAD:
            before = len(self._head)
            self._head += block[: _HEAD - before]
            if self._unpack and sniff(self._head) in LAYER_FORMATS:
                self._unpacking = _Unpacking()
                self._unpacking.feed(self._head[:before])
                self._unpacking.feed(block)

    def _unpacked(self, digest: Digest, path: Path | None) -> Unpacked | None:
        if self._unpacking:
            self._unpacking.finish()
            return self._unpacking.found or (
                _unpacked_alone(path) if path and self._unpacking.is_wide else None
            )
        if self._head[_TAR_MAGIC_AT:] == _TAR_MAGIC and digest.algorithm == "sha256":
            return Unpacked(digest, self.size)
        return None


def ingest_bytes(content: bytes, *, algorithm: str = "sha256") -> Ingested:
    """All that small *content* says."""
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
    """One read of the file at *path*. Raises `DigestMismatch` when it isn't *expected*.

    If it is known what the layer unpacks to, *unpacked* says so, and nothing is decompressed; the
    same holds for *piece_hashes*.
    """
    running = Ingest(
        algorithm=expected.algorithm, unpack=unpacked is None, piece_hashes=piece_hashes
    )
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_SIZE):
            running.feed(block)
    ingested = running.finish(path)
    if ingested.digest != expected:
        raise DigestMismatch(expected, ingested.digest)
    return ingested if unpacked is None else replace(ingested, unpacked=unpacked)


class _Unpacking:
    """Decompresses and hashes on a thread; what can't be decompressed is simply no layer.

    *is_wide*: it may be one, but needs more memory than many uploads at once could have.
    """

    def __init__(self) -> None:
        self._blocks: queue.Queue[bytes | None] = queue.Queue(maxsize=_QUEUE)
        self.found: Unpacked | None = None
        self.is_wide = False
        self._thread = threading.Thread(target=self._run, name="unpack", daemon=True)
        self._thread.start()

    def feed(self, block: bytes) -> None:
        if block:
            self._blocks.put(block)

    def finish(self) -> None:
        self._blocks.put(None)
        self._thread.join()

    def _run(self) -> None:
        blocks = iter(self._blocks.get, None)
        try:
            self.found = _unpack(blocks, window=_WINDOW_BESIDE)
        except WindowTooLarge:
            self.is_wide = True
        except InvalidInput:
            pass
        for _ in blocks:
            pass  # the one who feeds must not wait


def _unpacked_alone(path: Path) -> Unpacked | None:
    with _alone, path.open("rb", buffering=0) as file:
        try:
            return _unpack(iter(lambda: file.read(READ_SIZE), b""), window=MAX_WINDOW)
        except InvalidInput:
            return None


def _unpack(blocks: Iterator[bytes], *, window: int) -> Unpacked:
    """What *blocks* unpack to. Raises `InvalidInput`."""
    plain = new_hash()
    budget = WorkBudget(_UNPACK_SECONDS)
    decompressor = Decompressor(limit=_MAX_PLAIN, budget=budget, window=window)
    for block in blocks:
        budget.allow(len(block))
        for part in decompressor.feed(block):
            plain.update(part)
    decompressor.finish()
    digest = Digest("sha256", plain.hexdigest())
    return Unpacked(digest, decompressor.size, decompressor.compression)
