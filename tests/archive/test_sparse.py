"""Sparse members of archives, as GNU tar writes them in each of its formats, and huge zeros."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from docket.archive import read
from docket.archive.sparse import SparseMap
from docket.archive.tarstream import members
from docket.errors import InvalidArchive, TooCostly, TooLarge
from docket.oci.digest import Digest
from docket.oci.manifest import dump
from tests.archive.test_archive import header, pax, refused
from tests.support.disks import tiny_disk
from tests.support.images import Link, image_of, layer_tar, packed, tar

FORMATS = {
    "GNU": ["--format=gnu"],
    "pax 0.0": ["--format=posix", "--sparse-version=0.0"],
    "pax 0.1": ["--format=posix", "--sparse-version=0.1"],
    "pax 1.0": ["--format=posix", "--sparse-version=1.0"],
}


def sparse_file(path: Path, parts: int, *, tail: int = 1 << 20) -> Path:
    """A file of *parts* blocks of bytes with holes between them, and a hole at its end."""
    with path.open("wb") as file:
        for number in range(parts):
            file.seek(number * 65536 + 16384)
            file.write(bytes([number % 255 + 1]) * 4096)
        file.truncate(parts * 65536 + tail)
    return path


def tarred(folder: Path, form: str, *names: str) -> bytes:
    """GNU tar's archive of *names* in *folder*, sparse."""
    argv = ["tar", "-C", str(folder), "--sparse", *FORMATS[form], "-cf", "-", *names]
    return subprocess.run(argv, check=True, capture_output=True).stdout


@pytest.mark.parametrize("parts", [0, 1, 4, 5, 60, 3000])
@pytest.mark.parametrize("form", FORMATS)
def test_sparse_files_of_gnu_tar(form: str, parts: int, tmp_path: Path) -> None:
    """GNU tar § sparse formats: holes are read as zeros, and what follows is read right."""
    content = sparse_file(tmp_path / "sparse", parts).read_bytes()
    (tmp_path / "after").write_bytes(b"after")
    archive = tarred(tmp_path, form, "sparse", "after")
    assert parts == 3000 or len(archive) < len(content)
    contents = {}
    for member in members(io.BytesIO(archive)):
        contents[member.name] = b"".join(member.blocks())
        assert member.size == len(contents[member.name])
    assert contents == {"sparse": content, "after": b"after"}
    skipped = [member.name for member in members(io.BytesIO(archive))]
    assert skipped == ["sparse", "after"]


@pytest.mark.parametrize("form", FORMATS)
def test_an_image_that_was_tarred_sparse(form: str, tmp_path: Path) -> None:
    """``docker load`` reads a docker-save folder packed with ``tar --sparse``; so does docket."""
    folder, spool = tmp_path / "image", tmp_path / "spool"
    spool.mkdir()
    folder.mkdir()
    layer = sparse_file(folder / "layer.tar", 5).read_bytes()
    image = image_of([layer], "sparse:1")
    (folder / "config.json").write_bytes(image.config)
    row = {"Config": "config.json", "RepoTags": ["sparse:1"], "Layers": ["layer.tar"]}
    (folder / "manifest.json").write_bytes(dump([row]))
    archived = read(io.BytesIO(tarred(folder, form, ".")), spool=spool)
    assert [layer.diff_id for layer in archived.layers] == [Digest.of(layer)]
    with archived.layers[0].open_plain() as plain:
        assert plain.read() == layer


def records(*pairs: str) -> bytes:
    """A pax header of ``key=value`` records, each with its own length before it."""
    lines = []
    for pair in pairs:
        text = f" GNU.sparse.{pair}\n".encode()
        length = len(text) + len(str(len(text) + 2))
        lines.append(str(length).encode() + text)
    return pax(b"".join(lines))


def old_gnu(entries: list[tuple[int, int]], size: int, stored: int) -> bytes:
    """The header of a sparse member with up to four parts."""
    raw = bytearray(header("x", type=b"S", size=b"%011o" % stored))
    raw[257:265] = b"ustar  \0"
    for number, (offset, length) in enumerate(entries):
        raw[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % (offset, length)
    raw[483:495] = b"%011o\0" % size
    total = sum(raw[:148]) + 8 * 0x20 + sum(raw[156:])
    raw[148:156] = b"%06o\0 " % total
    return bytes(raw)


HOSTILE = {
    "parts overlap": (old_gnu([(0, 512), (100, 512)], 5000, 1024), "not in order"),
    "parts past the end": (old_gnu([(0, 512)], 100, 512), "parts behind its end"),
    "more parts than bytes": (old_gnu([(0, 512)], 5000, 100), "not its bytes"),
    "fewer parts than bytes": (old_gnu([(0, 512)], 5000, 5120), "not its bytes"),
    "odd map": (records("map=0,512,7", "size=9"), "damaged"),
    "map in other digits": (records("map=\u0661,512", "size=9"), "damaged"),
    "no size": (records("map=0,512"), "damaged"),
    "a size that is no number": (records("map=0,512", "size=-1"), "damaged"),
    "unknown version": (records("major=2", "minor=0"), "format that docket doesn't know"),
    "a map that isn't there": (records("major=1", "minor=0", "realsize=9"), "damaged|breaks off"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_maps_that_lie(kind: str, tmp_path: Path) -> None:
    """Bad input: parts in order, within the file, as many bytes as there are; ASCII digits."""
    content, why = HOSTILE[kind]
    refused(content + header("x", size=b"00000001000") + bytes(2048), tmp_path, why)


def test_a_map_with_too_many_parts(tmp_path: Path) -> None:
    """Bad input: no more than 100,000 parts are kept."""
    header_of_parts = records(*["offset=0", "numbytes=0"] * 18_000)
    refused(header_of_parts * 12 + header("x"), tmp_path, "100000 parts")


def test_a_hole_without_end_ends(tmp_path: Path) -> None:
    """Bad input: a kilobyte that says it is a file of 2^60 zeros ends with its processor time."""
    layer = old_gnu([], 1 << 32, 0)
    with pytest.raises(TooCostly):
        read(io.BytesIO(layer + bytes(1024)), spool=tmp_path, seconds=0.3)
    with pytest.raises(TooLarge):
        read(io.BytesIO(layer + bytes(1024)), spool=tmp_path, limit=10 << 20)
    assert not list(tmp_path.iterdir())


def test_a_sparse_map_expands() -> None:
    """Parts stand at their offsets; all else is zeros."""
    content = io.BytesIO(b"abcdef")
    holes = SparseMap(20, ((2, 4), (10, 2)))

    def parts(size: int) -> Iterator[bytes]:
        yield content.read(size)

    assert b"".join(holes.expand(parts)) == b"\0\0abcd\0\0\0\0ef" + bytes(8)
    assert holes.stored == 6
    with pytest.raises(InvalidArchive):
        SparseMap(5, ((2, 4),))


@pytest.mark.parametrize("outside", ["", "gzip", "zstd", "xz"])
@pytest.mark.parametrize("inside", ["docker save", "gzip", "zstd"])
def test_a_layer_of_zeros(inside: str, outside: str, tmp_path: Path) -> None:
    """A lastlog or a database file of zeros: 300 MB that pack to a few KB are an honest layer.

    They are a hole in the spool: they take no space there.
    """
    member = tarfile.TarInfo("var/log/lastlog")
    member.size = 300 << 20
    layer = layer_tar("app")[:-1024] + member.tobuf() + bytes(member.size + 1024)
    image = image_of([layer], "zeros:1")
    plain = image.docker_save() if inside == "docker save" else image.oci_archive(inside)
    archived = read(io.BytesIO(packed(plain, outside)), spool=tmp_path)
    assert archived.layers[0].diff_id == Digest.of(layer)
    used = sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir())
    assert used < 8 << 20
    with archived.layers[0].open_plain() as stored:
        assert Digest.of_stream(stored) == Digest.of(layer)


def test_little_that_fills_the_disk(tmp_path: Path) -> None:
    """Bad input § decompression bombs: what isn't zeros may take 200 times its size on the disk."""
    content = packed(tar({"ones": b"\1" * (300 << 20)}), "zstd")
    with pytest.raises(TooLarge, match="zeros apart"):
        read(io.BytesIO(content), spool=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_that_is_full() -> None:
    """The error names the folder, and the variable that chooses another."""
    content = tar({"random": os.urandom(3 << 20)})
    with tiny_disk(1) as folder:
        with pytest.raises(OSError, match=r"No space left.*TMPDIR") as caught:
            read(io.BytesIO(content), spool=folder)
        assert caught.value.filename == str(folder)


def test_links_to_a_sparse_layer(tmp_path: Path) -> None:
    """A repeated layer is one file, sparse or not."""
    layer = layer_tar("x")
    image = image_of([layer], "link:1")
    row = [{"Config": "c.json", "RepoTags": [], "Layers": ["l"]}]
    members_: dict[str, bytes | Link] = {
        "c.json": image.config,
        "real": layer,
        "l": Link("real"),
        "manifest.json": json.dumps(row).encode(),
    }
    assert read(io.BytesIO(tar(members_)), spool=tmp_path).layers[0].size == len(layer)
