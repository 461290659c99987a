"""Signals that end a command, also while its main thread waits for another thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WAKE = signal.SIGURG
"""Ignored by default, and sent by nobody to a program without urgent socket data."""

_WAKE_SECONDS = 0.1


def on_ending(handler: Handler) -> None:
    """Call *handler* in the main thread when a signal ends the command.

    Python runs handlers in the main thread alone; a signal that comes just before that thread
    begins to wait for a lock doesn't wake it, and would be seen after the wait: never, if
    it is one for an upload to a silent registry. So another thread wakes it until it has run.
    """
    handled = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        handled.set()
        handler(number, frame)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=_wake_main, args=(reader, handled), name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(_WAKE, lambda _number, _frame: None)
    for number in _ENDINGS:
        # nohup and shells' background jobs ignore some: that stays
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def _wake_main(reader: int, handled: threading.Event) -> None:
    main = threading.main_thread().ident
    while (number := os.read(reader, 1)) and main is not None:
        while number[0] in _ENDINGS and not handled.wait(_WAKE_SECONDS):
            signal.pthread_kill(main, _WAKE)
