"""``docket plan``: what a pull would move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from docket.commands.options import (
    Options,
    command_options,
    image_argument,
    option,
    platform_option,
)
from docket.commands.terminal import format_size, print_json, print_line, print_table
from docket.oci.manifest import Platform
from docket.oci.reference import Reference
from docket.progress import ENGINE, HELD, MISSING

if TYPE_CHECKING:
    from docket.transfer.plan import LayerPlan
    from docket.transfer.resolve import ResolvedImage

_WORDS = {MISSING: "to be fetched", ENGINE: "in the engine", HELD: "in the store"}


@click.command()
@command_options
@image_argument
@option(
    "--layers-only",
    is_flag=True,
    help="Plan for pull --layers-only: don't ask the container engine.",
)
@platform_option
def plan(options: Options, image: str, layers_only: bool, platform: Platform) -> None:
    """Show what a pull would move, without moving it."""
    from docket.transfer.plan import plan_image

    with options.client() as client, options.store() as store:
        resolved, rows = plan_image(
            client, store, Reference.parse(image), platform, ask_engine=not layers_only
        )
    missing = sum(_sizes(rows, MISSING).values())
    if options.json:
        print_json(_to_json(resolved, rows, missing))
        return
    print_table(
        ["LAYER", "SIZE", "WHERE"],
        [
            [row.descriptor.digest.short, format_size(row.descriptor.size), _WORDS[row.source]]
            for row in rows
        ],
        right=frozenset({"SIZE"}),
    )
    total = sum(_sizes(rows).values())
    print_line(f"a pull would move {format_size(missing)} of {format_size(total)}")


def _sizes(rows: list[LayerPlan], *sources: str) -> dict[object, int]:
    """The size of each distinct layer from *sources*, or of all."""
    return {
        row.descriptor.digest: row.descriptor.size
        for row in rows
        if not sources or row.source in sources
    }


def _to_json(image: ResolvedImage, rows: list[LayerPlan], missing: int) -> dict[str, Any]:
    return {
        "name": str(image.reference),
        "digest": str(image.digest),
        "size": sum(_sizes(rows).values()),
        "to_move": missing,
        "layers": [
            {
                "digest": str(row.descriptor.digest),
                "diff_id": str(row.diff_id),
                "size": row.descriptor.size,
                "source": row.source,
            }
            for row in rows
        ],
    }
