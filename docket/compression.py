"""Compression formats: recognized by their first bytes; layers are written as zstd or gzip."""

from __future__ import annotations

import re
import zlib
from typing import Protocol

import zstandard

GZIP = "gzip"
ZSTD = "zstd"
XZ = "xz"
BZIP2 = "bzip2"
NONE = ""

LAYER_FORMATS = frozenset({GZIP, ZSTD})
"""What a registry's layers may be compressed with; archives come as the others too."""

DEFAULT_LEVELS = {ZSTD: 3, GZIP: 6}

SNIFF_SIZE = 10
"""Bytes that `sniff` needs to recognize every format."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_XZ_MAGIC = b"\xfd7zXZ\0"
# "BZh", the block size, and the start of a block or of the end: pi, or its square root
_BZIP2_MAGIC = re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)")


class Compressor(Protocol):
    """A running compression: feed blocks, then finish."""

    def compress(self, block: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def sniff(start: bytes) -> str:
    """`GZIP`, `ZSTD`, `XZ`, `BZIP2` or `NONE`, by the first `SNIFF_SIZE` bytes of a stream."""
    if start.startswith(_GZIP_MAGIC):
        return GZIP
    if start.startswith(_XZ_MAGIC):
        return XZ
    if _BZIP2_MAGIC.match(start):
        return BZIP2
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
