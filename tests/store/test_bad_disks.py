"""A disk with bad sectors, read-only or dead, files that can't be read: no good copy is discarded.

All on real filesystems: a btrfs whose checksums don't match, an ext4 that was shut down or has
become read-only.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Event

import pytest

from docket.errors import BlobUnknown, StoreUnusable
from docket.oci.digest import Digest
from docket.store import Sample, Store, rebuild_index
from tests.store.samples import (
    Image,
    assert_readable,
    blob_files,
    blob_path,
    image,
    open_store,
    push,
    upload,
)
from tests.store.test_permissions import NOBODY, as_nobody, location_of_nobody
from tests.support.disks import btrfs_disk, ext4_disk, need_loop_devices

ONE = image("one", "two", kind="", size=20_000)
LAYER = Digest.of(ONE.layers[0])
LARGE = os.urandom(2 << 20)


def filled(location: Path) -> Path:
    """A closed store with one image and a large blob; the path of its first layer's file."""
    with open_store(location) as store:
        push(store, "app", ONE)
        upload(store, "app", LARGE)
        return blob_path(store, LAYER)


def assert_whole(location: Path, pushed: Image = ONE) -> None:
    """Nothing is lost: all blobs have their files and rows, and nothing is in quarantine."""
    with open_store(location) as store:
        assert list((location / "quarantine").iterdir()) == []
        assert blob_files(location) == {
            Digest.of(content).hex for content in (*pushed.blobs, pushed.content, LARGE)
        }
        assert_readable(store, "app", "latest")


def scrub(store: Store) -> None:
    """Read all blobs again."""
    store.maintenance.scrub(older_than=time.time() + 1, rate=1e12, stop=Event())


def test_a_bad_sector_is_read() -> None:
    """An error of the disk is one of the store: the blob is not served, nor discarded by a read."""
    with btrfs_disk() as disk:
        location = disk.folder / "store"
        path = filled(location)
        disk.lose(path)
        disk.lose(path.parents[1] / large_name())
        with open_store(location) as store:
            with pytest.raises(StoreUnusable, match="Input/output error"):
                store.blobs.read(LAYER)
            with (
                store.blobs.open(Digest.of(LARGE)) as reader,
                pytest.raises(StoreUnusable, match="Input/output error"),
            ):
                reader.pread(1 << 16, 0)
            assert store.blobs.has(LAYER)


def large_name() -> Path:
    """Where the large blob lies below ``blobs/sha256``."""
    name = Digest.of(LARGE).hex
    return Path(name[:2], name)


def test_a_bad_sector_is_checked() -> None:
    """fsck puts the blob into quarantine, so that the next push brings it again."""
    with btrfs_disk() as disk:
        location = disk.folder / "store"
        disk.lose(filled(location))
        with open_store(location) as store:
            report = store.maintenance.fsck(sample=Sample())
            assert report.quarantined == [LAYER]
            assert [finding.kind for finding in report.findings] == [
                "blob-unreadable",
                "incomplete",
            ]
            with pytest.raises(BlobUnknown):
                store.blobs.read(LAYER)
            push(store, "app", ONE)
            assert_readable(store, "app", "latest")


def test_a_bad_sector_during_a_rebuild() -> None:
    """The rebuild ends with a line that names the file: nothing is put into quarantine."""
    with btrfs_disk() as disk:
        location = disk.folder / "store"
        path = filled(location)
        disk.lose(path)
        with pytest.raises(StoreUnusable, match=f"{path.name}: Input/output error.*run it again"):
            rebuild_index(location, owner="test")
        assert list((location / "quarantine").iterdir()) == []
        path.unlink()
        report = rebuild_index(location, owner="test")
        assert [finding.kind for finding in report.findings] == ["blob-missing"]
        with open_store(location) as store:
            push(store, "app", ONE)
        assert_whole(location)


def test_a_dead_disk() -> None:
    """When all of the disk fails, a check ends; what is on it is all there when it works again."""
    need_loop_devices("mkfs.ext4")
    with ext4_disk() as disk:
        with disk.mounted() as folder:
            filled(folder / "store")
        with disk.mounted() as folder:
            store = open_store(folder / "store")
            disk.cut()
            for use in (
                lambda: store.maintenance.fsck(sample=Sample()),
                lambda: scrub(store),
                store.maintenance.gc,
                lambda: store.blobs.read(LAYER),
                lambda: push(store, "app", image("more")),
                store.probe,
            ):
                with pytest.raises(StoreUnusable):
                    use()
            store._index.close()
            store._measuring.close()
            os.close(store._lock._descriptor)
        with disk.mounted() as folder:
            assert_whole(folder / "store")


def test_a_disk_becomes_read_only() -> None:
    """Reads go on; whatever would change something is refused, and all is there afterwards."""
    need_loop_devices("mkfs.ext4", "findmnt")
    with ext4_disk() as disk:
        with disk.mounted() as folder:
            location = folder / "store"
            filled(location)
            with open_store(location) as store:
                disk.become_read_only()
                assert_readable(store, "app", "latest")
                for use in (
                    lambda: push(store, "app", image("more")),
                    lambda: store.manifests.delete_tag("app", "latest"),
                    lambda: store.uploads.begin("app"),
                    lambda: store.maintenance.gc(grace=0),
                    store.maintenance.fsck,
                    store.probe,
                ):
                    with pytest.raises(StoreUnusable, match="Read-only file system"):
                        use()
            with pytest.raises(StoreUnusable, match="Read-only file system"):
                open_store(location)
            with pytest.raises(StoreUnusable, match="Read-only file system"):
                rebuild_index(location, owner="test")
        with disk.mounted():
            assert_whole(location)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_files_of_another_user(what: str) -> None:
    """A blob that this user may not read, as after a restore by root, is not a damaged one."""
    with location_of_nobody() as location:
        with as_nobody():
            path = filled(location)
        target = path if what == "file" else path.parent
        os.chown(target, 0, 0)
        target.chmod(0o700)
        with as_nobody():
            with open_store(location) as store:
                for use in (
                    lambda: store.maintenance.fsck(sample=Sample()),
                    lambda: scrub(store),
                    lambda: store.blobs.read(LAYER),
                ):
                    with pytest.raises(StoreUnusable, match="Permission denied"):
                        use()
            with pytest.raises(StoreUnusable, match=r"Permission denied.*run it again"):
                rebuild_index(location, owner="test")
        os.chown(target, NOBODY, NOBODY)
        with as_nobody():
            assert_whole(location)


def test_scrubbing_goes_on_past_what_it_may_not_read() -> None:
    """One file that can't be read keeps no other from being verified."""
    with location_of_nobody() as location:
        with as_nobody():
            path = filled(location)
        os.chown(path, 0, 0)
        path.chmod(0o700)
        with as_nobody(), open_store(location) as store:
            began = time.time()
            with pytest.raises(StoreUnusable, match=path.name):
                scrub(store)
            with store._index.read() as txn:
                unread = [k for k, row in store._index.blobs.scan(txn) if row.verified < began]
            assert unread == [str(LAYER).encode()]


def test_a_folder_of_blobs_that_can_not_be_listed() -> None:
    """An unreadable ``blobs/`` is no empty one: a rebuild would lose every image."""
    with location_of_nobody() as location:
        with as_nobody():
            filled(location)
        os.chown(location / "blobs", 0, 0)
        (location / "blobs").chmod(0o711)
        with as_nobody():
            with pytest.raises(StoreUnusable, match="Permission denied"):
                rebuild_index(location, owner="test")
            with open_store(location) as store, pytest.raises(StoreUnusable):
                store.maintenance.gc()
        os.chown(location / "blobs", NOBODY, NOBODY)
        with as_nobody():
            assert_whole(location)
