"""``docket rm``: remove a tag, or a manifest."""

from __future__ import annotations

import click

from docket.commands.options import Options, command_options, image_argument
from docket.commands.terminal import print_json, print_line
from docket.oci.reference import Reference


@click.command()
@command_options
@image_argument
def rm(options: Options, image: str) -> None:
    """Remove a tag from the registry; "docket gc" frees the space later.

    NAME@DIGEST removes the manifest and all tags that point to it.
    """
    reference = Reference.parse(image)
    with options.client() as client:
        client.delete(reference)
    if options.json:
        print_json({"removed": str(reference)})
    else:
        print_line(f"removed {reference}; docket gc frees what no other image needs")
