"""What docket's services share as processes: their end, their log, and a server that rests idle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
"""syslog(3)'s numbers, which journald reads at the beginning of a line (sd-daemon(3))."""

log = logging.getLogger("docket")


def log_to_stderr(level: str) -> None:
    """Write docket's log from *level* on to standard error, a line an event.

    Under systemd each line begins with its priority, and journald adds the time.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JournalFormatter("%(name)s: %(message)s")
        if os.environ.get("JOURNAL_STREAM")
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    docket_log = logging.getLogger("docket")
    docket_log.handlers = [handler]
    docket_log.propagate = False
    set_log_level(level)


def set_log_level(level: str) -> None:
    """From now on log what is at least as important as *level*."""
    logging.getLogger("docket").setLevel(level.upper())


class _JournalFormatter(logging.Formatter):
    """Lines with a priority in front, those of a traceback too."""

    def format(self, record: logging.LogRecord) -> str:
        priority = f"<{_PRIORITIES.get(record.levelno, 2)}>"
        return "\n".join(priority + line for line in super().format(record).splitlines())


@contextlib.contextmanager
def ending(stop: threading.Event, *, service: str, seconds: float) -> Iterator[None]:
    """End the process *seconds* after *stop*, whatever still runs; *stop* is set on the way out.

    Nothing that was acknowledged is lost: a store is written for a process that dies.
    """
    ended = threading.Event()

    def watch() -> None:
        stop.wait()
        if not ended.wait(seconds):
            log.warning("something doesn't stop: the %s ends without waiting for it", service)
            os._exit(0)

    threading.Thread(target=watch, name="end", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        stop.set()


class IdleServer(uvicorn.Server):
    """uvicorn without its ten ticks a second, for a process that is idle most of the time.

    *on_ready* is called once requests are answered, *on_stop* when the end begins, in a signal's
    handler. Responses get no Date from it: that is what the ticks are for.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
        *,
        on_beat: Callable[[], None] = lambda: None,
        beat_seconds: float | None = None,
    ) -> None:
        """*on_beat* is called every *beat_seconds* while the event loop runs; never if None."""
        super().__init__(config)
        self._on_beat = on_beat
        self._beat_seconds = beat_seconds
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        if self.started:
            self._on_ready()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._beat_seconds)
            self._on_beat()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)
        if self._loop:
            self._loop.call_soon_threadsafe(self._stopping.set)
