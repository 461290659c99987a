"""Writing the archive that every engine loads: an OCI layout with manifest.json, layers plain.

It leaves out layers that the engine has. Docker since 1.10, Docker's containerd image store, podman
and skopeo take this one form.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO

from docket.archive.listing import DOCKER_FILE, NAME_ANNOTATION, OCI_FILE, REF_ANNOTATION
from docket.errors import DigestMismatch, SizeMismatch
from docket.oci import manifest
from docket.oci.digest import READ_SIZE, Digest, new_hash
from docket.oci.manifest import Descriptor, dump

_RECORD = 512


@dataclass(frozen=True, slots=True)
class LoadLayer:
    """A layer to write: *size* plain bytes; *open* None leaves it out, since the engine has it."""

    diff_id: Digest
    size: int
    open: Callable[[], BinaryIO] | None


def load_archive(
    config: bytes, layers: Sequence[LoadLayer], names: Sequence[str]
) -> Iterator[bytes]:
    """The archive of an image, block by block; equal arguments give equal bytes.

    Every diff_id is checked on the way, before the last block of its layer is given out: raises
    `DigestMismatch` or `SizeMismatch`, and no engine takes an archive that breaks off.
    """
    config_digest = Digest.of(config)
    image = load_manifest(config, layers)
    yield from _member("oci-layout", dump({"imageLayoutVersion": "1.0.0"}))
    yield from _member(config_digest.layout_path, config)
    yield from _member(Digest.of(image).layout_path, image)
    written: set[Digest] = set()
    for layer in layers:
        if layer.open and layer.diff_id not in written:
            written.add(layer.diff_id)
            yield from _layer(layer, layer.open)
    yield from _member(OCI_FILE, _index(image, names))
    docker = {
        "Config": config_digest.layout_path,
        "RepoTags": list(names),
        "Layers": [layer.diff_id.layout_path for layer in layers],
    }
    yield from _member(DOCKER_FILE, dump([docker]))
    yield bytes(2 * _RECORD)


def load_manifest(config: bytes, layers: Sequence[LoadLayer]) -> bytes:
    """The manifest of the archive: plain layers, spelled as ``docker save`` spells it."""
    return manifest.image_manifest(
        Descriptor(manifest.OCI_CONFIG, Digest.of(config), len(config)),
        [Descriptor(manifest.OCI_LAYER, layer.diff_id, layer.size) for layer in layers],
    )


def _index(image: bytes, names: Sequence[str]) -> bytes:
    digest = Digest.of(image)
    annotations = [
        {NAME_ANNOTATION: _full_name(name), REF_ANNOTATION: name.rpartition(":")[2]}
        for name in names
    ]
    return manifest.image_index(
        [
            Descriptor(manifest.OCI_MANIFEST, digest, len(image), named)
            for named in annotations or [{}]
        ]
    )


def _full_name(name: str) -> str:
    """The name as Docker spells it in full: a first part with a dot or colon is a registry."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def _layer(layer: LoadLayer, open_it: Callable[[], BinaryIO]) -> Iterator[bytes]:
    running = new_hash()
    left = layer.size
    yield _header(layer.diff_id.layout_path, layer.size)
    with open_it() as plain, closing(_ahead(plain)) as blocks:
        block = next(blocks, b"")
        while block:
            running.update(block)
            left -= len(block)
            following = next(blocks, b"")
            if left < 0 or not following:
                _check(layer, left, running.hexdigest())
            yield block
            block = following
    _check(layer, left, running.hexdigest())
    yield bytes(-layer.size % _RECORD)


def _check(layer: LoadLayer, left: int, hexdigits: str) -> None:
    if left:
        raise SizeMismatch(layer.diff_id, expected=layer.size, actual=layer.size - left)
    actual = Digest.sha256(hexdigits)
    if actual != layer.diff_id:
        raise DigestMismatch(layer.diff_id, actual)


def _ahead(plain: BinaryIO) -> Generator[bytes, None, None]:
    """Its blocks; while one is hashed and sent, the next is unpacked on a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="unpack") as pool:
        coming = pool.submit(_read, plain)
        while block := coming.result():
            coming = pool.submit(_read, plain)
            yield block


def _read(plain: BinaryIO) -> bytes:
    """A whole block, though decompressors give less at a time: each block is an HTTP chunk."""
    parts: list[bytes] = []
    left = READ_SIZE
    while left and (part := plain.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _member(name: str, content: bytes) -> Iterator[bytes]:
    yield _header(name, len(content)) + content + bytes(-len(content) % _RECORD)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.GNU_FORMAT)
