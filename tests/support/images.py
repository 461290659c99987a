"""Tiny valid images made in code, and every form of archive that tools write them in."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import zstandard

from docket.archive import LoadLayer, load_archive
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Platform, dump

NAME_ANNOTATION = "io.containerd.image.name"
REF_ANNOTATION = "org.opencontainers.image.ref.name"
_LAYOUT = dump({"imageLayoutVersion": "1.0.0"})


@dataclass(frozen=True, slots=True)
class Link:
    """A member that names another: a symlink, or a hard link."""

    target: str
    hard: bool = False


Members = Mapping[str, "bytes | Link"]


def tar(members: Members, *, form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar archive of *members* in their order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, Link):
                member.type = tarfile.LNKTYPE if content.hard else tarfile.SYMTYPE
                member.linkname = content.target
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def packed(content: bytes, compression: str) -> bytes:
    """*content* compressed with ``gzip``, ``zstd``, ``xz``, ``bzip2`` or (empty) not at all."""
    if not compression:
        return content
    compress: dict[str, Callable[[bytes], bytes]] = {
        "gzip": lambda plain: gzip.compress(plain, mtime=0),
        "zstd": zstandard.compress,
        "xz": lzma.compress,
        "bzip2": bz2.compress,
    }
    return compress[compression](content)


def layer_tar(seed: str, *, size: int = 2000, zeros: int = 0) -> bytes:
    """A layer with one file, named by *seed*: *size* bytes that depend on it, and then *zeros*."""
    return tar({f"{seed}.txt": random.Random(seed).randbytes(size) + bytes(zeros)})


@dataclass(frozen=True, slots=True)
class TinyImage:
    """An image: its config, plain layers and name; the methods write it as tools do."""

    config: bytes
    layers: tuple[bytes, ...]
    name: str

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The layers' digests."""
        return tuple(map(Digest.of, self.layers))

    def archive(self, path: Path) -> Path:
        """Write the archive that docket writes for engines to *path*."""
        with path.open("wb") as file:
            file.writelines(load_archive(self.config, self.load_layers(), [self.name]))
        return path

    def load_layers(self, *, leave_out: int = 0) -> list[LoadLayer]:
        """What `load_archive` takes, without the first *leave_out* layers' bytes."""

        def loaded(number: int, layer: bytes) -> LoadLayer:
            opened = None if number < leave_out else lambda: io.BytesIO(layer)
            return LoadLayer(Digest.of(layer), len(layer), opened)

        return [loaded(number, layer) for number, layer in enumerate(self.layers)]

    def docker_save_legacy(self) -> bytes:
        """``docker save`` of 20.10: a repeated layer is a symlink, manifest.json comes last."""
        return docker_save_legacy([self])

    def docker_archive(self) -> bytes:
        """``docker-archive:`` of skopeo and podman: ``<diff_id>.tar``, then symlinks to it."""
        members: dict[str, bytes | Link] = {}
        for number, layer in enumerate(self.layers):
            members[f"{Digest.of(layer).hex}.tar"] = layer
            members[f"{number:064x}/layer.tar"] = Link(f"../{Digest.of(layer).hex}.tar")
        members[f"{Digest.of(self.config).hex}.json"] = self.config
        layers = [f"{diff_id.hex}.tar" for diff_id in self.diff_ids]
        return tar(members | {"manifest.json": self._row(layers, ".json")})

    def docker_save(self) -> bytes:
        """``docker save`` since 25: an OCI layout of plain layers, and manifest.json."""
        layers = [diff_id.layout_path for diff_id in self.diff_ids]
        return tar({**self.layout(), "manifest.json": self._row(layers, "")})

    def oci_archive(self, compression: str = "gzip", *, tag_only: bool = False) -> bytes:
        """``oci-archive:`` of skopeo and podman: compressed blobs, no manifest.json."""
        return tar(self.layout(compression, tag_only=tag_only))

    def oci_layout(self, folder: Path, compression: str = "gzip") -> Path:
        """The folder of an OCI image layout at *folder*."""
        for name, content in self.layout(compression).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder

    def layout(self, compression: str = "", *, tag_only: bool = False) -> dict[str, bytes]:
        """The files of an OCI image layout by name."""
        ref = self.name.rpartition(":")[2] if tag_only else self.name
        described_as, blobs = self.blobs(compression)
        row = replace(described_as, annotations={REF_ANNOTATION: ref})
        return {"oci-layout": _LAYOUT, **blobs, "index.json": manifest.image_index([row])}

    def blobs(self, compression: str = "") -> tuple[Descriptor, dict[str, bytes]]:
        """The manifest's descriptor, and all blobs by name."""
        suffix = f"+{compression}" if compression else ""
        stored = [packed(layer, compression) for layer in self.layers]
        content = manifest.image_manifest(
            described(manifest.OCI_CONFIG, self.config),
            [described(f"{manifest.OCI_LAYER}{suffix}", layer) for layer in stored],
        )
        blobs = {Digest.of(blob).layout_path: blob for blob in (*stored, self.config, content)}
        return described(manifest.OCI_MANIFEST, content), blobs

    def _row(self, layers: Sequence[str], suffix: str) -> bytes:
        digest = Digest.of(self.config)
        config = f"{digest.hex}.json" if suffix else digest.layout_path
        return dump([{"Config": config, "RepoTags": [self.name], "Layers": list(layers)}])


def described(media_type: str, content: bytes) -> Descriptor:
    """The descriptor of *content*."""
    return Descriptor(media_type, Digest.of(content), len(content))


def tiny_image(
    seed: str, layers: int = 2, *, name: str = "", platform: Platform | None = None
) -> TinyImage:
    """An image of *layers* small layers; equal arguments give equal bytes."""
    return image_of(
        [layer_tar(f"{seed}-{n}") for n in range(layers)], name or f"{seed}:1.0", platform
    )


def image_of(layers: Sequence[bytes], name: str, platform: Platform | None = None) -> TinyImage:
    """The image of these plain layers, for this machine if *platform* says no other."""
    runs_on = platform or Platform.of_host()
    config = {
        "architecture": runs_on.architecture,
        "os": runs_on.os,
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer)) for layer in layers]},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "docket"} for _ in layers],
    }
    return TinyImage(dump(config), tuple(layers), name)


def release(name: str, layers: Sequence[tuple[str, int]]) -> TinyImage:
    """An image for linux/amd64 of layers given by seed and size in bytes, half of them zeros."""
    tars = [layer_tar(seed, size=size // 2, zeros=size - size // 2) for seed, size in layers]
    return image_of(tars, name, Platform("linux", "amd64"))


def docker_save_legacy(images: Sequence[TinyImage]) -> bytes:
    """``docker save`` of 20.10 with several images."""
    members: dict[str, bytes | Link] = {}
    first: dict[bytes, str] = {}
    rows = []
    for image in images:
        names = []
        for number, layer in enumerate(image.layers):
            folder = Digest.of(f"{image.name} {number}".encode()).hex
            names.append(f"{folder}/layer.tar")
            seen = first.setdefault(layer, names[-1])
            members[f"{folder}/VERSION"] = b"1.0"
            members[f"{folder}/json"] = dump({"id": folder})
            members[names[-1]] = layer if seen == names[-1] else Link(f"../{seen}")
        config = f"{Digest.of(image.config).hex}.json"
        members[config] = image.config
        rows.append({"Config": config, "RepoTags": [image.name], "Layers": names})
    repositories = {image.name.partition(":")[0]: {"1.0": "0" * 64} for image in images}
    return tar(members | {"manifest.json": dump(rows), "repositories": dump(repositories)})


def ctr_export(images: Sequence[TinyImage], *, compression: str = "") -> bytes:
    """``ctr image export``: full names in one annotation, tags in the other."""
    blobs: dict[str, bytes] = {}
    rows = []
    for image in images:
        row, more = image.blobs(compression)
        blobs |= more
        names = {
            NAME_ANNOTATION: f"docker.io/library/{image.name}",
            REF_ANNOTATION: image.name.rpartition(":")[2],
        }
        rows.append(replace(row, annotations=names))
    return tar({"oci-layout": _LAYOUT, **blobs, "index.json": manifest.image_index(rows)})


def multi_platform(images: Mapping[Platform, TinyImage], *, nested: bool) -> bytes:
    """An OCI archive with an image a platform, in index.json itself or in an index below it."""
    blobs: dict[str, bytes] = {}
    rows = []
    for platform, image in images.items():
        row, more = image.blobs("gzip")
        blobs |= more
        rows.append(replace(row, platform=platform))
    index = manifest.image_index(rows)
    if nested:
        blobs[Digest.of(index).layout_path] = index
        index = manifest.image_index([described(manifest.OCI_INDEX, index)])
    return tar({"oci-layout": _LAYOUT, **blobs, "index.json": index})
