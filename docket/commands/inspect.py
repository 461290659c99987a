"""``docket inspect``: an image's manifest, layers and torrent."""

from __future__ import annotations

import click

from docket.commands.options import Options, command_options, image_argument, platform_option
from docket.commands.terminal import format_size, print_json, print_line, print_table
from docket.oci.manifest import Platform
from docket.oci.reference import Reference


@click.command()
@command_options
@image_argument
@platform_option
def inspect(options: Options, image: str, platform: Platform) -> None:
    """Show an image's manifest, layers and torrent."""
    from docket.transfer.resolve import inspect_image

    with options.client() as client:
        report = inspect_image(client, Reference.parse(image), platform)
    if options.json:
        print_json(report)
        return
    for name in ("name", "digest", "config", "platform", "info_hash", "tracker"):
        print_line(f"{name.replace('_', '-'):10} {report[name]}")
    print_table(
        ["LAYER", "SIZE", "DIFF-ID", "TYPE"],
        [
            [
                layer["digest"].partition(":")[2][:12],
                format_size(layer["size"]),
                layer["diff_id"].partition(":")[2][:12],
                layer["media_type"].rpartition(".")[2],
            ]
            for layer in report["layers"]
        ],
        right=frozenset({"SIZE"}),
    )
