"""Crashes: a store stopped before each change to its files, then opened again.

From the k-th step on nothing is changed any more, for every k until the operation gets through.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from docket.errors import StoreFormat, StoreUnusable, UploadUnknown
from docket.oci.digest import Digest
from docket.store import Sample, Store, rebuild_index
from tests.store.samples import (
    Image,
    assert_readable,
    assert_sound,
    blob_files,
    blob_path,
    hexes,
    image,
    no_step,
    open_store,
    push,
    put_index,
    rot,
    upload,
)

OLD, NEW = image("base", "old"), image("base", "new")
MOST_STEPS = 300

Operation = Callable[[Store], object]


class Crash(BaseException):
    """The process is gone."""


class Steps:
    """Lets *count* steps through, and none after them."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.crashed = False

    def __call__(self, name: str) -> None:
        self.left -= 1
        if self.left < 0:
            self.crashed = True
            raise Crash(name)


def crashes(
    tmp_path: Path,
    before: Operation,
    operation: Operation,
    *,
    check: Callable[[Path], None] = assert_sound,
) -> Iterator[Path]:
    """A location for each step of *operation* on which a crash hits it; *before* went well.

    The opening of the store is stopped too. *check* is what must be true after each crash.
    """
    prepared = tmp_path / "prepared"
    with open_store(prepared) as store:
        before(store)
    for count in range(MOST_STEPS):
        location = tmp_path / f"crash-{count}"
        shutil.copytree(prepared, location)
        steps = Steps(count)
        with suppress(Crash), open_store(location, step=steps) as store:
            operation(store)
        check(location)
        yield location
        shutil.rmtree(location)
        if not steps.crashed:
            assert count > 5, "the operation has steps"
            return
    pytest.fail(f"more than {MOST_STEPS} steps")


def tag_of(store: Store, name: str) -> Digest | None:
    """Where a tag of ``app`` points."""
    return {row.tag: row.digest for row in store.manifests.tagged("app")}.get(name)


def push_both(store: Store) -> None:
    """Two images that share a layer."""
    push(store, "app", OLD, tag="old")
    push(store, "app", NEW, tag="new")


def test_opening_a_new_store(tmp_path: Path) -> None:
    """Invariant 1: a store whose making broke off is made at the next start."""
    for count in range(MOST_STEPS):
        location = tmp_path / f"crash-{count}"
        steps = Steps(count)
        with suppress(Crash), open_store(location, step=steps):
            pass
        with open_store(location) as store:
            push(store, "app", OLD)
        assert_sound(location)
        if not steps.crashed:
            return


def test_bytes_are_in_the_file_when_it_is_synced(tmp_path: Path) -> None:
    """Invariant 1: what a program still holds in memory isn't synced, and gone with the power."""
    sizes: list[int] = []

    def look(name: str) -> None:
        if name == "fsync":
            files = (tmp_path / "uploads").iterdir()
            sizes.extend(path.stat().st_size for path in files)

    with open_store(tmp_path):
        pass  # begun
    with open_store(tmp_path, step=look) as store:
        store.blobs.put(OLD.config)
    assert sizes == [len(OLD.config)]


def test_push(tmp_path: Path) -> None:
    """Invariants 1 and 2: the tag is on the old image or on the new one, and both are whole."""

    def before(store: Store) -> None:
        push(store, "app", OLD, tag="latest")

    def operation(store: Store) -> None:
        push(store, "app", NEW, tag="latest")

    for location in crashes(tmp_path, before, operation):
        with open_store(location) as store:
            assert tag_of(store, "latest") in (OLD.digest, NEW.digest)
            assert_readable(store, "app", "latest")
            operation(store)
            assert tag_of(store, "latest") == NEW.digest
            assert_readable(store, "app", "latest")
            store.maintenance.gc(grace=0)
            assert list((store.location / "trash").iterdir()) == []
        assert_sound(location)
        assert hexes(*NEW.blobs, NEW.content) <= blob_files(location)


def test_push_of_an_index(tmp_path: Path) -> None:
    """Invariant 2: an index lands whole or not at all."""

    def operation(store: Store) -> None:
        put_index(store, "app", OLD, NEW, tag="all")

    for location in crashes(tmp_path, push_both, operation):
        with open_store(location) as store:
            operation(store)
            assert_readable(store, "app", "all")


def test_gc(tmp_path: Path) -> None:
    """Invariant 1: a sweep that broke off takes no file whose record stays; the next ends it."""

    def before(store: Store) -> None:
        push_both(store)
        store.manifests.delete_tag("app", "old")

    for location in crashes(tmp_path, before, lambda store: store.maintenance.gc(grace=0)):
        with open_store(location) as store:
            assert_readable(store, "app", "new")
            store.maintenance.gc(grace=0)
            assert blob_files(location) == hexes(*NEW.blobs, NEW.content)
            assert list((location / "trash").iterdir()) == []
            push(store, "app", OLD, tag="old")
            assert_readable(store, "app", "old")


@pytest.mark.parametrize(
    "delete",
    [
        lambda store: store.manifests.delete("app", OLD.digest),
        lambda store: store.manifests.delete_tag("app", "old"),
    ],
    ids=["manifest", "tag"],
)
def test_delete_and_gc(tmp_path: Path, delete: Operation) -> None:
    """Invariant 1: deleting goes the other way round: records first, files last."""

    def operation(store: Store) -> None:
        if tag_of(store, "old"):
            delete(store)
        store.maintenance.gc(grace=0)

    for location in crashes(tmp_path, push_both, operation):
        with open_store(location) as store:
            operation(store)
            assert tag_of(store, "old") is None
            assert_readable(store, "app", "new")
        assert blob_files(location) == hexes(*NEW.blobs, NEW.content)


def test_push_again_what_gc_took(tmp_path: Path) -> None:
    """Invariant 1: a push behind a sweep, both stopped anywhere, ends in a whole image."""

    def before(store: Store) -> None:
        push(store, "app", OLD, tag="old")
        store.manifests.delete_tag("app", "old")

    def operation(store: Store) -> None:
        store.maintenance.gc(grace=0)
        push(store, "app", OLD, tag="old")

    for location in crashes(tmp_path, before, operation):
        with open_store(location) as store:
            operation(store)
            assert_readable(store, "app", "old")
        assert_sound(location)


def test_adopt(tmp_path: Path) -> None:
    """Invariant 1: a layer that came from a swarm is taken in whole, or its file stays."""
    layer = NEW.layers[1]

    def before(store: Store) -> None:
        (store.location / "incoming" / "layer").write_bytes(layer)

    def operation(store: Store) -> None:
        store.blobs.adopt(store.location / "incoming" / "layer", Digest.of(layer))

    for location in crashes(tmp_path, before, operation):
        assert (location / "incoming" / "layer").read_bytes() == layer
        with open_store(location) as store:
            operation(store)
            assert store.blobs.read(Digest.of(layer)) == layer


def test_an_upload_goes_on(tmp_path: Path) -> None:
    """Invariant 1: after a crash the client goes on where the session stands, or begins again."""
    layer = NEW.layers[1]
    upload_id = uuid.UUID(int=0)

    def before(store: Store) -> None:
        nonlocal upload_id
        upload_id = store.uploads.begin("app")
        with store.uploads.open("app", upload_id) as session:
            session.write(layer[:1000])

    def operation(store: Store) -> None:
        with store.uploads.open("app", upload_id, offset=1000) as session:
            session.write(layer[1000:])
            store.uploads.finish("app", session, Digest.of(layer))

    for location in crashes(tmp_path, before, operation):
        with open_store(location) as store:
            try:
                offset = store.uploads.offset("app", upload_id)
            except UploadUnknown:
                upload(store, "app", layer)
            else:
                with store.uploads.open("app", upload_id, offset=offset) as session:
                    session.write(layer[offset:])
                    store.uploads.finish("app", session, Digest.of(layer))
            assert store.blobs.read(Digest.of(layer)) == layer
            assert list((location / "uploads").iterdir()) == []


def injured(store: Store) -> None:
    """Two images; a layer of one rotted, a file of the other is gone, and an orphan lies there."""
    push_both(store)
    blob_path(store, Digest.of(OLD.layers[1])).unlink()
    rot(store, NEW.layers[1])
    orphan = store.location / "blobs" / "sha256" / "ab" / f"ab{'0' * 62}"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"orphan")
    store._index.update(lambda txn: store._index.tags.delete(txn, b"app\x00new"))
    store._index.update(lambda txn: store._index.links.put(txn, b"app\x00" + bytes(3), 1.0))


def assert_nothing_wrong(location: Path) -> None:
    """What can be had of the two images is right."""
    with open_store(location) as store:
        for content in {*OLD.blobs, *NEW.blobs, OLD.content, NEW.content}:
            digest = Digest.of(content)
            if digest not in (Digest.of(OLD.layers[1]), Digest.of(NEW.layers[1])):
                assert store.blobs.read(digest) == content


def test_fsck(tmp_path: Path) -> None:
    """Invariant 4: a check that broke off leaves the rest to the next, and loses nothing."""
    for location in crashes(
        tmp_path,
        injured,
        lambda store: store.maintenance.fsck(sample=Sample()),
        check=assert_nothing_wrong,
    ):
        with open_store(location) as store:
            store.maintenance.fsck(sample=Sample())
            again = store.maintenance.fsck(sample=Sample()).findings
            assert {finding.kind for finding in again} == {"incomplete"}
            push_both(store)
            assert store.maintenance.fsck(sample=Sample()).findings == []
        assert_sound(location)


def test_rebuilding_the_index(tmp_path: Path) -> None:
    """Design § index: stopped anywhere, the old index or the new one is there, or it says so."""
    prepared = tmp_path / "prepared"
    with open_store(prepared) as store:
        push_both(store)
        store.manifests.delete_tag("app", "old")
    for count in range(MOST_STEPS):
        location = tmp_path / f"crash-{count}"
        shutil.copytree(prepared, location)
        steps = Steps(count)
        with suppress(Crash):
            rebuild(location, steps)
        if not (location / "index").exists():
            with pytest.raises(StoreFormat, match="--rebuild-index"):
                open_store(location)
            rebuild(location)
        with open_store(location) as store:
            assert [row.tag for row in store.manifests.tagged()] == ["new"]
            assert_readable(store, "app", "new")
            assert store.maintenance.fsck().findings == []
        assert_sound(location)
        shutil.rmtree(location)
        if not steps.crashed:
            assert count > 20, "the operation has steps"
            return
    pytest.fail(f"more than {MOST_STEPS} steps")


def rebuild(location: Path, step: Callable[[str], None] = no_step) -> None:
    """Make the index anew."""
    rebuild_index(location, owner="test", step=step)


def test_writing_the_journal_anew(tmp_path: Path) -> None:
    """Design § journal: stopped anywhere, one of both files says all that the index says."""
    for location in crashes(tmp_path, push_both, lambda store: store._index.renew_journal()):
        with open_store(location) as store:
            assert store.maintenance.fsck().findings == []
            push(store, "app", NEW, tag="more")
        rebuild(location)
        with open_store(location) as store:
            assert_readable(store, "app", "more")


def test_an_error_in_the_middle_of_a_sweep(tmp_path: Path) -> None:
    """Invariant 1: when a sweep fails and the process lives on, no record is without its file."""

    class Fails:
        """Fails one step only, as a disk may."""

        def __init__(self, at: int) -> None:
            self.left = at

        def __call__(self, name: str) -> None:
            self.left -= 1
            if self.left == -1:
                raise OSError(5, name)

    for at in range(MOST_STEPS):
        location = tmp_path / f"fails-{at}"
        with open_store(location) as store:
            push(store, "app", OLD, tag="old")
            store.manifests.delete_tag("app", "old")
        fails = Fails(at)
        with suppress(OSError, StoreUnusable), open_store(location, step=fails) as store:
            with suppress(OSError, StoreUnusable):
                store.maintenance.gc(grace=0)
            for blob in (*OLD.blobs, OLD.content):
                if store.blobs.has(Digest.of(blob)):
                    assert store.blobs.read(Digest.of(blob)) == blob
        assert_sound(location)
        shutil.rmtree(location)
        if fails.left >= 0:
            return
    pytest.fail(f"more than {MOST_STEPS} steps")


def test_images_are_what_they_should_be() -> None:
    """The two images share their first layer, and that alone."""

    def own(image: Image) -> set[str]:
        return hexes(*image.blobs, image.content)

    assert own(OLD) & own(NEW) == hexes(OLD.layers[0])
