"""Compression: streams of many frames, broken streams, bombs, and bytes that come out the same."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from docket import compression
from docket.compression import BZIP2, GZIP, NONE, XZ, ZSTD
from docket.decompression import MAX_WINDOW, Decompressor, PlainReader, WorkBudget
from docket.errors import InvalidArchive, TooCostly, TooLarge, WindowTooLarge
from tests.support.bombs import bomb

KINDS = pytest.mark.parametrize("kind", [ZSTD, GZIP])


def packed(plain: bytes, kind: str, *, threads: int = 1, read: int = 1 << 20) -> bytes:
    """*plain* as docket compresses it, fed *read* bytes at a time."""
    running = compression.compressor(kind, level=3, threads=threads, size=len(plain))
    parts = [running.compress(plain[at : at + read]) for at in range(0, len(plain), read)]
    return b"".join(parts) + running.flush()


def unpacked(stream: bytes, *, cut: int = 1 << 20, limit: int = 1 << 30) -> tuple[bytes, str]:
    """The plain bytes of *stream*, fed *cut* bytes at a time, and what compressed it."""
    plain = bytearray()
    running = Decompressor(limit=limit)
    for at in range(0, len(stream), cut):
        for part in running.feed(stream[at : at + cut]):
            plain += part
    plain += running.finish()
    assert running.size == len(plain)
    return bytes(plain), running.compression


def skippable(content: bytes) -> bytes:
    """A skippable frame (RFC 8878 § 3.1.2)."""
    return struct.pack("<II", 0x184D2A50, len(content)) + content


@given(
    st.lists(st.binary(max_size=300), max_size=4),
    st.sampled_from([ZSTD, GZIP]),
    st.integers(1, 400),
)
def test_many_frames_cut_anywhere(parts: list[bytes], kind: str, cut: int) -> None:
    """RFC 1952 § 2.2, RFC 8878 § 3: members or frames one after the other are one stream."""
    stream = b"".join(packed(part, kind) for part in parts)
    plain, detected = unpacked(stream, cut=cut)
    assert plain == b"".join(parts)
    assert detected == (kind if parts else NONE)
    assert PlainReader(io.BytesIO(stream)).read() == plain


@given(st.binary(max_size=600), st.integers(1, 100))
def test_plain_bytes_pass(content: bytes, cut: int) -> None:
    """What begins with no magic number is handed on as it is."""
    plain = b"x" + content
    assert unpacked(plain, cut=cut) == (plain, NONE)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """Bad input: nothing but `InvalidArchive` or `TooLarge` comes of broken compression."""
    for magic in (b"\x1f\x8b", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"):
        with suppress(InvalidArchive, TooLarge):
            unpacked(magic + content, limit=1 << 16)


@KINDS
def test_a_stream_that_breaks_off(kind: str) -> None:
    """A layer that is cut short anywhere inside is refused, never taken for a shorter one."""
    stream = packed(random.Random(1).randbytes(2000), kind)
    for length in range(5, len(stream)):
        with pytest.raises(InvalidArchive):
            unpacked(stream[:length])
        with pytest.raises(InvalidArchive):
            PlainReader(io.BytesIO(stream[:length])).read()


@KINDS
def test_garbage_behind_a_stream(kind: str) -> None:
    """What follows a whole stream and is no frame makes it broken."""
    with pytest.raises(InvalidArchive):
        unpacked(packed(b"layer", kind) + b"garbage")


FOREIGN: dict[str, Callable[[bytes], bytes]] = {XZ: lzma.compress, BZIP2: bz2.compress}
FOREIGN_KINDS = pytest.mark.parametrize("kind", FOREIGN)


@FOREIGN_KINDS
def test_streams_of_other_tools(kind: str) -> None:
    """.xz § 2, bzip2: several streams are one, padding after one is passed over, however cut.

    (pbzip2 and xz -T write many; ``cat`` joins them.)
    """
    pack = FOREIGN[kind]
    content = pack(b"layer" * 1000) + bytes(8) + pack(b"") + pack(b"end")
    for cut in (1, 7, 4096, 1 << 20):
        assert unpacked(content, cut=cut) == (b"layer" * 1000 + b"end", kind)
    assert PlainReader(io.BytesIO(content)).read() == b"layer" * 1000 + b"end"
    assert unpacked(pack(b"")) == (b"", kind)


@FOREIGN_KINDS
def test_streams_of_other_tools_that_are_damaged(kind: str) -> None:
    """Bad input: what breaks off, goes on with garbage, or has other bytes, is refused."""
    stream = FOREIGN[kind](random.Random(6).randbytes(500))
    for length in range(10, len(stream)):
        with pytest.raises(InvalidArchive):
            unpacked(stream[:length])
    for broken in (stream + b"garbage", stream[:40] + bytes([stream[40] ^ 1]) + stream[41:]):
        with pytest.raises(InvalidArchive):
            unpacked(broken)


@FOREIGN_KINDS
def test_a_bomb_of_other_tools(kind: str) -> None:
    """Bad input § decompression bombs: parts are bounded, and so is the processor time."""
    stream = FOREIGN[kind](bytes(64 << 20)) * 200
    running = Decompressor(budget=WorkBudget(0.2))
    sizes: list[int] = []
    with pytest.raises(TooCostly):
        sizes.extend(map(len, running.feed(stream)))
    assert 0 < max(sizes) <= 256 << 10


def test_an_xz_dictionary_that_is_too_large() -> None:
    """Bad input § decompression bombs: no xz with more than 128 MiB to look back."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    stream = lzma.compress(b"x" * 100, filters=filters)
    with pytest.raises(WindowTooLarge):
        unpacked(stream)


def test_a_text_that_begins_like_bzip2() -> None:
    """A member's name may begin with BZh: only a whole magic number is one."""
    assert unpacked(b"BZh9 is a name" * 10)[1] == NONE


def test_zeros_behind_a_gzip_stream() -> None:
    """gzip(1): zero bytes behind the last member are padding of a tape, as GNU gzip reads it."""
    assert unpacked(packed(b"layer", GZIP) + bytes(1000), cut=7) == (b"layer", GZIP)


@pytest.mark.parametrize("behind", [b"x", packed(b"layer", GZIP)])
def test_what_follows_the_padding(behind: bytes) -> None:
    """Whether a stream is read doesn't depend on where its blocks are cut."""
    stream = packed(b"layer", GZIP) + bytes(64) + behind
    for cut in (1, 7, 16, len(stream)):
        with pytest.raises(InvalidArchive):
            unpacked(stream, cut=cut)


def test_skippable_zstd_frames() -> None:
    """RFC 8878 § 3.1.2: skippable frames may stand before, between and behind frames."""
    frame = packed(b"layer", ZSTD)
    stream = skippable(b"x" * 100) + frame + skippable(b"") + frame + skippable(b"y" * 9000)
    for cut in (1, 7, 4096, 1 << 20):
        assert unpacked(stream, cut=cut) == (b"layerlayer", ZSTD)


@KINDS
def test_a_bomb_is_stopped(kind: str) -> None:
    """Bad input § decompression bombs: output stops at the limit, memory stays bounded."""
    stream = bomb(kind, 1 << 30)
    assert len(stream) < 5 << 20
    sizes: list[int] = []
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            sizes.extend(map(len, Decompressor(limit=64 << 20).feed(stream)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 63 << 20 < sum(sizes) <= 64 << 20
    # parts of 256 KiB, beside zstd's window, which isn't counted here
    assert max(sizes) <= 256 << 10
    assert peak < 4 << 20


def test_many_empty_gzip_members_take_linear_time() -> None:
    """Bad input § decompression bombs: what is behind a member isn't copied for each."""
    stream = packed(b"", GZIP) * 200_000 + packed(b"end", GZIP)
    began = time.process_time()
    assert unpacked(stream) == (b"end", GZIP)
    assert time.process_time() - began < 5


@KINDS
def test_a_bomb_ends_with_its_budget(kind: str) -> None:
    """Bad input § decompression bombs: little that unpacks to a lot ends with its time.

    Processor time, whatever else the machine does; and any size is taken within the budget.
    """
    stream = bomb(kind, 4 << 30)
    began = time.thread_time()
    running = Decompressor(budget=WorkBudget(0.2))
    with pytest.raises(TooCostly, match="processor time"):
        list(map(hashlib.sha256, running.feed(stream)))
    assert 0.2 < time.thread_time() - began < 2
    honest = Decompressor(budget=WorkBudget(60))
    assert sum(map(len, honest.feed(bomb(kind, 300 << 20)))) == 300 << 20
    honest.finish()


def test_a_budget_grows_with_what_is_read() -> None:
    """Bad input § decompression bombs: a layer of any size is taken, if it is a layer's work."""
    budget = WorkBudget(0)
    with pytest.raises(TooCostly):
        budget.check()
    budget.allow(1 << 30)
    budget.check()


@KINDS
def test_parts_come_as_they_are_asked_for(kind: str) -> None:
    """`Decompressor.feed` unpacks no more than was asked for, and forgets nothing between."""
    plain = random.Random(4).randbytes(1000) * 3000
    running = Decompressor()
    parts = running.feed(packed(plain, kind))
    first = next(parts)
    assert running.size == len(first) < len(plain)
    assert first + b"".join(parts) + running.finish() == plain


def test_a_zstd_stream_that_waits_for_a_frame() -> None:
    """A stream cut inside of a skippable frame, or before its checksum, breaks off too."""
    frame = packed(b"layer", ZSTD)
    for stream in (frame + skippable(bytes(100))[:-1], frame + skippable(bytes(1 << 20))[:9]):
        with pytest.raises(InvalidArchive):
            unpacked(stream)
    for count in range(1, 5):
        with pytest.raises(InvalidArchive):
            unpacked(frame + frame[:-count])


def test_an_error_stays() -> None:
    """Whoever reads on behind an error of a `PlainReader` gets it again, never an end."""
    stream = packed(random.Random(5).randbytes(2000), ZSTD)
    reader = PlainReader(io.BytesIO(stream[:-1] + bytes([stream[-1] ^ 1])))
    for _ in range(2):
        with pytest.raises(InvalidArchive):
            reader.read()


def test_a_window_that_is_too_large() -> None:
    """Bad input § decompression bombs: a zstd window over 128 MiB is refused."""
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    running = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stream = running.compress(b"x" * 100) + running.flush()
    assert zstandard.get_frame_parameters(stream).window_size > MAX_WINDOW
    with pytest.raises(InvalidArchive):
        unpacked(stream)


@KINDS
def test_the_same_bytes_each_time(kind: str) -> None:
    """Decision 11: threads (≥ 1) and the size of reads change no byte of a compressed layer."""
    plain = random.Random(2).randbytes(1 << 16) * 60
    digests = {
        hashlib.sha256(packed(plain, kind, threads=threads, read=read)).hexdigest()
        for threads in (1, 2)
        for read in (1000, 1 << 16, 1 << 20, len(plain))
    }
    assert len(digests) == 1


def test_a_gzip_header_without_time() -> None:
    """RFC 1952 § 2.3.1: MTIME is 0, so that the bytes don't depend on when they were made."""
    assert packed(b"layer", GZIP)[4:8] == bytes(4)


def test_other_tools_read_it() -> None:
    """Layers are plain gzip and zstd streams."""
    assert gzip.decompress(packed(b"layer", GZIP)) == b"layer"
    assert zstandard.decompress(packed(b"layer", ZSTD)) == b"layer"


def test_a_zstd_frame_guards_itself() -> None:
    """RFC 8878 § 3.1.1: frames carry size and checksum, so that damage is found on the way."""
    stream = packed(b"layer" * 1000, ZSTD)
    parameters = zstandard.get_frame_parameters(stream)
    assert parameters.has_checksum
    assert parameters.content_size == 5000
    with pytest.raises(InvalidArchive):
        unpacked(stream[:-1] + bytes([stream[-1] ^ 1]))


def test_reading_in_small_parts() -> None:
    """`PlainReader` is a stream: parts of any size, the limit kept, the source closed if owned."""
    plain = random.Random(3).randbytes(300_000)
    source = io.BytesIO(packed(plain, ZSTD))
    reader = PlainReader(source, owns=True)
    parts = list(iter(lambda: reader.read(777), b""))
    assert b"".join(parts) == plain
    reader.close()
    assert source.closed
    with pytest.raises(TooLarge):
        PlainReader(io.BytesIO(packed(plain, GZIP)), limit=1000).read()


def test_what_a_stream_is() -> None:
    """The first bytes tell; media types end accordingly, and the encoder is told in full."""
    assert compression.sniff(b"") == NONE
    assert compression.sniff(b"\x1f\x8b\x08\x00") == GZIP
    assert compression.sniff(b"\x28\xb5\x2f\xfd") == ZSTD
    assert compression.sniff(skippable(b"")) == ZSTD
    assert compression.media_suffix(ZSTD) == "+zstd"
    assert compression.media_suffix(NONE) == ""
    assert compression.encoder(ZSTD, 3).startswith("zstd/1.")
    assert compression.encoder(GZIP, 6).startswith("gzip/zlib-")
