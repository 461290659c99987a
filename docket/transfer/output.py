"""Writing an archive where ``--output`` says: a file that is whole or absent, a pipe, a device."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

STDOUT = "-"


def is_stdout(target: str) -> bool:
    """Whether *target* is standard output, by name or by another such as ``/dev/stdout``."""
    if target == STDOUT:
        return True
    with suppress(OSError, ValueError):
        return os.path.samestat(Path(target).stat(), os.fstat(1))
    return False


def is_replaced(target: str) -> bool:
    """Whether *target* is a file, which a second attempt replaces; a pipe has the first one too."""
    if is_stdout(target):
        return False
    status = _status(Path(target))
    return status is None or stat.S_ISREG(status.st_mode)


def check_output(target: str) -> None:
    """Raises the OSError with which `open_output` would end, as far as that is known before."""
    if is_stdout(target):
        return
    status = _status(Path(target))
    if status and stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    folder = _final(Path(target)).parent
    if not (status and not stat.S_ISREG(status.st_mode)):
        (folder / ".").stat()  # it must be there, and a folder


@contextmanager
def open_output(target: str) -> Iterator[BinaryIO]:
    """The place that *target* names, open for writing.

    A file, also one that a link leads to, gets its new content when all of it is written and
    synced; until then, and when that fails, it stays as it was. A device, pipe or socket is written
    to. Raises OSError.
    """
    if is_stdout(target):
        with _stdout() as file:
            yield file
        return
    path = Path(target)
    if is_replaced(target):
        with _replaced(_final(path)) as file:
            yield file
    else:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(descriptor, "wb") as file:
            yield file


@contextmanager
def _stdout() -> Iterator[BinaryIO]:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


@contextmanager
def _replaced(final: Path) -> Iterator[BinaryIO]:
    """A new file that takes the name *final* once it is whole."""
    # random, and never through a link: others may write in a shared folder
    partial = final.with_name(f".docket-{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(partial, flags, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if status := _status(final):
                # what was private stays private
                os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode) & 0o777)
            os.fsync(file.fileno())
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    """What *path* leads to; None if that isn't there yet."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _final(path: Path) -> Path:
    """*path*, or what the links at its end lead to. Raises PermissionError for another's link.

    As Linux does it (``fs.protected_symlinks``): in a folder where everybody may write, a link that
    another user put there is not followed.
    """
    for _ in range(40):
        try:
            status = path.lstat()
        except FileNotFoundError:
            return path
        if not stat.S_ISLNK(status.st_mode):
            return path
        folder = path.parent.stat()
        shared = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
        if shared and status.st_uid not in (os.geteuid(), folder.st_uid):
            raise PermissionError(errno.EACCES, "another user's link in a shared folder", str(path))
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
