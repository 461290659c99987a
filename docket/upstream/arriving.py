"""A blob on its way here from an upstream: readable while it comes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docket.errors import DocketError
from docket.oci.digest import Digest

_HELD_BACK = 64 * 1024
"""Bytes at the end that nobody gets before the whole blob is verified: a wrong one stays short."""


class ArrivingBlob:
    """One blob; reads never wait. Safe to use from many threads.

    Its digest is known to be right when all of it is here: its last bytes are not readable before.
    """

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        self.size = 0
        self._changed = threading.Condition()
        self._descriptor = -1
        self._users = 0
        self._come = 0
        self._has_begun = False
        self._is_stored = False
        self._error: DocketError | None = None

    # -- the fetch

    def begin(self, size: int, path: Path) -> None:
        """From now on bytes are appended to the file at *path*; all of them will be *size*."""
        with self._changed:
            if self.is_over:
                return
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size, self._descriptor = size, descriptor
            self._users += 1
            self._has_begun = True
            self._changed.notify_all()

    def advance(self, come: int) -> None:
        """The first *come* bytes are in the file."""
        self._come = come

    def finish(self, error: DocketError | None = None) -> None:
        """The store has the blob; or it doesn't come, because of *error*. The first call counts."""
        with self._changed:
            if self.is_over:
                return
            self._is_stored = error is None
            self._error = error
            if self._has_begun:
                self._release()
            self._changed.notify_all()

    # -- its readers

    @property
    def is_stored(self) -> bool:
        """Whether the store has it."""
        return self._is_stored

    @property
    def is_over(self) -> bool:
        """Whether it is stored, or failed."""
        return self._is_stored or self._error is not None

    def wait_begun(self, seconds: float) -> bool:
        """Whether its bytes begin to come within *seconds*. Raises what made the fetch fail."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_begun or self.is_over, seconds)
            if self._error:
                raise self._error
            return self._has_begun or self._is_stored

    def wait_stored(self, seconds: float) -> bool:
        """Whether the store has it within *seconds*. Raises what made the fetch fail."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_over, seconds)
            if self._error:
                raise self._error
            return self._is_stored

    @contextmanager
    def opened(self) -> Iterator[bool]:
        """While inside, `read` works; False when the fetch has ended and its file is closed."""
        with self._changed:
            is_open = self._descriptor >= 0
            self._users += is_open
        try:
            yield is_open
        finally:
            with self._changed:
                if is_open:
                    self._release()

    def read(self, offset: int, count: int) -> bytes:
        """Bytes from *offset* on, at most *count*; none when they are not here yet.

        Only while it is `opened`. Raises what made the fetch fail.
        """
        if self._error:
            raise self._error
        readable = self.size if self._is_stored else min(self._come, self.size - _HELD_BACK)
        if offset >= readable:
            return b""
        return os.pread(self._descriptor, min(count, readable - offset), offset)

    def _release(self) -> None:
        self._users -= 1
        if not self._users:
            os.close(self._descriptor)
            self._descriptor = -1
