"""Who may read a store: its owner alone."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from docket.errors import StoreLocked, StoreUnusable
from docket.oci.digest import Digest
from docket.store import Sample, Store, rebuild_index
from tests.store.samples import assert_readable, image, open_store, push, rot
from tests.support.processes import short_folder
from tests.support.requirements import need, need_root

NOBODY = 65534


def mode(path: Path) -> int:
    """The permissions of *path*."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_location_is_closed_to_others(tmp_path: Path) -> None:
    """Nobody else may open its lock, and so hold it, or read what is in it."""
    with open_store(tmp_path / "new" / "store") as store:
        push(store, "app", image("a"))
    assert mode(tmp_path / "new" / "store") == 0o700
    assert mode(tmp_path / "new" / "store" / "lock") == 0o600


def test_an_open_location_is_closed(tmp_path: Path) -> None:
    """A store of an earlier docket is closed when it is opened."""
    with open_store(tmp_path / "store"):
        pass
    (tmp_path / "store").chmod(0o755)
    with open_store(tmp_path / "store"):
        assert mode(tmp_path / "store") == 0o700


def test_a_folder_with_other_things_stays_open(tmp_path: Path) -> None:
    """A location that isn't the store's alone, such as a home, is not closed: its parts are."""
    (tmp_path / "mine").write_text("x")
    tmp_path.chmod(0o755)
    for _ in range(2):
        with open_store(tmp_path):
            pass
    assert mode(tmp_path) == 0o755
    assert {mode(tmp_path / name) & 0o077 for name in ("index", "blobs", "lock")} == {0}


@contextmanager
def location_of_nobody() -> Iterator[Path]:
    """A location that belongs to the user nobody, who may reach it; only root can make one."""
    need_root()
    with short_folder() as folder:
        folder.chmod(0o755)
        location = folder / "store"
        location.mkdir(mode=0o700)
        os.chown(location, NOBODY, NOBODY)
        yield location


@contextmanager
def as_nobody() -> Iterator[None]:
    """This process has the rights of the user nobody."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def of_others(location: Path) -> list[Path]:
    """What is in *location*, and it, that belongs to another user than nobody."""
    paths = (location, *location.rglob("*"))
    return [path for path in paths if (path.lstat().st_uid, path.lstat().st_gid) != (NOBODY,) * 2]


def use(location: Path, *seeds: str) -> None:
    """Whatever changes files: pushes, a download, gc, fsck and a rebuild."""
    with open_store(location) as store:
        for seed in seeds:
            push(store, "app", image("base", seed), tag=seed)
            push(store, "app", image("gone", seed), tag="gone")
        store.manifests.delete_tag("app", "gone")
        store.maintenance.gc(grace=0)
        download(store, f"download {seeds}".encode())
        rot(store, image("base", seeds[0]).layers[1])
        store.maintenance.fsck(sample=Sample())
        push(store, "app", image("base", seeds[0]), tag=seeds[0])
        store.write_synced(store.location / "swarm" / seeds[0] / "index.json", b"{}")
    rebuild_index(location, owner="test")


def download(store: Store, content: bytes) -> None:
    """One blob is adopted; of another a part is left, as when a pull is interrupted."""
    with suppress(InterruptedError), store.downloads.open(Digest.of(b"image")) as coming:
        for digest in (Digest.of(content), Digest.of(b"part")):
            with coming.writer(digest) as writer:
                writer.write(content, 0)
        other = coming.folder / "libtorrent" / "made"  # libtorrent writes past the store
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(content)
        coming.adopt(Digest.of(content))
        raise InterruptedError


def test_root_leaves_files_to_the_owner() -> None:
    """Whatever root does to a user's store, all of it stays the user's, who can go on with it."""
    with location_of_nobody() as location:
        use(location, "first")
        assert of_others(location) == []
        with as_nobody():
            use(location, "second")
        use(location, "third")
        assert of_others(location) == []
        with as_nobody(), open_store(location) as store:
            assert_readable(store, "app", "first")


def test_a_link_in_the_location_of_another_user() -> None:
    """Root follows no link that a user has put there: it writes nothing, and changes no mode."""
    with location_of_nobody() as location:
        secret = location.parent / "secret"
        secret.write_bytes(b"root's")
        secret.chmod(0o600)
        with open_store(location):
            pass
        for name in ("lock", "VERSION.new"):
            (location / name).unlink(missing_ok=True)
            (location / name).symlink_to(secret)
        with pytest.raises(StoreUnusable, match="symbolic links"):
            open_store(location)
        (location / "lock").unlink()
        (location / "VERSION").unlink()
        with pytest.raises(StoreUnusable, match="link"):
            rebuild_index(location, owner="test")
        assert (secret.read_bytes(), mode(secret), secret.stat().st_uid) == (b"root's", 0o600, 0)


def test_a_link_in_place_of_a_folder() -> None:
    """Nor does root write into another folder than the location."""
    with location_of_nobody() as location:
        with open_store(location):
            pass
        outside = location.parent / "outside"
        outside.mkdir()
        (location / "trash").rmdir()
        (location / "trash").symlink_to(outside)
        with pytest.raises(StoreUnusable, match="trash is a link"):
            open_store(location)


def test_a_download_that_became_a_link() -> None:
    """The file that a link leads to is not opened to everybody when a download is adopted."""
    with location_of_nobody() as location, open_store(location) as store:
        secret = location.parent / "secret"
        secret.write_bytes(b"root's")
        secret.chmod(0o600)
        with store.downloads.open(Digest.of(b"image")) as coming:
            path = coming.folder / Digest.of(b"root's").layout_path
            path.parent.mkdir(parents=True)
            path.symlink_to(secret)
            with pytest.raises(StoreUnusable, match="link"):
                coming.adopt(Digest.of(b"root's"))
        assert mode(secret) == 0o600


def test_the_lock_is_held_by_another_program(tmp_path: Path) -> None:
    """The error names its process, command and user, and what to do; not what the file says."""
    need("flock")
    with open_store(tmp_path):
        pass
    (tmp_path / "lock").write_text("docket registry (process 1)")
    argv = ["flock", str(tmp_path / "lock"), "sh", "-c", "echo; read x"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(StoreLocked) as caught:
            open_store(tmp_path)
        process.communicate(b"\n")
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert f"process {process.pid} (flock) of user {user}" in str(caught.value)
    assert "end it" in str(caught.value)
    assert "registry" not in str(caught.value)


def test_the_lock_is_held_by_docket(tmp_path: Path) -> None:
    """The error names the command."""
    with open_store(tmp_path), pytest.raises(StoreLocked, match=r"in use by test \(process \d+\);"):
        open_store(tmp_path)
