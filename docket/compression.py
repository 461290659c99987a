"""Layer compression: zstd and gzip streams, told apart by their first bytes."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

import zstandard

from docket.errors import InvalidArchive, InvalidInput, TooLarge, WindowTooLarge

GZIP = "gzip"
ZSTD = "zstd"
NONE = ""

DEFAULT_LEVELS = {ZSTD: 3, GZIP: 6}

MAX_WINDOW = 128 << 20
"""The largest zstd window that is decompressed; a frame that asks for more is refused."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_NEEDS_MEMORY = "requires too much memory"
_BLOCK = 1 << 18

# gzip bytes that are taken at a time: 800 empty members, each of which copies what is behind it
_STEP = 1 << 14

# a small layer may well be zeros alone
_FREE = 1 << 28

MAX_RATIO = 200
"""How many times its size a stream from outside may unpack to; for a layer of text it is ten."""


class Compressor(Protocol):
    """A running compression: feed blocks, then finish."""

    def compress(self, block: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def sniff(start: bytes) -> str:
    """`GZIP`, `ZSTD` or `NONE`, by the first four bytes of a stream."""
    if start.startswith(_GZIP_MAGIC):
        return GZIP
    # RFC 8878 § 3.1.2: a stream may begin with a skippable frame
    if start.startswith(_ZSTD_MAGIC) or (start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5):
        return ZSTD
    return NONE


def media_suffix(compression: str) -> str:
    """What a layer's media type ends with: ``+zstd``, ``+gzip`` or nothing."""
    return f"+{compression}" if compression else ""


def encoder(compression: str, level: int) -> str:
    """What must be the same for the compressed bytes to be the same, as one text."""
    if compression == ZSTD:
        version = ".".join(str(part) for part in zstandard.ZSTD_VERSION)
        return f"zstd/{version} level={level}"
    return f"gzip/zlib-{zlib.ZLIB_RUNTIME_VERSION} level={level}"


def compressor(compression: str, *, level: int, threads: int = 1, size: int = -1) -> Compressor:
    """A compression to `ZSTD` or `GZIP`; the bytes don't depend on *threads* (≥ 1).

    *size* is the number of bytes that will be fed, where it is known.
    """
    if compression == GZIP:
        # mtime 0 in the header keeps the bytes reproducible: zlib writes just that
        return zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=max(size, 0), threads=max(threads, 1), write_checksum=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size)


class Decompressor:
    """Push-style decompression of a stream that may be gzip, zstd or neither.

    A stream of several gzip members or zstd frames is one stream. More than *limit* plain bytes
    raise `TooLarge`, and so does, when the stream is *foreign*, more than 256 MiB that are more
    than `MAX_RATIO` times what was fed; broken input raises `InvalidArchive`, and a zstd frame that
    needs more than *window* bytes to look back `WindowTooLarge`.
    """

    def __init__(
        self, *, limit: int = 1 << 62, foreign: bool = False, window: int = MAX_WINDOW
    ) -> None:
        self._limit = limit
        self._foreign = foreign
        self._window = window
        self._start = b""
        self._inner: _Frames | None = None
        self._fed = 0
        self.compression = NONE
        self.size = 0

    def feed(self, block: bytes) -> Iterator[bytes]:
        """The plain bytes that *block* brings; all are to be taken before the next is fed.

        They come in parts of at most 256 KiB, each unpacked when it is asked for; plain bytes come
        as they are.
        """
        if self._inner is None:
            block = self._start + block
            if len(block) < len(_ZSTD_MAGIC):
                self._start = block
                return
            self._inner = self._begin(block)
        self._fed += len(block)
        for plain in self._inner.feed(block):
            self._count(plain)
            yield plain

    def finish(self) -> bytes:
        """The stream is over: its last bytes, of one that has fewer than four.

        Raises `InvalidArchive` when it breaks off in a frame.
        """
        rest = b""
        if self._inner is None:
            self._inner = self._begin(self._start)
            rest = b"".join(self._inner.feed(self._start))
            self._count(rest)
        self._inner.finish()
        return rest

    def _begin(self, start: bytes) -> _Frames:
        self.compression = sniff(start)
        if self.compression == ZSTD:
            return _ZstdFrames(self._window)
        return _GzipFrames() if self.compression == GZIP else _Plain()

    def _count(self, plain: bytes) -> None:
        self.size += len(plain)
        if self.size > self._limit:
            raise TooLarge("the uncompressed layer", limit=self._limit)
        if self._foreign and self.size > max(_FREE, MAX_RATIO * self._fed):
            raise TooLarge("what this unpacks to", limit=max(_FREE, MAX_RATIO * self._fed))


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
    """Gzip members one after the other (RFC 1952 § 2.2); zero bytes behind the last are padding."""

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
                    raise InvalidArchive("broken gzip stream: it goes on behind its padding")
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
            kind = WindowTooLarge if _NEEDS_MEMORY in str(error) else InvalidArchive
            raise kind(f"broken zstd stream: {error}") from error

    def finish(self) -> None:
        """The reader doesn't tell whether a frame is open: then one more doesn't come out whole."""
        expected = os.urandom(16)
        frame = zstandard.compress(expected)
        try:
            # byte by byte: shown a whole frame, libzstd takes it, though half a header came before
            found = b"".join(part for byte in frame for part in self.feed(bytes([byte])))
        except InvalidArchive:
            found = b""
        if found != expected:
            raise InvalidArchive("the zstd stream breaks off")


class PlainReader(io.RawIOBase):
    """A readable stream of the plain bytes of *source*, whatever compresses it.

    Reading raises `InvalidArchive` on broken input and `TooLarge` as a `Decompressor` does. With
    *owns*, closing this closes *source*.
    """

    def __init__(
        self,
        source: BinaryIO,
        *,
        limit: int = 1 << 62,
        foreign: bool = False,
        owns: bool = False,
    ) -> None:
        self._source = source
        self._owns = owns
        self._parts: Iterator[bytes] = iter(())
        self._plain = memoryview(b"")
        self._over = False
        self._error: InvalidInput | None = None
        self._decompressor = Decompressor(limit=limit, foreign=foreign)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if self._owns and not self.closed:
            self._source.close()
        super().close()

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._plain:
            self._plain = memoryview(b"")  # what was read is let go before more comes
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
        while not self._over:
            if plain := next(self._parts, b""):
                return plain
            packed = self._source.read(_BLOCK)
            if not packed:
                self._over = True
                return self._decompressor.finish()
            self._parts = self._decompressor.feed(packed)
        return b""
