"""Whether the store can be read and written now, found out at most every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from anyio import CapacityLimiter, Lock, move_on_after
from anyio.to_thread import run_sync

from docket.errors import DocketError, summary

_FRESH_SECONDS = 5.0
_PROBE_SECONDS = 5.0


class Readiness:
    """The last result of a probe; used on the event loop alone."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._thread = CapacityLimiter(1)
        self._checked = -_FRESH_SECONDS
        self._reason = ""

    async def reason(self, probe: Callable[[], None]) -> str:
        """Why the registry isn't ready, by *probe* or by its last result; empty when it is."""
        async with self._lock:
            if time.monotonic() - self._checked > _FRESH_SECONDS:
                self._reason = "the store's disk doesn't answer"
                with move_on_after(_PROBE_SECONDS):
                    self._reason = await self._run(probe)
                self._checked = time.monotonic()
            return self._reason

    async def _run(self, probe: Callable[[], None]) -> str:
        try:
            # a disk that hangs keeps the thread, not the request
            await run_sync(probe, limiter=self._thread, abandon_on_cancel=True)
        except (DocketError, OSError) as error:
            return summary(error)
        return ""
