"""``docket plan``: what a pull would move."""

from __future__ import annotations

from typing import Any

import click

from docket.commands.options import (
    Options,
    command_options,
    engine_variables,
    image_argument,
    option,
    platform_option,
)
from docket.commands.terminal import format_size, print_json, print_line, print_table
from docket.oci.digest import Digest
from docket.oci.manifest import Platform
from docket.oci.reference import Reference
from docket.progress import ENGINE, HELD, MISSING, Silent

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
    reference = Reference.parse(image)
    with options.agent() as agent:
        if agent:
            arguments = {
                "image": str(reference),
                "platform": str(platform),
                "registry": options.registry,
                "layers_only": layers_only,
                "variables": engine_variables(),
            }
            report = agent.call("plan", arguments, progress=Silent())
        else:
            report = _plan(options, reference, platform, layers_only=layers_only)
    if options.json:
        print_json(report)
    else:
        _print(report)


def _plan(
    options: Options, reference: Reference, platform: Platform, *, layers_only: bool
) -> dict[str, Any]:
    from docket.transfer.plan import plan_image, plan_report

    with options.client() as client, options.store() as store:
        planned = plan_image(client, store, reference, platform, ask_engine=not layers_only)
    return plan_report(*planned)


def _print(report: dict[str, Any]) -> None:
    print_table(
        ["LAYER", "SIZE", "WHERE"],
        [
            [Digest.parse(row["digest"]).short, format_size(row["size"]), _WORDS[row["source"]]]
            for row in report["layers"]
        ],
        right=frozenset({"SIZE"}),
    )
    moved, total = format_size(report["to_move"]), format_size(report["size"])
    print_line(f"a pull would move {moved} of {total}")
