"""Reading an image archive: docker save old and new, podman, skopeo, OCI archives and folders."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from docket.archive.spool import MAX_PLAIN, Contents, Folder, Spool, Stored
from docket.compression import NONE, PlainReader
from docket.errors import ImageNotInArchive, InvalidArchive, InvalidManifest
from docket.oci import manifest
from docket.oci.digest import READ_SIZE, Digest
from docket.oci.manifest import Descriptor, Platform

DOCKER_FILE = "manifest.json"
OCI_FILE = "index.json"
NAME_ANNOTATION = "io.containerd.image.name"
REF_ANNOTATION = "org.opencontainers.image.ref.name"

_DEFAULT_PREFIXES = ("docker.io/library/", "docker.io/", "localhost/")
_MAX_NESTED = 4
_MAX_IMAGES = 10_000
_MAX_TEXTS_TOTAL = 16 << 20
_MAX_NAMES_SHOWN = 50
_UNKNOWN = "unknown"


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


@dataclass(frozen=True, slots=True)
class _Found:
    """An image that the archive lists, not yet read."""

    names: tuple[str, ...]
    config: str
    layers: tuple[str, ...]


def read(
    source: Path | BinaryIO,
    *,
    spool: Path,
    name: str | None = None,
    platform: Platform | None = None,
    limit: int = MAX_PLAIN,
    on_layer: Callable[[Layer], object] = lambda _layer: None,
) -> Image:
    """The image *name* of an archive, or its only one.

    *source* is a tar, maybe compressed, that is read once from front to end, or the folder of an
    OCI image layout. Layers are kept in the folder *spool*, as long as the caller keeps it; after
    an error nothing is left there. *on_layer* gets each file of a tar that may be a layer, of
    whatever image, while those that follow are read. Raises `InvalidArchive`, `TooLarge` when the
    archive or the layers in it unpack to more than *limit* bytes, or `ImageNotInArchive` with the
    names that there are.
    """
    wanted = platform or Platform.of_host()
    if isinstance(source, Path) and source.is_dir():
        return _image(Folder(source, limit), name, wanted)
    if isinstance(source, Path):
        with source.open("rb", buffering=0) as file:
            return read(
                cast(BinaryIO, file),
                spool=spool,
                name=name,
                platform=platform,
                limit=limit,
                on_layer=on_layer,
            )
    contents = Spool(spool, limit, lambda stored: on_layer(_layer_of(stored)))
    try:
        contents.fill(_plain(source, limit))
        image = _image(contents, name, wanted)
    except BaseException:
        contents.keep_only(())
        raise
    contents.keep_only(layer.path for layer in image.layers)
    return image


def _plain(source: BinaryIO, limit: int) -> BinaryIO:
    return cast(
        BinaryIO, io.BufferedReader(PlainReader(source, limit=limit, foreign=True), READ_SIZE)
    )


def _image(contents: Contents, name: str | None, platform: Platform) -> Image:
    try:
        listed = list(islice(_listed(_Texts(contents), platform), _MAX_IMAGES + 1))
        if len(listed) > _MAX_IMAGES:
            raise InvalidArchive(f"the archive lists more than {_MAX_IMAGES} images")
        found = _chosen(listed, name)
        config = contents.text(found.config)
        if config is None:
            raise InvalidArchive(
                f"the archive lacks the image configuration {found.config[:160]!r}"
            )
        diff_ids = manifest.parse_config(config).diff_ids
    except InvalidManifest as error:
        raise InvalidArchive(f"the archive is broken: {error}") from error
    _check_config(found.config, config)
    if len(diff_ids) != len(found.layers):
        raise InvalidArchive(
            f"the archive has {len(found.layers)} layers where the image has {len(diff_ids)}"
        )
    layers: dict[Digest, Layer] = {}
    for diff_id, member in zip(diff_ids, found.layers, strict=True):
        if diff_id not in layers:
            layers[diff_id] = _layer(contents.stored(member), diff_id, member)
    return Image(found.names, config, tuple(layers[one] for one in diff_ids))


def _layer(stored: Stored, diff_id: Digest, member: str) -> Layer:
    if stored.diff_id != diff_id:
        raise InvalidArchive(
            f"layer {member[:160]!r} unpacks to {stored.diff_id}, but the image says {diff_id}"
        )
    return _layer_of(stored)


def _layer_of(stored: Stored) -> Layer:
    return Layer(stored.diff_id, stored.size, stored.path, stored.compression)


def _check_config(member: str, config: bytes) -> None:
    """A config that is named by its hash must have it."""
    hexdigits = member.rpartition("/")[2].removesuffix(".json")
    actual = Digest.of(config)
    if len(hexdigits) == len(actual.hex) and hexdigits != actual.hex:
        raise InvalidArchive(f"the image configuration {member[:160]!r} has other bytes")


class _Texts:
    """Small files for parsing: an index may name the same one again and again."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._left = _MAX_TEXTS_TOTAL

    def text(self, name: str) -> bytes | None:
        content = self._contents.text(name)
        self._left -= len(content or b"")
        if self._left < 0:
            raise InvalidArchive("the indexes of the archive name more than 16 MiB of JSON")
        return content


def _listed(contents: _Texts, platform: Platform) -> Iterator[_Found]:
    if (content := contents.text(DOCKER_FILE)) is not None:
        yield from _docker_images(content)
    elif (content := contents.text(OCI_FILE)) is not None:
        yield from _oci_images(contents, content, platform)
    else:
        raise InvalidArchive(
            "this is no image archive: it has neither manifest.json nor index.json; "
            "docker save makes one"
        )


def _docker_images(content: bytes) -> Iterator[_Found]:
    rows = manifest.parse_json(b'{"images":' + content + b"}", DOCKER_FILE)["images"]
    if not isinstance(rows, list):
        raise InvalidArchive("manifest.json is not a list of images")
    for row in rows:
        yield _Found(
            names=tuple(_texts(row, "RepoTags")),
            config=_text_of(row, "Config"),
            layers=tuple(_texts(row, "Layers")),
        )


def _oci_images(contents: _Texts, content: bytes, platform: Platform) -> Iterator[_Found]:
    for descriptor, names in _manifests(contents, content, platform, (), 0):
        body = contents.text(descriptor.digest.layout_path)
        if body is None:
            raise InvalidArchive(f"the archive lacks the manifest {descriptor.digest}")
        parsed = manifest.parse(body, content_type=descriptor.media_type)
        if isinstance(parsed, manifest.Manifest) and parsed.is_image:
            yield _Found(
                names=names,
                config=parsed.config.digest.layout_path,
                layers=tuple(one.digest.layout_path for one in parsed.layers),
            )


def _manifests(
    contents: _Texts,
    content: bytes,
    platform: Platform,
    names: tuple[str, ...],
    depth: int,
) -> Iterator[tuple[Descriptor, tuple[str, ...]]]:
    """The image manifests of an index for *platform*, with the names that the index gives."""
    index = manifest.parse(content, content_type=manifest.OCI_INDEX if not depth else "")
    if not isinstance(index, manifest.Index) or depth > _MAX_NESTED:
        raise InvalidArchive("index.json is not an index of images")
    # BuildKit lists its attestations as images for unknown/unknown
    images = [one for one in index.manifests if not one.platform or one.platform.os != _UNKNOWN]
    several = len({str(one.platform) for one in images if one.platform}) > 1
    for one in images:
        named = _names_of(one) or names
        if several and one.platform and not one.platform.serves(platform):
            continue
        if one.media_type not in manifest.INDEX_TYPES:
            yield one, named
        elif body := contents.text(one.digest.layout_path):
            yield from _manifests(contents, body, platform, named, depth + 1)
        if depth and one.platform:
            return  # the first that serves, as engines choose


def _names_of(descriptor: Descriptor) -> tuple[str, ...]:
    """The full name where there is one: the other may be a tag, which several images share."""
    full = descriptor.annotations.get(NAME_ANNOTATION)
    name = full or descriptor.annotations.get(REF_ANNOTATION)
    return (name,) if name else ()


def _chosen(listed: Sequence[_Found], name: str | None) -> _Found:
    images = _merged(listed)
    if name is not None:
        for image in images:
            if _plain_name(name) in map(_plain_name, image.names):
                return image
        # an OCI layout may name an image by its tag alone
        tagged = [image for image in images if name.rpartition(":")[2] in image.names]
        if len(tagged) == 1:
            return tagged[0]
    if len(images) == 1:
        return images[0]
    if not images:
        raise InvalidArchive("the archive holds no image for this platform")
    names = [name for image in images for name in image.names]
    if more := names[_MAX_NAMES_SHOWN:]:
        names[_MAX_NAMES_SHOWN:] = [f"{len(more)} more"]
    raise ImageNotInArchive(name or "an image without a name", names)


def _merged(listed: Sequence[_Found]) -> list[_Found]:
    """An image that is listed under several names, once."""
    merged: dict[tuple[str, tuple[str, ...]], dict[str, None]] = {}
    for one in listed:
        merged.setdefault((one.config, one.layers), {}).update(dict.fromkeys(one.names))
    return [_Found(tuple(names), *key) for key, names in merged.items()]


def _plain_name(name: str) -> str:
    """The name without a registry that engines put before it."""
    for prefix in _DEFAULT_PREFIXES:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    return name


def _texts(row: Any, key: str) -> list[str]:
    values = (row.get(key) or []) if isinstance(row, dict) else None
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise InvalidArchive(f"manifest.json has a bad {key}")
    return values


def _text_of(row: Any, key: str) -> str:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise InvalidArchive(f"manifest.json has no {key}")
    return value
