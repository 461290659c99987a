"""A limit for streams of bytes that libtorrent doesn't move."""

from __future__ import annotations

import threading
import time

_LEAST = 16 * 1024
_SAVED_SECONDS = 0.1


class RateLimiter:
    """A rate that any number of streams share; safe to use from many threads."""

    def __init__(self, rate: int = 0) -> None:
        """*rate* in bytes a second; 0: no limit."""
        self._rate = rate
        self._free = 0.0
        self._lock = threading.Lock()

    def share(self, most: int) -> int:
        """How many bytes to move at a time, at most *most*: few when slow, for a steady stream."""
        return min(most, max(self._rate // 4, _LEAST)) if self._rate else most

    def delay(self, count: int) -> float:
        """Seconds to wait after *count* bytes that have just moved, before any more do."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = time.monotonic()
            # little unused time is saved up: enough to catch up, not for a burst after a pause
            self._free = max(self._free, now - _SAVED_SECONDS) + count / self._rate
            return max(self._free - now, 0.0)
