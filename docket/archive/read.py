"""Reading an image archive: docker save old and new, podman, skopeo, OCI archives and folders."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from docket.archive.listing import ListedLayer, listed_images
from docket.archive.names import choose
from docket.archive.spool import MAX_PLAIN, Contents, Folder, Spool, Stored
from docket.compression import NONE
from docket.decompression import PlainReader, WorkBudget
from docket.errors import InvalidArchive, InvalidManifest
from docket.oci import manifest
from docket.oci.digest import READ_SIZE, Digest
from docket.oci.manifest import Platform

MAX_SECONDS = 600.0
"""Processor time that an archive may take, beside a second for each 2 MiB of it."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an archive: *size* plain bytes that hash to *diff_id*, kept at *path*."""

    diff_id: Digest
    size: int
    path: Path
    compression: str

    def open_plain(self) -> BinaryIO:
        """The layer's plain tar."""
        file = self.path.open("rb", buffering=0)
        if self.compression == NONE:
            return cast(BinaryIO, file)
        plain = PlainReader(cast(BinaryIO, file), owns=True)
        return cast(BinaryIO, io.BufferedReader(plain, READ_SIZE))


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its names, config, and layers in the order of the config's diff_ids."""

    names: tuple[str, ...]
    config: bytes
    layers: tuple[Layer, ...]


def read(
    source: Path | BinaryIO,
    *,
    spool: Path,
    name: str | None = None,
    image: str | None = None,
    platform: Platform | None = None,
    limit: int = MAX_PLAIN,
    seconds: float = MAX_SECONDS,
    on_layer: Callable[[Layer], object] = lambda _layer: None,
) -> Image:
    """The image *name* of an archive, or its only one; *image* is a choice that must match.

    *source* is a tar, maybe compressed, that is read once from front to end, or the folder of an
    OCI image layout or of skopeo's ``dir:``. Layers are kept in the folder *spool*, as long as the
    caller keeps it; after an error nothing is left there. *on_layer* gets each file of a tar that
    may be a layer, of whatever image, while those that follow are read. Raises `InvalidArchive`,
    `TooLarge` when the archive or the layers in it unpack to more than *limit* bytes, `TooCostly`
    when that takes more than *seconds* of processor time and one for each 2 MiB, or
    `ImageNotInArchive` with the names that there are.
    """
    budget = WorkBudget(seconds)

    def chosen(contents: Contents) -> Image:
        return _image(contents, name, image, platform or Platform.of_host())

    if not isinstance(source, Path):
        return _read_stream(source, Spool(spool, limit, budget, _as_stored(on_layer)), chosen)
    if source.is_dir():
        return chosen(Folder(source, limit, budget))
    with source.open("rb", buffering=0) as file:
        contents = Spool(spool, limit, budget, _as_stored(on_layer))
        return _read_stream(cast(BinaryIO, file), contents, chosen)


def _as_stored(on_layer: Callable[[Layer], object]) -> Callable[[Stored], object]:
    return lambda stored: on_layer(_layer_of(stored))


def _read_stream(source: BinaryIO, contents: Spool, chosen: Callable[[Contents], Image]) -> Image:
    plain = PlainReader(source, limit=contents.limit, budget=contents.budget)
    try:
        contents.fill(plain)
        image = chosen(contents)
    except BaseException:
        contents.keep_only(())
        raise
    contents.keep_only(layer.path for layer in image.layers)
    return image


def _image(contents: Contents, name: str | None, image: str | None, platform: Platform) -> Image:
    try:
        images = listed_images(contents, platform)
        listed = choose(images, name if image is None else image, must_match=image is not None)
        config = contents.text(listed.config)
        if config is None:
            raise InvalidArchive(
                f"the archive lacks the image configuration {listed.config[:160]!r}"
            )
        diff_ids = manifest.parse_config(config).diff_ids
    except InvalidManifest as error:
        raise InvalidArchive(f"the archive is broken: {error}") from error
    if listed.config_digest:
        _check_config(listed.config, config, listed.config_digest)
    if len(diff_ids) != len(listed.layers):
        raise InvalidArchive(
            f"the archive has {len(listed.layers)} layers where the image has {len(diff_ids)}"
        )
    layers: dict[Digest, Layer] = {}
    for diff_id, layer in zip(diff_ids, listed.layers, strict=True):
        if diff_id not in layers:
            _check_foreign(contents, layer)
            layers[diff_id] = _layer(contents.stored(layer.name), diff_id, layer.name)
    return Image(listed.names, config, tuple(layers[diff_id] for diff_id in diff_ids))


def _layer(stored: Stored, diff_id: Digest, member: str) -> Layer:
    if stored.diff_id != diff_id:
        raise InvalidArchive(
            f"layer {member[:160]!r} unpacks to {stored.diff_id}, but the image says {diff_id}"
        )
    return _layer_of(stored)


def _layer_of(stored: Stored) -> Layer:
    return Layer(stored.diff_id, stored.size, stored.path, stored.compression)


def _check_config(member: str, config: bytes, expected: Digest) -> None:
    """A config that is named by its hash must have it."""
    if Digest.of(config, algorithm=expected.algorithm) != expected:
        raise InvalidArchive(f"the image configuration {member[:160]!r} has other bytes")


def _check_foreign(contents: Contents, layer: ListedLayer) -> None:
    """Explain the lack of a layer that isn't meant to be in an archive, such as Windows' base."""
    descriptor = layer.descriptor
    if descriptor and not descriptor.distributable and not contents.has(layer.name):
        at = f"; it can be had at {descriptor.urls[0][:300]}" if descriptor.urls else ""
        raise InvalidArchive(
            f"layer {descriptor.digest} is foreign: its bytes are not in the archive{at}"
        )
