"""What people and machines see: progress, tables, JSON, and errors with their exit codes."""

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

from docket import errors
from docket.progress import FETCHING, LayerProgress, Progress, Silent

# the rest of rich is imported where something is drawn: most commands of a fleet draw nothing
if TYPE_CHECKING:
    from rich.progress import TaskID

EXIT_CODES: tuple[tuple[type[BaseException], int, str], ...] = (
    (errors.NotFound, 3, "no such image, blob or file"),
    (errors.EngineImageUnknown, 3, "the container engine has no such image"),
    (FileNotFoundError, 3, "no such file"),
    (errors.InvalidInput, 4, "bad input: name, archive, manifest, digest"),
    (errors.RegistryError, 5, "the registry can't be reached or refused"),
    (errors.EngineError, 6, "the container engine can't be reached or refused"),
    (errors.StoreError, 7, "the store is in use, full, or of another format"),
    (KeyboardInterrupt, 130, "interrupted"),
)
FOUND_DAMAGE = 8
"""Which error ends a command with which code. 0: done; 1: any other error; 2: wrong usage;
`FOUND_DAMAGE`: docket fsck found something."""

_PLAIN_SECONDS = 5.0


def exit_code(error: BaseException) -> int:
    """The code with which a command ends that *error* stopped."""
    return next((code for kind, code, _ in EXIT_CODES if isinstance(error, kind)), 1)


def size(count: float) -> str:
    """Bytes in human units, such as ``1.2 MB``."""
    return decimal(int(count)).replace(" bytes", " B").replace(" byte", " B")


def rate(per_second: float) -> str:
    """Bytes a second in human units."""
    return f"{size(per_second)}/s"


def say(text: str) -> None:
    """A line for people, on standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def one_line(error: Exception) -> str:
    """What went wrong, as people are told."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return errors.summary(error)


def warn(text: str) -> None:
    """A line for people, on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say_json(body: Any) -> None:
    """One line of JSON on standard output."""
    say(json.dumps(body, separators=(",", ":")))


def say_table(columns: list[str], rows: list[list[str]], *, right: frozenset[str]) -> None:
    """Rows under their columns; the columns in *right* are numbers."""
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
        say(line.rstrip())


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
            TextColumn("{task.fields[words]}"),
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
                self._tasks[progress.name] = self._bars.add_task(progress.name, words="")
            self._bars.update(
                self._tasks[progress.name],
                completed=progress.done,
                total=max(progress.total, 1),
                words=_words(progress),
            )

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False)


class _Lines:
    """A line when a layer's state changes, and every few seconds while it moves."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def layer(self, progress: LayerProgress) -> None:
        now = time.monotonic()
        with self._lock:
            state, told = self._last.get(progress.name, ("", 0.0))
            if progress.state == state and now - told < _PLAIN_SECONDS:
                return
            self._last[progress.name] = (progress.state, now)
        warn(f"{progress.name} {_words(progress)}")

    def note(self, text: str) -> None:
        warn(text)


def _words(progress: LayerProgress) -> str:
    amount = _amount(progress.total, progress.unit)
    if progress.done < progress.total:
        amount = f"{_amount(progress.done, progress.unit)} of {amount}"
    words = f"{progress.state} {amount}"
    if progress.state == FETCHING and progress.peers:
        words += f" from {progress.peers} peers at {rate(progress.rate)}"
    return words


def _amount(count: int, unit: str) -> str:
    return f"{count} {unit}" if unit else size(count)
