"""Small streams that unpack to a great many zeros, made without packing them."""

from __future__ import annotations

import struct
import tarfile
import zlib

from docket.compression import GZIP, ZSTD

_RLE_BLOCK = 128 << 10
_PART = 1 << 20


def bomb(kind: str, size: int, *, start: bytes = b"", window_log: int = 27) -> bytes:
    """*start* and *size* zeros; of zstd's, 4 bytes give 128 KiB, in the largest window allowed."""
    return {ZSTD: _zstd, GZIP: _gzip}[kind](size, start, window_log)


def tar_bomb(kind: str, size: int) -> bytes:
    """A tar with one member of *size* zeros."""
    member = tarfile.TarInfo("zeros")
    member.size = size
    return bomb(kind, size + 1024, start=member.tobuf(tarfile.GNU_FORMAT))


def _zstd(size: int, start: bytes, window_log: int) -> bytes:
    """RFC 8878 § 3.1.1: magic, no flags, window; raw blocks; RLE blocks; an empty last block."""
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([window_log - 10 << 3])
    zeros = _block(_RLE_BLOCK, kind=1) + b"\0"
    last_block = _block(size % _RLE_BLOCK, kind=1) + b"\0"
    parts = [start[at : at + _RLE_BLOCK] for at in range(0, len(start), _RLE_BLOCK)]
    raw = b"".join(_block(len(part), kind=0) + part for part in parts)
    return frame + raw + zeros * (size // _RLE_BLOCK) + last_block + _block(0, kind=0, last=True)


def _block(size: int, *, kind: int, last: bool = False) -> bytes:
    return struct.pack("<I", size << 3 | kind << 1 | last)[:3]


def _gzip(size: int, start: bytes, _window_log: int) -> bytes:
    """One MiB is packed; flushed to a byte's end, without a dictionary, it can be repeated."""
    packing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = packing.compress(start) + packing.flush(zlib.Z_FULL_FLUSH)
    part = packing.compress(bytes(_PART)) + packing.flush(zlib.Z_FULL_FLUSH)
    tail = packing.compress(bytes(size % _PART)) + packing.flush()
    plain_crc = zlib.crc32(start)
    for _ in range(size // _PART):
        plain_crc = zlib.crc32(bytes(_PART), plain_crc)
    plain_crc = zlib.crc32(bytes(size % _PART), plain_crc)
    ending = struct.pack("<II", plain_crc, (len(start) + size) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08" + bytes(7) + head + part * (size // _PART) + tail + ending
