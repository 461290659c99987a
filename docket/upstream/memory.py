"""What is remembered about requests to upstreams: when a tag was checked, and what failed."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from docket.errors import DocketError, NotFound, UpstreamDenied, UpstreamLimited

FAILED_SECONDS = 2.0
"""How long a failure answers every request: an image that many hosts want isn't requested
again by each."""

UNKNOWN_SECONDS = 10.0
"""The same where the upstream doesn't have it, or denies it."""

STALE_SECONDS = 30.0
"""The same for a tag that is served from the store meanwhile."""

_MOST = 65536


@dataclass(frozen=True, slots=True)
class _Failure:
    error: DocketError
    until: float


class RequestMemory:
    """Bounded, in memory, safe to use from many threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._checked: OrderedDict[Hashable, float] = OrderedDict()
        self._failures: OrderedDict[Hashable, _Failure] = OrderedDict()

    def note_checked(self, key: Hashable) -> None:
        """*key* was compared with the upstream just now."""
        with self._lock:
            self._failures.pop(key, None)
            _put(self._checked, key, self._clock())

    def is_fresh(self, key: Hashable, seconds: float) -> bool:
        """Whether *key* was checked less than *seconds* ago."""
        with self._lock:
            checked = self._checked.get(key)
            return checked is not None and self._clock() < checked + seconds

    def note_failure(self, key: Hashable, error: DocketError, *, is_held: bool = False) -> None:
        """*error* is the answer about *key* for a while; longer for what *is_held* here."""
        seconds = STALE_SECONDS if is_held else FAILED_SECONDS
        if isinstance(error, NotFound | UpstreamDenied):
            seconds = UNKNOWN_SECONDS
        elif isinstance(error, UpstreamLimited):
            seconds = error.retry_after
        with self._lock:
            _put(self._failures, key, _Failure(error, self._clock() + seconds))

    def failure(self, key: Hashable) -> DocketError | None:
        """The failure that is still the answer about *key*, if any."""
        with self._lock:
            failure = self._failures.get(key)
            if failure and failure.until > self._clock():
                return failure.error
            self._failures.pop(key, None)
            return None


def _put(rows: OrderedDict[Hashable, Any], key: Hashable, value: Any) -> None:
    rows[key] = value
    rows.move_to_end(key)
    while len(rows) > _MOST:
        rows.popitem(last=False)
