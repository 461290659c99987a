"""Files of another program that the store takes links to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from docket.errors import DigestMismatch, SharingRefused
from docket.oci.digest import Digest
from docket.pieces import PieceHasher
from docket.store import Store
from tests.support.images import layer_tar, packed

LAYER = layer_tar("shared", size=300_000)
PACKED = packed(LAYER, "gzip")
DIGEST = Digest.of(PACKED)


def ignored(_count: int) -> None:
    """What needs no pace."""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A blob in the other program's folder."""
    path = tmp_path / "engine" / DIGEST.hex
    path.parent.mkdir()
    path.write_bytes(PACKED)
    path.chmod(0o444)
    return path


def adopt(store: Store, path: Path) -> None:
    """Take the file into the store."""
    store.sharing.adopt(path, DIGEST, on_block=ignored, stop=threading.Event())


def names(store: Store) -> int:
    """The names of the stored blob's file."""
    with store.blobs.open(DIGEST) as reader:
        return os.fstat(reader.fileno()).st_nlink


def test_a_file_that_is_adopted_is_one_file(store: Store, theirs: Path) -> None:
    """Its pieces and what it unpacks to are known; its owner may drop its name."""
    adopt(store, theirs)
    assert store.sharing.is_shared(theirs, DIGEST)
    assert theirs.stat().st_nlink == 2
    hasher = PieceHasher()
    hasher.update(PACKED)
    assert store.blobs.piece_hashes([DIGEST]) == {DIGEST: hasher.finish()}
    layer = store.layers.get(DIGEST)
    assert layer
    assert (layer.diff_id, layer.plain_size) == (Digest.of(LAYER), len(LAYER))
    theirs.unlink()
    assert store.blobs.read(DIGEST) == PACKED
    assert names(store) == 1


def test_a_copy_of_a_held_blob_becomes_the_blob_s_file(
    store: Store, theirs: Path, tmp_path: Path
) -> None:
    """Readers of the old file go on, and the links that are seeded lead to the new one."""
    mine = tmp_path / "mine"
    mine.write_bytes(PACKED)
    store.blobs.adopt(mine, DIGEST)
    mine.unlink()
    with store.downloads.open(Digest.of(b"image")) as download, store.blobs.open(DIGEST) as reader:
        download.link_held(DIGEST)
        assert store.sharing.replace(theirs, DIGEST, on_block=ignored) == len(PACKED)
        assert reader.pread(reader.size, 0) == PACKED
        assert os.fstat(reader.fileno()).st_nlink == 0
        assert theirs.stat().st_nlink == 3
        assert store.sharing.replace(theirs, DIGEST, on_block=ignored) == 0
    assert theirs.stat().st_nlink == 2
    assert not list((store.location / "uploads").iterdir())


def test_a_file_with_other_bytes_is_refused(store: Store, theirs: Path, tmp_path: Path) -> None:
    """It isn't adopted, and no held blob is replaced by it."""
    theirs.chmod(0o644)
    theirs.write_bytes(b"x" * len(PACKED))
    with pytest.raises(DigestMismatch):
        adopt(store, theirs)
    mine = tmp_path / "mine"
    mine.write_bytes(PACKED)
    store.blobs.adopt(mine, DIGEST)
    with pytest.raises(DigestMismatch):
        store.sharing.replace(theirs, DIGEST, on_block=ignored)
    assert store.blobs.read(DIGEST) == PACKED


def writable_by_others(path: Path) -> None:
    path.chmod(0o666)


def of_another_user(path: Path) -> None:
    os.chown(path, 1234, 1234)


def a_link(path: Path) -> None:
    target = path.rename(path.with_name("target"))
    path.symlink_to(target)


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [writable_by_others, of_another_user, a_link, a_fifo])
def test_a_file_that_others_could_change_is_refused(
    store: Store, theirs: Path, spoil: Callable[[Path], None]
) -> None:
    """Verifying it once would prove nothing."""
    if spoil is of_another_user and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    spoil(theirs)
    with pytest.raises((SharingRefused, OSError)):
        adopt(store, theirs)
    assert not store.blobs.has(DIGEST)


def test_a_file_on_another_file_system_is_refused(store: Store) -> None:
    """No link leads there."""
    path = Path("/dev/shm") / f"docket-{os.getpid()}-{DIGEST.hex}"
    if path.parent.stat().st_dev == store.location.stat().st_dev:
        pytest.skip("one file system")
    path.write_bytes(PACKED)
    path.chmod(0o444)
    try:
        with pytest.raises(SharingRefused, match="another file system"):
            adopt(store, path)
    finally:
        path.unlink()


def test_adopting_stops_at_once(store: Store, theirs: Path) -> None:
    """What *on_block* raises ends it, and nothing is stored."""

    def stop(_count: int) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        store.sharing.adopt(theirs, DIGEST, on_block=stop, stop=threading.Event())
    assert not store.blobs.has(DIGEST)
