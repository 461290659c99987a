"""Manifests, tags and referrers in the index."""

from __future__ import annotations

from itertools import pairwise

import pytest

from docket.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    RepositoryUnknown,
    SizeMismatch,
)
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.store import Store
from tests.store.samples import (
    assert_readable,
    blob_files,
    blob_path,
    image,
    push,
    put_index,
    upload,
)

ONE, TWO = image("base", "one"), image("base", "two")


def test_push_and_read(store: Store) -> None:
    """Invariant 2: when `put_manifest` returns the image can be pulled, by tag and by digest."""
    digest = push(store, "app", ONE, tag="v1")
    stored_manifest = store.manifests.get("app", "v1")
    assert stored_manifest == store.manifests.get("app", digest)
    assert (stored_manifest.digest, stored_manifest.content) == (digest, ONE.content)
    assert stored_manifest.media_type == manifest.OCI_MANIFEST
    assert_readable(store, "app", "v1")


@pytest.mark.parametrize("missing", range(3))
def test_a_child_is_missing(store: Store, missing: int) -> None:
    """Invariant 2: without all children nothing of a manifest is stored: no tag, no blob."""
    for number, blob in enumerate(ONE.blobs):
        if number != missing:
            upload(store, "app", blob)
    before = blob_files(store.location)
    with pytest.raises(ManifestBlobUnknown) as caught:
        store.manifests.put("app", ONE.content, ONE.parsed, tags=["v1"])
    assert caught.value.digest == Digest.of(ONE.blobs[missing])
    assert blob_files(store.location) == before
    assert list((store.location / "uploads").iterdir()) == []
    assert store.manifests.tags("app") == []
    with pytest.raises(ManifestUnknown):
        store.manifests.get("app", ONE.digest)
    assert not store.blobs.has(ONE.digest)


def test_a_child_in_another_repository(store: Store) -> None:
    """Invariant 2: children have to be in the manifest's own repository."""
    push(store, "other", ONE)
    with pytest.raises(ManifestBlobUnknown):
        store.manifests.put("app", ONE.content, ONE.parsed, tags=["v1"])
    with pytest.raises(RepositoryUnknown):
        store.manifests.tags("app")


@pytest.mark.parametrize("which", ["config", "layers"])
def test_a_size_that_is_wrong(store: Store, which: str) -> None:
    """Bad input § size mismatch: a descriptor tells its blob's size; else nothing is stored."""
    push(store, "app", ONE, tag=None)
    size = f'"size":{len(ONE.config if which == "config" else ONE.layers[0])}'
    content = ONE.content.replace(size.encode(), b'"size":7', 1)
    before = blob_files(store.location)
    with pytest.raises(SizeMismatch):
        store.manifests.put("app", content, manifest.parse(content), tags=["v1"])
    assert blob_files(store.location) == before
    assert store.manifests.tags("app") == []


def test_an_index_needs_its_manifests(store: Store) -> None:
    """Invariant 2: the children of an index are manifests of the repository, not mere blobs."""
    upload(store, "app", ONE.content)
    with pytest.raises(ManifestBlobUnknown):
        put_index(store, "app", ONE)
    push(store, "app", ONE, tag=None)
    put_index(store, "app", ONE, tag="all")
    assert_readable(store, "app", "all")


def test_a_mirror_holds_parts(store: Store) -> None:
    """A host stores the manifest of an index of which it has one platform."""
    push(store, "app", ONE)
    content = manifest.image_index(
        [manifest.Descriptor(manifest.OCI_MANIFEST, member.digest, 1) for member in (ONE, TWO)]
    )
    parsed = manifest.parse(content)
    store.manifests.put("app", content, parsed, tags=["all"], complete=False)
    assert store.manifests.get("app", "all").content == content


def test_a_tag_moves(store: Store) -> None:
    """Invariant 2: a tag points to one manifest; the old one stays by its digest until gc."""
    push(store, "app", ONE, tag="v1")
    push(store, "app", TWO, tag="v1")
    assert store.manifests.get("app", "v1").digest == TWO.digest
    assert store.manifests.get("app", ONE.digest).content == ONE.content
    assert store.manifests.tags("app") == ["v1"]
    assert [row.digest for row in store.manifests.tagged("app")] == [TWO.digest]


def test_delete_a_tag(store: Store) -> None:
    """OCI distribution § deleting tags: the tag alone goes."""
    push(store, "app", ONE, tag="v1")
    push(store, "app", ONE, tag="v2")
    store.manifests.delete_tag("app", "v1")
    assert store.manifests.tags("app") == ["v2"]
    with pytest.raises(ManifestUnknown):
        store.manifests.get("app", "v1")
    with pytest.raises(ManifestUnknown):
        store.manifests.delete_tag("app", "v1")
    assert_readable(store, "app", "v2")


def test_delete_a_manifest(store: Store) -> None:
    """OCI distribution § deleting manifests: it goes with all its tags, at once."""
    push(store, "app", ONE, tag="v1")
    push(store, "app", ONE, tag="v2")
    push(store, "app", TWO, tag="other")
    push(store, "copy", ONE, tag="v1")
    store.manifests.delete("app", ONE.digest)
    assert store.manifests.tags("app") == ["other"]
    for target in ("v1", "v2", ONE.digest):
        with pytest.raises(ManifestUnknown):
            store.manifests.get("app", target)
    with pytest.raises(BlobUnknown):
        store.blobs.get(ONE.digest, repository="app")
    with pytest.raises(ManifestUnknown):
        store.manifests.delete("app", ONE.digest)
    assert_readable(store, "copy", "v1")
    assert_readable(store, "app", "other")


def test_repositories_are_apart(store: Store) -> None:
    """A repository whose name begins with another's is not a part of it."""
    push(store, "app", ONE, tag="v1")
    push(store, "app/web", TWO, tag="v2")
    push(store, "app-2", TWO, tag="v3")
    assert store.manifests.tags("app") == ["v1"]
    assert [row.tag for row in store.manifests.tagged("app")] == ["v1"]
    with pytest.raises(ManifestUnknown):
        store.manifests.get("app", "v2")
    assert store.manifests.repositories() == ["app", "app-2", "app/web"]


def test_tags_page_by_page(store: Store) -> None:
    """OCI distribution § listing tags: sorted bytewise, past *after*, whether it exists or not."""
    names = [*sorted(f"v{number}" for number in range(25)), "w"]
    push(store, "app", ONE, tag=None)
    for name in names:
        store.manifests.put("app", ONE.content, ONE.parsed, tags=[name])
    assert store.manifests.tags("app") == names
    listed: list[str] = []
    while page := store.manifests.tags("app", after=listed[-1] if listed else "", limit=4):
        listed += page
    assert listed == names
    assert all(first < two for first, two in pairwise(listed))
    assert store.manifests.tags("app", after="v1a", limit=1) == ["v2"]
    assert store.manifests.tags("app", after="zzz") == []
    assert store.manifests.tags("app", limit=0) == []


def test_repositories_page_by_page(store: Store) -> None:
    """The catalog is sorted and has every repository with a manifest once."""
    names = ["a", "a-b", "a/b", "a/b/c", "b", "z"]
    for name in names:
        push(store, name, ONE)
        push(store, name, TWO, tag="two")
    assert store.manifests.repositories() == names
    listed: list[str] = []
    while page := store.manifests.repositories(after=listed[-1] if listed else "", limit=2):
        listed += page
    assert listed == names
    store.manifests.delete("b", ONE.digest)
    store.manifests.delete("b", TWO.digest)
    assert "b" not in store.manifests.repositories()


def test_unknown_repository(store: Store) -> None:
    """OCI distribution § listing tags: a repository that nothing is in is unknown."""
    with pytest.raises(RepositoryUnknown):
        store.manifests.tags("app")
    assert store.manifests.tagged("app") == []


def test_a_key_that_is_too_long(store: Store) -> None:
    """LMDB keys end at 511 bytes: a question with a longer one has an answer all the same."""
    push(store, "app", ONE, tag="v1")
    assert store.manifests.tags("app", after="z" * 3000) == []
    assert store.manifests.tags("app", after="a" * 3000) == ["v1"]
    assert store.manifests.repositories(after="z" * 3000) == []


def test_referrers(store: Store) -> None:
    """OCI distribution § listing referrers: all whose subject it is, even before the subject."""
    signatures = [image(f"signature {number}", subject=ONE) for number in range(3)]
    for signature in signatures:
        push(store, "app", signature, tag=None)
    expected = sorted(signature.digest for signature in signatures)
    assert [row.digest for row in store.manifests.referrers("app", ONE.digest)] == expected
    push(store, "app", ONE)
    assert [row.digest for row in store.manifests.referrers("app", ONE.digest)] == expected
    store.manifests.delete("app", expected[0])
    assert [row.digest for row in store.manifests.referrers("app", ONE.digest)] == expected[1:]
    assert list(store.manifests.referrers("app", TWO.digest)) == []
    assert list(store.manifests.referrers("other", ONE.digest)) == []


def test_a_manifest_that_went_bad(store: Store) -> None:
    """Invariant 4: a manifest with wrong bytes is never served."""
    push(store, "app", ONE, tag="v1")
    path = blob_path(store, ONE.digest)
    path.chmod(0o644)
    path.write_bytes(ONE.content.replace(b"amd64", b"arm64") + b" ")
    with pytest.raises(ManifestUnknown):
        store.manifests.get("app", "v1")


def test_a_manifest_whose_file_is_gone(store: Store) -> None:
    """Invariant 4: what is not there is unknown, and the next push heals it."""
    push(store, "app", ONE, tag="v1")
    blob_path(store, ONE.digest).unlink()
    with pytest.raises(ManifestUnknown):
        store.manifests.get("app", "v1")
    push(store, "app", ONE, tag="v1")
    assert_readable(store, "app", "v1")


def test_shared_blobs(store: Store) -> None:
    """A blob is shared when another manifest, in any repository, lists it."""
    push(store, "app", ONE)
    base, own = (Digest.of(layer) for layer in ONE.layers)
    assert not store.manifests.is_shared(base, ONE.digest)
    push(store, "copy", ONE)
    assert not store.manifests.is_shared(base, ONE.digest), (
        "the same image elsewhere is no other image"
    )
    push(store, "other", TWO)
    assert store.manifests.is_shared(base, ONE.digest)
    assert not store.manifests.is_shared(own, ONE.digest)


def test_torrents(store: Store) -> None:
    """Bad input § tracker abuse: an info-hash is known while its image is held, no longer."""
    push(store, "app", ONE)
    store.manifests.record_torrent(b"\x01" * 20, ONE.digest)
    store.manifests.record_torrent(b"\x01" * 20, ONE.digest)
    assert store.manifests.torrent(b"\x01" * 20) == ("app", ONE.digest)
    assert store.manifests.torrent(b"\x02" * 20) is None
    store.manifests.delete("app", ONE.digest)
    assert store.manifests.torrent(b"\x01" * 20) is None
