"""Folders of layers that are being downloaded: which process uses one, and which are left over."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docket.store.filesystem import Filesystem
from docket.store.layout import INCOMING

_LOCK = ".lock"


@contextmanager
def folder_in_use(folder: Path, filesystem: Filesystem) -> Iterator[None]:
    """Keep *folder* while this process downloads into it or seeds from it.

    The last process to leave removes it, unless it leaves with an error.
    """
    filesystem.make_folder(folder.parent)
    with _opened(folder.with_suffix(_LOCK), filesystem) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            yield
        finally:
            filesystem.leave_tree_to_owner(folder)  # what libtorrent has made
        if _lock_if_unused(descriptor):
            _remove(folder, filesystem)


def drop_leftovers(filesystem: Filesystem, *, older_than: float, dry_run: bool = False) -> int:
    """Remove what interrupted downloads left and nobody has touched since *older_than*.

    Times in seconds since 1970. Returns the bytes that it frees: those that no blob shares.
    """
    freed = 0
    now = time.time()
    for lock in (filesystem.location / INCOMING).glob(f"*{_LOCK}"):
        folder = lock.with_suffix("")
        newest = max((filesystem.changed(path, now=now) for path in _files(folder)), default=0.0)
        if newest > older_than:
            continue
        size = sum(path.stat().st_blocks * 512 for path in _files(folder) if _is_alone(path))
        with _opened(lock, filesystem) as descriptor:
            if _lock_if_unused(descriptor):
                freed += size
                if not dry_run:
                    _remove(folder, filesystem)
    return freed


@contextmanager
def _opened(lock: Path, filesystem: Filesystem) -> Iterator[int]:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    filesystem.leave_to_owner(lock)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_if_unused(descriptor: int) -> bool:
    """Lock the file that is open as *descriptor*, unless another process has; whether it could."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(folder: Path, filesystem: Filesystem) -> None:
    filesystem.remove_folder(folder)
    filesystem.remove(folder.with_suffix(_LOCK))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _is_alone(path: Path) -> bool:
    """Whether the file has no other name, such as that of a blob."""
    return path.stat().st_nlink == 1
