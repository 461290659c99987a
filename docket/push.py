"""Pushing an image: ask what is missing, compress and upload only that, then the manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from docket import compress, manifest
from docket.client import Client, RemoteLayer
from docket.digest import READ_SIZE, Digest
from docket.manifest import Descriptor
from docket.progress import DONE, HELD, UPLOADING, LayerProgress, Progress
from docket.reference import Reference

WORKERS = 3
"""Layers that are compressed and uploaded at the same time."""


class SourceLayer(Protocol):
    """A layer to push: what it unpacks to, and its plain bytes."""

    @property
    def diff_id(self) -> Digest: ...
    @property
    def size(self) -> int: ...
    def open_plain(self) -> BinaryIO: ...


@dataclass(frozen=True, slots=True)
class Compression:
    """How to compress: `compress.ZSTD` or `compress.GZIP`, at a level, on so many threads."""

    name: str = compress.ZSTD
    level: int | None = None
    threads: int = 2

    @property
    def chosen_level(self) -> int:
        """The level, or the default one."""
        return compress.DEFAULT_LEVELS[self.name] if self.level is None else self.level


@dataclass(frozen=True, slots=True)
class PushedLayer:
    """What became of one layer: *source* is ``held`` or ``uploaded``; sizes in bytes."""

    digest: Digest
    diff_id: Digest
    size: int
    plain_size: int
    source: str


@dataclass(frozen=True, slots=True)
class PushReport:
    """A push: *uploaded* counts layer bytes alone."""

    reference: Reference
    digest: Digest
    config: Digest
    layers: tuple[PushedLayer, ...]
    uploaded: int
    seconds: float


def push(
    client: Client,
    reference: Reference,
    *,
    config: bytes,
    layers: Sequence[SourceLayer],
    compression: Compression,
    progress: Progress,
    workers: int = WORKERS,
) -> PushReport:
    """Push the image of *config* and *layers* (in the order of its diff_ids) as *reference*.

    Returning means that the registry has it whole and durable. Pushing it again uploads nothing.
    """
    began = time.monotonic()
    repository = reference.repository
    unique = {layer.diff_id: layer for layer in layers}
    held = client.missing(repository, list(unique)) if unique else {}
    for diff_id, there in held.items():
        _report(progress, diff_id, HELD, there.descriptor.size, there.descriptor.size)
    lacking = [layer for diff_id, layer in unique.items() if diff_id not in held]

    def upload(layer: SourceLayer) -> RemoteLayer:
        return _upload(client, repository, layer, compression, progress)

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="push") as pool:
        uploaded = {one.diff_id: one for one in pool.map(upload, lacking)}
    config_digest = Digest.of(config)
    if client.blob_size(repository, config_digest) is None:
        client.put_blob(repository, [config])
    ordered = [(held.get(one.diff_id) or uploaded[one.diff_id]) for one in layers]
    digest = _put_manifest(client, reference, config_digest, len(config), ordered)
    return PushReport(
        reference=reference,
        digest=digest,
        config=config_digest,
        layers=tuple(_pushed(one, uploaded) for one in ordered),
        uploaded=sum(one.descriptor.size for one in uploaded.values()),
        seconds=time.monotonic() - began,
    )


def push_known(
    client: Client,
    reference: Reference,
    *,
    config: Digest,
    diff_ids: Sequence[Digest],
    progress: Progress,
) -> PushReport | None:
    """Push an image without having its bytes, when the registry has all of its layers.

    None when it lacks something: then the image must be read after all.
    """
    began = time.monotonic()
    size = client.blob_size(reference.repository, config)
    if size is None:
        return None
    held = client.missing(reference.repository, list(dict.fromkeys(diff_ids)))
    if any(one not in held for one in diff_ids):
        return None
    for diff_id, there in held.items():
        _report(progress, diff_id, HELD, there.descriptor.size, there.descriptor.size)
    ordered = [held[one] for one in diff_ids]
    digest = _put_manifest(client, reference, config, size, ordered)
    layers = tuple(_pushed(one, {}) for one in ordered)
    return PushReport(reference, digest, config, layers, 0, time.monotonic() - began)


def _put_manifest(
    client: Client,
    reference: Reference,
    config: Digest,
    config_size: int,
    layers: Sequence[RemoteLayer],
) -> Digest:
    content = manifest.image_manifest(
        Descriptor(manifest.OCI_CONFIG, config, config_size),
        [layer.descriptor for layer in layers],
    )
    return client.put_manifest(reference, content, manifest.OCI_MANIFEST)


def _upload(
    client: Client,
    repository: str,
    layer: SourceLayer,
    compression: Compression,
    progress: Progress,
) -> RemoteLayer:
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        _report(progress, layer.diff_id, UPLOADING, done, layer.size)

    with layer.open_plain() as plain:
        blocks = compressed(plain, layer.size, compression, on_read=count)
        digest, size = client.put_blob(repository, blocks)
    _report(progress, layer.diff_id, DONE, size, size)
    encoder = compress.encoder(compression.name, compression.chosen_level)
    media_type = f"{manifest.OCI_LAYER}{compress.media_suffix(compression.name)}"
    descriptor = Descriptor(media_type, digest, size, {manifest.ANNOTATION_ENCODER: encoder})
    return RemoteLayer(descriptor, layer.diff_id, layer.size)


def compressed(
    plain: BinaryIO,
    size: int,
    compression: Compression,
    *,
    on_read: Callable[[int], None] = lambda _size: None,
) -> Iterator[bytes]:
    """*plain*, of *size* bytes, compressed block by block."""
    running = compress.compressor(
        compression.name,
        level=compression.chosen_level,
        threads=compression.threads,
        size=size,
    )
    while block := plain.read(READ_SIZE):
        if packed := running.compress(block):
            yield packed
        on_read(len(block))
    yield running.flush()


def _pushed(layer: RemoteLayer, uploaded: dict[Digest, RemoteLayer]) -> PushedLayer:
    source = "uploaded" if layer.diff_id in uploaded else HELD
    descriptor = layer.descriptor
    return PushedLayer(descriptor.digest, layer.diff_id, descriptor.size, layer.plain_size, source)


def _report(progress: Progress, diff_id: Digest, state: str, done: int, total: int) -> None:
    progress.layer(LayerProgress(diff_id.short, state, done, total))
