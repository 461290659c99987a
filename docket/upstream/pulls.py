"""When each image of an upstream was last pulled: in memory, and in the store now and then."""

from __future__ import annotations

import threading
import time

from docket.oci.digest import Digest
from docket.store import Store

_MOST_WAITING = 4096


class Pulls:
    """The times that gc goes by; a crash loses those of the last minutes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, Digest], float] = {}

    def note(self, repository: str, digest: Digest) -> None:
        """The manifest was served just now. Costs no write, except now and then."""
        with self._lock:
            self._waiting[repository, digest] = time.time()
            is_full = len(self._waiting) >= _MOST_WAITING
        if is_full:
            self.flush()

    def flush(self) -> None:
        """Write what was noted to the store, in one transaction."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        if waiting:
            self._store.manifests.record_pulls(waiting)
