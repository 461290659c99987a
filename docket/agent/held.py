"""Which images a host holds whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from docket.errors import DocketError, NotFound
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.store import Store, StoredManifest


def held_images(store: Store) -> list[Digest]:
    """The image manifests of all tags whose config and layers are all in *store*."""
    held: dict[Digest, bool] = {}
    for tagged in store.manifests.tagged():
        with suppress(DocketError):
            stored = store.manifests.get(tagged.repository, tagged.digest)
            for image in _images(store, tagged.repository, stored):
                if image.digest not in held:
                    held[image.digest] = _is_whole(store, image)
    return [digest for digest, is_whole in held.items() if is_whole]


def _images(store: Store, repository: str, stored: StoredManifest) -> Iterator[StoredManifest]:
    """The manifest itself, or those of an index that this host has."""
    parsed = manifest.parse(stored.content, content_type=stored.media_type)
    if not isinstance(parsed, manifest.Index):
        yield stored
        return
    for child in parsed.manifests:
        with suppress(NotFound):
            yield store.manifests.get(repository, child.digest)


def _is_whole(store: Store, stored: StoredManifest) -> bool:
    parsed = manifest.parse(stored.content, content_type=stored.media_type)
    return all(store.blobs.has(child.digest) for child in parsed.children)
