"""Signatures, attestations, SBOMs and referrers: gc keeps and removes them with their image."""

from __future__ import annotations

from itertools import count

import pytest

from docket.oci.digest import Digest
from docket.store import GcReport, Retention, Store
from tests.store.samples import Image, assert_readable, image, push, put_index

RELEASES = [image("base", f"release {number}") for number in range(4)]
_NUMBERS = count()


def attach(store: Store, digest: Digest, suffix: str = ".sig", *, repository: str = "app") -> Image:
    """Push a signature as cosign does: an image of its own under a tag that names *digest*."""
    signature = image(f"signature {next(_NUMBERS)}")
    push(store, repository, signature, tag=f"{digest.algorithm}-{digest.hex[:64]}{suffix}")
    return signature


def name_of(digest: Digest, suffix: str = ".sig") -> str:
    """The tag of what is attached to *digest*."""
    return f"sha256-{digest.hex}{suffix}"


def collected(store: Store, retention: Retention | None = None) -> GcReport:
    """Collect without grace; the dry run before it must report the same and change nothing."""
    before = store.manifests.tagged()
    planned = store.maintenance.gc(grace=0, retention=retention, dry_run=True)
    assert store.manifests.tagged() == before
    report = store.maintenance.gc(grace=0, retention=retention)
    planned.dry_run = False
    assert planned == report
    assert store.maintenance.fsck().findings == []
    return report


@pytest.mark.parametrize("suffix", [".sig", ".att", ".sbom", "", ".cosign.bundle"])
def test_signatures_do_not_use_up_the_kept_releases(store: Store, suffix: str) -> None:
    """``--keep 2`` keeps two images and what is attached to them, whatever was signed last."""
    for number, release in enumerate(RELEASES):
        push(store, "app", release, tag=f"{number}")
    for release in reversed(RELEASES):
        attach(store, release.digest, suffix)
    report = collected(store, Retention(keep=2))
    kept = [name_of(release.digest, suffix) for release in RELEASES[2:]]
    assert store.manifests.tags("app") == sorted(["2", "3", *kept])
    assert len(report.tags) == 4
    assert report.kept_tags == 4
    for tag in store.manifests.tags("app"):
        assert_readable(store, "app", tag)


def test_age_does_not_expire_the_signature_of_a_kept_image(store: Store) -> None:
    """``--older-than`` looks at the image alone; here that is protected."""
    push(store, "app", RELEASES[0], tag="stable")
    push(store, "app", RELEASES[1], tag="next")
    signature = attach(store, RELEASES[0].digest)
    report = collected(store, Retention(age=0, protect=("stable",)))
    assert report.tags == []
    report = collected(store, Retention(keep=0, age=0, protect=("stable",)))
    assert report.tags == ["app:next"]
    assert store.manifests.get("app", name_of(RELEASES[0].digest)).digest == signature.digest


def test_the_signature_goes_with_a_deleted_image(store: Store) -> None:
    """Deleting a manifest removes the tags attached to it; gc then frees what they named."""
    push(store, "app", RELEASES[0], tag="1")
    signature = attach(store, RELEASES[0].digest)
    bill = attach(store, signature.digest, ".sbom")
    store.manifests.delete("app", RELEASES[0].digest)
    collected(store)
    assert store.manifests.repositories() == []
    assert not store.blobs.has(bill.digest)


def test_the_signature_goes_with_an_untagged_image(store: Store) -> None:
    """An image without a tag is swept, with the signature, its signature, and their blobs."""
    push(store, "app", RELEASES[0], tag="1")
    push(store, "app", RELEASES[1], tag="2")
    signature = attach(store, RELEASES[0].digest)
    attach(store, signature.digest)
    store.manifests.delete_tag("app", "1")
    report = collected(store)
    assert sorted(report.tags) == sorted(
        [f"app:{name_of(RELEASES[0].digest)}", f"app:{name_of(signature.digest)}"]
    )
    assert store.manifests.tags("app") == ["2"]
    assert report.manifests == 3


def test_signatures_of_an_index_and_its_platforms(store: Store) -> None:
    """``cosign sign --recursive`` signs the children too: all stay while the index does."""
    for member in RELEASES[:2]:
        push(store, "app", member, tag=None)
    index = put_index(store, "app", *RELEASES[:2], tag="all")
    signed = [index, RELEASES[0].digest, RELEASES[1].digest]
    for digest in signed:
        attach(store, digest)
    push(store, "app", RELEASES[3], tag="newer")
    assert collected(store, Retention(keep=2)).tags == []
    report = collected(store, Retention(keep=1))
    assert sorted(report.tags) == sorted(
        ["app:all", *(f"app:{name_of(digest)}" for digest in signed)]
    )
    assert store.manifests.tags("app") == ["newer"]


def test_referrers_are_no_releases(store: Store) -> None:
    """A tagged referrer neither counts nor expires, and goes with its subject; so do chains."""
    push(store, "app", RELEASES[0], tag="1")
    bill = image("bill", subject=RELEASES[0])
    push(store, "app", bill, tag="bill-of-1")
    signature = image("signature of the bill", subject=bill)
    push(store, "app", signature, tag=None)
    push(store, "app", RELEASES[1], tag="2")
    assert collected(store, Retention(keep=2)).tags == []
    assert collected(store, Retention(keep=1)).tags == ["app:1", "app:bill-of-1"]
    assert store.manifests.tags("app") == ["2"]
    assert not store.blobs.has(signature.digest)


def test_signatures_of_an_image_elsewhere_stay(store: Store) -> None:
    """Signatures may lie in a repository of their own: nobody asked to remove these."""
    push(store, "app", RELEASES[0], tag="1")
    elsewhere = Digest.of(b"an image of another registry")
    attach(store, RELEASES[0].digest, repository="signatures")
    attach(store, elsewhere, repository="signatures")
    assert collected(store, Retention(keep=1, age=0)).tags == []
    assert len(store.manifests.tags("signatures")) == 2


def test_an_image_tagged_with_its_own_digest_is_a_release(store: Store) -> None:
    """Mirrors name images ``sha256-<hex>`` of themselves: such a tag is attached to nothing."""
    for release in RELEASES[:3]:
        push(store, "app", release, tag=name_of(release.digest, ""))
    report = collected(store, Retention(keep=1))
    assert len(report.tags) == 2
    assert store.manifests.tags("app") == [name_of(RELEASES[2].digest, "")]


def test_a_referrers_tag_of_sha512(store: Store) -> None:
    """OCI distribution 1.1 § referrers tag schema: 64 of the 128 hex digits are in the tag."""
    release = RELEASES[0]
    for blob in release.blobs:
        store.blobs.put(blob, repository="app")
    digest = store.manifests.put(
        "app", release.content, release.parsed, tags=["1"], algorithm="sha512"
    )
    attach(store, digest, "")
    push(store, "app", RELEASES[1], tag="2")
    assert collected(store, Retention(keep=2)).tags == []
    assert len(collected(store, Retention(keep=1)).tags) == 2
    assert store.manifests.tags("app") == ["2"]


@pytest.mark.parametrize("tag", ["sha256-12.sig", "v1.sig", "sha1-" + "0" * 64, "sha256-x"])
def test_other_tags_are_releases(store: Store, tag: str) -> None:
    """Only a whole digest at the beginning of a tag makes it an attachment."""
    push(store, "app", RELEASES[0], tag=tag)
    push(store, "app", RELEASES[1], tag="2")
    assert collected(store, Retention(keep=1)).tags == [f"app:{tag}"]
