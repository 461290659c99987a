"""gc removes nothing that a row needs, whatever edges are damaged, and old files of rebuilds."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from docket.store import Store, rebuild_index
from docket.store.index.tables import Transaction
from docket.store.maintenance.set_aside import drop_set_aside
from tests.store.samples import (
    assert_readable,
    blob_files,
    hexes,
    image,
    open_store,
    push,
    put_index,
)

ONE = image("base", "one")
TWO = image("base", "two")
SIGNATURE = image("signature", subject=ONE)
GARBAGE = image("garbage")
ALL = (ONE, TWO, SIGNATURE)


def filled(store: Store) -> None:
    """An index of two images, a signature and a tag in a second repository; and garbage."""
    push(store, "app", ONE, tag=None)
    push(store, "app", TWO, tag=None)
    put_index(store, "app", ONE, TWO, tag="all")
    push(store, "app", SIGNATURE, tag=None)
    push(store, "other", TWO, tag="two")
    push(store, "app", GARBAGE, tag="gone")
    store.manifests.delete_tag("app", "gone")


def edges(store: Store) -> list[tuple[bytes, bytes]]:
    """All edges of what is needed."""
    garbage = hexes(*GARBAGE.blobs, GARBAGE.content)
    with store._index.read() as txn:
        pairs = list(store._index.parents.pairs(txn))
    return [(k, v) for k, v in pairs if k.decode().partition(":")[2] not in garbage]


def damage(store: Store, *pairs: tuple[bytes, bytes]) -> None:
    """A bit of each edge's key is another."""

    def change(txn: Transaction) -> None:
        for key, value in pairs:
            store._index.parents.remove(txn, key, value)
            store._index.parents.add(txn, bytes([key[0] ^ 1]) + key[1:], value)

    store._index.update(change)


def assert_all_there(store: Store) -> None:
    """Every image is whole, in both repositories, and the garbage is gone."""
    assert_readable(store, "app", "all")
    assert_readable(store, "app", SIGNATURE.digest)
    assert_readable(store, "other", "two")
    assert blob_files(store.location).isdisjoint(hexes(*GARBAGE.blobs, GARBAGE.content))


def test_each_edge_damaged(store: Store) -> None:
    """One edge after the other is lost: nothing but garbage goes, and fsck repairs it."""
    filled(store)
    for pair in edges(store):
        damage(store, pair)
        store.maintenance.gc(grace=0)
        assert_all_there(store)
        store.maintenance.fsck()
        assert store.maintenance.fsck().findings == []


def test_all_edges_damaged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """All of them are: the same holds, gc says so, and after fsck it removes what was untagged."""
    filled(store)
    damage(store, *edges(store))
    with caplog.at_level(logging.WARNING):
        store.maintenance.gc(grace=0)
    assert "run docket fsck" in caplog.text
    assert_all_there(store)
    store.maintenance.fsck()
    store.manifests.delete_tag("app", "all")
    store.manifests.delete_tag("other", "two")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        store.maintenance.gc(grace=0)
    assert caplog.text == ""
    assert blob_files(store.location) == set()


def test_a_sound_index(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said where nothing is wrong, and a dry run reports the same."""
    filled(store)
    with caplog.at_level(logging.WARNING):
        planned = store.maintenance.gc(grace=0, dry_run=True)
        report = store.maintenance.gc(grace=0)
    assert (planned.blobs, planned.manifests, planned.freed) == (
        report.blobs,
        report.manifests,
        report.freed,
    )
    assert report.blobs == 3
    assert caplog.text == ""
    assert_all_there(store)


def test_what_a_rebuild_has_set_aside(tmp_path: Path) -> None:
    """It is kept for a month, for those who want to look at it; then gc frees it."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE)
    rebuild_index(tmp_path, owner="test")
    with open_store(tmp_path) as store:
        old = [tmp_path / "index.old", *(tmp_path / "journal").glob("*.old")]
        assert len(old) == 2
        assert store.maintenance.gc(grace=0).leftovers == 0
        assert all(path.exists() for path in old)
        for path in old:
            os.utime(path)  # sets when it was changed too
        later = time.time() + 1
        size = drop_set_aside(store._filesystem, older_than=later, dry_run=True)
        assert size > (tmp_path / "journal").stat().st_size
        assert all(path.exists() for path in old)
        assert drop_set_aside(store._filesystem, older_than=later) == size
        assert not any(path.exists() for path in old)
        assert_readable(store, "app", "latest")
