"""Standard output and standard error: lines, JSON, tables and progress."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import select
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from docket.errors import OutputError, printable
from docket.progress import FETCHING, LayerProgress, Progress, Silent

# the rest of rich is imported where something is drawn: most commands of a fleet draw nothing
if TYPE_CHECKING:
    from rich.progress import TaskID

_REPEAT_SECONDS = 5.0
_BAR_COLUMNS = 60


def format_size(count: float) -> str:
    """Bytes in decimal units, such as ``1.2 MB``."""
    return decimal(int(count)).replace(" bytes", " B").replace(" byte", " B")


def format_rate(per_second: float) -> str:
    """Bytes a second in decimal units, such as ``1.2 MB/s``."""
    return f"{format_size(per_second)}/s"


def print_text(text: str) -> None:
    """Write *text* to standard output, as it is. Raises `OutputError`."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(os.strerror(error.errno or 0)) from error


def print_line(text: str) -> None:
    """Write one line to standard output; what isn't printable becomes an escape."""
    print_text(f"{printable(text)}\n")


def print_error(text: str) -> None:
    """Write one line to standard error, if that is possible."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def print_json(body: Any) -> None:
    """Write *body* as one line of JSON to standard output."""
    print_text(f"{json.dumps(body, separators=(',', ':'))}\n")


def print_table(
    columns: list[str], rows: list[list[str]], *, right: frozenset[str] = frozenset()
) -> None:
    """Write rows under their column titles; columns in *right* are aligned to the right.

    Nothing is cut or folded: lines may be longer than a terminal is wide.
    """
    lines = [columns, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if title in right else cell.ljust(width)
            for title, cell, width in zip(columns, line, widths, strict=True)
        )
        print_line("  ".join(cells).rstrip())


def open_standard_streams() -> None:
    """Open what is closed of standard input, output and error, and let them show any text.

    A closed one becomes a file that can't be read or written, so that no store or socket gets
    its number, and using it fails.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)
    # Python has None for those that were closed when it started
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_standard_streams() -> None:
    """Flush standard output and error, and drop what can't be written.

    Python would end with exit code 120 and a traceback if it failed to flush them at its exit.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def require_standard_input() -> None:
    """Raises OSError when standard input is closed."""
    if _access_mode(0) == os.O_WRONLY:
        raise OSError(errno.EBADF, "standard input is closed")


def require_standard_output() -> None:
    """Raises OSError when standard output is closed."""
    if _access_mode(1) == os.O_RDONLY:
        raise OSError(errno.EBADF, "standard output is closed")


def _access_mode(number: int) -> int:
    return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE


def reader_is_gone() -> bool:
    """True when standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """Bars on a terminal, plain lines elsewhere, nothing when *quiet*; all on standard error."""
    if quiet:
        yield Silent()
    elif _draws_bars():
        with _Bars() as bars:
            yield bars
    else:
        yield _Lines()


def _draws_bars() -> bool:
    """True on a terminal that can move its cursor and is wide enough for a bar."""
    return (
        sys.stderr.isatty()
        and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
        and shutil.get_terminal_size().columns >= _BAR_COLUMNS
    )


class _Bars:
    """One bar a layer."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[details]}", markup=False),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            self._bars.stop()

    def layer(self, progress: LayerProgress) -> None:
        with self._lock:
            if progress.name not in self._tasks:
                self._tasks[progress.name] = self._bars.add_task(progress.name, details="")
            self._bars.update(
                self._tasks[progress.name],
                completed=progress.done,
                total=max(progress.total, 1),
                details=_details(progress),
            )

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._console.print(printable(text), highlight=False, markup=False)


class _Lines:
    """A line when a layer's state changes, and every 5 s while it moves."""

    def __init__(self) -> None:
        self._printed: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def layer(self, progress: LayerProgress) -> None:
        now = time.monotonic()
        with self._lock:
            state, printed_at = self._printed.get(progress.name, ("", 0.0))
            if progress.state == state and now - printed_at < _REPEAT_SECONDS:
                return
            self._printed[progress.name] = (progress.state, now)
        print_error(f"{progress.name} {_details(progress)}")

    def note(self, text: str) -> None:
        print_error(text)


def _details(progress: LayerProgress) -> str:
    details = f"{progress.state} {_amount(progress)}"
    if progress.state == FETCHING and progress.peers:
        details += f" from {progress.peers} peers at {format_rate(progress.rate)}"
    return details


def _amount(progress: LayerProgress) -> str:
    def format_count(count: int) -> str:
        return str(count) if progress.unit else format_size(count)

    total = format_count(progress.total)
    amount = (
        total if progress.done >= progress.total else f"{format_count(progress.done)} of {total}"
    )
    return f"{amount} {progress.unit}".rstrip()
