"""Start real programs, wait until they are ready, and end them with all that they left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

READY_SECONDS = 60.0
_END_SECONDS = 20.0
_POLL_SECONDS = 0.02


class NotReady(AssertionError):
    """A program ended or stayed silent before it was ready; the end of its output is shown."""


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder of one's own with a path short enough for sockets, removed with all mounts."""
    # Linux takes 107 bytes for the path of a socket; pytest's folders may have more.
    folder = Path(tempfile.mkdtemp(prefix="dk", dir="/tmp"))
    try:
        yield folder
    finally:
        unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started(
    argv: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    within: float = READY_SECONDS,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *argv* with its output in *log*; enter once *ready*, and end it on the way out.

    *options* are Popen's. Raises NotReady after *within* seconds or when the program ends first.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options
        )
    try:
        wait_until(ready, process=process, log=log, within=within)
        yield process
    finally:
        end(process)


def wait_until(
    ready: Callable[[], bool],
    *,
    process: subprocess.Popen[Any],
    log: Path,
    within: float = READY_SECONDS,
) -> None:
    """Return as soon as *ready* says so; raise NotReady if *process* ends first."""
    deadline = time.monotonic() + within
    while not ready():
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
            raise NotReady(f"{process.args!r} ended with {process.returncode}:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise NotReady(f"{process.args!r} is not ready after {within} s:\n{tail(log)}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask *process* to end, make it, and collect it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def end_all_naming(folder: Path) -> None:
    """Kill what still runs with *folder*, a folder of one's own, in its command line.

    Engines start other daemons (containerd, its shims) that outlive a killed parent.
    """
    for pid in naming(folder):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def naming(folder: Path) -> Iterator[int]:
    """The other processes that have *folder* in their command line."""
    name = os.fsencode(folder)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            words = entry.joinpath("cmdline").read_bytes().split(b"\0")
            if any(name == word or name + b"/" in word for word in words):
                yield int(entry.name)


def unmount_below(folder: Path) -> None:
    """Unmount everything at or below *folder*, deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [point for point in points if Path(point).is_relative_to(folder)]
    for point in sorted(inside, key=len, reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def answers(address: str | Path, port: int = 0) -> bool:
    """Whether something listens at a TCP address, or at a Unix socket without *port*."""
    family = socket.AF_INET if port else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect((str(address), port) if port else str(address))
        except OSError:
            return False
        return True


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port nobody listens at now; another program may still take it first."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def tail(log: Path) -> str:
    """The end of *log*."""
    return log.read_text(errors="replace")[-3000:] if log.exists() else ""


def environment(**more: str) -> Mapping[str, str]:
    """This process's environment without proxies (engines talk to nothing but loopback)."""
    inherited = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return inherited | more
