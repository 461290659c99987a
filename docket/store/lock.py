"""The store's lock file: one process owns a store, and others can see which."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from docket.errors import StoreLocked

_POLL_SECONDS = 0.05


class Lock:
    """An exclusive `flock`; the kernel gives it back when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self, owner: str, *, wait: Callable[[str], bool] = lambda _holder: False) -> None:
        """Take the lock for *owner*, such as "docket pull".

        While another process has it, *wait* is asked with that owner's name, again and again;
        when it says no, `StoreLocked` is raised.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while not _try_lock(descriptor):
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            if not wait(holder):
                os.close(descriptor)
                raise StoreLocked(self._path.parent, holder)
            time.sleep(_POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk: others then see "another process"
            os.pwrite(descriptor, f"{owner} (process {os.getpid()})".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
        self._descriptor = -1


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
