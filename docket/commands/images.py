"""``docket images``: list the images of the registry."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from docket.commands.options import Options, command_options, local_option
from docket.commands.terminal import format_size, print_json, print_line, print_table
from docket.oci.reference import parse_repository
from docket.progress import Silent


@click.command(short_help="List the images of the registry, and their sizes.")
@command_options
@click.argument("name", required=False)
@local_option
def images(options: Options, name: str | None, local: bool) -> None:
    """List the images of the registry, and the bytes that no other image needs.

    \b
    docket -h registry images
    docket images --local
    """
    if name:
        parse_repository(name)
    if local:
        rows = _local_rows(options, name)
    else:
        with options.client() as client:
            rows = client.images(name)
    if options.json:
        print_json({"images": rows})
        return
    if not rows:
        print_line(f"no images; docket {'pull' if local else 'push'} NAME:TAG adds one")
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


def _local_rows(options: Options, name: str | None) -> list[dict[str, Any]]:
    """The rows of this host's own store."""
    with options.agent() as agent:
        if agent:
            rows: list[dict[str, Any]] = agent.call("images", {"name": name}, progress=Silent())[
                "images"
            ]
            return rows
    from docket.transfer.listing import image_rows

    with options.store() as store:
        return [msgspec.to_builtins(row) for row in image_rows(store, name)]
