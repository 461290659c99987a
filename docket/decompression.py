"""Decompression of layers and archives from outside, bounded in memory and processor time."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import time
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

import zstandard

from docket.compression import BZIP2, GZIP, NONE, SNIFF_SIZE, XZ, ZSTD, sniff
from docket.errors import InvalidArchive, InvalidInput, TooCostly, TooLarge, WindowTooLarge

MAX_WINDOW = 128 << 20
"""Bytes that a stream may look back; one that needs more is refused."""

_BLOCK = 1 << 18

# bytes that are taken at a time: 800 empty gzip members, each of which copies what is behind it
_STEP = 1 << 14

_ZSTD_NEEDS_MEMORY = "requires too much memory"
_XZ_NEEDS_MEMORY = "Memory usage limit"
_XZ_OVERHEAD = 16 << 20

_BYTES_PER_SECOND = 2 << 20


class WorkBudget:
    """Processor time of one thread that reading something from outside may take.

    That is *seconds* from now on, and one more for each 2 MiB read: fifty times what an ordinary
    layer takes, so that zeros may unpack to any honest size and a bomb ends. Only the thread that
    makes it may use it.
    """

    def __init__(self, seconds: float) -> None:
        self._began = time.thread_time()
        self._allowed = seconds

    def allow(self, size: int) -> None:
        """Add what *size* more bytes from outside may take."""
        self._allowed += size / _BYTES_PER_SECOND

    def check(self) -> None:
        """Raises `TooCostly` when the time is used up."""
        if time.thread_time() - self._began > self._allowed:
            raise TooCostly(seconds=round(self._allowed))


class Decompressor:
    """Push-style decompression of a stream that may be gzip, zstd, xz, bzip2 or none of them.

    A stream of several gzip members, zstd frames or the like is one stream. More than *limit* plain
    bytes raise `TooLarge`, more processor time than *budget* allows `TooCostly`, broken input
    `InvalidArchive`, and a stream that needs more than *window* bytes to look back
    `WindowTooLarge`.
    """

    def __init__(
        self,
        *,
        limit: int = 1 << 62,
        budget: WorkBudget | None = None,
        window: int = MAX_WINDOW,
    ) -> None:
        self._limit = limit
        self._budget = budget
        self._window = window
        self._start = b""
        self._inner: _Frames | None = None
        self.compression = NONE
        self.size = 0

    def feed(self, block: bytes) -> Iterator[bytes]:
        """The plain bytes that *block* brings; take all of them before feeding the next.

        They come in parts of at most 256 KiB, each unpacked when it is taken; plain bytes come as
        they are.
        """
        if self._inner is None:
            block = self._start + block
            if len(block) < SNIFF_SIZE:
                self._start = block
                return
            self._inner = self._begin(block)
        for plain in self._inner.feed(block):
            self._count(plain)
            yield plain

    def finish(self) -> bytes:
        """End the stream; the last bytes of one that is too short to be recognized.

        Raises `InvalidArchive` when it breaks off in a frame.
        """
        unread = b""
        if self._inner is None:
            self._inner = self._begin(self._start)
            unread = b"".join(self._inner.feed(self._start))
            self._count(unread)
        self._inner.finish()
        return unread

    def _begin(self, start: bytes) -> _Frames:
        self.compression = sniff(start)
        if self.compression == ZSTD:
            return _ZstdFrames(self._window)
        if self.compression == GZIP:
            return _GzipFrames()
        if self.compression == XZ:
            memory = self._window + _XZ_OVERHEAD
            return _Streams(XZ, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memory))
        return _Streams(BZIP2, bz2.BZ2Decompressor) if self.compression == BZIP2 else _Plain()

    def _count(self, plain: bytes) -> None:
        self.size += len(plain)
        if self.size > self._limit:
            raise TooLarge("the uncompressed layer", limit=self._limit)
        if self._budget:
            self._budget.check()


class _Frames(Protocol):
    def feed(self, block: bytes) -> Iterator[bytes]: ...
    def finish(self) -> None: ...


class _Plain:
    def feed(self, block: bytes) -> Iterator[bytes]:
        if block:
            yield block

    def finish(self) -> None:
        return None


class _GzipFrames:
    """Gzip members one after the other (RFC 1952 § 2.2); zero bytes after the last are padding."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._members = 0
        self._fresh = True
        self._padded = False

    def feed(self, block: bytes) -> Iterator[bytes]:
        for start in range(0, len(block), _STEP):
            yield from self._feed_step(block[start : start + _STEP])

    def _feed_step(self, block: bytes) -> Iterator[bytes]:
        while block:
            # no member begins with a zero
            if self._fresh and self._members and not block[0]:
                self._padded = True
            if self._padded:
                if block.strip(b"\0"):
                    raise InvalidArchive("broken gzip stream: it goes on after its padding")
                return
            self._fresh = False
            while block and not self._member.eof:
                if plain := self._unpack(block):
                    yield plain
                block = self._member.unconsumed_tail
            if self._member.eof:
                block = self._member.unused_data
                self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
                self._members += 1
                self._fresh = True

    def _unpack(self, block: bytes) -> bytes:
        try:
            return self._member.decompress(block, _BLOCK)
        except zlib.error as error:
            raise InvalidArchive(f"broken gzip stream: {error}") from error

    def finish(self) -> None:
        if not self._fresh:
            raise InvalidArchive("the gzip stream breaks off")


class _StreamDecoder(Protocol):
    """What `lzma.LZMADecompressor` and `bz2.BZ2Decompressor` share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Streams:
    """xz or bzip2 streams one after the other; zero bytes after one are padding (.xz § 2.2)."""

    def __init__(self, compression: str, new_decoder: Callable[[], _StreamDecoder]) -> None:
        self._compression = compression
        self._new_decoder = new_decoder
        self._decoder = new_decoder()
        self._is_fresh = True

    def feed(self, block: bytes) -> Iterator[bytes]:
        for start in range(0, len(block), _STEP):
            yield from self._feed_step(block[start : start + _STEP])

    def _feed_step(self, block: bytes) -> Iterator[bytes]:
        while block or not (self._is_fresh or self._decoder.needs_input):
            if self._is_fresh and not (block := block.lstrip(b"\0")):
                return
            self._is_fresh = False
            if plain := self._unpack(block):
                yield plain
            block = b""
            if self._decoder.eof:
                block = self._decoder.unused_data
                self._decoder = self._new_decoder()
                self._is_fresh = True

    def _unpack(self, block: bytes) -> bytes:
        try:
            return self._decoder.decompress(block, _BLOCK)
        except (lzma.LZMAError, OSError, EOFError) as error:
            error_type = WindowTooLarge if _XZ_NEEDS_MEMORY in str(error) else InvalidArchive
            raise error_type(f"broken {self._compression} stream: {error}") from error

    def finish(self) -> None:
        if not self._is_fresh:
            raise InvalidArchive(f"the {self._compression} stream breaks off")


class _NothingWaits(Exception):
    """All that was fed is unpacked."""


class _Waiting:
    """The block that is unpacked next, as a file whose end doesn't show."""

    def __init__(self) -> None:
        self.block = b""

    def read(self, _size: int) -> bytes:
        """All of the block, once. Raises `_NothingWaits`: no bytes would be the stream's end."""
        if not self.block:
            raise _NothingWaits
        block, self.block = self.block, b""
        return block


class _ZstdFrames:
    """Zstandard frames one after the other (RFC 8878 § 3).

    What comes out at a time is bounded, not what goes in: 4 bytes of it may unpack to 128 KiB.
    """

    def __init__(self, window: int) -> None:
        self._waiting = _Waiting()
        # not read1: it loses its buffer whenever `_Waiting.read` raises
        self._buffer = bytearray(_BLOCK)
        self._reader = zstandard.ZstdDecompressor(max_window_size=window).stream_reader(
            self._waiting,  # type: ignore[arg-type]
            read_across_frames=True,
        )

    def feed(self, block: bytes) -> Iterator[bytes]:
        self._waiting.block = block
        with memoryview(self._buffer) as view:
            while count := self._unpack():
                yield bytes(view[:count])

    def _unpack(self) -> int:
        """How many plain bytes are in the buffer now; 0 when what was fed is used up."""
        try:
            return self._reader.readinto1(self._buffer)
        except _NothingWaits:
            return 0
        except zstandard.ZstdError as error:
            error_type = WindowTooLarge if _ZSTD_NEEDS_MEMORY in str(error) else InvalidArchive
            raise error_type(f"broken zstd stream: {error}") from error

    def finish(self) -> None:
        """Check that no frame is open: the reader doesn't say; one more would not come out whole.

        Raises `InvalidArchive`.
        """
        expected = os.urandom(16)
        frame = zstandard.compress(expected)
        try:
            # byte by byte: shown a whole frame, libzstd takes it, though half a header came before
            plain = b"".join(part for byte in frame for part in self.feed(bytes([byte])))
        except InvalidArchive:
            plain = b""
        if plain != expected:
            raise InvalidArchive("the zstd stream breaks off")


class PlainReader(io.RawIOBase):
    """A readable stream of the plain bytes of *source*, whatever compresses it.

    Reading raises what a `Decompressor` raises. With *owns*, closing this closes *source*.
    *packed_size* counts the bytes that were read of it.
    """

    def __init__(
        self,
        source: BinaryIO,
        *,
        limit: int = 1 << 62,
        budget: WorkBudget | None = None,
        owns: bool = False,
    ) -> None:
        self._source = source
        self._owns = owns
        self._parts: Iterator[bytes] = iter(())
        self._plain = memoryview(b"")
        self._has_ended = False
        self.packed_size = 0
        self._error: InvalidInput | None = None
        self._budget = budget
        self._decompressor = Decompressor(limit=limit, budget=budget)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if self._owns and not self.closed:
            self._source.close()
        super().close()

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._plain:
            self._plain = memoryview(b"")  # frees what was read before more comes
            self._plain = memoryview(self._checked())
        count = min(len(self._plain), len(target))
        memoryview(target)[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _checked(self) -> bytes:
        """The next plain bytes; once an error came, nothing else does."""
        if self._error:
            raise self._error
        try:
            return self._next()
        except InvalidInput as error:
            self._error = error
            raise

    def _next(self) -> bytes:
        """The next plain bytes; none at the end."""
        while not self._has_ended:
            if plain := next(self._parts, b""):
                return plain
            packed = self._source.read(_BLOCK)
            self.packed_size += len(packed)
            if self._budget:
                self._budget.allow(len(packed))
            if not packed:
                self._has_ended = True
                return self._decompressor.finish()
            self._parts = self._decompressor.feed(packed)
        return b""
