"""``docket images``: list the images of the registry."""

from __future__ import annotations

import click

from docket.commands.options import Options, command_options
from docket.commands.terminal import format_size, print_json, print_line, print_table
from docket.oci.reference import parse_repository


@click.command()
@command_options
@click.argument("name", required=False)
def images(options: Options, name: str | None) -> None:
    """List the images of the registry, and the bytes that only each image needs."""
    if name:
        parse_repository(name)
    with options.client() as client:
        rows = client.images(name)
    if options.json:
        print_json({"images": rows})
        return
    if not rows:
        print_line("no images; docket push NAME:TAG adds one")
        return
    print_table(
        ["NAME", "TAG", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "UNIQUE", "SHARED"],
        [
            [
                row["name"],
                row["tag"],
                row["digest"].partition(":")[2][:12],
                ", ".join(row["platforms"]),
                str(row["layers"]),
                format_size(row["size"]),
                format_size(row["unique"]),
                format_size(row["shared"]),
            ]
            for row in rows
        ],
        right=frozenset({"LAYERS", "SIZE", "UNIQUE", "SHARED"}),
    )
