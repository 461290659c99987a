"""What a piece of work takes: seconds, processor seconds and memory, of commands and servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.summary import Summary

_RUSAGE = Path(__file__).with_name("rusage.py")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Resources:
    """One run: *wall* and *cpu* in seconds, *peak_rss* in bytes.

    *cpu* is that of the command and of the engines that work for it; *peak_rss* the largest of
    them. *served* is what the registry's processor seconds were.
    """

    wall: float
    cpu: float
    peak_rss: int
    served: float = 0.0


@dataclass(frozen=True, slots=True)
class ResourceSummary:
    """Several runs of one piece of work, in the units of `Resources`."""

    wall: Summary
    cpu: Summary
    peak_rss: Summary
    served: Summary

    @classmethod
    def of(cls, runs: Sequence[Resources]) -> ResourceSummary:
        """The spreads of *runs*."""
        return cls(
            Summary.of(run.wall for run in runs),
            Summary.of(run.cpu for run in runs),
            Summary.of(run.peak_rss for run in runs),
            Summary.of(run.served for run in runs),
        )


def of_call(
    work: Callable[[], object], *, engines: Sequence[int] = (), server: int | None = None
) -> Resources:
    """What *work*, which talks to *engines* (process ids), takes of them; not of this process."""
    for pid in engines:
        forget_peak(pid)
    before = sum(map(cpu_seconds, engines))
    served = cpu_seconds(server) if server else 0.0
    began = time.monotonic()
    work()
    wall = time.monotonic() - began
    return Resources(
        wall,
        sum(map(cpu_seconds, engines)) - before,
        max(map(peak_rss, engines), default=0),
        cpu_seconds(server) - served if server else 0.0,
    )


def of_command(
    argv: Sequence[str | Path],
    *,
    engines: Sequence[int] = (),
    server: int | None = None,
    env: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> Resources:
    """What the command *argv* takes, together with the *engines* that work for it.

    Its standard output goes to *output* if that is given. Raises CalledProcessError.
    """
    measured: dict[str, Any] = {}

    def run() -> None:
        reader, writer = os.pipe()
        wrapper = (sys.executable, "-SE", _RUSAGE, str(writer))
        with Path(output or os.devnull).open("wb") as out, os.fdopen(reader, "rb") as pipe:
            running = subprocess.Popen(
                [*wrapper, *argv], env=env, stdout=out, stderr=subprocess.PIPE, pass_fds=[writer]
            )
            os.close(writer)
            _, complaint = running.communicate()
            if running.returncode:
                raise subprocess.CalledProcessError(
                    running.returncode, list(argv), stderr=complaint
                )
            measured.update(json.load(pipe))

    shared = of_call(run, engines=engines, server=server)
    return Resources(
        measured["wall"],
        shared.cpu + measured["cpu"],
        max(shared.peak_rss, measured["peak_rss"]),
        shared.served,
    )


def peak_rss(pid: int) -> int:
    """The most memory of a process that was resident so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process so far, with those of its children that have ended."""
    # proc(5): the name, in parentheses, may have spaces; fields 14 to 17 are the times
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def forget_peak(pid: int) -> None:
    """Make a process's peak what is resident now, if this process may."""
    # proc(5): 5 sets the peak back to what is resident now; only root may, for others' processes
    with suppress(PermissionError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def anonymous_memory() -> int:
    """Bytes of this process that no file backs: the index's map is not among them."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024
