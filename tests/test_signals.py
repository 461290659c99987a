"""A signal ends a command whatever its main thread waits for."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOST = """
import signal, sys, threading
from docket.signals import on_ending

def end(number, frame):
    sys.exit(7)

on_ending(end)
number = signal.Signals[sys.argv[1]]
threading.Timer(0, lambda: signal.pthread_kill(threading.get_ident(), number)).start()
lock = threading.Lock()
lock.acquire()
lock.acquire()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_does_not_wake_the_main_thread(name: str) -> None:
    """One that another thread gets, or that comes just before a wait: the main thread is woken."""
    argv = [sys.executable, "-c", LOST, name]
    assert subprocess.run(argv, check=False, timeout=60).returncode == 7
