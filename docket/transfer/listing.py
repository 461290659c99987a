"""A store's tagged images as rows for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from docket.errors import NotFound
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from docket.oci.selection import config_platform, image_manifests
from docket.store import Store, Tagged
from docket.wire import ImageRow


def image_rows(store: Store, repository: str | None = None) -> list[ImageRow]:
    """A row for each tag (of *repository*), sorted; images that go away meanwhile are left out."""
    return list(_rows(store, store.manifests.tagged(repository)))


def read_listed(store: Store, repository: str, listed: Descriptor) -> bytes:
    """The bytes of a manifest or configuration that an index leads to. Raises `NotFound`."""
    if listed.media_type in manifest.ALL_MANIFEST_TYPES:
        return store.manifests.get(repository, listed.digest).content
    return store.blobs.read(listed.digest)


def _rows(store: Store, tagged: list[Tagged]) -> Iterator[ImageRow]:
    """A row a tag; an image that goes away meanwhile is left out."""
    for tag in tagged:
        with suppress(NotFound):
            yield _row(store, tag)


def _row(store: Store, tagged: Tagged) -> ImageRow:
    """A tag's row: all images of an index together, nested ones too, attestations left out."""
    repository = tagged.repository
    stored = store.manifests.get(repository, tagged.digest)
    parsed = stored.parsed

    def read(listed: Descriptor) -> bytes:
        return read_listed(store, repository, listed)

    members = [Descriptor(stored.media_type, stored.digest, len(stored.content))]
    if isinstance(parsed, manifest.Index):
        members = list(image_manifests(parsed, read))
    platforms: dict[str, None] = {}
    sizes: dict[Digest, int] = {}
    unique: dict[Digest, int] = {}
    layers = 0
    for member in members:
        with suppress(NotFound):  # a manifest of the index was deleted
            image = manifest.parse(read(member), content_type=member.media_type)
            if isinstance(image, manifest.Index):
                continue
            layers = max(layers, len(image.layers))
            for child in image.children:
                sizes[child.digest] = child.size
                if not store.manifests.is_shared(child.digest, member.digest):
                    unique[child.digest] = child.size
            if platform := member.platform or config_platform(member, read):
                platforms[str(platform)] = None
    for blob in parsed.children if isinstance(parsed, manifest.Index) else ():
        if blob.media_type not in manifest.ALL_MANIFEST_TYPES:  # BuildKit's cache
            sizes[blob.digest] = blob.size
            if not store.manifests.is_shared(blob.digest, tagged.digest):
                unique[blob.digest] = blob.size
    return ImageRow(
        name=repository,
        tag=tagged.tag,
        digest=str(tagged.digest),
        media_type=stored.media_type,
        platforms=list(platforms),
        layers=layers,
        size=sum(sizes.values()),
        unique=sum(unique.values()),
        shared=sum(sizes.values()) - sum(unique.values()),
        tagged=tagged.moved,
    )
