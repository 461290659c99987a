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
    if not isinstance(stored.parsed, manifest.Index):
        yield stored
        return
    for child in stored.parsed.manifests:
        with suppress(NotFound):
            yield store.manifests.get(repository, child.digest)


def _is_whole(store: Store, stored: StoredManifest) -> bool:
    return all(store.blobs.has(child.digest) for child in stored.parsed.children)
