"""Commands that keep a store sound and small: on the registry's, or on one that nobody uses."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import click

from docket.commands import reports, terminal
from docket.commands.options import Options, command_options, option
from docket.defaults import PIN_SECONDS
from docket.progress import CHECKING, LayerProgress, Progress

_ALL = "1/1"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhdw]?)\Z")

_local_option = option(
    "--local",
    is_flag=True,
    help="Work on the store at -l itself: this host's own, or that of a registry which is stopped.",
)


def _seconds(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> float | None:
    """Seconds, or a number with a unit: 90s, 15m, 12h, 30d, 2w."""
    if text is None:
        return None
    match = _DURATION.match(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no time such as 90s, 15m, 12h, 30d or 2w")
    return float(match[1]) * _UNITS[match[2]]


@click.command()
@command_options
@option(
    "--dry-run",
    is_flag=True,
    help="Say what would be freed; change nothing.",
)
@option(
    "--grace",
    callback=_seconds,
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
    "age",
    callback=_seconds,
    metavar="TIME",
    help="Of these, remove only tags that were pushed or pulled longer ago, such as 30d; without "
    "--keep the newest release of a repository stays.",
)
@option(
    "--protect",
    multiple=True,
    metavar="GLOB",
    help="Keep tags like this, or NAME:TAG pairs when it has a colon; may be given again.",
)
@_local_option
def gc(
    options: Options,
    dry_run: bool,
    grace: float | None,
    keep: int | None,
    age: float | None,
    protect: tuple[str, ...],
    local: bool,
) -> None:
    """Free the space of images that no tag names, while pushes and pulls go on.

    \b
    docket -h registry gc
    docket -h registry gc --keep 5 --protect "v*.0" --older-than 30d --dry-run
    docket gc --local --keep 2
    """
    if local:
        from docket.store import Retention

        retention = Retention(keep, protect, age)
        # nobody was promised anything by a store that nobody uses
        with options.store(pin_seconds=0) as store:
            swept = store.gc(
                grace=PIN_SECONDS if grace is None else grace,
                retention=retention,
                dry_run=dry_run,
            )
        report = dataclasses.asdict(swept)
    else:
        with options.client() as client:
            report = client.gc(
                dry_run=dry_run, grace=grace, keep=keep, protect=list(protect), age=age
            )
    reports.show_gc(report, as_json=options.json)


@click.command()
@command_options
@option(
    "--read-data",
    is_flag=False,
    flag_value=_ALL,
    metavar="[=n/t]",
    help="Read the bytes of all blobs too, or of the n-th of t equal parts.",
)
@option(
    "--rebuild-index",
    is_flag=True,
    help="Make the index anew from the blobs and the journal; needs --local.",
)
@_local_option
@click.pass_context
def fsck(
    context: click.Context,
    options: Options,
    read_data: str | None,
    rebuild_index: bool,
    local: bool,
) -> None:
    """Check a store; mend what can be mended, and put what is wrong out of reach.

    What is out of reach comes back with the next push, or the next pull, of the image. Ends with
    exit code 8 when anything was found.

    \b
    docket -h registry fsck
    docket -h registry fsck --read-data=1/7
    docket fsck --local --read-data
    docket fsck --local -l /var/local/docket --rebuild-index
    """
    from docket.store import Sample

    sample = Sample.parse(read_data) if read_data else None
    if rebuild_index and not local:
        raise click.UsageError("--rebuild-index needs a store that nobody uses: add --local")
    with terminal.progress(quiet=options.silent) as progress:
        if rebuild_index:
            report = _rebuilt(options, progress)
        elif local:
            with options.store() as store:
                checked = store.fsck(sample=sample, on_blob=_counted(progress))
            report = checked.to_json()
        else:
            with options.client() as client:
                report = client.fsck(read_data=read_data, on_blob=_counted(progress))
    reports.show_fsck(report, as_json=options.json)
    if report["findings"]:
        context.exit(terminal.FOUND_DAMAGE)


def _rebuilt(options: Options, progress: Progress) -> dict[str, Any]:
    from docket.pieces import PIECE_LENGTH, PieceHasher
    from docket.store import rebuild_index

    report = rebuild_index(
        options.place,
        new_pieces=PieceHasher,
        piece_length=PIECE_LENGTH,
        owner="docket fsck",
        on_blob=_counted(progress),
    )
    return report.to_json()


def _counted(progress: Progress) -> Callable[[int, int], None]:
    def on_blob(done: int, total: int) -> None:
        progress.layer(LayerProgress("store", CHECKING, done, total, unit="blobs"))

    return on_blob
