"""Image archives: every form that tools write is read alike, and what docket writes they take."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from docket.archive import Image, LoadLayer, load_archive, load_manifest, read
from docket.errors import (
    DigestMismatch,
    ImageNotInArchive,
    InvalidArchive,
    InvalidInput,
    SizeMismatch,
)
from docket.oci.digest import Digest
from docket.oci.manifest import Platform
from tests.support.images import (
    Link,
    TinyImage,
    ctr_export,
    docker_save_legacy,
    image_of,
    layer_tar,
    multi_platform,
    packed,
    tar,
    tiny_image,
)
from tests.support.requirements import need

IMAGE = tiny_image("app", 3)
OTHER = tiny_image("other", 2)
REPEATED = image_of([layer_tar("a"), layer_tar("b"), layer_tar("a")], "again:1.0")

FORMS: dict[str, Callable[[TinyImage], bytes]] = {
    "docker save 20.10": TinyImage.docker_save_legacy,
    "docker save 25": TinyImage.docker_save,
    "docker-archive": TinyImage.docker_archive,
    "oci-archive": TinyImage.oci_archive,
    "oci-archive, zstd": lambda image: image.oci_archive("zstd"),
    "oci-archive, plain": lambda image: image.oci_archive(""),
    "oci-archive, tag alone": lambda image: image.oci_archive(tag_only=True),
    "ctr export": lambda image: ctr_export([image]),
    "docket": lambda image: written(image),
}


class Pipe(io.RawIOBase):
    """A stream that can't seek and gives at most 1000 bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self._inner = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]
        return self._inner.readinto(memoryview(target)[:1000])


def written(image: TinyImage) -> bytes:
    """The archive that docket writes for an engine."""
    return b"".join(load_archive(image.config, image.load_layers(), [image.name]))


def from_bytes(content: bytes, spool: Path, name: str | None = None) -> Image:
    """Read an archive from a pipe."""
    return read(cast(BinaryIO, Pipe(content)), spool=spool, name=name)


def plain_layers(image: Image) -> list[bytes]:
    """The plain bytes of all layers."""
    names = []
    for layer in image.layers:
        with layer.open_plain() as plain:
            names.append(plain.read())
    return names


def refused(content: bytes, spool: Path, why: str) -> None:
    """Expect one line that says *why*, soon, with nothing left in the spool."""
    began = time.process_time()
    with pytest.raises(InvalidInput, match=why) as caught:
        from_bytes(content, spool)
    assert time.process_time() - began < 5
    assert "\n" not in str(caught.value)
    assert not list(spool.iterdir())


@pytest.mark.parametrize("outside", ["", "gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize("image", [IMAGE, REPEATED], ids=["plain", "repeated layer"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_image(
    form: str, image: TinyImage, outside: str, tmp_path: Path
) -> None:
    """Whoever wrote the archive, and whatever compresses it: the same config and layers."""
    archived = from_bytes(packed(FORMS[form](image), outside), tmp_path, image.name)
    assert archived.config == image.config
    assert [layer.diff_id for layer in archived.layers] == list(image.diff_ids)
    assert plain_layers(archived) == list(image.layers)
    assert [layer.size for layer in archived.layers] == [len(layer) for layer in image.layers]


@pytest.mark.parametrize("form", FORMS)
def test_a_repeated_layer_is_kept_once(form: str, tmp_path: Path) -> None:
    """Equal layers are one object and one file, and no other file stays in the spool."""
    image = from_bytes(FORMS[form](REPEATED), tmp_path)
    assert image.layers[0] is image.layers[2]
    assert {path.name for path in tmp_path.iterdir()} == {layer.path.name for layer in image.layers}
    assert len(list(tmp_path.iterdir())) == 2


def test_compressed_layers_of_docker_archives(tmp_path: Path) -> None:
    """A layer may be compressed inside a docker archive; its diff_id is that of the plain tar."""
    layer = layer_tar("z")
    image = image_of([layer], "z:1.0")
    row = [{"Config": "c.json", "RepoTags": None, "Layers": ["0/layer.tar"]}]
    members = {"c.json": image.config, "0/layer.tar": packed(layer, "zstd")}
    archived = from_bytes(tar({**members, "manifest.json": json.dumps(row).encode()}), tmp_path)
    assert archived.names == ()
    assert plain_layers(archived) == [layer]


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_a_layout_folder_is_read_in_place(compression: str, tmp_path: Path) -> None:
    """Layers of a folder stay where they lie; the spool isn't used."""
    spool = tmp_path / "spool"
    spool.mkdir()
    folder = IMAGE.oci_layout(tmp_path / "layout", compression)
    image = read(folder, spool=spool, name="new:2.0")
    assert plain_layers(image) == list(IMAGE.layers)
    assert not list(spool.iterdir())
    blob = image.layers[0].path
    blob.write_bytes(blob.read_bytes() + b"x")
    with pytest.raises(InvalidArchive):
        read(folder, spool=spool)


def test_two_archives_share_a_spool(tmp_path: Path) -> None:
    """Reading an archive leaves the layers of an earlier one as they are."""
    first = from_bytes(IMAGE.docker_save(), tmp_path)
    from_bytes(OTHER.docker_save(), tmp_path)
    with pytest.raises(InvalidArchive):
        from_bytes(b"no archive", tmp_path)
    assert plain_layers(first) == list(IMAGE.layers)


def test_long_and_pax_names(tmp_path: Path) -> None:
    """GNU's long names and pax records give member names, targets and sizes."""
    folder = "deep/" * 60
    layer = layer_tar("long")
    image = image_of([layer], "long:1.0")
    row = [{"Config": f"{folder}c.json", "RepoTags": ["long:1.0"], "Layers": [f"{folder}l"]}]
    members: dict[str, bytes | Link] = {
        f"{folder}c.json": image.config,
        f"{folder}real": layer,
        f"{folder}l": Link("real"),
        "manifest.json": json.dumps(row).encode(),
    }
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert plain_layers(from_bytes(tar(members, form=form), tmp_path)) == [layer]


def test_hard_links_name_members_of_the_archive(tmp_path: Path) -> None:
    """A hard link's target counts from the archive's root."""
    layer = layer_tar("hard")
    image = image_of([layer], "hard:1.0")
    row = [{"Config": "c.json", "RepoTags": [], "Layers": ["x/layer.tar"]}]
    members: dict[str, bytes | Link] = {
        "c.json": image.config,
        "y/layer.tar": layer,
        "x/layer.tar": Link("y/layer.tar", hard=True),
        "manifest.json": json.dumps(row).encode(),
    }
    assert plain_layers(from_bytes(tar(members), tmp_path)) == [layer]


SEVERAL = {
    "docker save 20.10": docker_save_legacy([IMAGE, OTHER]),
    "ctr export": ctr_export([IMAGE, OTHER]),
}


@pytest.mark.parametrize("form", SEVERAL)
@pytest.mark.parametrize("prefix", ["", "docker.io/library/", "localhost/"])
@pytest.mark.parametrize("image", [IMAGE, OTHER], ids=["first", "second"])
def test_a_name_chooses_among_several_images(
    form: str, prefix: str, image: TinyImage, tmp_path: Path
) -> None:
    """The name counts with and without the registry that engines put before it, not the tag."""
    archived = from_bytes(SEVERAL[form], tmp_path, f"{prefix}{image.name}")
    assert archived.config == image.config
    assert len(list(tmp_path.iterdir())) == len(image.layers)


@pytest.mark.parametrize("form", SEVERAL)
@pytest.mark.parametrize("name", ["third:1.0", "third:2.0", None])
def test_several_images_and_no_match(form: str, name: str | None, tmp_path: Path) -> None:
    """Among several images none is guessed; the error says which there are."""
    with pytest.raises(ImageNotInArchive) as caught:
        from_bytes(SEVERAL[form], tmp_path, name)
    assert [name.removeprefix("docker.io/library/") for name in caught.value.names] == [
        IMAGE.name,
        OTHER.name,
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", FORMS)
def test_the_only_image_is_taken_under_any_name(form: str, tmp_path: Path) -> None:
    """People push an archive under a new name."""
    assert from_bytes(FORMS[form](IMAGE), tmp_path, "new:2.0").config == IMAGE.config


def test_one_image_under_two_names_is_one_image(tmp_path: Path) -> None:
    """Names of the same image are collected."""
    twice = TinyImage(IMAGE.config, IMAGE.layers, "second:2.0")
    image = from_bytes(ctr_export([IMAGE, twice]), tmp_path, "new:3.0")
    assert image.names == ("docker.io/library/app:1.0", "docker.io/library/second:2.0")


@pytest.mark.parametrize("nested", [False, True])
def test_the_platform_chooses_and_attestations_are_no_images(nested: bool, tmp_path: Path) -> None:
    """Of several platforms the one asked for is read, this machine's if none is."""
    here, elsewhere = Platform.of_host(), Platform("linux", "s390x")
    foreign = tiny_image("foreign", platform=elsewhere)
    unknown = {Platform("unknown", "unknown"): OTHER}
    both = multi_platform({elsewhere: foreign, here: IMAGE, **unknown}, nested=nested)
    assert from_bytes(both, tmp_path).config == IMAGE.config
    chosen = read(io.BytesIO(both), spool=tmp_path, platform=elsewhere)
    assert chosen.config == foreign.config
    alone = multi_platform({elsewhere: foreign, **unknown}, nested=nested)
    assert from_bytes(alone, tmp_path).config == foreign.config


def header(name: str, **fields: bytes) -> bytes:
    """A tar header with raw *fields* and the right checksum."""
    member = tarfile.TarInfo(name)
    raw = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    offsets = {"size": (124, 136), "type": (156, 157)}
    for key, value in fields.items():
        start, end = offsets[key]
        raw[start:end] = value.ljust(end - start, b"\0")
    total = sum(raw[:148]) + 8 * 0x20 + sum(raw[156:])
    raw[148:156] = b"%06o\0 " % total
    return bytes(raw)


def pax(records: bytes) -> bytes:
    """An extended header."""
    return header("x", type=b"x", size=b"%011o" % len(records)) + records.ljust(
        -(-len(records) // 512) * 512, b"\0"
    )


def changed(member: str, content: bytes | Link) -> bytes:
    """IMAGE's archive with other bytes in a member."""
    return tar({**IMAGE.layout(), member: content})


LAYER_PATH = IMAGE.diff_ids[0].layout_path
CIRCLE = {"a": Link("b"), "b": Link("a")}
CIRCULAR_ROW = json.dumps([{"Config": "c", "RepoTags": [], "Layers": ["a"]}]).encode()
ONE_LAYER = image_of([layer_tar("x")], "x:1")

HOSTILE = {
    "nothing": (b"", "empty"),
    "text": (b"this is only a text\n", "no tar archive; docker save"),
    "long text": (b"not a tar\n" * 1000, "no tar archive; docker save"),
    "zeros": (bytes(10240), "no image archive"),
    "no manifest": (tar({"readme": b"hello"}), "no image archive: .*; docker save"),
    "huge base-256 size": (header("x", size=b"\x80" + (1 << 60).to_bytes(11, "big")), "breaks off"),
    "absurd base-256 size": (header("x", size=b"\x80" + b"\xff" * 11), "impossible size"),
    "negative size": (header("x", size=b"\xff" * 12), "negative"),
    "signed size": (header("x", size=b"-1") + bytes(2048), "bad number"),
    "huge octal size": (header("x", size=b"77777777777"), "breaks off"),
    "huge pax size": (pax(b"29 size=1152921504606846976\n"[:28]) + header("x"), "pax|breaks off"),
    "pax without end": (pax(b"99999 path=x\n") + header("x"), "pax header"),
    "pax of no length": (pax(b"0 path=x\n") + header("x"), "pax header"),
    "giant pax header": (header("x", type=b"x", size=b"77777777"), "1 MiB"),
    "pax size in other digits": (pax("11 size=١\n".encode()) + header("x"), "bad size"),
    "damaged header": (IMAGE.docker_save()[:512] + bytes([1]) * 4096, "damaged|breaks off"),
    "absolute name": (tar({"/etc/passwd": b"x"}), "leads out"),
    "name with ..": (tar({"a/../../b": b"x"}), "leads out"),
    "link out": (tar({"a": Link("../../etc/passwd")}), "leads out"),
    "links in a circle": (tar({**CIRCLE, "c": b"{}", "manifest.json": CIRCULAR_ROW}), "circles|"),
    "false layer": (changed(LAYER_PATH, layer_tar("false")), "other bytes"),
    "false config": (changed(Digest.of(IMAGE.config).layout_path, b"{}"), "other bytes"),
    "layer is missing": (changed(LAYER_PATH, Link("nowhere")), "doesn't hold"),
    "broken json": (tar({"manifest.json": b"[{"}), "broken"),
    "deep json": (tar({"manifest.json": b"[" * 100_000}), "broken"),
    "no list": (tar({"manifest.json": b"{}"}), "not a list"),
    "bad rows": (tar({"manifest.json": b"[1]"}), "bad|no Config"),
    "broken gzip outside": (packed(IMAGE.docker_save(), "gzip")[:3000], "breaks off"),
    "broken gzip inside": (tar({"x": packed(b"x" * 9000, "gzip")[:30]}), "gzip"),
    "two members of a name": (
        tar({"x": b"1"})[:1024] + tar({"x": b"2"}),
        "twice",
    ),
    "link and file of a name": (tar({"x": b"1"})[:1024] + tar({"x": Link("y")}), "twice"),
    "json and file of a name": (tar({"x": b"1"})[:1024] + tar({"x": b"{}"}), "twice"),
    "wrong diff_id": (
        TinyImage(ONE_LAYER.config, (layer_tar("y"),), "x:1").docker_archive(),
        "unpacks to",
    ),
    "too few layers": (TinyImage(IMAGE.config, IMAGE.layers[:2], "x:1").docker_save(), "2 layers"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_bad_archives_are_refused_at_once(kind: str, tmp_path: Path) -> None:
    """A bad archive is one line of error within seconds, and leaves nothing behind."""
    refused(*HOSTILE[kind][:1], tmp_path, HOSTILE[kind][1])


def test_truncation_at_any_place(tmp_path: Path) -> None:
    """An archive that breaks off is never taken for an image."""
    whole = IMAGE.docker_save_legacy()
    end = len(whole.rstrip(b"\0")) - 600  # inside of manifest.json
    for length in (1, 511, 513, *range(512, end, 512), *range(1024, end, 1777)):
        refused(whole[:length], tmp_path, ".")


def test_many_pax_records_are_read_in_linear_time(tmp_path: Path) -> None:
    """A mebibyte of the smallest records is no way to keep docket busy."""
    records = b"5 a=\n" * 200_000
    image = from_bytes(pax(records) + IMAGE.docker_save(), tmp_path)
    assert image.config == IMAGE.config


def test_much_json_is_refused(tmp_path: Path) -> None:
    """What is kept in memory is bounded."""
    filler = b"{" + bytes(4_000_000)
    members = {f"{number}.json": filler for number in range(20)}
    refused(packed(tar(members), "zstd"), tmp_path, "32 MiB")


READ_IN_PROCESS = """
import sys
from pathlib import Path
from docket.archive import read
image = read(sys.stdin.buffer, spool=Path(sys.argv[1]))
print(sum(layer.size for layer in image.layers))
status = Path('/proc/self/status').read_text()  # ru_maxrss would count the parent's too
print(int(status.partition('VmHWM:')[2].split()[0]) // 1024)
"""


@pytest.mark.parametrize("compression", ["", "zstd"])
def test_memory_is_flat(compression: str, tmp_path: Path) -> None:
    """Reading 300 MB takes less than 150 MB of memory, through a pipe, compressed or not."""
    block = random.Random(1).randbytes(1 << 20)
    layers = [tar({f"f{n}": bytes([n]) + block * 100}) for n in range(3)]
    image = image_of(layers, "large:1.0")
    spool = tmp_path / "spool"
    spool.mkdir()
    argv = [sys.executable, "-c", READ_IN_PROCESS, str(spool)]
    path = tmp_path / "archive"
    path.write_bytes(image.oci_archive(compression))
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as feed:
        done = subprocess.run(argv, stdin=feed.stdout, check=True, capture_output=True)
    size, megabytes = map(int, done.stdout.split())
    assert size == sum(map(len, layers))
    assert megabytes < 150


def test_the_same_bytes_every_time() -> None:
    """The archive is deterministic, and a repeated layer is written once."""
    assert written(REPEATED) == written(REPEATED)
    with tarfile.open(fileobj=io.BytesIO(written(REPEATED))) as archive:
        names = archive.getnames()
        assert {member.mtime for member in archive.getmembers()} == {0}
    assert len(names) == len(set(names))
    assert REPEATED.diff_ids[0].layout_path in names
    image = load_manifest(REPEATED.config, REPEATED.load_layers())
    assert Digest.of(image).layout_path in names
    assert list(json.loads(image)) == ["schemaVersion", "mediaType", "config", "layers"]


def test_names_are_spelled_as_docker_does() -> None:
    """The index has the name in full and the tag; manifest.json the name as given."""
    names = ["app:1.0", "team/app:2", "localhost:5000/app:3"]
    content = b"".join(load_archive(IMAGE.config, IMAGE.load_layers(), names))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        index = json.load(cast(BinaryIO, archive.extractfile("index.json")))
        rows = json.load(cast(BinaryIO, archive.extractfile("manifest.json")))
    assert [list(manifest["annotations"].values()) for manifest in index["manifests"]] == [
        ["docker.io/library/app:1.0", "1.0"],
        ["docker.io/team/app:2", "2"],
        ["localhost:5000/app:3", "3"],
    ]
    assert rows[0]["RepoTags"] == names


def test_layers_left_out_are_listed_but_not_written() -> None:
    """The engine is told of the layers that it has."""
    blocks = b"".join(load_archive(IMAGE.config, IMAGE.load_layers(leave_out=2), ["app:1.0"]))
    with tarfile.open(fileobj=io.BytesIO(blocks)) as archive:
        names = archive.getnames()
        rows = json.load(cast(BinaryIO, archive.extractfile("manifest.json")))
    assert [diff_id.layout_path in names for diff_id in IMAGE.diff_ids] == [False, False, True]
    assert len(rows[0]["Layers"]) == 3


class Watched(io.BytesIO):
    """A stream that gives little at a time and knows whether it was closed."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 70_000))


def blocks_until_error(layer: LoadLayer, error: type[Exception]) -> bytes:
    """What is given out before *error*."""
    blocks: list[bytes] = []
    with pytest.raises(error):
        blocks.extend(load_archive(IMAGE.config, [layer], []))
    return b"".join(blocks)


@pytest.mark.parametrize(
    ("promised", "size", "error"),
    [
        (None, 3_000_000, DigestMismatch),
        ("right", 2_999_999, SizeMismatch),
        ("right", 3_000_001, SizeMismatch),
        ("right", 0, SizeMismatch),
        ("right", 1 << 40, SizeMismatch),
    ],
)
def test_a_false_layer_is_never_given_out_whole(
    promised: str | None, size: int, error: type[Exception]
) -> None:
    """Digest and size are checked before the layer's last block leaves; the stream is closed."""
    content = random.Random(2).randbytes(3_000_000)
    stream = Watched(content)
    digest = Digest.of(content if promised else b"other")
    blocks = blocks_until_error(LoadLayer(digest, size, lambda: stream), error)
    assert content[-1000:] not in blocks
    assert stream.closed


def test_blocks_are_large_and_streams_are_closed_early() -> None:
    """Blocks are of 1 MiB though the layer comes in less; giving up closes the stream."""
    content = random.Random(3).randbytes(3_000_000)
    opened: list[Watched] = []

    def open_layer() -> BinaryIO:
        opened.append(Watched(content))
        return opened[0]

    layer = LoadLayer(Digest.of(content), len(content), open_layer)
    archive: Iterator[bytes] = load_archive(IMAGE.config, [layer], [])
    sizes = [len(block) for block in archive]
    assert sizes.count(1 << 20) == 2
    assert opened[0].closed
    opened.clear()
    archive = load_archive(IMAGE.config, [layer], [])
    while not opened:
        next(archive)
    archive.close()  # type: ignore[attr-defined]
    assert opened[0].closed


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("image", [IMAGE, REPEATED], ids=["plain", "repeated layer"])
def test_skopeo_reads_what_docket_writes(transport: str, image: TinyImage, tmp_path: Path) -> None:
    """Skopeo finds all layers, as a docker archive and as an OCI archive, and copies them."""
    need("skopeo")
    path = tmp_path / "image.tar"
    path.write_bytes(written(image))
    shown = subprocess.run(
        ["skopeo", "inspect", f"{transport}:{path}"], check=True, capture_output=True
    )
    if transport == "oci-archive":
        assert json.loads(shown.stdout)["Layers"] == list(map(str, image.diff_ids))
    copied = tmp_path / "copied.tar"
    argv = [
        "skopeo",
        "copy",
        "--insecure-policy",
        f"{transport}:{path}",
        f"oci-archive:{copied}:c:1",
    ]
    subprocess.run(argv, check=True, capture_output=True)
    spool = tmp_path / "spool"
    spool.mkdir()
    archived = read(copied, spool=spool)
    assert archived.config == image.config
    assert plain_layers(archived) == list(image.layers)
