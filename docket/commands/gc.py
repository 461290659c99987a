"""``docket gc``: free the space of images that no tag names."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from docket.commands.options import (
    Options,
    command_options,
    local_option,
    option,
    parse_duration,
)
from docket.commands.terminal import format_size, print_json, print_line
from docket.config import PIN_SECONDS
from docket.progress import Silent


@click.command(short_help="Free the space of images that no tag names.")
@command_options
@option(
    "--dry-run",
    is_flag=True,
    help="Print what would be freed; change nothing.",
)
@option(
    "--grace",
    callback=parse_duration,
    metavar="TIME",
    help="Keep what is younger than this; 1h by default.",
)
@option(
    "--keep",
    type=click.IntRange(1),
    metavar="N",
    help="First remove all tags but those of the newest N releases of each repository.",
)
@option(
    "--older-than",
    callback=parse_duration,
    metavar="TIME",
    help="Remove only tags last pushed or pulled longer ago than this, such as 30d; without "
    "--keep, the newest release of a repository stays.",
)
@option(
    "--protect",
    multiple=True,
    metavar="GLOB",
    help="Never remove tags that match, or NAME:TAG if GLOB has a colon; can be repeated.",
)
@option(
    "--upstream-unused",
    callback=parse_duration,
    metavar="TIME",
    help="Remove images of other registries that nobody has pulled for this long.",
)
@local_option
def gc(
    options: Options,
    dry_run: bool,
    grace: float | None,
    keep: int | None,
    older_than: float | None,
    protect: tuple[str, ...],
    upstream_unused: float | None,
    local: bool,
) -> None:
    """Free the space of images that no tag names, while pushes and pulls go on.

    \b
    docket -h registry gc
    docket -h registry gc --keep 5 --protect "v*.0" --older-than 30d --dry-run
    docket gc --local --keep 2
    """
    policy: dict[str, Any] = {
        "dry_run": dry_run,
        "grace": grace,
        "keep": keep,
        "protect": list(protect),
        "age": older_than,
        "unused": upstream_unused,
    }
    if local:
        report = _collect_here(options, policy)
    else:
        with options.client() as client:
            report = client.gc(**policy)
    if options.json:
        print_json(report)
    else:
        _print(report)


def _collect_here(options: Options, policy: dict[str, Any]) -> dict[str, Any]:
    """Collect the garbage of this host's own store."""
    with options.agent() as agent:
        if agent:
            return agent.call("gc", policy, progress=Silent())
    from docket.store import Retention

    grace = policy["grace"]
    # no client of a store that nobody serves relies on a pin
    with options.store(pin_seconds=0) as store:
        report = store.maintenance.gc(
            grace=PIN_SECONDS if grace is None else grace,
            retention=Retention(
                policy["keep"], tuple(policy["protect"]), policy["age"], policy["unused"]
            ),
            dry_run=policy["dry_run"],
        )
    return dataclasses.asdict(report)


def _print(report: dict[str, Any]) -> None:
    """Print what was freed, and why the rest stays."""
    freed, removed = ("would free", "would remove") if report["dry_run"] else ("freed", "removed")
    if report["tags"]:
        print_line(f"{removed} {len(report['tags'])} tags: {', '.join(report['tags'])}")
    print_line(
        f"{freed} {format_size(report['freed'])}: {report['blobs']} blobs of "
        f"{report['manifests']} images without a tag"
    )
    if report["orphans"] or report["leftovers"]:
        print_line(
            f"this includes {report['orphans']} files left by a crash, and "
            f"{format_size(report['leftovers'])} of interrupted pulls, old quarantine and "
            "what rebuilds of the index set aside"
        )
    print_line(
        f"kept {format_size(report['kept'])}: {report['kept_blobs']} blobs of images that "
        f"{report['kept_tags']} tags name"
    )
    _print_kept(report, "young", "younger than the grace time")
    _print_kept(report, "pinned", "a client was told that they exist within the pin time")


def _print_kept(report: dict[str, Any], category: str, reason: str) -> None:
    manifests, blobs = report[f"{category}_manifests"], report[f"{category}_blobs"]
    if manifests:
        print_line(f"kept {manifests} images without a tag, and their blobs: {reason}")
    if blobs:
        size = format_size(report[category])
        print_line(f"kept {size}: {blobs} blobs that no image needs: {reason}")
