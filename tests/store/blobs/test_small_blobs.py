"""Small blobs: verified whenever they are read, however they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from docket.errors import BlobDamaged, BlobUnknown, ManifestUnknown
from docket.oci.digest import Digest
from docket.store import Store
from tests.store.samples import assert_readable, image, push, rot

ONE = image("base", "one")

READS: list[Callable[[Store, Digest, Path], object]] = [
    lambda store, digest, _place: store.blobs.open(digest),
    lambda store, digest, _place: store.blobs.open(digest, repository="app"),
    lambda store, digest, _place: store.blobs.read(digest),
    lambda store, digest, folder: store.blobs.link_out(digest, folder / "linked"),
]


@pytest.mark.parametrize("read", READS, ids=["open", "open in a repository", "read", "link"])
@pytest.mark.parametrize("content", [ONE.config, ONE.layers[0], ONE.content])
def test_a_rotten_small_blob(
    store: Store, tmp_path: Path, read: Callable[[Store, Digest, Path], object], content: bytes
) -> None:
    """Invariant 4: it is never handed out; the error names fsck, and a push heals it."""
    push(store, "app", ONE)
    digest = rot(store, content)
    for _ in range(2):
        with pytest.raises(BlobDamaged, match="docket fsck"):
            read(store, digest, tmp_path)
    assert not (tmp_path / "linked").exists()
    assert not store.blobs.has(digest)
    push(store, "app", ONE)
    assert_readable(store, "app", "latest")
    assert store.maintenance.fsck().findings == []


def test_a_rotten_manifest(store: Store) -> None:
    """A manifest is a small blob: it is unknown until it is pushed again."""
    push(store, "app", ONE)
    rot(store, ONE.content)
    with pytest.raises(ManifestUnknown):
        store.manifests.get("app", "latest")


def test_unknown_digests_are_not_remembered(store: Store) -> None:
    """A question about what isn't here costs no memory: it pins nothing."""
    for number in range(50):
        digest = Digest.of(b"unknown %d" % number)
        with pytest.raises(BlobUnknown):
            store.blobs.get(digest)
        assert not store.blobs.mount(digest, repository="app")
    assert store.blobs._pins._expiry == {}


def test_mounting_what_is_mounted_writes_nothing(store: Store) -> None:
    """A push that changes nothing leaves the journal as it is."""
    push(store, "app", ONE)
    layers = [Digest.of(layer) for layer in ONE.layers]
    before = [path.read_bytes() for path in (store.location / "journal").iterdir()]
    assert store.blobs.mount_all(layers, repository="app") == set(layers)
    assert [path.read_bytes() for path in (store.location / "journal").iterdir()] == before
