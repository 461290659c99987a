"""Image archives: any bytes, tars with mended sums, and tars of hostile members."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docket import compression
from docket.archive import Image, LoadLayer, load_archive, read
from docket.decompression import Decompressor, PlainReader
from docket.errors import ImageNotInArchive, InvalidInput
from docket.oci.digest import Digest
from docket.oci.manifest import Platform
from tests.fuzz.properties import refused_or_fine
from tests.fuzz.target import Check, Target, always
from tests.support.images import (
    Link,
    ctr_export,
    docker_save_legacy,
    image_of,
    layer_tar,
    multi_platform,
    packed,
    tar,
    tiny_image,
)

_IMAGE = tiny_image("app", 2)
_OTHER = tiny_image("other", 1)
_PLATFORM = Platform("linux", "amd64")
_LIMIT = 8 << 20


def archive_seeds() -> list[bytes]:
    """A valid archive of every form that tools write."""
    both = {Platform("linux", "amd64"): _IMAGE, Platform("linux", "arm64"): _OTHER}
    plain = [
        _IMAGE.docker_save_legacy(),
        _IMAGE.docker_archive(),
        _IMAGE.docker_save(),
        _IMAGE.oci_archive("gzip"),
        _IMAGE.oci_archive("zstd", tag_only=True),
        docker_save_legacy([_IMAGE, _OTHER]),
        ctr_export([_IMAGE, _OTHER]),
        multi_platform(both, nested=True),
        _long_names(tarfile.GNU_FORMAT),
        _long_names(tarfile.PAX_FORMAT),
    ]
    return [*plain, packed(plain[0], "gzip"), packed(plain[2], "zstd")]


def _long_names(form: int) -> bytes:
    folder = "deep/" * 40
    row = {"Config": f"{folder}c.json", "RepoTags": ["long:1"], "Layers": [f"{folder}l"]}
    members: dict[str, bytes | Link] = {
        f"{folder}c.json": _OTHER.config,
        f"{folder}real": _OTHER.layers[0],
        f"{folder}l": Link("real"),
        "manifest.json": json.dumps([row]).encode(),
    }
    return tar(members, form=form)


@contextmanager
def _reading(folder: Path) -> Iterator[Check]:
    spool = folder / "spool"
    spool.mkdir()

    def check(content: bytes) -> None:
        _check_read(content, spool)
        if (mended := with_sums(content)) != content:
            _check_read(mended, spool)

    yield check


def _check_read(content: bytes, spool: Path) -> None:
    """An image whose layers are what it says, or an error; nothing else stays in the spool."""
    image = None
    with refused_or_fine(InvalidInput, ImageNotInArchive):
        image = read(io.BytesIO(content), spool=spool, platform=_PLATFORM, limit=_LIMIT)
    kept = set(spool.iterdir())
    assert kept == ({layer.path for layer in image.layers} if image else set())
    if image:
        _check_image(image, spool)
    for path in spool.iterdir():
        path.unlink()


def _check_image(image: Image, spool: Path) -> None:
    """Each layer unpacks to its diff_id; what docket writes of the image, it reads again."""
    for layer in image.layers:
        with layer.open_plain() as plain:
            content = plain.read()
        assert (Digest.of(content), len(content)) == (layer.diff_id, layer.size)
    layers = [LoadLayer(layer.diff_id, layer.size, layer.open_plain) for layer in image.layers]
    again = b"".join(load_archive(image.config, layers, ["again:1"]))
    reread = read(io.BytesIO(again), spool=spool, platform=_PLATFORM)
    assert reread.config == image.config
    assert [layer.diff_id for layer in reread.layers] == [layer.diff_id for layer in image.layers]


def with_sums(content: bytes) -> bytes:
    """The tar in *content* with right sums in its headers: else nearly all changes end there."""
    mended = bytearray(content)
    at = 0
    while at + 512 <= len(mended) and any(mended[at : at + 512]):
        total = sum(mended[at : at + 148]) + 8 * 0x20 + sum(mended[at + 156 : at + 512])
        mended[at + 148 : at + 156] = b"%06o\0 " % total
        digits = bytes(mended[at + 124 : at + 136]).strip(b"\0 ")
        size = int(digits, 8) if digits and not digits.strip(b"01234567") else 0
        at += 512 + -(-size // 512) * 512
    return bytes(mended)


_NAMES = (
    "manifest.json",
    "index.json",
    "oci-layout",
    "c.json",
    "layer.tar",
    _IMAGE.diff_ids[0].layout_path,
    _IMAGE.diff_ids[1].layout_path,
    Digest.of(_IMAGE.config).layout_path,
    _IMAGE.blobs()[0].digest.layout_path,
    "../layer.tar",
    "/etc/passwd",
    "a/../../../b",
    "a/b/../layer.tar",
    "blobs/sha256/" + "0" * 64,
    "\udcff\x1b[2J",
    "x" * 300,
)


def _contents() -> tuple[bytes, ...]:
    layout = _IMAGE.layout()
    rows = [["layer.tar"], ["l", "layer.tar"], ["../layer.tar"], ["/etc/passwd"], ["layer.tar"] * 2]
    single_layer = image_of([_IMAGE.layers[0]], "one:1")
    manifests = [
        json.dumps([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": row}]).encode()
        for row in rows
    ]
    layers = (_IMAGE.layers[0], packed(_IMAGE.layers[0], "gzip"), packed(_IMAGE.layers[0], "zstd"))
    return (
        *layout.values(),
        *manifests,
        *layers,
        single_layer.config,
        b"",
        b"{}",
        b"[" * 99,
        b"\x1f\x8b",
    )


_CONTENTS = _contents()
_KINDS = (tarfile.REGTYPE,) * 4 + (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, b"S", b"x")


def members_of(choices: bytes) -> bytes:
    """A tar of members that *choices* picks, four bytes each: kind, name, content, lie."""
    blocks = []
    for at in range(0, len(choices) - 3, 4):
        kind, name, content, lie = choices[at : at + 4]
        body = _CONTENTS[content % len(_CONTENTS)]
        member = tarfile.TarInfo(_NAMES[name % len(_NAMES)])
        member.type = _KINDS[kind % len(_KINDS)]
        if member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member.linkname = _NAMES[content % len(_NAMES)]
            body = b""
        member.size = len(body) + (lie - 250 << 9 * (lie - 249) if lie > 250 else 0)
        header = member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        blocks.append(header + body + bytes(-len(body) % 512))
    return b"".join(blocks) + bytes(1024)


def member_seeds() -> list[bytes]:
    """Choices that give images, and some that nearly do."""
    names = {name: number for number, name in enumerate(_NAMES)}
    numbers = {content: number for number, content in enumerate(_CONTENTS)}
    layout = [
        bytes((0, names[name], numbers[content], 0))
        for name, content in _IMAGE.layout().items()
        if name in names
    ]
    row = next(number for number, content in enumerate(_CONTENTS) if b"c.json" in content)
    config = numbers[image_of([_IMAGE.layers[0]], "one:1").config]
    docker = [
        bytes((0, names["c.json"], config, 0)),
        bytes((0, names["layer.tar"], numbers[_IMAGE.layers[0]], 0)),
        bytes((0, names["manifest.json"], row, 0)),
    ]
    link = bytes((4, names["layer.tar"], names[_IMAGE.diff_ids[0].layout_path], 0))
    return [
        b"".join(layout),
        b"".join(reversed(layout)),
        b"".join(docker),
        b"".join([*docker[:1], layout[1], link, docker[2]]),
        b"".join(docker + layout),
    ]


@contextmanager
def _members(folder: Path) -> Iterator[Check]:
    spool = folder / "spool"
    spool.mkdir()
    yield lambda choices: _check_read(members_of(choices), spool)


def stream_seeds() -> list[bytes]:
    """Streams of each kind: one frame and many, skippable frames, padding, what breaks off."""
    plain = layer_tar("stream", size=700)
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0skip"
    variants = [plain, b"", b"\x1f\x8b"]
    for kind in (compression.GZIP, compression.ZSTD):
        frame = packed(plain, kind)
        variants += [frame, packed(b"", kind) * 3 + frame, frame[:-5], frame + bytes(64)]
        variants += [
            packed(b"", kind) + bytes(10) + packed(b"", kind)
        ]  # was read by half of the cuts
    return [*variants, skippable + packed(plain, compression.ZSTD) + skippable]


def check_stream(content: bytes) -> None:
    """However it is cut, a stream gives the same bytes or is refused, and never over the limit."""
    whole = _unpacked([content])
    size = 1 + (content[-1] if content else 0)
    assert _unpacked(content[at : at + size] for at in range(0, len(content), size)) == whole
    plain = io.BytesIO()
    reader = PlainReader(io.BytesIO(content), limit=_LIMIT)
    with refused_or_fine(InvalidInput):
        while block := reader.read(1 << 16):
            plain.write(block)
        assert whole == plain.getvalue()
        return
    assert whole is None


def _unpacked(blocks: object) -> bytes | None:
    plain: list[bytes] = []
    running = Decompressor(limit=_LIMIT)
    with refused_or_fine(InvalidInput):
        for block in blocks:  # type: ignore[attr-defined]
            plain.extend(running.feed(block))
        plain.append(running.finish())
        assert running.size == sum(map(len, plain)) <= _LIMIT
        return b"".join(plain)
    assert sum(map(len, plain)) <= _LIMIT
    return None


_WORDS = (b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08", b"{", b"ustar\x0000", b"../", b"layer.tar")

ARCHIVE = Target(_reading, archive_seeds, words=(*_WORDS, b"29 size=1152921504606846976\n"))
MEMBERS = Target(_members, member_seeds, words=(b"\xff\xff\xff\xff",))
STREAM = Target(always(check_stream), stream_seeds, words=_WORDS)
