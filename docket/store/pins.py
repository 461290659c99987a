"""Pins: promises that a blob stays for a while, so that gc never breaks a push."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from docket.config import PIN_SECONDS
from docket.oci.digest import Digest


class Pins:
    """Digests that may not be swept yet. In memory: after a start, everything counts as pinned.

    Whoever answers pins first and looks second; gc looks at pins and commits its removals while it
    holds `settled`. So an answer is either kept by its pin, or sees the blob gone.
    """

    def __init__(
        self, seconds: float = PIN_SECONDS, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._clock = clock
        self._expiry: dict[Digest, float] = {}
        self._lock = threading.Lock()
        self._all_until = clock() + seconds

    def pin(self, *digests: Digest) -> None:
        """Keep *digests* for one pin lifetime from now."""
        until = self._clock() + self.seconds
        with self._lock:
            for digest in digests:
                self._expiry[digest] = until

    @contextmanager
    def settled(self) -> Iterator[Callable[[Digest], bool]]:
        """No pin is added inside; gives the question "is this digest pinned?"."""
        with self._lock:
            now = self._clock()
            if now < self._all_until:
                yield lambda _digest: True
            else:
                yield lambda digest: self._expiry.get(digest, 0.0) > now

    def drop_expired(self) -> None:
        """Forget pins that have expired."""
        with self._lock:
            now = self._clock()
            expired = [digest for digest, until in self._expiry.items() if until <= now]
            for digest in expired:
                del self._expiry[digest]
