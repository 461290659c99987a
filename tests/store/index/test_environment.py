"""The index: growth of the map, damage, and who may open a store."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from docket.errors import IndexDamaged, StoreFormat, StoreLocked
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.pieces import PIECE_LENGTH
from docket.store import Store
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingested
from docket.store.filesystem import Filesystem
from docket.store.index.environment import Index
from docket.store.index.records import BlobRecord, key_of
from docket.store.index.tables import Transaction
from tests.store.samples import image, open_store, push

TINY_MAP = 1 << 17
ONE = image("base", "one")


def record(number: int) -> BlobRecord:
    """A record that tells *number*."""
    return BlobRecord(size=number, stored=0.0, verified=0.0)


def test_the_map_grows(tmp_path: Path) -> None:
    """LMDB: a full map shows at a write; it is made larger and the change runs again."""
    index = Index(tmp_path / "index", map_size=TINY_MAP)
    for number in range(100):
        digest = Digest.of(b"%d" % number)

        def change(txn: Transaction, digest: Digest = digest, number: int = number) -> None:
            index.blobs.put(txn, key_of(digest), record(number))
            index.pieces.put(txn, key_of(digest), bytes(20 * 500))

        index.update(change)
    with index.read() as txn:
        assert index.pieces.count(txn) == 100
        assert sorted(record.size for _, record in index.blobs.scan(txn)) == list(range(100))
    index.close()
    assert (tmp_path / "index" / "data.mdb").stat().st_size > TINY_MAP


def test_the_map_grows_while_others_read_and_write(tmp_path: Path) -> None:
    """LMDB: the map grows between transactions; readers in a row don't put it off for ever."""
    index = Index(tmp_path / "index", map_size=TINY_MAP)
    over = threading.Event()
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while not over.is_set():
                with index.read() as txn:
                    for _, record in index.blobs.scan(txn):
                        assert record.size >= 0
        except BaseException as error:
            failed.append(error)

    def write(base: int) -> None:
        try:
            for number in range(base, base + 40):
                digest = Digest.of(b"%d" % number)

                def change(txn: Transaction, digest: Digest = digest, number: int = number) -> None:
                    index.blobs.put(txn, key_of(digest), record(number))
                    index.pieces.put(txn, key_of(digest), bytes(20 * 500))

                index.update(change)
        except BaseException as error:
            failed.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    writers = [threading.Thread(target=write, args=(base,)) for base in (0, 100)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in readers:
        thread.join()
    assert failed == []
    with index.read() as txn:
        assert index.blobs.count(txn) == 80
    index.close()


def test_blobs_come_in_while_the_map_grows(tmp_path: Path) -> None:
    """LMDB: a change that has renamed a file before the map was full can run again."""
    index = Index(tmp_path / "index", map_size=TINY_MAP)
    files = BlobFiles(tmp_path, index, Filesystem(tmp_path))
    (tmp_path / "trash").mkdir()
    for number in range(60):
        content = b"%d" % number
        source = tmp_path / "source"
        source.write_bytes(content)
        ingested = Ingested(Digest.of(content), len(content), bytes(20 * 500), None)
        index.update(lambda txn, found=ingested, source=source: files.add(txn, source, found))  # type: ignore[misc]
        assert files.path(ingested.digest).read_bytes() == content
    with index.read() as txn:
        assert index.blobs.count(txn) == 60
    index.close()


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    """Invariant 2: an exception in a change undoes all of it."""
    index = Index(tmp_path / "index")

    def change(txn: Transaction) -> None:
        index.links.put(txn, b"a", 1.0)
        index.layers.add(txn, b"a", b"b")
        raise KeyError

    with pytest.raises(KeyError):
        index.update(change)
    with index.read() as txn:
        assert index.links.get(txn, b"a") is None
        assert not index.layers.has(txn, b"a")
    index.close()


def test_damage_is_found(tmp_path: Path) -> None:
    """Invariant 4: a value whose checksum is wrong is `IndexDamaged`, never an answer."""
    with open_store(tmp_path) as store:
        push(store, "app", ONE, tag="v1")
    path = tmp_path / "index" / "data.mdb"
    content = path.read_bytes()
    value = manifest.OCI_MANIFEST.encode()
    assert value in content
    path.write_bytes(content.replace(value, value[:-1] + b"m"))
    with open_store(tmp_path) as store:
        with pytest.raises(IndexDamaged, match="fsck"):
            store.manifests.get("app", "v1")
        assert store.blobs.read(Digest.of(ONE.config)) == ONE.config


def test_an_index_that_is_none(tmp_path: Path) -> None:
    """A file that is no LMDB environment is `StoreFormat`, and the lock is given back."""
    with open_store(tmp_path):
        pass
    (tmp_path / "index" / "data.mdb").write_bytes(b"x" * 8192)
    for _ in range(2):
        with pytest.raises(StoreFormat):
            open_store(tmp_path)


def test_an_index_without_version(tmp_path: Path) -> None:
    """A folder that docket didn't make whole is refused, not made over."""
    (tmp_path / "index").mkdir()
    with pytest.raises(StoreFormat):
        open_store(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"format": 2, "piece_length": PIECE_LENGTH}),
        json.dumps({"format": 1, "piece_length": PIECE_LENGTH * 2}),
        json.dumps([]),
        "",
        "not JSON",
        "\xff",
    ],
)
def test_another_version(tmp_path: Path, content: str) -> None:
    """Decision 5: a store of another format or piece length is refused; its files stay."""
    with open_store(tmp_path):
        pass
    (tmp_path / "VERSION").write_bytes(content.encode("latin-1"))
    with pytest.raises(StoreFormat):
        open_store(tmp_path)
    assert (tmp_path / "index").exists()


def test_a_second_opener(tmp_path: Path) -> None:
    """Decision 8: one owner; the next is told who that is, and gets the store afterwards."""
    with open_store(tmp_path):
        with pytest.raises(StoreLocked) as caught:
            open_store(tmp_path)
        assert "test (process" in caught.value.holder
    with open_store(tmp_path):
        pass


def test_a_second_process(tmp_path: Path) -> None:
    """Decision 8: the lock holds against other processes, and ends with its owner's life."""
    script = (
        "import sys, pathlib\n"
        "from tests.store.samples import open_store\n"
        "store = open_store(pathlib.Path(sys.argv[1]))\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    ) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"open\n"
        with pytest.raises(StoreLocked) as caught:
            open_store(tmp_path)
        assert f"process {owner.pid}" in caught.value.holder
        owner.kill()
    with open_store(tmp_path):
        pass


def test_waiting_for_the_owner(tmp_path: Path) -> None:
    """Decision 8: a command may wait; it is asked again and again until the owner is done."""
    first = open_store(tmp_path)
    holders: list[str] = []

    def wait(holder: str) -> bool:
        holders.append(holder)
        first.close()
        return True

    second = Store(tmp_path, wait=wait)
    second.close()
    assert len(holders) == 1
