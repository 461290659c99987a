"""Which images an archive lists: docker-save, OCI image layouts, and skopeo's ``dir:``."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from docket.archive.spool import Contents
from docket.errors import BlobUnknown, InvalidArchive, InvalidDigest
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Index, Manifest, Platform
from docket.oci.selection import choose_image, config_platform, image_manifests

DOCKER_FILE = "manifest.json"
OCI_FILE = "index.json"
NAME_ANNOTATION = "io.containerd.image.name"
REF_ANNOTATION = "org.opencontainers.image.ref.name"

_MAX_IMAGES = 10_000
_MAX_TEXTS_TOTAL = 16 << 20


@dataclass(frozen=True, slots=True)
class ListedLayer:
    """A layer by its name in the archive; *descriptor* None in docker-save's list."""

    name: str
    descriptor: Descriptor | None = None


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image that an archive lists, not yet read; *digest* is its manifest's, if it has one."""

    names: tuple[str, ...]
    config: str
    layers: tuple[ListedLayer, ...]
    config_digest: Digest | None = None
    digest: Digest | None = None

    def with_names(self, names: tuple[str, ...]) -> ListedImage:
        """The same image with more names."""
        return replace(self, names=tuple(dict.fromkeys((*self.names, *names))))


def listed_images(contents: Contents, platform: Platform) -> list[ListedImage]:
    """The images of an archive, of those for several platforms the ones that fit *platform* best.

    Raises `InvalidArchive` or `InvalidManifest`.
    """
    images = list(islice(_listed(_Texts(contents), platform), _MAX_IMAGES + 1))
    if len(images) > _MAX_IMAGES:
        raise InvalidArchive(f"the archive lists more than {_MAX_IMAGES} images")
    return images


class _Texts:
    """Small files below the archive's root; an index may name the same one again and again."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._left = _MAX_TEXTS_TOTAL
        self.root = _root(contents)

    def text(self, name: str) -> bytes | None:
        """The file's bytes, or None when there is no such small file."""
        content = self._contents.text(posixpath.join(self.root, name))
        self._left -= len(content or b"")
        if self._left < 0:
            raise InvalidArchive("the indexes of the archive name more than 16 MiB of JSON")
        return content


def _root(contents: Contents) -> str:
    """The folder in the archive that holds the image's files: not all writers begin in it."""
    folders = {
        posixpath.dirname(name)
        for name in contents.names()
        if posixpath.basename(name) in (DOCKER_FILE, OCI_FILE)
    }
    depths = sorted(folders, key=lambda folder: (folder.count("/"), folder != "", folder))
    return depths[0] if depths else ""


def _listed(texts: _Texts, platform: Platform) -> Iterator[ListedImage]:
    if (content := texts.text(DOCKER_FILE)) is not None:
        if content.lstrip()[:1] == b"[":
            return _docker_images(content, texts.root)
        plain = manifest.parse_json(content, DOCKER_FILE)
        if "schemaVersion" not in plain:
            raise InvalidArchive("manifest.json is not a list of images")
        return _Layout(texts, platform, _dir_names).images(content)
    if (content := texts.text(OCI_FILE)) is not None:
        return _Layout(texts, platform, _layout_names).index_images(content)
    raise InvalidArchive(
        "this is no image archive: it has neither manifest.json nor index.json; "
        "docker save makes one"
    )


def _docker_images(content: bytes, root: str) -> Iterator[ListedImage]:
    rows = manifest.parse_json(b'{"images":' + content + b"}", DOCKER_FILE)["images"]
    if not isinstance(rows, list):
        raise InvalidArchive("manifest.json is not a list of images")
    for row in rows:
        config = _text_of(row, "Config")
        yield ListedImage(
            names=tuple(_texts_of(row, "RepoTags")),
            config=posixpath.join(root, config),
            layers=tuple(
                ListedLayer(posixpath.join(root, layer)) for layer in _texts_of(row, "Layers")
            ),
            config_digest=_digest_in(config),
        )


def _digest_in(name: str) -> Digest | None:
    """The digest by which a configuration is named: ``<hex>.json`` or ``blobs/sha256/<hex>``."""
    try:
        return Digest.sha256(posixpath.basename(name).removesuffix(".json"))
    except InvalidDigest:
        return None


def _layout_names(digest: Digest) -> tuple[str, ...]:
    """OCI image 1.1 § image layout."""
    return (digest.layout_path,)


def _dir_names(digest: Digest) -> tuple[str, ...]:
    """skopeo's ``dir:``; with ``--all`` the manifests of an index have a suffix."""
    return digest.hex, f"{digest.hex}.manifest.json"


class _Layout:
    """Images whose files are named by digest; *names* gives the names a digest may have."""

    def __init__(
        self, texts: _Texts, platform: Platform, names: Callable[[Digest], tuple[str, ...]]
    ) -> None:
        self._texts = texts
        self._platform = platform
        self._names = names

    def images(self, content: bytes) -> Iterator[ListedImage]:
        """The image of a manifest, or those of an index."""
        parsed = manifest.parse(content)
        if isinstance(parsed, Index):
            yield from self._of_index(parsed)
        else:
            yield self._image(parsed, (), Digest.of(content))

    def index_images(self, content: bytes) -> Iterator[ListedImage]:
        """The images of ``index.json``."""
        parsed = manifest.parse(content, content_type=manifest.OCI_INDEX)
        if not isinstance(parsed, Index):
            raise InvalidArchive("index.json is not an index of images")
        yield from self._of_index(parsed)

    def _of_index(self, index: Index) -> Iterator[ListedImage]:
        """Entries of one name are one image, for several platforms."""
        groups: dict[tuple[str, ...], list[Descriptor]] = {}
        for entry in index.manifests:
            groups.setdefault(_names_of(entry), []).append(entry)
        for names, entries in groups.items():
            for chosen in self._for_platform(replace(index, manifests=tuple(entries))):
                parsed = manifest.parse(self._held(chosen), content_type=chosen.media_type)
                if isinstance(parsed, Manifest) and parsed.is_image:
                    yield self._image(parsed, names or _names_of(chosen), chosen.digest)

    def _for_platform(self, group: Index) -> list[Descriptor]:
        """The images of *group*; where they are for several platforms, those that fit best."""
        images = list(islice(image_manifests(group, self._read), _MAX_IMAGES + 1))
        if len(images) < 2:
            return images
        platforms = {
            image.digest: image.platform or config_platform(image, self._read) for image in images
        }
        normalized = {platform.normalized for platform in platforms.values() if platform}
        if len(normalized) < 2:
            return images
        chosen = choose_image(group, self._platform, self._read)
        best = platforms[chosen.digest]
        listed = {entry.digest for entry in group.manifests}
        if best is None or chosen.digest not in listed:
            return [chosen]
        return [
            image
            for image in images
            if image.digest in listed
            and (platform := platforms[image.digest])
            and platform.normalized == best.normalized
        ]

    def _image(self, parsed: Manifest, names: tuple[str, ...], digest: Digest) -> ListedImage:
        return ListedImage(
            names=names,
            config=self._path(parsed.config.digest),
            layers=tuple(ListedLayer(self._path(layer.digest), layer) for layer in parsed.layers),
            config_digest=parsed.config.digest,
            digest=digest,
        )

    def _path(self, digest: Digest) -> str:
        return posixpath.join(self._texts.root, self._names(digest)[0])

    def _held(self, descriptor: Descriptor) -> bytes:
        """A manifest that must be there. Raises `InvalidArchive`."""
        try:
            return self._read(descriptor)
        except BlobUnknown as error:
            raise InvalidArchive(f"the archive lacks the manifest {error.digest}") from error

    def _read(self, descriptor: Descriptor) -> bytes:
        """A manifest or configuration, checked. Raises `BlobUnknown`."""
        for name in self._names(descriptor.digest):
            if (content := self._texts.text(name)) is not None:
                if Digest.of(content, algorithm=descriptor.digest.algorithm) != descriptor.digest:
                    raise InvalidArchive(f"{name[:160]!r} has other bytes than its name says")
                return content
        raise BlobUnknown(descriptor.digest)


def _names_of(descriptor: Descriptor) -> tuple[str, ...]:
    """The full name where there is one: the other may be a tag, which several images share."""
    full = descriptor.annotations.get(NAME_ANNOTATION)
    name = full or descriptor.annotations.get(REF_ANNOTATION)
    return (name,) if name else ()


def _texts_of(row: Any, key: str) -> list[str]:
    values = (row.get(key) or []) if isinstance(row, dict) else None
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise InvalidArchive(f"manifest.json has a bad {key}")
    return values


def _text_of(row: Any, key: str) -> str:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise InvalidArchive(f"manifest.json has no {key}")
    return value
