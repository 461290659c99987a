"""``docket fsck``: check a store and repair it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from docket.commands import terminal
from docket.commands.options import Options, command_options, local_option, option
from docket.commands.terminal import format_size, print_json, print_line, print_table
from docket.progress import CHECKING, LayerProgress, Progress

if TYPE_CHECKING:
    from docket.store import Sample

FOUND_DAMAGE = 8
"""The exit code when a check found damage."""

_ALL = "1/1"


@click.command()
@command_options
@option(
    "--read-data",
    is_flag=False,
    flag_value=_ALL,
    metavar="[=n/t]",
    help="Also read the bytes of all blobs, or of the n-th of t equal parts.",
)
@option(
    "--rebuild-index",
    is_flag=True,
    help="Rebuild the index from the blobs and the journal; needs --local.",
)
@local_option
@click.pass_context
def fsck(
    context: click.Context,
    options: Options,
    read_data: str | None,
    rebuild_index: bool,
    local: bool,
) -> None:
    """Check a store, repair it, and quarantine damaged blobs.

    The next push or pull of an image replaces its quarantined blobs. Ends with exit code 8 when
    damage was found.

    \b
    docket -h registry fsck
    docket -h registry fsck --read-data=1/7
    docket fsck --local --read-data
    docket fsck --local -l /var/local/docket --rebuild-index
    """
    sample = _sample(read_data)
    if rebuild_index and not local:
        raise click.UsageError("--rebuild-index needs a store that nobody uses: add --local")
    with terminal.progress(quiet=options.silent) as progress:
        if rebuild_index:
            report = _rebuild(options, progress)
        elif local:
            report = _check_here(options, sample, progress)
        else:
            with options.client() as client:
                report = client.fsck(read_data=read_data, on_blob=_report_to(progress))
    if options.json:
        print_json(report)
    else:
        _print(report)
    if report["findings"]:
        context.exit(FOUND_DAMAGE)


def _sample(read_data: str | None) -> Sample | None:
    """The part of the blobs to read. Raises `InvalidOption`."""
    if read_data is None:
        return None
    from docket.store import Sample

    return Sample.parse(read_data)


def _check_here(options: Options, sample: Sample | None, progress: Progress) -> dict[str, Any]:
    """Check this host's own store."""
    arguments = {"read_data": f"{sample.part}/{sample.parts}" if sample else None}
    with options.agent() as agent:
        if agent:
            return agent.call("fsck", arguments, progress=progress)
    with options.store() as store:
        return store.maintenance.fsck(sample=sample, on_blob=_report_to(progress)).to_json()


def _rebuild(options: Options, progress: Progress) -> dict[str, Any]:
    from docket.store import rebuild_index

    report = rebuild_index(
        options.store_location,
        owner="docket fsck",
        on_blob=_report_to(progress),
    )
    return report.to_json()


def _report_to(progress: Progress) -> Callable[[int, int], None]:
    def on_blob(done: int, total: int) -> None:
        progress.layer(LayerProgress("store", CHECKING, done, total, unit="blobs"))

    return on_blob


def _print(report: dict[str, Any]) -> None:
    """Print the findings and what became of them."""
    findings = report["findings"]
    if findings:
        print_table(
            ["FOUND", "WHAT", "NOW"],
            [[finding["kind"], finding["what"], finding["outcome"]] for finding in findings],
        )
    verdict = f"{len(findings)} findings" if findings else "no damage"
    print_line(
        f"checked {report['blobs']} blobs, {report['read_blobs']} of them byte by byte "
        f"({format_size(report['read'])}), and {report['rows']} rows: {verdict}"
    )
