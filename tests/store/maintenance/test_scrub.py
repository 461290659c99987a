"""Scrubbing: what is read, how fast, and what becomes of what rotted."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event

import pytest

from docket.errors import BlobUnknown
from docket.oci.digest import Digest
from docket.store import ScrubReport, Store
from docket.store.index.environment import Index
from tests.store.samples import blob_path, image, open_store, push, rot

ONE = image("base", "one", size=40_000)
FAST = 1e12


def scrubbed(store: Store, *, rate: float = FAST, stop: Event | None = None) -> ScrubReport:
    """Read all that was verified before now."""
    return store.maintenance.scrub(older_than=time.time(), rate=rate, stop=stop or Event())


def verified(store: Store) -> list[float]:
    """When each blob was last verified."""
    index: Index = store._index
    with index.read() as txn:
        return [row.verified for _, row in index.blobs.scan(txn)]


def test_each_blob_once(store: Store) -> None:
    """All that is due is read, and isn't due again; what was verified lately isn't read."""
    push(store, "app", ONE)
    assert store.maintenance.scrub(older_than=0, rate=FAST, stop=Event()).blobs == 0
    began = time.time()
    report = scrubbed(store)
    sizes = sum(path.stat().st_size for path in (store.location / "blobs").glob("*/*/*"))
    assert (report.blobs, report.read, report.quarantined) == (4, sizes, [])
    assert min(verified(store)) >= began
    assert store.maintenance.scrub(older_than=began, rate=FAST, stop=Event()).blobs == 0


def test_rot_is_out_of_reach(store: Store) -> None:
    """Invariant 4: what rotted is quarantined, and the report says so."""
    push(store, "app", ONE)
    layer = rot(store, ONE.layers[0])
    assert scrubbed(store).quarantined == [layer]
    with pytest.raises(BlobUnknown):
        store.blobs.get(layer)
    push(store, "app", ONE)
    assert blob_path(store, layer).read_bytes() == ONE.layers[0]


def test_the_rate_is_kept(store: Store) -> None:
    """A scrub takes at least its bytes divided by its rate."""
    push(store, "app", ONE)
    began = time.monotonic()
    report = scrubbed(store, rate=400_000)
    assert time.monotonic() - began >= report.read / 400_000


def test_it_stops_when_told(tmp_path: Path) -> None:
    """A process that ends doesn't wait for a scrub; what was begun is read another time."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE)
        stop = Event()
        stop.set()
        assert scrubbed(store, rate=1, stop=stop).blobs == 0
        assert scrubbed(store).blobs == 4


def test_a_damaged_row_is_left_to_fsck(store: Store) -> None:
    """One row that nobody can read doesn't keep the others from being read."""
    push(store, "app", ONE)
    index: Index = store._index
    key = str(Digest.of(ONE.config)).encode()
    with index._env.begin(write=True) as txn:
        txn.put(key, b"damaged!", db=index.blobs._db)
    assert scrubbed(store).blobs == 3
