"""Every change that a store makes to its files: one place, so that each step can be watched.

A `Filesystem` calls *step* before each change, with a name for it; a test that raises there has
stopped the store just as a crash would.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from docket.errors import StoreFull, StoreUnusable

_LEAST_SPARE = 1 << 16
_PLENTY = 1 << 30
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNUSABLE = frozenset({errno.EROFS, errno.EIO, errno.EXDEV, errno.ESTALE, errno.ELOOP})


def no_step(_name: str) -> None:
    """The step of a store that nobody watches."""


class Filesystem:
    """File changes below one location; returning from any of them means it is durable.

    What root makes in the location of another user belongs to that user.
    """

    def __init__(self, location: Path, *, step: Callable[[str], None] = no_step) -> None:
        self.location = location
        self.step = step

    def make_folder(self, path: Path) -> None:
        """Make the folder *path* and those above it."""
        self.step(f"mkdir {path.name}")
        with self.translated():
            self._make_folders(path)

    def leave_to_owner(self, path: Path) -> None:
        """Give the file or folder *path* that root has made to the location's owner.

        A no-op for other users, and in root's own location. A file with a second name is left:
        it may be one from outside the location.
        """
        if self._owner is None:
            return
        with suppress(OSError):  # a filesystem that keeps no owners: the content is what counts
            status = path.lstat()
            is_alone = stat.S_ISDIR(status.st_mode) or status.st_nlink == 1
            if status.st_uid == 0 and is_alone:
                os.chown(path, *self._owner, follow_symlinks=False)

    def leave_tree_to_owner(self, folder: Path) -> None:
        """`leave_to_owner` for *folder* and all that is in it."""
        if self._owner is not None:
            for path in (folder, *folder.rglob("*")):
                self.leave_to_owner(path)

    @cached_property
    def _owner(self) -> tuple[int, int] | None:
        """The user and group of the location, if root works in that of another user."""
        if os.geteuid() != 0:
            return None
        status = self.location.stat()
        return (status.st_uid, status.st_gid) if status.st_uid else None

    def _make_folders(self, path: Path) -> None:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            self.leave_to_owner(folder)

    def restrict(self, folder: Path, *, names: frozenset[str]) -> None:
        """Close *folder* to other users, if nothing but *names* is in it; else only those folders.

        A folder of another owner stays as it is.
        """
        entries = list(folder.iterdir())
        ours = [entry for entry in entries if entry.name in names]
        closed = [folder] if len(ours) == len(entries) else ours
        for path in closed:
            status = path.lstat()
            mode = stat.S_IMODE(status.st_mode)
            is_own = status.st_uid == os.geteuid() and not stat.S_ISLNK(status.st_mode)
            if is_own and mode & 0o077 and not mode & stat.S_ISVTX:
                path.chmod(mode & 0o700)

    def check_folder(self, folder: Path) -> None:
        """Raises `StoreUnusable` if *folder* is on another disk: nothing can be linked to it.

        So it does for root if it is a link in the location of another user.
        """
        if self._owner is not None and folder.is_symlink():
            raise StoreUnusable(
                self.location, f"{folder.name} is a link; root follows none of another user"
            )
        if folder.stat().st_dev != self.location.stat().st_dev:
            raise StoreUnusable(
                self.location, f"{folder.name}/ is on another disk; put the whole store on one"
            )

    def write_new(self, path: Path, content: bytes) -> None:
        """A new file with *content*, synced; the name itself is not yet durable."""
        self.step(f"write {path.name}")
        with self.translated(), self._opened(path) as file:
            file.write(content)
            file.flush()  # what Python still holds is not synced
            self.sync(file.fileno())

    def write_at(self, descriptor: int, content: bytes, offset: int) -> None:
        """Write *content* at *offset* of an open file, and sync it."""
        self.step("write")
        with self.translated():
            view = memoryview(content)
            while view:
                count = os.pwrite(descriptor, view, offset)
                view, offset = view[count:], offset + count
            os.fdatasync(descriptor)

    def write_part(self, descriptor: int, content: bytes, offset: int) -> None:
        """Write *content* at *offset* of an open file; not synced, and no step."""
        with self.translated():
            view = memoryview(content)
            while view:  # a disk that fills up takes a part before it refuses
                count = os.pwrite(descriptor, view, offset)
                view, offset = view[count:], offset + count

    def replace_file(self, path: Path, content: bytes) -> None:
        """Write a small file that can be written again; not synced."""
        self.step(f"write {path.name}")
        with self.translated(), self._opened(path) as file:
            file.write(content)

    def _opened(self, path: Path) -> BinaryIO:
        """The file *path*, empty and open for writing; never what a link leads to."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        self.leave_to_owner(path)
        return os.fdopen(descriptor, "wb")

    def append(self, file: FileIO, content: bytes) -> None:
        """Write *content* at the end of *file*; not synced."""
        self.step("append")
        with self.translated():
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]

    def allocate(self, descriptor: int, offset: int, count: int) -> None:
        """Hold *count* bytes ready at *offset* of an open file. Raises `StoreFull`."""
        self.step("allocate")
        with self.translated():
            os.posix_fallocate(descriptor, offset, count)

    def extend(self, descriptor: int, size: int) -> None:
        """Make an open file at least *size* bytes long; what is added takes no space."""
        self.step("extend")
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)

    def changed(self, path: Path, *, now: float) -> float:
        """When the file *path* was changed last, in seconds since 1970; *now* if it is missing.

        A time that lies ahead is that of a clock that was wrong: the file counts as changed now,
        and gets older from then on.
        """
        try:
            changed = path.stat().st_mtime
        except FileNotFoundError:
            return now
        if changed <= now + 1:
            return changed
        with self.translated():
            os.utime(path, (now, now))
        return now

    def touch(self, path: Path) -> None:
        """Set the times of the file *path* to the present."""
        with self.translated():
            os.utime(path)

    def is_short_of_space(self) -> bool:
        """Whether less than a tenth of the disk, and less than 1 GiB, is free."""
        status = os.statvfs(self.location)
        return status.f_bavail * status.f_frsize < min(
            status.f_blocks * status.f_frsize // 10, _PLENTY
        )

    def spare(self, most: int) -> int:
        """How many bytes may be held ready: *most*, but only a small part of what is free."""
        status = os.statvfs(self.location)
        return max(_LEAST_SPARE, min(most, status.f_bavail * status.f_frsize // 8))

    def sync(self, descriptor: int) -> None:
        """Bytes written to *descriptor* survive a power cut."""
        self.step("fsync")
        with self.translated():
            os.fsync(descriptor)

    def place(self, temporary: Path, final: Path) -> None:
        """Give the synced file *temporary* its final name, read-only."""
        self._final_name(temporary, final, os.rename, "rename")

    def link(self, source: Path, final: Path) -> None:
        """Give the synced file *source* a second, final name, read-only; an equal link is kept."""
        self._final_name(source, final, _link_over, "link")

    def link_open(self, descriptor: int, path: Path) -> None:
        """Make *path* another name of the file that is open, whatever names it has now."""
        self.step(f"link {path.name}")
        with self.translated():
            # linkat(2): AT_SYMLINK_FOLLOW, which Python passes only beside a folder
            source = f"/proc/self/fd/{descriptor}"
            os.link(source, path, src_dir_fd=descriptor, follow_symlinks=True)

    def _final_name(
        self, source: Path, final: Path, name_it: Callable[[Path, Path], None], verb: str
    ) -> None:
        self.step(f"{verb} {final.name}")
        with self.translated():
            self._make_folders(final.parent)
            self.leave_to_owner(source)
            _make_read_only(source)
            name_it(source, final)
        self.sync_folder(final.parent)

    def sync_folder(self, folder: Path) -> None:
        """Names in *folder* survive a power cut."""
        self.step(f"fsync folder {folder.name}")
        with self.translated():
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rename(self, path: Path, target: Path) -> None:
        """Give *path* the name *target*, whatever had it before."""
        self.step(f"rename {path.name}")
        with self.translated():
            path.replace(target)
        self.sync_folder(target.parent)

    def move(self, path: Path, target: Path) -> None:
        """Rename *path* to *target*, if it is there."""
        self.step(f"move {path.name}")
        with self.translated(), suppress(FileNotFoundError):
            self._make_folders(target.parent)
            path.rename(target)

    def remove(self, path: Path) -> None:
        """Remove the file *path*, if it is there."""
        self.step(f"unlink {path.name}")
        with self.translated():
            path.unlink(missing_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Remove the folder *path* with all that is in it, if it is there."""
        self.step(f"rmtree {path.name}")
        shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def reading(self, what: object) -> Iterator[None]:
        """Turns every failure to read *what*, but that it is missing, into `StoreUnusable`."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreUnusable(self.location, f"{what}: {error.strerror}") from error

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turns "no space left" into `StoreFull`, and errors of the disk into `StoreUnusable`."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise StoreFull(self.location) from error
            if error.errno in _UNUSABLE:
                raise StoreUnusable(self.location, str(error)) from error
            raise


def _make_read_only(path: Path) -> None:
    """Of the file itself: never of what a link leads to, which root would open to everybody."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o444)
    finally:
        os.close(descriptor)


def _link_over(source: Path, final: Path) -> None:
    """Link *source* to *final*; what stood there (an orphan of a crash) is replaced."""
    try:
        os.link(source, final)
    except FileExistsError:
        if not source.samefile(final):
            final.unlink()
            os.link(source, final)
