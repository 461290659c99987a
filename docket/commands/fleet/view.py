"""How a deploy is shown: a live table on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from docket.commands.terminal import (
    format_rate,
    format_size,
    print_error,
    print_json,
    print_line,
    print_table,
)
from docket.wire import DeployHost, DeployStatus

if TYPE_CHECKING:
    from rich.table import Table

Show = Callable[[DeployStatus], None]

_LINE_SECONDS = 5.0
_COLUMNS = ("HOST", "STATE", "DONE", "RATE", "REGISTRY", "HOSTS", "HELD", "REASON")
_TEXTS = frozenset({"HOST", "STATE", "REASON"})


@contextlib.contextmanager
def deploy_view(*, quiet: bool, as_json: bool) -> Iterator[Show]:
    """What shows a deploy each time that it has changed."""
    if as_json:
        yield lambda status: print_json(msgspec.to_builtins(status))
    elif quiet:
        yield lambda _status: None
    elif sys.stderr.isatty():
        with _live() as show:
            yield show
    else:
        yield _Lines().show


def print_result(status: DeployStatus, *, as_json: bool) -> None:
    """The end of a deploy: one line, and a row for each host that is not done."""
    if as_json:
        print_json(msgspec.to_builtins(status))
        return
    done = status.counts.get("done", 0)
    seconds = max(status.ended - status.created, 0.0)
    words = f"{_name(status)}: {done} of {status.total} hosts have it"
    words += ", loaded" if status.load and done else ", verified" if done else ""
    if status.state == "done":
        print_line(f"{words}, after {seconds:.1f} s")
    else:
        print_line(
            f"{words}; the deploy is {status.state}" + (f": {status.why}" if status.why else "")
        )
    print_line(_sources(status))
    late = [host for host in status.hosts if host.state != "done"]
    if late:
        rows = [[host.name, host.zone, host.state, host.reason] for host in late]
        print_table(["HOST", "ZONE", "STATE", "REASON"], rows, right=frozenset())


def summary(status: DeployStatus) -> str:
    """One line: how many hosts are where, how much has come, how fast, how long it may take."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(status.counts.items()))
    words = f"{_name(status)}: {counts}"
    if status.bytes_total:
        words += f"; {100 * status.bytes_done / status.bytes_total:.0f} %"
    if status.rate:
        left = (status.bytes_total - status.bytes_done) / status.rate
        words += f" at {format_rate(status.rate)}, about {left:.0f} s left"
    return words


def _sources(status: DeployStatus) -> str:
    return (
        f"{format_size(status.from_registry)} from the registry, "
        f"{format_size(status.from_hosts)} from hosts, {format_size(status.from_held)} held before"
    )


def _name(status: DeployStatus) -> str:
    target = f":{status.tag}" if status.tag else f"@{status.digest}"
    return f"{status.repository}{target} ({status.id})"


class _Lines:
    """A line when a state changes, and every few seconds while bytes move."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._shown = 0.0

    def show(self, status: DeployStatus) -> None:
        now = time.monotonic()
        if status.counts != self._counts or now - self._shown >= _LINE_SECONDS:
            self._counts, self._shown = status.counts, now
            print_error(summary(status))


@contextlib.contextmanager
def _live() -> Iterator[Show]:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, transient=True, auto_refresh=False) as live:
        yield lambda status: live.update(_table(status), refresh=True)


def _table(status: DeployStatus) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=summary(status), title_justify="left")
    for column in _COLUMNS:
        table.add_column(
            column, justify="left" if column in {"HOST", "STATE", "REASON"} else "right"
        )
    for host in status.hosts:
        table.add_row(*_cells(host))
    if len(status.hosts) < status.total:
        table.caption = f"{len(status.hosts)} of {status.total} hosts; failed and slow ones first"
    return table


def _cells(host: DeployHost) -> list[str]:
    return [
        host.name,
        host.state,
        f"{100 * host.done / host.total:.0f} %" if host.total else "",
        format_rate(host.rate) if host.rate else "",
        format_size(host.from_registry),
        format_size(host.from_hosts),
        format_size(host.held),
        host.reason,
    ]
