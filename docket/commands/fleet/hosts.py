"""``docket hosts``: list the hosts whose agents connect to the registry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import msgspec

from docket.commands.options import Options, command_options, option
from docket.commands.terminal import format_size, print_json, print_line, print_table

if TYPE_CHECKING:
    from docket.wire import HostRow


def parse_labels(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, str]:
    """``KEY=VALUE`` texts as a dictionary, for click."""
    labels = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not KEY=VALUE, such as role=web")
        labels[name] = value
    return labels


def age(seconds: float) -> str:
    """A duration in the largest unit that fits, such as ``3m``."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(int(seconds), 0)}s"


@click.command(short_help="List the hosts whose agents are connected.")
@command_options
@option("--zone", default="", metavar="NAME", help="Only hosts of this zone.")
@option(
    "--label",
    multiple=True,
    metavar="KEY=VALUE",
    callback=parse_labels,
    help="Only hosts with this label; can be repeated.",
)
def hosts(options: Options, zone: str, label: dict[str, str]) -> None:
    """List the hosts whose agents are connected to the registry, or were recently.

    \b
    docket -h registry hosts
    docket -h registry hosts --zone berlin --label role=web --json
    """
    with options.client() as client:
        rows = client.fleet.hosts(zone=zone, labels=label)
    if options.json:
        print_json({"hosts": msgspec.to_builtins(rows)})
        return
    if not rows:
        print_line("no hosts; docket agent on a host connects it")
        return
    columns = ["NAME", "ADDRESS", "ZONE", "LABELS", "VERSION", "ENGINE", "IMAGES", "USED", "FREE"]
    print_table(
        [*columns, "SEEN"],
        [_row(row) for row in rows],
        right=frozenset({"IMAGES", "USED", "FREE"}),
    )


def _row(row: HostRow) -> list[str]:
    labels = ",".join(f"{name}={value}" for name, value in sorted(row.labels.items()))
    used, free = format_size(row.disk_used), format_size(row.disk_free)
    seen = "connected" if row.connected else f"{age(time.time() - row.seen)} ago"
    shown = [row.name, row.address, row.zone, labels, row.version, row.engine]
    return [*shown, str(row.held), used, free, seen]
