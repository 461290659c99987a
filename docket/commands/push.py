"""``docket push``: upload what the registry lacks of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from docket.commands import terminal
from docket.commands.options import Options, command_options, image_argument, option
from docket.commands.terminal import format_size, print_json, print_line
from docket.compression import GZIP, ZSTD
from docket.oci.platform import Platform
from docket.oci.reference import Reference
from docket.progress import HELD

if TYPE_CHECKING:
    from docket.transfer.push import PushReport


@click.command()
@command_options
@image_argument
@option(
    "--archive",
    metavar="FILE|-",
    help="Read a docker-save or OCI archive, or a folder (OCI layout, skopeo's dir:); "
    "- is standard input.",
)
@option(
    "--image",
    "choice",
    metavar="NAME|@N|ID",
    help="The image in an archive of several: its name, its number from @0 on, its ID or digest.",
)
@option(
    "--platform",
    metavar="OS/ARCH",
    help="The platform in an archive of several; that of this host by default.",
)
@option(
    "--compression",
    type=click.Choice([ZSTD, GZIP]),
    default=ZSTD,
    show_default=True,
    help="Layer compression; gzip is for hosts that pull with Docker older than 23.",
)
@option(
    "--level",
    type=click.IntRange(1, 22),
    help="Compression level; zstd 3 or gzip 6 by default.",
)
@option(
    "--threads",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Compression threads for each layer.",
)
def push(
    options: Options,
    image: str,
    archive: str | None,
    choice: str | None,
    platform: str | None,
    compression: str,
    level: int | None,
    threads: int,
) -> None:
    """Push an image from the container engine, or from an archive.

    Only layers that the registry lacks are compressed and uploaded.

    \b
    docket -h registry push app:1.0
    docker save app:1.0 | docket -h registry push app:1.0 --archive -
    docket -h registry push app:1.0 --archive two.tar --image reg:5000/app:1.0
    """
    from docket.transfer.push import Compression, push_archive, push_from_engine

    if compression == GZIP and level and level > 9:
        raise click.BadParameter("gzip has levels 1 to 9", param_hint="--level")
    if archive is None and choice:
        raise click.UsageError("--image chooses in an archive: it needs --archive")
    if archive == "-":
        terminal.require_standard_input()
    reference = Reference.parse(image)
    method = Compression(compression, level, threads)
    with options.client() as client, terminal.progress(quiet=options.silent) as progress:
        if archive is None:
            report = push_from_engine(client, reference, method, progress)
        else:
            report = push_archive(
                client,
                reference,
                archive,
                method,
                progress,
                image=choice,
                platform=Platform.parse(platform) if platform else None,
            )
    _print(report, as_json=options.json)


def _print(report: PushReport, *, as_json: bool) -> None:
    if as_json:
        print_json(_to_json(report))
        return
    uploaded = {layer.digest: layer for layer in report.layers if layer.source != HELD}
    if uploaded:
        plain = sum(layer.plain_size for layer in uploaded.values())
        print_line(
            f"pushed {report.reference} in {report.seconds:.1f} s: {len(uploaded)} of "
            f"{len(report.layers)} layers uploaded, {format_size(report.uploaded)} "
            f"({format_size(plain)} unpacked)"
        )
    else:
        print_line(f"pushed {report.reference}: the registry has all layers, 0 B uploaded")
    print_line(str(report.digest))


def _to_json(report: PushReport) -> dict[str, Any]:
    return {
        "name": str(report.reference),
        "digest": str(report.digest),
        "config": str(report.config),
        "uploaded": report.uploaded,
        "seconds": round(report.seconds, 3),
        "layers": [
            {
                "digest": str(layer.digest),
                "diff_id": str(layer.diff_id),
                "size": layer.size,
                "plain_size": layer.plain_size,
                "source": layer.source,
            }
            for layer in report.layers
        ],
    }
