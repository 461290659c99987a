"""Upload sessions: parts, order, writers, restarts, and their end."""

from __future__ import annotations

import os
import resource
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from docket.errors import DigestMismatch, UploadConflict, UploadOutOfOrder, UploadUnknown
from docket.oci.digest import Digest
from docket.pieces import PieceHasher
from docket.store import Store
from docket.store.index.environment import Index
from tests.store.samples import assert_sound, blob_path, open_store, packed, tar

LAYER = packed(tar("a", size=300_000))


def write(store: Store, upload_id: uuid.UUID, content: bytes, *, at: int | None = None) -> None:
    """Append *content* to a session of the repository ``app``."""
    with store.uploads.open("app", upload_id, offset=at) as session:
        session.write(content)


def finish(store: Store, upload_id: uuid.UUID, expected: Digest) -> None:
    """End a session of the repository ``app``."""
    with store.uploads.open("app", upload_id) as session:
        store.uploads.finish("app", session, expected)
    assert store.layers.wait([expected], seconds=60)


def files(store: Store) -> list[Path]:
    """What lies in ``uploads/``."""
    return list((store.location / "uploads").iterdir())


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows over *size* bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_parts(store: Store) -> None:
    """OCI distribution § pushing a blob in chunks: parts of any length make one blob."""
    upload_id = store.uploads.begin("app")
    assert store.uploads.offset("app", upload_id) == 0
    for at in range(0, len(LAYER), 100_000):
        write(store, upload_id, LAYER[at : at + 100_000], at=at)
    assert store.uploads.offset("app", upload_id) == len(LAYER)
    finish(store, upload_id, Digest.of(LAYER))
    assert store.blobs.read(Digest.of(LAYER)) == LAYER
    assert files(store) == []
    with pytest.raises(UploadUnknown):
        store.uploads.offset("app", upload_id)


@pytest.mark.parametrize("at", [0, 99, 101, 1 << 40])
def test_a_part_out_of_order(store: Store, at: int) -> None:
    """OCI distribution § pushing a blob in chunks: a part begins where the last one ended."""
    upload_id = store.uploads.begin("app")
    write(store, upload_id, LAYER[:100], at=0)
    with pytest.raises(UploadOutOfOrder) as caught:
        write(store, upload_id, LAYER[100:], at=at)
    assert caught.value.offset == 100
    write(store, upload_id, LAYER[100:], at=100)
    finish(store, upload_id, Digest.of(LAYER))


def test_two_writers(store: Store) -> None:
    """Bad input § upload session hijack: one writer at a time; the second is told at once."""
    upload_id = store.uploads.begin("app")
    with store.uploads.open("app", upload_id) as session:
        session.write(LAYER[:10])
        with pytest.raises(UploadConflict), store.uploads.open("app", upload_id):
            pass
        with pytest.raises(UploadConflict):
            store.uploads.cancel("app", upload_id)
        session.write(LAYER[10:])
    finish(store, upload_id, Digest.of(LAYER))


def test_many_writers_race(store: Store) -> None:
    """Bad input § upload session hijack: of many that write and end it at once, one does."""
    upload_id = store.uploads.begin("app")
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def compete() -> None:
        start.wait()
        try:
            with store.uploads.open("app", upload_id, offset=0) as session:
                session.write(LAYER)
                store.uploads.finish("app", session, Digest.of(LAYER))
        except (UploadConflict, UploadUnknown, UploadOutOfOrder) as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("stored")

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert outcomes.count("stored") == 1
    assert store.blobs.read(Digest.of(LAYER)) == LAYER


def test_sessions_survive_a_restart(tmp_path: Path) -> None:
    """Invariant 1: after a restart a session goes on at its last byte, all hashed again."""
    with open_store(tmp_path / "store") as store:
        upload_id = store.uploads.begin("app")
        write(store, upload_id, LAYER[:1000])
    with open_store(tmp_path / "store") as store:
        assert store.uploads.offset("app", upload_id) == 1000
        write(store, upload_id, LAYER[1000:2000], at=1000)
    with open_store(tmp_path / "store") as store:
        write(store, upload_id, LAYER[2000:], at=2000)
        finish(store, upload_id, Digest.of(LAYER))
        assert Digest.of(tar("a", size=300_000)) in store.layers.find(
            [Digest.of(tar("a", size=300_000))]
        )
        hasher = PieceHasher()
        hasher.update(LAYER)
        assert store.blobs.piece_hashes([Digest.of(LAYER)])[Digest.of(LAYER)] == hasher.finish()
    assert_sound(tmp_path / "store")


def test_a_restart_before_the_last_word(tmp_path: Path) -> None:
    """Invariant 1: bytes that changed behind the store's back are found by the second hash."""
    with open_store(tmp_path / "store") as store:
        upload_id = store.uploads.begin("app")
        write(store, upload_id, LAYER)
        path = store.location / "uploads" / str(upload_id)
    path.write_bytes(b"x" + LAYER[1:])
    with open_store(tmp_path / "store") as store:
        with pytest.raises(DigestMismatch):
            finish(store, upload_id, Digest.of(LAYER))
        assert files(store) == []


def test_cancel(store: Store) -> None:
    """OCI distribution § cancelling: nothing of the session is left."""
    upload_id = store.uploads.begin("app")
    write(store, upload_id, LAYER)
    store.uploads.cancel("app", upload_id)
    assert files(store) == []
    with pytest.raises(UploadUnknown):
        store.uploads.cancel("app", upload_id)
    with pytest.raises(UploadUnknown):
        write(store, upload_id, b"")


def test_a_session_is_bound_to_its_repository(store: Store) -> None:
    """Bad input § upload session hijack: through another repository it can't be seen."""
    upload_id = store.uploads.begin("app")
    with pytest.raises(UploadUnknown):
        store.uploads.offset("other", upload_id)
    with pytest.raises(UploadUnknown), store.uploads.open("other", upload_id):
        pass
    with pytest.raises(UploadUnknown):
        store.uploads.cancel("other", upload_id)
    assert store.uploads.offset("app", upload_id) == 0


def test_unknown_sessions(store: Store) -> None:
    """A UUID that nobody was given opens nothing."""
    with pytest.raises(UploadUnknown):
        store.uploads.offset("app", uuid.uuid4())


def test_expiry(store: Store) -> None:
    """Bad input § upload session: an old one ends, a young one and one being written do not."""
    uploads = store.uploads
    old, busy = uploads.begin("app"), uploads.begin("app")
    assert uploads.expire(older_than=3600) == 0
    with uploads.open("app", busy) as session:
        session.write(b"still here")
        assert uploads.expire(older_than=-1) == 1
    with pytest.raises(UploadUnknown):
        uploads.offset("app", old)
    assert uploads.offset("app", busy) == 10


def test_files_of_no_session_go_at_start(tmp_path: Path) -> None:
    """Invariant 1: what a crash left in ``uploads/`` is taken away at the next start."""
    with open_store(tmp_path / "store") as store:
        upload_id = store.uploads.begin("app")
        lost = store.uploads.begin("app")
        (store.location / "uploads" / str(lost)).unlink()
        (store.location / "uploads" / "small-1").write_bytes(b"x")
        with pytest.raises(UploadUnknown):
            store.uploads.offset("app", lost)
    with open_store(tmp_path / "store") as store:
        assert [path.name for path in files(store)] == [str(upload_id)]
    index = Index(tmp_path / "store" / "index")
    with index.read() as txn:
        assert [key.decode() for key, _ in index.uploads.scan(txn)] == [str(upload_id)]
    index.close()


def test_a_block_that_fits_only_in_part(store: Store) -> None:
    """Bad input § disk full: an upload goes on where the file ends, and stays right to the byte."""
    upload_id = store.uploads.begin("app")
    write(store, upload_id, LAYER[:100_000])
    with file_size_limit(150_000), pytest.raises(OSError, match="too large"):
        write(store, upload_id, LAYER[100_000:250_000])
    offset = store.uploads.offset("app", upload_id)
    assert offset == (store.location / "uploads" / str(upload_id)).stat().st_size
    write(store, upload_id, LAYER[offset:], at=offset)
    finish(store, upload_id, Digest.of(LAYER))
    assert Digest.of_file(blob_path(store, Digest.of(LAYER))) == Digest.of(LAYER)


def test_idle_sessions_hold_no_descriptor(store: Store) -> None:
    """Bad input § upload session: clients that went away don't use up the process's files."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        write(store, store.uploads.begin("app"), b"x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_left_sessions_hold_no_thread(store: Store) -> None:
    """A session that nobody goes on with has a file and a hash: no thread, no decompressor."""
    before = set(threading.enumerate())
    for _ in range(20):
        write(store, store.uploads.begin("app"), LAYER[:-1], at=0)
    started = set(threading.enumerate()) - before
    assert not [thread for thread in started if not thread.name.startswith("hash")]


def test_age_counts_from_the_last_byte(store: Store) -> None:
    """A long upload lives as long as bytes come; one that got none since ends."""
    old, fresh = store.uploads.begin("app"), store.uploads.begin("app")
    write(store, fresh, b"first", at=0)
    for path in files(store):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    write(store, fresh, b"second", at=5)
    assert store.uploads.expire(older_than=3600) == 1
    assert store.uploads.offset("app", fresh) == 11
    with pytest.raises(UploadUnknown):
        store.uploads.offset("app", old)


def test_a_session_from_the_future(store: Store) -> None:
    """A clock that was ahead: the session counts as written now, and gets older from then on."""
    upload_id = store.uploads.begin("app")
    (path,) = files(store)
    ahead = time.time() + 365 * 24 * 3600
    os.utime(path, (ahead, ahead))
    assert store.uploads.expire(older_than=60) == 0
    assert path.stat().st_mtime <= time.time()
    assert store.uploads.expire(older_than=0) == 1
    with pytest.raises(UploadUnknown):
        store.uploads.offset("app", upload_id)
