"""Pushing an image: ask what is missing, compress and upload only that, then the manifest."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO, Protocol

from docket import archive
from docket.compression import DEFAULT_LEVELS, ZSTD, compressor, encoder, media_suffix
from docket.errors import UploadStopped
from docket.oci import manifest
from docket.oci.digest import READ_SIZE, Digest
from docket.oci.manifest import Descriptor
from docket.oci.platform import Platform
from docket.oci.reference import Reference
from docket.progress import DONE, HELD, UPLOADING, LayerProgress, Progress
from docket.remote.client import Client
from docket.remote.values import RemoteLayer

WORKERS = 3
"""Layers that are compressed and uploaded at the same time."""


STOP_SECONDS = 3.0
"""How long a stopped push waits for the registry to delete its upload sessions."""


class SourceLayer(Protocol):
    """A layer to push: what it unpacks to, and its plain bytes."""

    @property
    def diff_id(self) -> Digest: ...
    @property
    def size(self) -> int: ...
    def open_plain(self) -> BinaryIO: ...


@dataclass(frozen=True, slots=True)
class Compression:
    """How to compress: `compression.ZSTD`, at a level, on a number of threads."""

    name: str = ZSTD
    level: int | None = None
    threads: int = 2

    @property
    def chosen_level(self) -> int:
        """The level, or the default one."""
        return DEFAULT_LEVELS[self.name] if self.level is None else self.level


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
    with Push(client, reference, compression, progress, workers=workers) as running:
        return running.finish(config=config, layers=layers)


class Push:
    """A push whose layers may come one by one, while the image is still being read.

    Leaving the context cancels uploads that have not begun, and waits for the others. Ctrl-C or
    SIGTERM stops those too: their sessions are deleted, or after `STOP_SECONDS` abandoned.
    """

    def __init__(
        self,
        client: Client,
        reference: Reference,
        compression: Compression,
        progress: Progress,
        *,
        workers: int = WORKERS,
    ) -> None:
        self._client = client
        self._reference = reference
        self._compression = compression
        self._progress = progress
        self._began = time.monotonic()
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="push")
        self._opened = ExitStack()
        self._stopping = Event()
        self._held: dict[Digest, RemoteLayer] = {}
        self._lacking: set[Digest] = set()
        self._uploads: dict[Digest, Future[RemoteLayer]] = {}

    def __enter__(self) -> Push:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_rest: object) -> None:
        if error_type and not issubclass(error_type, Exception):
            self._stopping.set()
            self._pool.shutdown(wait=False, cancel_futures=True)
            if wait(self._uploads.values(), timeout=STOP_SECONDS).not_done:
                self._client.abort()
        self._pool.shutdown(cancel_futures=True)
        self._opened.close()

    def expect(self, diff_ids: Iterable[Digest]) -> None:
        """Ask which of *diff_ids*, all of the image, the registry lacks: `offer` uploads those."""
        unknown = [diff_id for diff_id in dict.fromkeys(diff_ids) if not self._is_known(diff_id)]
        if not unknown:
            return
        stored_layers = self._client.missing(self._reference.repository, unknown)
        for diff_id, layer in stored_layers.items():
            _report(self._progress, diff_id, HELD, layer.descriptor.size, layer.descriptor.size)
        self._held |= stored_layers
        self._lacking |= set(unknown) - stored_layers.keys()

    def offer(self, layer: SourceLayer) -> None:
        """Begin to upload *layer*, if it is expected, lacking and not on its way already."""
        if layer.diff_id in self._lacking and layer.diff_id not in self._uploads:
            # opened now: whoever reads the image may remove files that it doesn't need
            plain = self._opened.enter_context(layer.open_plain())
            self._uploads[layer.diff_id] = self._pool.submit(self._upload, layer, plain)

    def finish(self, *, config: bytes, layers: Sequence[SourceLayer]) -> PushReport:
        """Upload what is left of *layers*, then config and manifest; see `push`."""
        self.expect(layer.diff_id for layer in layers)
        for layer in layers:
            self.offer(layer)
        uploaded = {diff_id: upload.result() for diff_id, upload in self._uploads.items()}
        repository = self._reference.repository
        config_digest = Digest.of(config)
        if self._client.blob_size(repository, config_digest) is None:
            self._client.put_blob(repository, [config])
        ordered = [self._held.get(layer.diff_id) or uploaded[layer.diff_id] for layer in layers]
        digest = _put_manifest(self._client, self._reference, config_digest, len(config), ordered)
        return PushReport(
            reference=self._reference,
            digest=digest,
            config=config_digest,
            layers=tuple(_pushed(layer, uploaded) for layer in ordered),
            uploaded=sum(layer.descriptor.size for layer in uploaded.values()),
            seconds=time.monotonic() - self._began,
        )

    def _is_known(self, diff_id: Digest) -> bool:
        return diff_id in self._held or diff_id in self._lacking

    def _upload(self, layer: SourceLayer, plain: BinaryIO) -> RemoteLayer:
        done = 0

        def count(size: int) -> None:
            nonlocal done
            if self._stopping.is_set():
                raise UploadStopped(layer.diff_id)
            done += size
            _report(self._progress, layer.diff_id, UPLOADING, done, layer.size)

        compression = self._compression
        with plain:
            blocks = compressed(plain, layer.size, compression, on_read=count)
            digest, size = self._client.put_blob(self._reference.repository, blocks)
        _report(self._progress, layer.diff_id, DONE, size, size)
        written_by = encoder(compression.name, compression.chosen_level)
        media_type = f"{manifest.OCI_LAYER}{media_suffix(compression.name)}"
        descriptor = Descriptor(media_type, digest, size, {manifest.ANNOTATION_ENCODER: written_by})
        return RemoteLayer(descriptor, layer.diff_id, layer.size)


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
    stored_layers = client.missing(reference.repository, list(dict.fromkeys(diff_ids)))
    if any(diff_id not in stored_layers for diff_id in diff_ids):
        return None
    for diff_id, layer in stored_layers.items():
        _report(progress, diff_id, HELD, layer.descriptor.size, layer.descriptor.size)
    ordered = [stored_layers[diff_id] for diff_id in diff_ids]
    digest = _put_manifest(client, reference, config, size, ordered)
    layers = tuple(_pushed(layer, {}) for layer in ordered)
    return PushReport(reference, digest, config, layers, 0, time.monotonic() - began)


def push_archive(
    client: Client,
    reference: Reference,
    source: str,
    compression: Compression,
    progress: Progress,
    *,
    image: str | None = None,
    platform: Platform | None = None,
) -> PushReport:
    """Push the image of an archive: a file, a folder (OCI layout), or ``-`` for standard input.

    *image* and *platform* choose one of several; see `archive.read`.
    """
    opened = sys.stdin.buffer if source == "-" else Path(source)
    return _push_stream(
        client, reference, opened, compression, progress, image=image, platform=platform
    )


def push_from_engine(
    client: Client, reference: Reference, compression: Compression, progress: Progress
) -> PushReport:
    """Push an image that the container engine has.

    When the registry has all its layers, the engine doesn't send their bytes.
    """
    # docker's package is a third of what loading this takes, and archives have no use for it
    from docket.engine import Engine

    with closing(Engine.connect()) as engine:
        image = engine.image(str(reference))
        if image.config:
            report = push_known(
                client,
                reference,
                config=image.config,
                diff_ids=image.diff_ids,
                progress=progress,
            )
            if report:
                return report
        with engine.save(str(reference)) as stream:
            return _push_stream(
                client, reference, stream, compression, progress, expected=image.diff_ids
            )


def _push_stream(
    client: Client,
    reference: Reference,
    source: Path | BinaryIO,
    compression: Compression,
    progress: Progress,
    *,
    expected: Sequence[Digest] = (),
    image: str | None = None,
    platform: Platform | None = None,
) -> PushReport:
    """Push the image in *source*; layers that are *expected* there go up while it is read."""
    with (
        tempfile.TemporaryDirectory(prefix="docket-push-") as spool,
        Push(client, reference, compression, progress) as push,
    ):
        push.expect(expected)
        archived = archive.read(
            source,
            spool=Path(spool),
            name=str(reference),
            image=image,
            platform=platform,
            on_layer=push.offer,
        )
        return push.finish(config=archived.config, layers=archived.layers)


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


def compressed(
    plain: BinaryIO,
    size: int,
    compression: Compression,
    *,
    on_read: Callable[[int], None] = lambda _size: None,
) -> Iterator[bytes]:
    """*plain*, of *size* bytes, compressed block by block."""
    running = compressor(
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
