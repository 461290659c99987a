"""Archives made to exhaust memory, time or disk: each is refused soon, at little cost."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from docket.archive import read
from docket.compression import GZIP, ZSTD
from docket.errors import ImageNotInArchive, TooLarge
from docket.oci.digest import Digest
from docket.oci.manifest import OCI_INDEX, dump
from tests.archive.test_archive import header, pax
from tests.fuzz.guard import PEAK_MEGABYTES
from tests.support.bombs import bomb, tar_bomb
from tests.support.images import docker_save_legacy, image_of, layer_tar, packed, tar, tiny_image

IMAGE = tiny_image("bounds", 2)
NAME = ("\N{GRINNING FACE}" * 900).encode()


def many_pax_headers() -> Iterator[bytes]:
    """Records with ever new keys, before one member."""
    for number in range(30):
        keys = range(number * 80_000, (number + 1) * 80_000)
        yield pax(b"".join(b"12 %07x=\n" % key for key in keys))
    yield IMAGE.docker_save()


def many_long_names() -> Iterator[bytes]:
    """Symlinks with long names."""
    for number in range(20_000):
        name = b"%08d" % number + NAME
        long = header("L", type=b"L", size=b"%011o" % len(name))
        yield long + name.ljust(-(-len(name) // 512) * 512, b"\0") + header("x", type=b"2")
    yield IMAGE.docker_save()


def index_of_indexes() -> Iterator[bytes]:
    """An index that names a large one again and again, which has no image at all."""
    files = IMAGE.layout()
    row = json.loads(files["index.json"])["manifests"][0]
    nothing = {**row, "platform": {"os": "unknown", "architecture": "unknown"}}
    inner = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [nothing] * 9_000})
    outer = {"mediaType": OCI_INDEX, "digest": str(Digest.of(inner)), "size": len(inner)}
    index = dump({"schemaVersion": 2, "manifests": [outer] * 15_000})
    yield tar({**files, Digest.of(inner).layout_path: inner, "index.json": index})


def many_images() -> Iterator[bytes]:
    """A manifest.json with one image under a great many names."""
    rows = [{"Config": "c", "RepoTags": [f"n{n}"], "Layers": []} for n in range(70_000)]
    yield tar({"manifest.json": dump(rows)})


def zeros_without_end() -> Iterator[bytes]:
    """What /dev/zero gives."""
    while True:
        yield bytes(1 << 20)


def trailing_without_end() -> Iterator[bytes]:
    """An image and its end, and then more and more."""
    yield IMAGE.docker_save()
    yield from zeros_without_end()


COSTLY: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    "many pax headers": (many_pax_headers, "more than 16 headers"),
    "many long names": (many_long_names, "the names in the archive"),
    "an index of indexes": (index_of_indexes, "no image for this platform"),
    "many images": (many_images, "more than 10000 images"),
    "zeros without end": (zeros_without_end, "after its end"),
    "trailing bytes without end": (trailing_without_end, "after its end"),
}


def full_of_all() -> Iterator[bytes]:
    """All that is kept in memory, each just below its bound, and JSON that grows when parsed."""
    links = 4_500
    for number in range(links):
        name = b"%08d" % number + NAME
        long = header("L", type=b"L", size=b"%011o" % len(name))
        yield long + name.ljust(-(-len(name) // 512) * 512, b"\0") + header("x", type=b"2")
    lists = b"[[]]," * 830_000
    files = {f"{n}.json": b"{" + bytes(4_190_000) for n in range(7)}
    rows = b'[{"Config":"0.json","Layers":[],"x":[' + lists + b"0]}]"
    yield tar({**files, "manifest.json": rows})


def full_of_all_and_a_bomb() -> Iterator[bytes]:
    """The same within a zstd stream, and behind it a GiB of zeros that should be more."""
    member = tarfile.TarInfo("zeros")
    member.size = 64 << 30
    start = b"".join(full_of_all()).rstrip(b"\0")
    start += bytes(-len(start) % 512) + member.tobuf(tarfile.GNU_FORMAT)
    yield bomb(ZSTD, 1 << 30, start=start)


def gzip_bomb() -> Iterator[bytes]:
    """An archive of 2 MiB that unpacks to two GiB."""
    yield tar_bomb(GZIP, 2 << 30)


def zstd_bomb() -> Iterator[bytes]:
    """An archive of 2 MiB that unpacks to 64 GiB, in the largest window."""
    yield tar_bomb(ZSTD, 64 << 30)


def zstd_layer_bomb() -> Iterator[bytes]:
    """A plain archive with such a layer."""
    yield tar({"layer": bomb(ZSTD, 64 << 30)})


def gzip_layer_bomb() -> Iterator[bytes]:
    """A plain archive with a layer that unpacks to 1,000 times its size."""
    yield tar({"layer": bomb(GZIP, 2 << 30)})


def empty_gzip_members() -> Iterator[bytes]:
    """A layer of a great many gzip members without bytes, and then half of one."""
    yield tar({"layer": packed(b"", "gzip") * 800_000 + b"x"})


BOMBS: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    "full of all": (full_of_all, "not JSON"),
    "full of all and a bomb": (full_of_all_and_a_bomb, "breaks off in"),
    "gzip bomb": (gzip_bomb, "s of processor time"),
    "zstd bomb": (zstd_bomb, "s of processor time"),
    "gzip bomb as a layer": (gzip_layer_bomb, "s of processor time"),
    "zstd bomb as a layer": (zstd_layer_bomb, "s of processor time"),
    "empty gzip members": (empty_gzip_members, "breaks off"),
}


class Endless(io.RawIOBase):
    """A pipe of blocks, made as they are read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]
        self._rest = self._rest or next(self._blocks, b"")
        count = min(len(target), len(self._rest))
        memoryview(target)[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


IN_PROCESS = """
import sys, time
from pathlib import Path
from typing import BinaryIO
from docket.errors import InvalidArchive
from tests.archive.test_archive_bounds import COSTLY, Endless, read
source = Endless(COSTLY[sys.argv[1]][0]())
before = int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])
began = time.process_time()
try:
    read(source, spool=Path(sys.argv[2]))
except InvalidArchive as error:
    print(error)
print(round(time.process_time() - began))
print((int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) - before) >> 10)
"""


@pytest.mark.parametrize("kind", COSTLY)
def test_a_costly_archive_is_refused_cheaply(kind: str, tmp_path: Path) -> None:
    """One line of error in a few seconds, with less than 100 MB of memory."""
    spool = tmp_path / "spool"
    spool.mkdir()
    argv = [sys.executable, "-c", IN_PROCESS, kind, str(spool)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    why, seconds, megabytes = done.stdout.splitlines()
    assert COSTLY[kind][1] in why
    assert int(seconds) < 10
    assert int(megabytes) < 100
    assert not list(spool.iterdir())


READ_FILE = """
import sys, time
from pathlib import Path
from docket.archive import read
from docket.errors import InvalidInput
from tests.fuzz.guard import peak_megabytes, within_seconds
try:
    with within_seconds(50):
        read(Path(sys.argv[1]), spool=Path(sys.argv[2]), seconds=0.5)
except InvalidInput as error:
    print(error)
print(time.process_time())
print(peak_megabytes())
"""


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_takes_little_time_and_memory(kind: str, tmp_path: Path) -> None:
    """Bad input § bombs: one line within 5 s of processor time, and never 256 MB of memory."""
    spool = tmp_path / "spool"
    spool.mkdir()
    archive = tmp_path / "archive"
    with archive.open("wb") as file:
        file.writelines(BOMBS[kind][0]())
    argv = [sys.executable, "-c", READ_FILE, str(archive), str(spool)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    why, seconds, megabytes = done.stdout.splitlines()
    assert BOMBS[kind][1] in why
    assert float(seconds) < 5
    assert int(megabytes) < PEAK_MEGABYTES
    assert not list(spool.iterdir())


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("location", ["outside", "inside", "folder"])
def test_a_decompression_bomb_ends_at_the_limit(
    location: str, compression: str, tmp_path: Path
) -> None:
    """An archive, or a layer in it, unpacks to no more than the limit."""
    spool = tmp_path / "spool"
    spool.mkdir()
    image = image_of([tar({"zeros": bytes(20_000_000)})], "bomb:1.0")
    source = io.BytesIO(packed(image.docker_save(), compression))
    bombs: dict[str, Path | BinaryIO] = {
        "outside": source,
        "inside": io.BytesIO(image.oci_archive(compression)),
        "folder": image.oci_layout(tmp_path / "layout", compression),
    }
    with pytest.raises(TooLarge, match="10000000 bytes"):
        read(bombs[location], spool=spool, limit=10_000_000)
    assert not list(spool.iterdir())


def test_the_limit_is_for_all_layers_together(tmp_path: Path) -> None:
    """Many layers that are each below the limit are stopped too."""
    image = image_of([tar({f"{n}": bytes([n]) * 3_000_000}) for n in range(4)], "many:1.0")
    archive = image.oci_archive("zstd")
    with pytest.raises(TooLarge):
        read(io.BytesIO(archive), spool=tmp_path, limit=10_000_000)
    assert not list(tmp_path.iterdir())
    assert read(io.BytesIO(archive), spool=tmp_path, limit=20_000_000).config == image.config


def test_the_usual_padding_is_no_trailing_bytes(tmp_path: Path) -> None:
    """Writers fill their last record with zeros; a large blocking factor is fine."""
    content = IMAGE.docker_save() + bytes(8 << 20)
    assert read(io.BytesIO(content), spool=tmp_path).config == IMAGE.config


def test_other_pax_records_change_nothing(tmp_path: Path) -> None:
    """Times, owners and extended attributes of an archive's members are passed over."""
    layer = layer_tar("pax")
    image = image_of([layer], "pax:1.0")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in image.layout().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.pax_headers = {"SCHILY.xattr.user.a": "b" * 5000, "mtime": "1.5"}
            archive.addfile(member, io.BytesIO(content))
    assert read(io.BytesIO(buffer.getvalue()), spool=tmp_path).config == image.config


def test_a_long_list_of_names_is_cut_short(tmp_path: Path) -> None:
    """The error is still a line that people can read."""
    images = [tiny_image(f"i{number}", 1) for number in range(60)]
    source = io.BytesIO(docker_save_legacy(images))
    with pytest.raises(ImageNotInArchive, match="10 more") as caught:
        read(source, spool=tmp_path, name="nobody:1")
    assert len(caught.value.names) == 51
