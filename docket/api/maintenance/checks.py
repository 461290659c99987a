"""The registry's fsck: one at a time, shared by all who request it, ended when nobody listens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from anyio import CapacityLimiter, Event, move_on_after
from anyio.to_thread import run_sync

from docket.errors import DocketError, Stopped
from docket.store import FsckReport, Sample

_BEAT_SECONDS = 0.5

OnBlob = Callable[[int, int], None]
RunCheck = Callable[[OnBlob, Callable[[], bool]], FsckReport]
"""Runs a check; takes what is called after each blob, and what says whether to stop."""


@dataclass(slots=True, eq=False)
class _Check:
    sample: Sample | None
    listeners: int = 0
    done: int = 0
    total: int = 0
    result: FsckReport | DocketError | None = None
    ended: Event = field(default_factory=Event)
    stop: threading.Event = field(default_factory=threading.Event)

    def count(self, done: int, total: int) -> None:
        self.done, self.total = done, total


class Checks:
    """The running check, if any; used on the event loop alone."""

    def __init__(self) -> None:
        self._running: _Check | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = CapacityLimiter(1)

    async def follow(
        self, sample: Sample | None, run: RunCheck
    ) -> AsyncIterator[tuple[int, int] | FsckReport]:
        """Run a check of *sample*, or join the one that is running.

        Yields how many blobs are done, of how many, twice a second, and the report last. A check of
        another sample is waited for. Raises `DocketError` when the check fails.
        """
        while (check := self._running) and (check.sample != sample or check.stop.is_set()):
            yield (0, 0)
            with move_on_after(_BEAT_SECONDS):
                await check.ended.wait()
        if check is None:
            check = self._running = _Check(sample)
            self._task = asyncio.create_task(self._run(check, run))
        check.listeners += 1
        try:
            while not check.ended.is_set():
                yield (check.done, check.total)
                with move_on_after(_BEAT_SECONDS):
                    await check.ended.wait()
        finally:
            check.listeners -= 1
            if not check.listeners:
                check.stop.set()
        assert check.result is not None
        if isinstance(check.result, DocketError):
            raise check.result
        yield check.result

    async def _run(self, check: _Check, run: RunCheck) -> None:
        try:
            check.result = await run_sync(
                lambda: run(check.count, check.stop.is_set), limiter=self._thread
            )
        except DocketError as error:
            check.result = error
        except OSError as error:
            check.result = DocketError(f"the registry's disk failed: {error}")
        finally:
            check.result = check.result or Stopped("the check")
            self._running = None
            check.ended.set()
