"""The folders of layers on their way in: who uses one, and when one is left over."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docket.oci.digest import Digest
from docket.store.filesystem import Filesystem

_FOLDER = "incoming"
_LOCK = ".lock"


def incoming_folder(location: Path, manifest: Digest) -> Path:
    """Where the layers of an image are fetched to, in the store at *location*."""
    return location / _FOLDER / manifest.hex


@contextmanager
def folder_in_use(location: Path, manifest: Digest) -> Iterator[None]:
    """Keep the image's incoming folder while this process fetches into it or seeds from it.

    The last one to leave removes it, unless it leaves with an error: then the next fetch goes on
    with what is there.
    """
    folder = incoming_folder(location, manifest)
    disk = Filesystem(location)
    disk.make_folder(folder.parent)
    with _opened(folder.with_suffix(_LOCK)) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
        if _is_unused(descriptor):
            _remove(folder, disk)


def drop_left_over(
    location: Path, *, older_than: float, disk: Filesystem, dry_run: bool = False
) -> int:
    """Remove what broken-off fetches left and nobody has touched since *older_than*.

    Times in seconds since 1970. Gives the bytes that it frees: those that no blob shares.
    """
    freed = 0
    for lock in (location / _FOLDER).glob(f"*{_LOCK}"):
        folder = lock.with_suffix("")
        newest = max((path.stat().st_mtime for path in _files(folder)), default=0.0)
        if newest > older_than:
            continue
        size = sum(path.stat().st_blocks * 512 for path in _files(folder) if _is_alone(path))
        with _opened(lock) as descriptor:
            if _is_unused(descriptor):
                freed += size
                if not dry_run:
                    _remove(folder, disk)
    return freed


@contextmanager
def _opened(lock: Path) -> Iterator[int]:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_unused(descriptor: int) -> bool:
    """Whether no other process has the lock that is open as *descriptor*; it is taken then."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(folder: Path, disk: Filesystem) -> None:
    disk.remove_folder(folder)
    disk.remove(folder.with_suffix(_LOCK))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _is_alone(path: Path) -> bool:
    """Whether the file has no other name, such as that of a blob."""
    return path.stat().st_nlink == 1
