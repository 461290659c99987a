"""The journal beside the index, and the index that is rebuilt from it and the blobs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest

from docket.errors import IndexUnreadable, ManifestUnknown, StoreFormat, StoreLocked
from docket.oci.digest import Digest
from docket.store import FsckReport, Store, rebuild_index
from docket.store.filesystem import Filesystem
from docket.store.index.environment import Index
from docket.store.index.journal import Journal
from tests.store.samples import (
    Image,
    assert_readable,
    assert_sound,
    blob_path,
    image,
    open_store,
    packed,
    push,
    put_index,
    tar,
    upload,
)

ONE = image("base", "one")
TWO = image("base", "two")
GONE = image("base", "gone")
SIGNATURE = image("signature", subject=ONE)


def rebuild(location: Path) -> FsckReport:
    """The index of the closed store at *location*, made anew."""
    return rebuild_index(location, owner="test")


def rows(location: Path) -> dict[tuple[str, bytes], Any]:
    """All that the index says, apart from when blobs were last verified."""
    index = Index(location / "index")
    rows: dict[tuple[str, bytes], Any] = {}
    try:
        with index.read() as txn:
            for table in index.tables:
                for key, value in table.scan(txn):
                    plain = value
                    if table.name == "blobs":
                        plain = msgspec.structs.replace(value, verified=0.0)
                    rows[table.name, key] = plain
            for many in index.multi_tables:
                for key, value in many.pairs(txn):
                    rows.setdefault((many.name, key), []).append(value)
    finally:
        index.close()
    return rows


def live(store: Store) -> None:
    """A life with everything: pushes, moved and deleted tags, indexes, referrers, gc, torrents."""
    push(store, "app", ONE, tag="1")
    push(store, "app", GONE, tag="2")
    push(store, "team/other", TWO, tag="latest")
    store.manifests.record_torrent(b"\xff\x00\n" + bytes(17), ONE.digest)
    push(store, "app", SIGNATURE, tag=None)
    put_index(store, "app", ONE, GONE, tag="all")
    push(store, "app", TWO, tag="moves")
    push(store, "app", ONE, tag="moves")
    store.manifests.delete_tag("app", "all")
    store.manifests.delete("app", GONE.digest)
    store.maintenance.gc(grace=0)
    upload(store, "app", packed(tar("of no manifest")))
    store.blobs.put(b"small", repository="app")


def log(location: Path) -> Path:
    """The journal's one file."""
    (path,) = (location / "journal").iterdir()
    return path


def test_a_rebuilt_index_is_identical(tmp_path: Path) -> None:
    """Every row is as before, whatever happened before; and it goes on from there."""
    with open_store(tmp_path) as store:
        live(store)
    before = rows(tmp_path)
    assert {name for name, _ in before} >= {"blobs", "links", "manifests", "tags", "torrents"}
    shutil.rmtree(tmp_path / "index")
    report = rebuild(tmp_path)
    assert report.findings == []
    assert rows(tmp_path) == before
    assert_sound(tmp_path)
    with open_store(tmp_path) as store:
        assert store.maintenance.fsck().findings == []
        push(store, "app", GONE, tag="2")
    again = rows(tmp_path)
    rebuild(tmp_path)
    assert rows(tmp_path) == again


def test_rebuild_beside_a_damaged_index(tmp_path: Path) -> None:
    """The old index isn't read: it may be anything."""
    with open_store(tmp_path) as store:
        live(store)
    before = rows(tmp_path)
    (tmp_path / "index" / "data.mdb").write_bytes(b"not an index" * 1000)
    with pytest.raises(StoreFormat):
        open_store(tmp_path)
    rebuild(tmp_path)
    assert rows(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} >= {"index", "journal", "blobs"}
    assert not (tmp_path / "index.new").exists()
    assert (tmp_path / "index.old" / "data.mdb").exists(), "nothing is deleted"


def test_a_lost_index_is_never_begun_anew(tmp_path: Path) -> None:
    """A store whose index is gone is an error that says what to do, not an empty store."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE, tag="1")
    shutil.rmtree(tmp_path / "index")
    with pytest.raises(StoreFormat, match="--rebuild-index"):
        open_store(tmp_path)
    rebuild(tmp_path)
    with open_store(tmp_path) as store:
        assert_readable(store, "app", "1")


def test_a_backup(tmp_path: Path) -> None:
    """Blobs, journal and VERSION are the whole store, copied while it is in use."""
    copy = tmp_path / "copy"
    with open_store(tmp_path / "store") as store:
        live(store)
        shutil.copytree(store.location / "blobs", copy / "blobs")
        push(store, "app", GONE, tag="between")
        shutil.copytree(store.location / "journal", copy / "journal")
        shutil.copy(store.location / "VERSION", copy / "VERSION")
    kinds = {finding.kind for finding in rebuild(copy).findings}
    assert kinds == {"blob-missing"}, "what came between the two is named"
    with open_store(copy) as store:
        assert_readable(store, "app", "1")
        assert_readable(store, "team/other", "latest")
        # without its manifest nobody knows what else the image had
        assert {finding.kind for finding in store.maintenance.fsck().findings} == {
            "dangling",
            "incomplete",
        }
        assert {finding.kind for finding in store.maintenance.fsck().findings} == {"incomplete"}
        push(store, "app", GONE, tag="between")
        assert store.maintenance.fsck().findings == []


def test_rebuild_without_a_journal(tmp_path: Path) -> None:
    """Nothing is touched where the tags can't be told."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE, tag="1")
    before = rows(tmp_path)
    shutil.rmtree(tmp_path / "journal")
    with pytest.raises(StoreFormat, match="no journal"):
        rebuild(tmp_path)
    assert rows(tmp_path) == before


def test_rebuild_of_a_store_in_use(tmp_path: Path) -> None:
    """The owner of a store is the only one who may touch it."""
    with open_store(tmp_path), pytest.raises(StoreLocked):
        rebuild(tmp_path)


def test_rebuild_with_damage(tmp_path: Path) -> None:
    """What is damaged is told and left out; the rest is as before."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE, tag="1")
        push(store, "app", TWO, tag="2")
        rotten = blob_path(store, Digest.of(TWO.layers[1]))
        gone = blob_path(store, Digest.of(TWO.config))
    rotten.chmod(0o644)
    rotten.write_bytes(b"rotten")
    gone.unlink()
    report = rebuild(tmp_path)
    assert {(finding.kind, finding.what.partition(":")[2]) for finding in report.findings} == {
        ("blob-bytes", rotten.name),
        ("blob-missing", gone.name),
    }
    with open_store(tmp_path) as store:
        assert_readable(store, "app", "1")
        assert not store.blobs.has(Digest.of(TWO.layers[1]))
        push(store, "app", TWO, tag="2")
        assert_readable(store, "app", "2")
        assert store.maintenance.fsck().findings == []


def test_a_damaged_line(tmp_path: Path) -> None:
    """A line that fails its checksum is told, and costs what it said, nothing else."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE, tag="1")
        push(store, "app", TWO, tag="2")
    path = log(tmp_path)
    content = path.read_bytes()
    assert content.count(b'["tags","app\\u00002"') == 1
    path.write_bytes(content.replace(b'["tags","app\\u00002"', b'["tags","app\\u00003"'))
    report = rebuild(tmp_path)
    assert [finding.what for finding in report.findings] == ["1 lines"]
    with open_store(tmp_path) as store:
        assert store.manifests.tags("app") == ["1"]
        assert_readable(store, "app", "1")
        assert_readable(store, "app", TWO.digest)


def test_an_uncommitted_tail(tmp_path: Path) -> None:
    """What a change that never was has left in the journal is overwritten by the next."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE, tag="1")
        with store._index.read() as txn:
            position = store._index.position(txn)
        assert position
        path = log(tmp_path)
        with path.open("rb+") as file:
            file.seek(position.length)
            file.write(b'5b0c3a1f ["tags","never"]\n' * 50)
        push(store, "app", TWO, tag="2")
        assert store.maintenance.fsck().findings == []
    before = rows(tmp_path)
    rebuild(tmp_path)
    assert rows(tmp_path) == before


@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_a_lost_journal_is_made_anew(tmp_path: Path, harm: str) -> None:
    """Stores from before there were journals, and journals that lost their end, get a whole one."""
    with open_store(tmp_path) as store:
        live(store)
    before = rows(tmp_path)
    path = log(tmp_path)
    if harm == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200])
    with open_store(tmp_path):
        pass
    rebuild(tmp_path)
    assert rows(tmp_path) == before


def test_a_damaged_position(tmp_path: Path) -> None:
    """An index that can't say how much of the journal it has replaces no journal."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE, tag="1")
    before = log(tmp_path).read_bytes()
    _damage_position(tmp_path)
    with pytest.raises(IndexUnreadable, match="--rebuild-index"):
        open_store(tmp_path)
    assert log(tmp_path).read_bytes() == before
    rebuild(tmp_path)
    with open_store(tmp_path) as store:
        assert_readable(store, "app", "1")
        assert store.maintenance.fsck().findings == []


def test_it_is_written_anew_when_it_is_long(tmp_path: Path) -> None:
    """gc shortens a journal of which most is over; nothing gets lost thereby."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE, tag="1")
        before = log(tmp_path).name
        store.maintenance.gc()
        assert log(tmp_path).name == before
        for _ in range(3):
            store._index.update(lambda _txn: _retag(store, 5000))
        store.maintenance.gc()
        assert log(tmp_path).name != before
        used = len(log(tmp_path).read_bytes().rstrip(b"\0"))
        assert used < 5000
        assert store.maintenance.fsck().findings == []


def test_pushes_while_it_is_written_anew(tmp_path: Path) -> None:
    """What is committed between the snapshot and the new file's place is in the new file too."""
    to_push: list[Image] = []

    def step(name: str) -> None:
        if name.startswith("write") and name.endswith(".new") and to_push:
            push(store, "app", to_push.pop(), tag="2")

    with open_store(tmp_path, step=step) as store:
        push(store, "app", ONE, tag="1")
        to_push.append(TWO)
        store._index.renew_journal()
        assert not to_push
        assert_readable(store, "app", "2")
        assert store.maintenance.fsck().findings == []
    before = rows(tmp_path)
    rebuild(tmp_path)
    assert rows(tmp_path) == before


def test_lines_can_be_read_by_people(tmp_path: Path) -> None:
    """Each line is a checksum and JSON; a tag and its digest can be found with grep."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE, tag="1")
    lines = log(tmp_path).read_bytes().rstrip(b"\0").splitlines()
    parsed = [msgspec.json.decode(line[9:]) for line in lines]
    assert [row[2][0] for row in parsed if row[:2] == ["tags", "app\x001"]] == [str(ONE.digest)]


def test_entries_survive_their_text(tmp_path: Path) -> None:
    """Any key comes back as it was; what is no line at all is damage, not an exception."""
    with open_store(tmp_path) as store:
        store.manifests.record_torrent(bytes(range(20)), ONE.digest)
        store.manifests.record_torrent(b'"\\\n\r\xff' * 4, ONE.digest)
    path = log(tmp_path)
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content + b"garbage\n\n00000000 []\n")
    entries = list(Journal(tmp_path / "journal", Filesystem(tmp_path)).entries())
    keys = {entry.key for entry in entries if entry}
    assert keys == {bytes(range(20)), b'"\\\n\r\xff' * 4}
    assert entries.count(None) == 3


def test_fsck_of_a_forged_row(store: Store) -> None:
    """A row that only one of both has is told, and both tell the same again."""
    push(store, "app", ONE, tag="1")
    with store._index._env.begin(write=True) as txn:
        store._index.tags.delete(txn, b"app\x001")
        store._index._changes.clear()
    with pytest.raises(ManifestUnknown):
        store.manifests.get("app", "1")
    (finding,) = store.maintenance.fsck().findings
    assert (finding.kind, finding.what) == ("index", "tags app 1")
    assert_readable(store, "app", "1")
    assert store.maintenance.fsck().findings == []


def _retag(store: Store, times: int) -> None:
    """Note *times* changes of one row, as so many deploys would."""
    changes = store._index._changes
    for number in range(times):
        changes.set("tags", b"app\x00x", [str(ONE.digest), float(number)])
    changes.delete("tags", b"app\x00x")


def _damage_position(location: Path) -> None:
    environment = lmdb.open(str(location / "index"), map_size=1 << 30, max_dbs=20)
    meta = environment.open_db(b"meta")
    with environment.begin(write=True) as txn:
        txn.put(b"journal", b"damaged!", db=meta)
    environment.close()
