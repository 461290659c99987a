"""The store's lock file: one process owns a store, and others can see which."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from docket.errors import StoreLocked
from docket.store.filesystem import Filesystem

_POLL_SECONDS = 0.05
_LOCKS = Path("/proc/locks")
_PROCESS = re.compile(r" \(process (\d+)\)\Z")


class Lock:
    """An exclusive `flock`; the kernel gives it back when the process ends, however it ends."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._path = filesystem.location / "lock"
        self._filesystem = filesystem
        self._descriptor = -1

    def acquire(self, owner: str, *, wait: Callable[[str], bool] = lambda _holder: False) -> None:
        """Take the lock for *owner*, such as "docket pull".

        While another process has it, *wait* is called with that owner's name every 50 ms; when it
        returns False, `StoreLocked` is raised. Raises `StoreFull`, or `StoreUnusable`, such as for
        a lock file that is a link.
        """
        descriptor = self._open()
        while not _try_lock(descriptor):
            holder = _holder(descriptor)
            if not wait(holder):
                os.close(descriptor)
                raise StoreLocked(self._path.parent, holder)
            time.sleep(_POLL_SECONDS)
        with suppress(OSError):  # a disk that is full or read-only: others see "process N"
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{owner} (process {os.getpid()})".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor >= 0:
            with suppress(OSError):  # a disk that became read-only keeps a name that nobody reads
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
        self._descriptor = -1

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._filesystem.translated():
            descriptor = os.open(self._path, flags, 0o600)
        self._filesystem.leave_to_owner(self._path)
        return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """The holder of the lock: as the file says, unless the kernel names another process."""
    text = os.pread(descriptor, 200, 0).decode(errors="replace")
    written = _PROCESS.search(text)
    number = _process_with(os.fstat(descriptor))
    if number is None or (written and int(written[1]) == number):
        return text or "another process"
    return _described(number)


def _process_with(status: os.stat_result) -> int | None:
    """The process that has the `flock` of a file; None if the kernel doesn't say."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = []
    with suppress(OSError):
        lines = _LOCKS.read_text().splitlines()
    for line in lines:
        # "3: FLOCK  ADVISORY  WRITE 4711 fe:01:131 0 EOF"; waiting ones have "->" in between
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == device:
            number = int(fields[4])
            return number if number > 0 else None
    return None


def _described(number: int) -> str:
    """A process that has not written its name into the file, with its user."""
    try:
        user_id = Path(f"/proc/{number}").stat().st_uid
        command = Path(f"/proc/{number}/comm").read_text(errors="replace").strip()
    except OSError:
        return f"process {number}"
    user = str(user_id)
    with suppress(KeyError):
        user = pwd.getpwuid(user_id).pw_name
    return f"process {number} ({command}) of user {user}, which is no docket command: end it"
