"""``docket deploys``: list the deploys that the registry remembers."""

from __future__ import annotations

import time

import click
import msgspec

from docket.commands.fleet.hosts import age
from docket.commands.options import Options, command_options
from docket.commands.terminal import print_json, print_line, print_table


@click.command(short_help="List deploys, the newest first.")
@command_options
def deploys(options: Options) -> None:
    """List deploys, the newest first; "docket deploy --attach ID" follows or shows one."""
    with options.client() as client:
        rows = client.fleet.deploys()
    if options.json:
        print_json({"deploys": msgspec.to_builtins(rows)})
        return
    if not rows:
        print_line("no deploys; docket deploy NAME:TAG --all begins one")
        return
    print_table(
        ["ID", "IMAGE", "STATE", "HOSTS DONE", "BEGUN", "WHY"],
        [
            [
                row.id,
                f"{row.repository}:{row.tag}" if row.tag else f"{row.repository}@{row.digest}",
                row.state,
                f"{row.counts.get('done', 0)}/{row.total}",
                f"{age(time.time() - row.created)} ago",
                row.why,
            ]
            for row in rows
        ],
        right=frozenset({"HOSTS DONE"}),
    )
