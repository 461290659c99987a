"""Stores and small images to put into them, and what must be true of a store at any time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from docket import compression
from docket.compression import ZSTD
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import ANNOTATION_ENCODER, Descriptor, Manifest, Platform, dump
from docket.oci.manifest import Index as ImageIndex
from docket.store import Blob, Store
from docket.store.blobs.unpacking import Unpacked
from docket.store.index.environment import Index
from tests.support.images import described, image_of, layer_tar

ENCODER = compression.encoder(ZSTD, 3)


@dataclass
class Clock:
    """A clock that a test moves; seconds."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def no_step(_name: str) -> None:
    """Nobody watches."""


def open_store(
    location: Path,
    *,
    pin_seconds: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    step: Callable[[str], None] = no_step,
) -> Store:
    """The store at *location*, which by default pins nothing."""
    return Store(
        location,
        owner="test",
        pin_seconds=pin_seconds,
        clock=clock,
        step=step,
    )


def tar(seed: str, *, size: int = 3000) -> bytes:
    """A plain layer; equal arguments give equal bytes."""
    return layer_tar(seed, size=size)


def packed(plain: bytes, kind: str = ZSTD) -> bytes:
    """*plain* compressed as `docket push` does it; *kind* may be `compression.NONE`."""
    if not kind:
        return plain
    running = compression.compressor(kind, level=3, size=len(plain))
    return running.compress(plain) + running.flush()


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its plain layers, the blobs that they become, its config and its manifest."""

    plain: tuple[bytes, ...]
    layers: tuple[bytes, ...]
    config: bytes
    content: bytes

    @property
    def digest(self) -> Digest:
        """Of the manifest."""
        return Digest.of(self.content)

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """What must be there before the manifest."""
        return (*self.layers, self.config)

    @property
    def parsed(self) -> Manifest:
        """The manifest as a value."""
        parsed = manifest.parse(self.content)
        assert isinstance(parsed, Manifest)
        return parsed


def image(*seeds: str, kind: str = ZSTD, size: int = 3000, subject: Image | None = None) -> Image:
    """An image with a layer a seed; equal arguments give equal bytes."""
    plain = tuple(tar(seed, size=size) for seed in seeds)
    layers = tuple(packed(layer, kind) for layer in plain)
    config = image_of(plain, " ".join(seeds), Platform("linux", "amd64")).config
    media_type = f"{manifest.OCI_LAYER}{compression.media_suffix(kind)}"
    rows = [
        replace(described(media_type, layer), annotations={ANNOTATION_ENCODER: ENCODER})
        for layer in layers
    ]
    content = manifest.image_manifest(described(manifest.OCI_CONFIG, config), rows)
    if subject:
        named = described(manifest.OCI_MANIFEST, subject.content)
        more = manifest.parse_json(content, "it") | {"subject": named.to_json()}
        content = dump(more)
    return Image(plain, layers, config, content)


def upload(store: Store, repository: str, content: bytes, *, parts: int = 1) -> Blob:
    """Upload *content* in as many *parts*."""
    upload_id = store.uploads.begin(repository)
    length = -(-len(content) // parts)
    for at in range(0, len(content), length or 1):
        with store.uploads.open(repository, upload_id, offset=at) as session:
            session.write(content[at : at + length])
    with store.uploads.open(repository, upload_id) as session:
        blob = store.uploads.finish(repository, session, Digest.of(content))
    assert store.layers.wait([blob.digest], seconds=60)
    return blob


def adopted(store: Store, content: bytes, hint: Unpacked) -> Digest:
    """*content* arrives as a download, of which the registry has said *hint*."""
    path = store.location / "incoming" / "layer"
    path.write_bytes(content)
    blob = store.blobs.adopt(path, Digest.of(content), unpacked=hint)
    path.unlink()
    return blob.digest


def push(store: Store, repository: str, pushed: Image, *, tag: str | None = "latest") -> Digest:
    """Push as `docket push` does: ask by diff_id, mount what is held, upload the others."""
    layers = store.layers.find(map(Digest.of, pushed.plain))
    for plain, layer in zip(pushed.plain, pushed.layers, strict=True):
        stored_layer = layers.get(Digest.of(plain))
        if not (stored_layer and store.blobs.mount(stored_layer.digest, repository=repository)):
            upload(store, repository, layer)
    store.blobs.put(pushed.config, repository=repository)
    return store.manifests.put(repository, pushed.content, pushed.parsed, tags=[tag] if tag else [])


def put_index(store: Store, repository: str, *members: Image, tag: str | None = None) -> Digest:
    """Put an index of *members*, which are in the store."""
    rows = [
        Descriptor(manifest.OCI_MANIFEST, member.digest, len(member.content)) for member in members
    ]
    content = manifest.image_index(rows)
    return store.manifests.put(
        repository, content, manifest.parse(content), tags=[tag] if tag else []
    )


def blob_path(store: Store, digest: Digest) -> Path:
    """The file of a blob of *store*, which only tests may know."""
    return store.location / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex


def rot(store: Store, content: bytes) -> Digest:
    """Change a byte of a blob's file; its size stays."""
    digest = Digest.of(content)
    path = blob_path(store, digest)
    path.chmod(0o644)
    with path.open("rb+") as file:
        file.seek(len(content) // 2)
        file.write(bytes([content[len(content) // 2] ^ 1]))
    return digest


def assert_readable(store: Store, repository: str, target: str | Digest) -> None:
    """The manifest and all that it lists can be read through *repository*, whole."""
    stored_manifest = store.manifests.get(repository, target)
    parsed = manifest.parse(stored_manifest.content, content_type=stored_manifest.media_type)
    for child in parsed.children:
        if isinstance(parsed, ImageIndex):
            assert_readable(store, repository, child.digest)
            continue
        blob = store.blobs.get(child.digest, repository=repository)
        assert blob.size == child.size
        assert Digest.of_file(blob_path(store, child.digest)) == child.digest


def assert_sound(location: Path) -> None:
    """Of a closed store: every tagged image is whole, and no record is without its file."""
    with open_store(location) as store:
        for tagged in store.manifests.tagged():
            assert_readable(store, tagged.repository, tagged.tag)
    index = Index(location / "index")
    try:
        with index.read() as txn:
            for key, record in index.blobs.scan(txn):
                digest = Digest.parse(key.decode())
                path = location / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex
                assert path.stat().st_size == record.size
                assert Digest.of_file(path) == digest
                assert index.pieces.get(txn, key) is not None
    finally:
        index.close()


def blob_files(location: Path) -> set[str]:
    """The digests' hex of all files in ``blobs/``."""
    return {path.name for path in (location / "blobs").rglob("*") if path.is_file()}


def hexes(*contents: bytes) -> set[str]:
    """The digests' hex of *contents*."""
    return {Digest.of(content).hex for content in contents}
