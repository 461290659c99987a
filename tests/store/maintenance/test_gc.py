"""Garbage collection: what goes, what stays, and pushes that go on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from docket.errors import BlobUnknown, ManifestUnknown
from docket.oci.digest import Digest
from docket.store import GcReport, Store
from tests.store.samples import (
    Clock,
    assert_readable,
    assert_sound,
    blob_files,
    hexes,
    image,
    open_store,
    push,
    put_index,
    upload,
)

ONE, TWO = image("base", "one"), image("base", "two")
HOUR = 3600.0


def sweep(store: Store) -> GcReport:
    """Collect; a dry run before it must have said the same."""
    before = store.maintenance.gc(grace=0, dry_run=True)
    report = store.maintenance.gc(grace=0)
    assert asdict(replace(before, dry_run=False)) == asdict(report)
    return report


def test_nothing_to_do(store: Store) -> None:
    """Invariant 3: what a tag names stays."""
    push(store, "app", ONE)
    report = sweep(store)
    assert (report.manifests, report.blobs, report.freed) == (0, 0, 0)
    assert (report.kept_blobs, report.pinned_blobs) == (4, 0)
    assert_readable(store, "app", "latest")


def test_a_tag_goes(store: Store) -> None:
    """Invariant 3: without its tag an image goes, with each of its bytes."""
    push(store, "app", ONE)
    store.manifests.delete_tag("app", "latest")
    report = sweep(store)
    assert (report.manifests, report.blobs) == (1, 4)
    assert report.freed == sum(map(len, (*ONE.blobs, ONE.content)))
    assert blob_files(store.location) == set()
    assert list((store.location / "trash").iterdir()) == []
    assert store.layers.find(map(Digest.of, ONE.plain)) == {}
    with pytest.raises(ManifestUnknown):
        store.manifests.get("app", ONE.digest)
    with pytest.raises(BlobUnknown):
        store.blobs.piece_hashes([ONE.digest])
    assert store.manifests.repositories() == []


def test_a_shared_layer_stays(store: Store) -> None:
    """Invariant 3: a layer goes with the last image that lists it."""
    push(store, "app", ONE, tag="one")
    push(store, "app", TWO, tag="two")
    store.manifests.delete("app", ONE.digest)
    assert sweep(store).blobs == 3
    assert blob_files(store.location) == hexes(*TWO.blobs, TWO.content)
    assert_readable(store, "app", "two")
    store.manifests.delete_tag("app", "two")
    assert sweep(store).blobs == 4
    assert blob_files(store.location) == set()


def test_the_same_image_in_two_repositories(store: Store) -> None:
    """Invariant 3: what one repository lets go stays for the other."""
    push(store, "app", ONE)
    push(store, "copy", ONE)
    store.manifests.delete("app", ONE.digest)
    assert sweep(store).blobs == 0
    assert_readable(store, "copy", "latest")
    with pytest.raises(BlobUnknown):
        store.blobs.get(Digest.of(ONE.config), repository="app")


def test_a_tag_that_moved(store: Store) -> None:
    """Invariant 3: a release that was replaced is garbage, apart from what the new one shares."""
    push(store, "app", ONE)
    push(store, "app", TWO)
    assert sweep(store).manifests == 1
    assert blob_files(store.location) == hexes(*TWO.blobs, TWO.content)


def test_blobs_of_no_manifest(store: Store) -> None:
    """Invariant 3: an upload that no manifest followed is garbage, and so is its link."""
    digest = upload(store, "app", b"layer").digest
    report = sweep(store)
    assert (report.blobs, report.freed) == (1, 5)
    upload(store, "other", b"layer")
    with pytest.raises(BlobUnknown):
        store.blobs.get(digest, repository="app")


def test_the_children_of_an_index(store: Store) -> None:
    """Invariant 3: a tagged index keeps its manifests; without it they go, level by level."""
    push(store, "app", ONE, tag=None)
    push(store, "app", TWO, tag=None)
    inner = put_index(store, "app", ONE, TWO, tag="all")
    assert sweep(store).manifests == 0
    assert_readable(store, "app", "all")
    store.manifests.delete_tag("app", "all")
    assert sweep(store).manifests == 3
    assert blob_files(store.location) == set()
    with pytest.raises(ManifestUnknown):
        store.manifests.get("app", inner)


def test_referrers_live_with_their_subject(store: Store) -> None:
    """OCI image § subject: an untagged referrer stays while its subject does, and goes with it."""
    push(store, "app", ONE)
    signature = image("signature", subject=ONE)
    push(store, "app", signature, tag=None)
    assert sweep(store).manifests == 0
    assert len(list(store.manifests.referrers("app", ONE.digest))) == 1
    store.manifests.delete_tag("app", "latest")
    assert sweep(store).manifests == 2
    assert blob_files(store.location) == set()
    assert list(store.manifests.referrers("app", ONE.digest)) == []


def test_referrers_go_when_their_subject_is_deleted(store: Store) -> None:
    """OCI image § subject: deleting the subject ends what it gave its referrers."""
    push(store, "app", ONE)
    push(store, "app", image("signature", subject=ONE), tag=None)
    store.manifests.delete("app", ONE.digest)
    sweep(store)
    assert blob_files(store.location) == set()


def test_grace(store: Store) -> None:
    """Invariant 3: what is younger than *grace* stays, pinned or not."""
    push(store, "app", ONE)
    store.manifests.delete_tag("app", "latest")
    report = store.maintenance.gc(grace=HOUR)
    assert (report.manifests, report.young_manifests, report.blobs) == (0, 1, 0)
    assert_readable(store, "app", ONE.digest)


def test_dead_torrents_are_forgotten(store: Store) -> None:
    """A torrent whose image went is no longer known."""
    push(store, "app", ONE)
    store.manifests.record_torrent(b"\x01" * 20, ONE.digest)
    store.manifests.delete_tag("app", "latest")
    sweep(store)
    push(store, "app", ONE)
    assert store.manifests.torrent(b"\x01" * 20) is None


def test_after_a_start(tmp_path: Path) -> None:
    """Invariant 3: after a start nothing is swept for one pin lifetime."""
    with open_store(tmp_path) as store:
        upload(store, "app", b"layer")
    clock = Clock()
    with open_store(tmp_path, pin_seconds=HOUR, clock=clock) as store:
        clock.now += HOUR - 1
        report = sweep(store)
        assert (report.blobs, report.pinned_blobs) == (0, 1)
        clock.now += 1
        assert sweep(store).blobs == 1


@pytest.mark.parametrize("answer", ["read", "mount", "layers", "put"])
def test_an_answer_pins(tmp_path: Path, answer: str) -> None:
    """Invariant 3: every positive answer about a blob keeps it for one pin lifetime."""
    clock = Clock()
    with open_store(tmp_path, pin_seconds=HOUR, clock=clock) as store:
        layer = ONE.layers[0]
        digest = upload(store, "app", layer).digest
        clock.now += 2 * HOUR
        answers: dict[str, Callable[[], object]] = {
            "read": lambda: store.blobs.get(digest, repository="app"),
            "mount": lambda: store.blobs.mount(digest, repository="other"),
            "layers": lambda: store.layers.find([Digest.of(ONE.plain[0])]),
            "put": lambda: store.blobs.put(layer),
        }
        assert answers[answer]()
        clock.now += HOUR - 1
        report = sweep(store)
        assert (report.blobs, report.pinned_blobs) == (0, 1)
        assert store.blobs.has(digest)
        clock.now += 1
        assert sweep(store).blobs == 1
        assert not store.blobs.has(digest)


def test_pins_of_some_leave_others(tmp_path: Path) -> None:
    """Invariant 3: a pin keeps its blob alone."""
    clock = Clock()
    with open_store(tmp_path, pin_seconds=HOUR, clock=clock) as store:
        kept, swept = upload(store, "app", b"kept").digest, upload(store, "app", b"swept").digest
        clock.now += 2 * HOUR
        store.blobs.get(kept)
        assert sweep(store).blobs == 1
        assert store.blobs.has(kept)
        assert not store.blobs.has(swept)


def test_a_pusher_against_gc(tmp_path: Path) -> None:
    """Invariant 3: gc in a loop, with no grace, neither breaks nor refuses a push.

    Before each push the clock passes all older pins, so that what the push is about to find by
    diff_id is garbage that gc is taking away at that moment.
    """
    clock = Clock()
    over = threading.Event()
    reports: list[GcReport] = []
    failed: list[BaseException] = []

    with open_store(tmp_path, pin_seconds=HOUR, clock=clock) as store:

        def collect() -> None:
            try:
                while not over.is_set():
                    reports.append(store.maintenance.gc(grace=0))
            except BaseException as error:
                failed.append(error)
                raise

        collector = threading.Thread(target=collect)
        collector.start()
        try:
            for number in range(60):
                clock.now += HOUR + 1
                pushed = image("base", f"common {number % 2}", f"own {number % 5}", size=200)
                push(store, "app", pushed, tag="v1")
                assert_readable(store, "app", "v1")
                if number % 3:
                    store.manifests.delete_tag("app", "v1")
            push(store, "app", ONE, tag="last")
        finally:
            over.set()
            collector.join()
        assert failed == []
        assert sum(report.blobs for report in reports) > 20, "gc had something to do"
        assert_readable(store, "app", "last")
        clock.now += HOUR + 1
        store.manifests.delete_tag("app", "last")
        store.maintenance.gc(grace=0)
        assert blob_files(store.location) == set()
    assert_sound(tmp_path)
