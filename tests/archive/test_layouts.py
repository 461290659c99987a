"""Folders and tars of other shapes: skopeo's ``dir:``, layouts below a folder, platforms."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest

from docket.archive import read
from docket.errors import InvalidArchive
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Platform
from tests.archive.test_archive import plain_layers
from tests.support.images import TinyImage, described, image_of, layer_tar, packed, tar, tiny_image
from tests.support.requirements import need

IMAGE, OTHER = tiny_image("app", 2), tiny_image("other", 1)


def dir_files(image: TinyImage, compression: str = "gzip") -> dict[str, bytes]:
    """The files that ``skopeo copy … dir:`` writes."""
    row, blobs = image.blobs(compression)
    files = {Digest.of(blob).hex: blob for blob in blobs.values()}
    return {"version": b"Directory Transport Version: 1.1\n", **files} | {
        "manifest.json": files.pop(row.digest.hex)
    }


def folder_of(files: dict[str, bytes], root: Path) -> Path:
    """A folder with these files."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_a_dir_of_skopeo(compression: str, tmp_path: Path) -> None:
    """skopeo ``dir:``: a manifest, and blobs named by their hex digits; folder or tar of it."""
    files = dir_files(IMAGE, compression)
    spool = tmp_path / "spool"
    spool.mkdir()
    for source in (folder_of(files, tmp_path / "dir"), io.BytesIO(tar(files))):
        image = read(source, spool=spool, name="any:1")
        assert image.config == IMAGE.config
        assert plain_layers(image) == list(IMAGE.layers)


def test_a_dir_of_skopeo_with_all_platforms(tmp_path: Path) -> None:
    """``skopeo copy --all``: manifest.json is an index, manifests end with .manifest.json."""
    files: dict[str, bytes] = {}
    rows = []
    for image, name in ((IMAGE, "linux/amd64"), (OTHER, "linux/arm64/v8")):
        row, blobs = image.blobs("gzip")
        files |= {Digest.of(blob).hex: blob for blob in blobs.values()}
        files[f"{row.digest.hex}.manifest.json"] = files.pop(row.digest.hex)
        rows.append(Descriptor(row.media_type, row.digest, row.size, platform=Platform.parse(name)))
    folder = folder_of({**files, "manifest.json": manifest.image_index(rows)}, tmp_path / "dir")
    archived = read(folder, spool=tmp_path, platform=Platform.parse("linux/aarch64"))
    assert archived.config == OTHER.config


def test_a_dir_whose_bytes_are_others(tmp_path: Path) -> None:
    """Each file of a dir: is checked: config by its digest, layers by their diff_ids."""
    for changed in (IMAGE.config, packed(IMAGE.layers[0], "gzip")):
        files = dir_files(IMAGE) | {Digest.of(changed).hex: dir_files(OTHER)["manifest.json"]}
        with pytest.raises(InvalidArchive):
            read(io.BytesIO(tar(files)), spool=tmp_path)


def test_skopeo_itself(tmp_path: Path) -> None:
    """What the real skopeo writes as dir: and oci: is read."""
    need("skopeo")
    source = tmp_path / "image.tar"
    source.write_bytes(IMAGE.docker_save())
    for transport in ("dir", "oci"):
        target = tmp_path / transport
        target.mkdir()
        name = f"{transport}:{target}" + (":tag" if transport == "oci" else "")
        argv = ["skopeo", "--insecure-policy", "copy", f"docker-archive:{source}", name]
        subprocess.run(argv, check=True, capture_output=True)
        assert plain_layers(read(target, spool=tmp_path)) == list(IMAGE.layers)


FORMS = {
    "OCI layout": IMAGE.layout("gzip"),
    "dir:": dir_files(IMAGE),
    "docker save": {
        "manifest.json": json.dumps(
            [{"Config": "c.json", "RepoTags": ["app:1.0"], "Layers": ["0/l.tar", "1/l.tar"]}]
        ).encode(),
        "c.json": IMAGE.config,
        "0/l.tar": IMAGE.layers[0],
        "1/l.tar": IMAGE.layers[1],
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix", ["", "./", "layout/", "./tmp/layout/"])
def test_a_tar_that_begins_above(form: str, prefix: str, tmp_path: Path) -> None:
    """``tar cf image.tar folder``: the files may lie below a folder of the archive."""
    content = tar({f"{prefix}{name}": content for name, content in FORMS[form].items()})
    image = read(io.BytesIO(content), spool=tmp_path)
    assert plain_layers(image) == list(IMAGE.layers)


def layout_of(rows: list[Descriptor], *blobs: dict[str, bytes]) -> io.BytesIO:
    """A tar of an OCI layout."""
    files = {name: content for group in blobs for name, content in group.items()}
    return io.BytesIO(tar({**files, "index.json": manifest.image_index(rows)}))


def test_the_best_platform_of_a_layout(tmp_path: Path) -> None:
    """containerd § platforms.Only: of v5, v6 and v7 the best for the host, wherever it stands."""
    rows: list[Descriptor] = []
    blobs: dict[str, bytes] = {}
    images: dict[str, TinyImage] = {}
    for name in ("v5", "v7", "v6"):
        images[name] = tiny_image(name, 1, platform=Platform("linux", "arm", name))
        row, more = images[name].blobs()
        blobs |= more
        rows.append(
            Descriptor(
                row.media_type, row.digest, row.size, platform=Platform("linux", "arm", name)
            )
        )
    for wanted, expected in (("armhf", "v7"), ("arm/v6", "v6"), ("linux/arm/v5", "v5")):
        source = layout_of(rows, blobs)
        image = read(source, spool=tmp_path, platform=Platform.parse(wanted))
        assert image.config == images[expected].config
    with pytest.raises(InvalidArchive, match="no manifest for linux/s390x"):
        read(layout_of(rows, blobs), spool=tmp_path, platform=Platform.parse("linux/s390x"))


def test_platforms_that_only_configs_say(tmp_path: Path) -> None:
    """Entries without a platform are chosen by their configuration."""
    arm = tiny_image("arm", 1, platform=Platform("linux", "arm64"))
    s390x = tiny_image("s390x", 1, platform=Platform("linux", "s390x"))
    (first, blobs), (second, more) = arm.blobs(), s390x.blobs()
    image = read(
        layout_of([first, second], blobs, more),
        spool=tmp_path,
        platform=Platform.parse("linux/s390x"),
    )
    assert image.config == s390x.config


def test_a_foreign_layer(tmp_path: Path) -> None:
    """A layer whose bytes need not be there is explained, with where they are; else it is read."""
    layer = layer_tar("windows")
    image = image_of([layer], "windows:1")
    base = Descriptor(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        Digest.of(packed(layer, "gzip")),
        len(packed(layer, "gzip")),
        urls=("https://mcr.example.com/base",),
    )
    config = described(manifest.OCI_CONFIG, image.config)
    content = manifest.image_manifest(config, [base])
    blobs = {Digest.of(blob).layout_path: blob for blob in (image.config, content)}
    row = described(manifest.OCI_MANIFEST, content)
    with pytest.raises(InvalidArchive, match=r"is foreign: .* at https://mcr"):
        read(layout_of([row], blobs), spool=tmp_path)
    stored = {base.digest.layout_path: packed(layer, "gzip")}
    assert plain_layers(read(layout_of([row], blobs, stored), spool=tmp_path)) == [layer]


def test_an_image_without_layers(tmp_path: Path) -> None:
    """FROM scratch and nothing else: no layers is no error, however it is spelled."""
    image = image_of([], "empty:1")
    assert read(io.BytesIO(image.docker_save()), spool=tmp_path).layers == ()
    assert read(io.BytesIO(image.oci_archive()), spool=tmp_path).layers == ()
    row = [{"Config": "c.json", "RepoTags": ["empty:1"], "Layers": None}]
    files = {"c.json": b'{"rootfs":{"type":"layers"}}', "manifest.json": json.dumps(row).encode()}
    assert read(io.BytesIO(tar(files)), spool=tmp_path).layers == ()
