"""Checking a store: every injury is found, nothing wrong is served, and all of it heals."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from docket.errors import IndexDamaged, InvalidOption, NotFound
from docket.oci.digest import Digest
from docket.store import FsckReport, Sample, Store
from tests.store.corruption import injure
from tests.store.samples import (
    Image,
    assert_readable,
    blob_path,
    image,
    open_store,
    push,
    put_index,
    rot,
    upload,
)

ALL = Sample()
BASE = image("base", "app 0")
IMAGES = [BASE, *(image("base", f"app {number}", f"more {number}") for number in range(1, 12))]
SIGNATURE = image("signature", subject=BASE)
INJURIES = 1000
AT_ONCE = 20


def fill(store: Store) -> None:
    """Twelve images with a common base, two tags each, an index, a referrer and torrents."""
    for number, image_pushed in enumerate(IMAGES):
        push(store, f"app{number % 3}", image_pushed, tag=f"{number}")
        push(store, f"app{number % 3}", image_pushed, tag=f"also-{number}")
        store.manifests.record_torrent(image_pushed.digest.hex.encode()[:20], image_pushed.digest)
    put_index(store, "app0", IMAGES[0], IMAGES[3], tag="all")
    push(store, "app0", SIGNATURE, tag=None)


def listing(report: FsckReport) -> str:
    """All that a report says."""
    return "\n".join(
        f"{finding.kind} {finding.what} {finding.outcome}" for finding in report.findings
    )


def assert_nothing_wrong_is_served(store: Store) -> None:
    """What is there is right; what isn't is unknown, or the index says that it is damaged."""
    for pushed in (*IMAGES, SIGNATURE):
        for content in (*pushed.blobs, pushed.content):
            digest = Digest.of(content)
            with suppress(NotFound):
                assert Digest.of_file(blob_path(store, store.blobs.get(digest).digest)) == digest
    for number, image_pushed in enumerate(IMAGES):
        with suppress(NotFound):
            assert (
                store.manifests.get(f"app{number % 3}", f"{number}").content == image_pushed.content
            )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store in which nothing is wrong."""
    location = tmp_path_factory.mktemp("fsck") / "sound"
    with open_store(location) as store:
        fill(store)
    return location


def test_a_sound_store(sound: Path, tmp_path: Path) -> None:
    """Nothing is found where nothing is wrong, and everything was looked at."""
    shutil.copytree(sound, tmp_path / "store")
    with open_store(tmp_path / "store") as store:
        report = store.maintenance.fsck(sample=ALL)
        assert listing(report) == ""
        files = [path for path in (tmp_path / "store" / "blobs").rglob("*") if path.is_file()]
        assert report.blobs == report.read_blobs == len(files)
        assert report.read == sum(path.stat().st_size for path in files)
        assert report.rows > len(files)
        assert not (store.location / "fsck").exists()


@pytest.mark.parametrize("seed", range(INJURIES // AT_ONCE))
def test_injuries(sound: Path, tmp_path: Path, seed: int) -> None:
    """Invariant 4: every injury is found, none is served, and a push heals all of them."""
    location = tmp_path / "store"
    shutil.copytree(sound, location)
    rng = random.Random(seed)
    taken: set[str] = set()
    injuries = [injure(location, rng, taken) for _ in range(AT_ONCE)]
    with open_store(location) as store:
        report = store.maintenance.fsck(sample=ALL)
        text = listing(report)
        for injury in injuries:
            assert any(name in text for name in injury.names), f"{injury.what} not in\n{text}"
        assert_nothing_wrong_is_served(store)
        again = store.maintenance.fsck(sample=ALL)
        assert {finding.kind for finding in again.findings} <= {"incomplete"}, listing(again)
        fill(store)
        assert listing(store.maintenance.fsck(sample=ALL)) == ""
        for number in range(len(IMAGES)):
            assert_readable(store, f"app{number % 3}", f"{number}")
            assert_readable(store, f"app{number % 3}", f"also-{number}")
        assert_readable(store, "app0", "all")
        assert len(list(store.manifests.referrers("app0", BASE.digest))) == 1


def test_rot_is_found_by_reading_alone(store: Store) -> None:
    """Without --read-data sizes are compared; bytes are read of the part that was asked for."""
    push(store, "app", BASE)
    layer = rot(store, BASE.layers[1])
    assert listing(store.maintenance.fsck()) == ""
    parts = [store.maintenance.fsck(sample=Sample(part, 7)) for part in range(1, 8)]
    assert [part.quarantined for part in parts if part.quarantined] == [[layer]]
    # each part reads the manifest too: edges are told by it
    assert sum(part.read_blobs for part in parts) == 4 + 6


def test_a_quarantined_blob(store: Store) -> None:
    """Invariant 4: it is unknown, not sent again to seeds, named by every check, and heals."""
    push(store, "app", BASE)
    layer = rot(store, BASE.layers[0])
    report = store.maintenance.fsck(sample=ALL)
    assert report.quarantined == [layer]
    assert [path.name for path in (store.location / "quarantine").iterdir()] == [
        f"sha256-{layer.hex}"
    ]
    assert not store.blobs.has(layer)
    assert store.layers.find([Digest.of(BASE.plain[0])]) == {}
    assert store.blobs.times_quarantined(layer) == 1
    assert f"incomplete app lacks {layer}" in listing(store.maintenance.fsck())
    store.maintenance.gc(grace=0)
    assert f"incomplete app lacks {layer}" in listing(store.maintenance.fsck()), (
        "gc leaves what may heal"
    )
    push(store, "app", BASE)
    assert listing(store.maintenance.fsck(sample=ALL)) == ""
    assert_readable(store, "app", "latest")


def test_a_healed_blob_is_not_condemned(store: Store) -> None:
    """A blob that is put anew while its old file is read stays."""
    push(store, "app", BASE)
    layer = rot(store, BASE.layers[0])
    healed = False

    def heal(_done: int, _total: int) -> None:
        nonlocal healed
        if not healed:
            healed = True
            store.blobs.check(layer)
            push(store, "app", BASE)

    store.maintenance.fsck(sample=ALL, on_blob=heal)
    assert store.blobs.has(layer)
    assert_readable(store, "app", "latest")


def test_pushes_during_a_check(store: Store) -> None:
    """A check finds nothing wrong in what comes and goes meanwhile."""
    for pushed_image in IMAGES:
        push(store, "app", pushed_image, tag=f"before-{pushed_image.digest.hex}")
    number = 0

    def on_blob(_done: int, _total: int) -> None:
        nonlocal number
        number += 1
        if number < 30:
            push(store, "app", image("base", f"during {number}"), tag=f"{number}")
            if number % 3 == 0:
                store.manifests.delete_tag("app", f"{number - 1}")
                store.maintenance.gc(grace=0)

    assert listing(store.maintenance.fsck(sample=ALL, on_blob=on_blob)) == ""
    assert number > 10


def test_an_orphan_is_taken_in_when_someone_names_it(store: Store) -> None:
    """A file whose record is lost is no garbage while a link or a manifest names it."""
    push(store, "app", BASE)
    with store._index.read() as txn:
        rows = dict(store._index.blobs.scan(txn))
    lost = Digest.of(BASE.layers[0])
    store._index.update(lambda txn: store._index.blobs.delete(txn, str(lost).encode()))
    assert f"orphan {lost} taken in again" in listing(store.maintenance.fsck())
    with store._index.read() as txn:
        row = store._index.blobs.get(txn, str(lost).encode())
    assert row and row.diff_id == rows[str(lost).encode()].diff_id
    assert_readable(store, "app", "latest")


def test_damage_outside_fsck(sound: Path, tmp_path: Path) -> None:
    """Before any check a damaged row is an error, never an answer."""
    location = tmp_path / "store"
    shutil.copytree(sound, location)
    rng = random.Random(1)
    taken: set[str] = set()
    for _ in range(AT_ONCE):
        injure(location, rng, taken)
    with open_store(location) as store:
        for number, image_pushed in enumerate(IMAGES):
            with suppress(NotFound, IndexDamaged):
                assert (
                    store.manifests.get(f"app{number % 3}", f"{number}").content
                    == image_pushed.content
                )


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1/9999999"]
)
def test_wrong_samples(text: str) -> None:
    """A part is n/t with n from 1 to t."""
    with pytest.raises(InvalidOption):
        Sample.parse(text)


def test_samples_cover_all() -> None:
    """Every blob is in exactly one part."""
    digests = [Digest.of(bytes([number])) for number in range(256)]
    parts = [Sample.parse(f"{part}/5") for part in range(1, 6)]
    assert all(sum(part.has(digest) for part in parts) == 1 for digest in digests)


def test_upload_of_a_truncated_blob_heals_it(store: Store) -> None:
    """A blob whose file lost its end is replaced by the next upload, before any check."""
    content = b"x" * 5000
    blob = upload(store, "app", content)
    blob_path(store, blob.digest).chmod(0o644)
    with blob_path(store, blob.digest).open("rb+") as file:
        file.truncate(100)
    upload(store, "app", content)
    assert store.blobs.read(blob.digest) == content


def test_images_have_what_the_injuries_need() -> None:
    """All images share a layer, and each has one of its own."""
    shared: set[bytes] = set.intersection(*(set(image.layers) for image in IMAGES))
    assert len(shared) == 1
    assert isinstance(IMAGES[0], Image)
