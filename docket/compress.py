"""Layer compression: zstd and gzip streams, told apart by their first bytes."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
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

# Compressed bytes that are taken at a time, as all that they unpack to is held in memory: 1 KiB of
# zstd's RLE blocks (4 bytes → 128 KiB each) is 32 MiB, beside a window of 128 MiB; 16 KiB of gzip
# is 16 MiB, and 800 empty members, each of which copies what is behind it.
_STEPS = {NONE: 1 << 20, GZIP: 1 << 14, ZSTD: 1 << 10}

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

    `feed` hands every block of plain bytes to *sink*. A stream of several gzip members or zstd
    frames is one stream. More than *limit* plain bytes raise `TooLarge`, and so does, when the
    stream is *foreign*, more than 256 MiB that are more than `MAX_RATIO` times what was fed; broken
    input raises `InvalidArchive`, and a zstd frame that needs more than *window* bytes to look back
    `WindowTooLarge`.
    """

    def __init__(
        self,
        sink: Callable[[bytes], object],
        *,
        limit: int = 1 << 62,
        foreign: bool = False,
        window: int = MAX_WINDOW,
    ) -> None:
        self._sink = sink
        self._limit = limit
        self._foreign = foreign
        self._window = window
        self._start = b""
        self._inner: _Frames | None = None
        self._fed = 0
        self.compression = NONE
        self.size = 0

    def feed(self, block: bytes, *, enough: int = 1 << 62) -> int:
        """Take the next compressed bytes; how many were taken.

        That is all of them, unless *enough* plain bytes came of a part: at most 32 MiB more come
        then.
        """
        if self._inner is None:
            waiting = len(self._start)
            self._start += block
            if len(self._start) < len(_ZSTD_MAGIC):
                return len(block)
            block, self._start = self._start, b""
            self._begin(block)
            return self._feed(block, enough) - waiting
        return self._feed(block, enough)

    def finish(self) -> None:
        """The stream is over. Raises `InvalidArchive` when it breaks off in a frame."""
        if self._inner is None:
            self._begin(self._start)
            self._feed(self._start, 1 << 62)
        assert self._inner is not None
        self._inner.finish()

    def _begin(self, start: bytes) -> None:
        self.compression = sniff(start)
        if self.compression == ZSTD:
            self._inner = _ZstdFrames(self._window)
        else:
            self._inner = _GzipFrames() if self.compression == GZIP else _Plain()

    def _feed(self, block: bytes, enough: int) -> int:
        assert self._inner is not None
        feed, emit, step = self._inner.feed, self._emit, _STEPS[self.compression]
        enough += self.size
        for start in range(0, len(block), step):
            part = block[start : start + step]
            self._fed += len(part)
            feed(part, emit)
            if self.size >= enough:
                return start + len(part)
        return len(block)

    def _emit(self, plain: bytes) -> None:
        self.size += len(plain)
        if self.size > self._limit:
            raise TooLarge("the uncompressed layer", limit=self._limit)
        if self._foreign and self.size > max(_FREE, MAX_RATIO * self._fed):
            raise TooLarge("what this unpacks to", limit=max(_FREE, MAX_RATIO * self._fed))
        self._sink(plain)


class _Frames(Protocol):
    def feed(self, block: bytes, emit: Callable[[bytes], None]) -> None: ...
    def finish(self) -> None: ...


class _Plain:
    def feed(self, block: bytes, emit: Callable[[bytes], None]) -> None:
        if block:
            emit(block)

    def finish(self) -> None:
        return None


class _GzipFrames:
    """Gzip members one after the other (RFC 1952 § 2.2); zero bytes behind the last are padding."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._members = 0
        self._fresh = True
        self._padded = False

    def feed(self, block: bytes, emit: Callable[[bytes], None]) -> None:
        while block:
            # no member begins with a zero
            if self._fresh and self._members and not block[0]:
                self._padded = True
            if self._padded:
                if block.strip(b"\0"):
                    raise InvalidArchive("broken gzip stream: it goes on behind its padding")
                return
            self._fresh = False
            block = self._feed_member(block, emit)

    def _feed_member(self, block: bytes, emit: Callable[[bytes], None]) -> bytes:
        try:
            while block and not self._member.eof:
                if plain := self._member.decompress(block, _BLOCK):
                    emit(plain)
                block = self._member.unconsumed_tail
        except zlib.error as error:
            raise InvalidArchive(f"broken gzip stream: {error}") from error
        if self._member.eof:
            block = self._member.unused_data
            self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            self._members += 1
            self._fresh = True
        return block

    def finish(self) -> None:
        if not self._fresh:
            raise InvalidArchive("the gzip stream breaks off")


class _ZstdFrames:
    """Zstandard frames one after the other (RFC 8878 § 3)."""

    def __init__(self, window: int) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=window)
        self._frame = self._context.decompressobj()
        self._fresh = True

    def feed(self, block: bytes, emit: Callable[[bytes], None]) -> None:
        while block:
            self._fresh = False
            try:
                plain = self._frame.decompress(block)
            except zstandard.ZstdError as error:
                kind = WindowTooLarge if _NEEDS_MEMORY in str(error) else InvalidArchive
                raise kind(f"broken zstd stream: {error}") from error
            if plain:
                emit(plain)
            if not self._frame.eof:
                return
            block = self._frame.unused_data
            self._frame = self._context.decompressobj()
            self._fresh = True

    def finish(self) -> None:
        if not self._fresh:
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
        self._packed = b""
        self._parts: list[bytes] = []
        self._plain = memoryview(b"")
        self._over = False
        self._error: InvalidInput | None = None
        self._decompressor = Decompressor(self._parts.append, limit=limit, foreign=foreign)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if self._owns and not self.closed:
            self._source.close()
        super().close()

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._plain:
            self._unpack()
        count = min(len(self._plain), len(target))
        memoryview(target)[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _unpack(self) -> None:
        """Unpack the next part; what came before an error is read before it."""
        self._plain = memoryview(b"")  # what was read is let go before more comes
        if not self._error:
            try:
                self._feed()
            except InvalidInput as error:
                self._error = error
        self._plain = memoryview(b"".join(self._parts))
        self._parts.clear()
        if self._error and not self._plain:
            raise self._error

    def _feed(self) -> None:
        while not self._parts and not self._over:
            self._packed = self._packed or self._source.read(_BLOCK)
            if self._packed:
                taken = self._decompressor.feed(self._packed, enough=_BLOCK)
                self._packed = self._packed[taken:]
            else:
                self._over = True
                self._decompressor.finish()
