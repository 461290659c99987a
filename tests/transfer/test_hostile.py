"""Archives made to do harm, pushed as users push them: one line, and nothing left behind."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docket.compression import GZIP, ZSTD
from tests.archive.test_archive import header, pax
from tests.support.bombs import bomb, tar_bomb
from tests.support.commands import CommandFailed, Commands, registry
from tests.support.images import (
    Link,
    TinyImage,
    docker_save_legacy,
    image_of,
    layer_tar,
    packed,
    tar,
    tiny_image,
)

_IMAGE = tiny_image("hostile", 2)
_INVALID = 4
_UNKNOWN = 3
_LAYER = _IMAGE.diff_ids[0].layout_path
_ROW = json.dumps([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l"]}]).encode()


def _image(**members: bytes | Link) -> bytes:
    """A docker archive of one image, with other members."""
    return tar({"c.json": image_of([layer_tar("one")], "a:1").config, **members})


def _device(kind: bytes) -> bytes:
    """The image, its layer a device, a fifo or a folder."""
    member = tarfile.TarInfo(_LAYER)
    member.type = kind
    return member.tobuf(tarfile.USTAR_FORMAT) + _without_layer()


def _with_layer(content: bytes) -> bytes:
    """The image with other bytes under its layer's name."""
    return tar({**_IMAGE.layout(), _LAYER: content})


def _false_zstd() -> bytes:
    """A layer whose compressed bytes are as promised, but unpack to something else."""
    other_layer = packed(layer_tar("something else"), ZSTD)
    image = TinyImage(_IMAGE.config, (other_layer, _IMAGE.layers[1]), "false:1")
    return image.oci_archive("")


def _far_window() -> bytes:
    """A layer that asks for a window of 256 MiB."""
    return tar({"layer": bomb(ZSTD, 1 << 20, window_log=28)})


def _without_layer() -> bytes:
    return tar({name: content for name, content in _IMAGE.layout().items() if name != _LAYER})


def _twice(second: bytes | Link) -> bytes:
    """The image with *second* under its layer's name too."""
    first = _IMAGE.docker_archive()
    return first[: _end(first)] + tar({f"{_IMAGE.diff_ids[0].hex}.tar": second})


def _end(archive: bytes) -> int:
    """Where the blocks of zeros begin that end an archive."""
    end = len(archive)
    while not archive[end - 512 : end].strip(b"\0"):
        end -= 512
    return end


def _nested() -> bytes:
    index = b'{"a":' * 5000 + b"1" + b"}" * 5000
    return tar({**_IMAGE.layout(), "index.json": index})


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "name upwards": (lambda: _image(**{"../../evil": b"x", "manifest.json": _ROW}), "leads out"),
    "absolute name": (lambda: _image(**{"/tmp/evil": b"x", "manifest.json": _ROW}), "leads out"),
    "symlink out": (lambda: _image(l=Link("/etc/passwd"), **{"manifest.json": _ROW}), "leads out"),
    "hard link out": (
        lambda: _image(l=Link("../../etc/passwd", hard=True), **{"manifest.json": _ROW}),
        "leads out",
    ),
    "layer upwards": (
        lambda: _image(**{"manifest.json": _ROW.replace(b'"l"', b'"../../etc/passwd"')}),
        "leads out",
    ),
    "device as a layer": (lambda: _device(tarfile.CHRTYPE), "doesn't hold"),
    "fifo as a layer": (lambda: _device(tarfile.FIFOTYPE), "doesn't hold"),
    "folder as a layer": (lambda: _device(tarfile.DIRTYPE), "doesn't hold"),
    "size of 2^60": (
        lambda: header("x", size=b"\x80" + (1 << 60).to_bytes(11, "big")),
        "breaks off",
    ),
    "pax size of 2^60": (
        lambda: pax(b"28 size=1152921504606846976\n") + header("x") + bytes(4096),
        "breaks off",
    ),
    "size larger than the rest": (lambda: _IMAGE.docker_save()[:5000], "breaks off"),
    "gzip of zeros": (lambda: tar_bomb(GZIP, 64 << 20), "neither manifest.json"),
    "zstd of zeros": (lambda: tar_bomb(ZSTD, 64 << 20), "neither manifest.json"),
    "layer of zeros": (lambda: _with_layer(bomb(ZSTD, 64 << 20)), "other bytes"),
    "zstd window of 256 MiB": (_far_window, "broken zstd"),
    "member twice": (lambda: _twice(layer_tar("false")), "twice"),
    "member as a file and a link": (lambda: _twice(Link("c.json")), "twice"),
    "layer with other bytes": (lambda: _with_layer(layer_tar("false")), "other bytes"),
    "layer that unpacks to others": (_false_zstd, "unpacks to"),
    "layer missing": (lambda: _without_layer(), "doesn't hold"),
    "nested JSON": (_nested, "nests deeper"),
}


@pytest.fixture(scope="module")
def registry_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's registry has its store."""
    return tmp_path_factory.mktemp("hostile") / "registry"


@pytest.fixture(scope="module")
def url(registry_folder: Path) -> Iterator[str]:
    """One registry for all: nothing of what it is sent stays."""
    with registry(registry_folder) as running:
        yield running


@pytest.fixture
def host(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """A host whose temporary files are in a folder of the test's."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return Commands(url, tmp_path / "host")


def refusal(host: Commands, archive: Path) -> CommandFailed:
    """How the push ends: one line that drives no terminal, and no file anywhere."""
    before = files(archive.parent)
    with pytest.raises(CommandFailed) as caught:
        host("push", "evil:1.0", "--archive", archive)
    (line,) = caught.value.message.splitlines()
    assert line.startswith("docket: ")
    assert line.isprintable()
    assert files(archive.parent) == before
    return caught.value


def files(folder: Path) -> set[Path]:
    """All that is below *folder*, but what an empty store has."""
    outside = {path for path in folder.rglob("*") if not path.is_relative_to(folder / "host")}
    return outside | {path for path in folder.rglob("host/blobs/**/*") if path.is_file()}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_leaves_nothing(
    kind: str, host: Commands, registry_folder: Path, tmp_path: Path
) -> None:
    """Bad input § tar, lies, bombs, mismatch: exit code 4, one line, and no file on either side."""
    make, why = HOSTILE[kind]
    archive = tmp_path / "archive.tar"
    archive.write_bytes(make())
    before = stored(registry_folder)
    error = refusal(host, archive)
    assert error.code == _INVALID
    assert why in error.message
    assert stored(registry_folder) == before


def stored(folder: Path) -> set[str]:
    """The registry's files, but those of its index."""
    return {
        str(path.relative_to(folder))
        for name in ("blobs", "uploads", "incoming", "swarm", "trash", "quarantine")
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


def test_names_of_images_drive_no_terminal(host: Commands, tmp_path: Path) -> None:
    """The error lists the names in the archive; their control characters are escaped."""
    names = ["\x1b[2J\x1b]0;title\x07:1", "\u202egnp.exe:1\nx", "x" * 100_000 + ":1"]
    images = [image_of([layer_tar(name[:9])], name) for name in names]
    archive = tmp_path / "archive.tar"
    archive.write_bytes(docker_save_legacy(images))
    error = refusal(host, archive)
    assert error.code == _UNKNOWN
    assert r"\x1b[2J\x1b]0;title\x07:1" in error.message
    assert r"\u202egnp.exe" in error.message
    assert len(error.message) < 1100


def test_a_hostile_layout_folder(host: Commands, tmp_path: Path) -> None:
    """A folder is read in place: neither its names nor its links are ways out of it."""
    folder = tmp_path / "layout"
    secret = tmp_path / "secret"
    secret.write_bytes(layer_tar("secret"))
    for name in ("../secret", str(secret), "a" * 5000, "link"):
        _IMAGE.oci_layout(folder)
        config = image_of([secret.read_bytes()], "a:1").config
        (folder / "c.json").write_bytes(config)
        row = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": [name]}]
        (folder / "manifest.json").write_text(json.dumps(row))
        if name == "link":
            (folder / name).symlink_to("nowhere")
        assert refusal(host, folder).code == _INVALID
