"""Commands on many hosts that begin at once: when each was done, and what it took."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import resources
from benchmarks.start_barrier import behind_barrier
from tests.support.netns import Host

_TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Command:
    """A command for a host; its standard error goes to a file in *folder*."""

    host: Host
    argv: Sequence[str]
    folder: Path
    variables: Mapping[str, str]


@dataclass(slots=True)
class Pull:
    """A host's pull: *seconds* from the start of its command until the image was there, or None.

    *report* is the line of JSON that the command printed; *cpu* in seconds, *rss* in bytes at its
    peak.
    """

    began: float
    seconds: float | None = None
    report: dict[str, Any] = field(default_factory=dict)
    cpu: float = 0.0
    rss: int = 0


class PullFailed(RuntimeError):
    """A host's command ended without the image."""


class Race:
    """All commands, from their start until they are ended on leaving.

    With a *barrier* each is loaded first, and all begin once the last one is; else each begins as
    soon as it is started.
    """

    def __init__(self, commands: Sequence[Command], *, barrier: bool) -> None:
        self._commands = commands
        self._barrier = barrier
        self._running: dict[subprocess.Popen[bytes], Pull] = {}
        self._selector = selectors.DefaultSelector()
        self.began = time.monotonic()

    def __enter__(self) -> Race:
        self.began = time.monotonic()
        try:
            for command in self._commands:
                self._start(command)
            if self._barrier:
                self._open_barrier()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._selector.close()
        self.end()

    def _start(self, command: Command) -> None:
        command.folder.mkdir(parents=True, exist_ok=True)
        argv = behind_barrier(command.argv) if self._barrier else command.argv
        pull = Pull(time.monotonic())
        with (command.folder / "errors").open("wb") as errors:
            process = command.host.popen(
                argv,
                stdin=subprocess.PIPE if self._barrier else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=command.variables,
            )
        self._running[process] = pull
        self._selector.register(process.stdout, selectors.EVENT_READ, (process, command.folder))

    def _open_barrier(self) -> None:
        for key in list(self._selector.get_map().values()):
            process, folder = key.data
            if not process.stdout.readline():
                raise PullFailed(_complaint(process, folder))
        self.began = time.monotonic()
        for process, pull in self._running.items():
            assert process.stdin
            pull.began = time.monotonic()
            process.stdin.write(b"go\n")
            process.stdin.close()

    def wait(
        self, limit: float = float("inf"), *, on_tick: Callable[[], None] | None = None
    ) -> float:
        """Until all hosts are done, or *limit* seconds are over; the seconds that it took.

        *on_tick* is called every half second. Raises PullFailed.
        """
        deadline = self.began + limit
        tick = self.began
        while self._selector.get_map() and (now := time.monotonic()) < deadline:
            if on_tick and now >= tick:
                on_tick()
                tick += _TICK_SECONDS
            pause = min(tick if on_tick else deadline, deadline) - time.monotonic()
            for key, _ in self._selector.select(None if pause == float("inf") else max(pause, 0)):
                self._selector.unregister(key.fileobj)
                self._note(*key.data)
        return time.monotonic() - self.began

    def _note(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        """A host's command printed its report, or is ending."""
        assert process.stdout
        line = process.stdout.readline()
        if not line and _exit_code(process):
            raise PullFailed(_complaint(process, folder))
        pull = self._running[process]
        pull.seconds = time.monotonic() - pull.began
        pull.report = json.loads(line or "{}")

    def end(self) -> tuple[Pull, ...]:
        """End all commands; what each host's pull took."""
        for process, pull in self._running.items():
            if process.returncode is None:
                pull.cpu, pull.rss = _kill(process)
        return tuple(self._running.values())


def _complaint(process: subprocess.Popen[bytes], folder: Path) -> str:
    errors = (folder / "errors").read_text(errors="replace")[-2000:]
    return f"{process.args!r} ended with {_exit_code(process)}: {errors}"


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a process that is about to end; it stays to be collected."""
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ended
    return ended.si_status


def _kill(process: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Kill and collect it; its processor seconds, and its peak memory in bytes."""
    peak = 0
    # of one that runs: the kernel never reports less than this process has for one that has ended
    with suppress(StopIteration):
        peak = resources.peak_rss(process.pid)
    # not process.kill(), which would collect one that has ended, and lose what it used
    os.kill(process.pid, signal.SIGKILL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.stdout:
        process.stdout.close()
    return used.ru_utime + used.ru_stime, peak or used.ru_maxrss * 1024
