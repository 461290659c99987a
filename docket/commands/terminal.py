"""Standard output and standard error: lines, JSON, tables and progress."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from docket.progress import FETCHING, LayerProgress, Progress, Silent

# the rest of rich is imported where something is drawn: most commands of a fleet draw nothing
if TYPE_CHECKING:
    from rich.progress import TaskID

_REPEAT_SECONDS = 5.0


def format_size(count: float) -> str:
    """Bytes in decimal units, such as ``1.2 MB``."""
    return decimal(int(count)).replace(" bytes", " B").replace(" byte", " B")


def format_rate(per_second: float) -> str:
    """Bytes a second in decimal units, such as ``1.2 MB/s``."""
    return f"{format_size(per_second)}/s"


def print_line(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_error(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def print_json(body: Any) -> None:
    """Write *body* as one line of JSON to standard output."""
    print_line(json.dumps(body, separators=(",", ":")))


def print_table(columns: list[str], rows: list[list[str]], *, right: frozenset[str]) -> None:
    """Write rows under their column titles; columns in *right* are aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=True, overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    # a pipe has no width: then nothing is cut
    console = Console(width=None if sys.stdout.isatty() else 240, highlight=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print_line(line.rstrip())


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """Bars on a terminal, plain lines elsewhere, nothing when *quiet*; all on standard error."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        with _Bars() as bars:
            yield bars
    else:
        yield _Lines()


class _Bars:
    """One bar a layer."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[details]}"),
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
        self._console.print(text, highlight=False)


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
    amount = _amount(progress.total, progress.unit)
    if progress.done < progress.total:
        amount = f"{_amount(progress.done, progress.unit)} of {amount}"
    details = f"{progress.state} {amount}"
    if progress.state == FETCHING and progress.peers:
        details += f" from {progress.peers} peers at {format_rate(progress.rate)}"
    return details


def _amount(count: int, unit: str) -> str:
    return f"{count} {unit}" if unit else format_size(count)
