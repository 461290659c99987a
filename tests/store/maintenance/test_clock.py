"""A clock that was ahead: what was written then counts as written when that is noticed."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec.structs import replace

from docket.store import Retention, Store
from docket.store.index.tables import Transaction
from tests.store.samples import blob_files, image, open_store, push

AHEAD = 365 * 24 * 3600.0
OLD, GONE, NEW = (image(name) for name in ("old", "gone", "new"))


def move_ahead(store: Store) -> None:
    """Make all rows as a clock would have made them that is a year ahead."""
    index = store._index

    def change(txn: Transaction) -> None:
        for key, blob in list(index.blobs.scan(txn)):
            ahead = time.time() + AHEAD
            index.blobs.put(txn, key, replace(blob, stored=ahead, verified=ahead))
        for key, tag in list(index.tags.scan(txn)):
            index.tags.put(txn, key, replace(tag, moved=tag.moved + AHEAD))
        for key, manifest in list(index.manifests.scan(txn)):
            index.manifests.put(txn, key, replace(manifest, pushed=manifest.pushed + AHEAD))
        for key, linked in list(index.links.scan(txn)):
            index.links.put(txn, key, linked + AHEAD)
        index._clock.put(txn, b"latest", time.time() + AHEAD)

    index.update(change)


def test_gc_after_a_clock_was_ahead(tmp_path: Path) -> None:
    """What no tag names is swept, and what is pushed after the correction is the newest release."""
    with open_store(tmp_path) as store:
        push(store, "app", OLD, tag="old")
        push(store, "app", GONE, tag="gone")
        move_ahead(store)
    with open_store(tmp_path) as store:
        push(store, "app", NEW, tag="new")
        store.manifests.delete_tag("app", "gone")
        assert store.maintenance.gc(grace=3600).freed == 0, "it counts as pushed now"
        assert store.maintenance.gc(grace=0).freed > 0
        assert store.maintenance.gc(grace=0, retention=Retention(keep=1)).tags == ["app:old"]
        assert len(blob_files(tmp_path)) == len({*NEW.blobs, NEW.content})
        assert store.maintenance.fsck().findings == []


def test_a_clock_that_is_set_back_while_the_store_is_open(store: Store) -> None:
    """The registry's regular upkeep notices it: no restart is needed."""
    push(store, "app", OLD, tag="old")
    move_ahead(store)
    store.maintenance.expire()
    (tag,) = store.manifests.tagged()
    assert tag.moved <= time.time()
    push(store, "app", NEW, tag="new")
    assert store.maintenance.gc(grace=0, retention=Retention(keep=1)).tags == ["app:old"]


def test_times_that_are_right_stay(tmp_path: Path) -> None:
    """A start changes no row where no clock was ahead."""
    with open_store(tmp_path) as store:
        push(store, "app", OLD, tag="old")
        before = store.manifests.tagged()
    with open_store(tmp_path) as store:
        assert store.manifests.tagged() == before
