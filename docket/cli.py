"""The command line: parse, call, print. What is printed is made in `docket.commands.reports`."""

from __future__ import annotations

import platform
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

from docket import __version__, config
from docket.commands import maintenance, reports, terminal
from docket.commands.options import (
    Options,
    command_options,
    limit_options,
    option,
    platform_option,
    shared_options,
    zone_option,
)
from docket.compression import GZIP, ZSTD
from docket.defaults import IDLE_SECONDS, PATIENCE, PIN_SECONDS, SCRUB_RATE
from docket.errors import DocketError
from docket.oci.manifest import Platform
from docket.oci.reference import Reference, parse_repository

if TYPE_CHECKING:
    from docket.transfer.pull import PullReport

_EPILOG = "\b\nExit codes:\n   0  done\n   1  another error\n   2  wrong usage\n" + "\n".join(
    f" {code:3}  {meaning}"
    for code, meaning in sorted(
        {
            *((code, meaning) for _, code, meaning in terminal.EXIT_CODES),
            (terminal.FOUND_DAMAGE, "docket fsck found damage"),
        }
    )
)


@click.group(
    epilog=_EPILOG,
    context_settings={"help_option_names": ["--help"], "max_content_width": 100},
)
@shared_options
@click.pass_context
def cli(
    context: click.Context,
    host: str | None,
    port: int | None,
    location: Path | None,
    as_json: bool | None,
    quiet: bool | None,
) -> None:
    """Deploy container images to many hosts through BitTorrent, layer by layer.

    Start a registry with "docket registry"; push an image once; pull it on every host. Hosts get
    layers from each other, and only those that they lack.
    """
    context.obj = Options().with_given(host, port, location, as_json, quiet)


@cli.command("registry")
@option(
    "--bind",
    default="0.0.0.0",
    show_default=True,
    help="The address to listen on.",
)
@option(
    "-p",
    "--port",
    default=8000,
    type=click.IntRange(0, 65535),
    show_default=True,
    help="The port; 0 takes a free one.",
)
@option(
    "--peer-port",
    default=0,
    type=click.IntRange(0, 65535),
    show_default=True,
    help="The BitTorrent port of the registry's seed; 0 takes a free one.",
)
@option(
    "-l",
    "--location",
    type=click.Path(file_okay=False, path_type=Path),
    help="The store; /var/local/docket for root, else ~/.local/share/docket/registry.",
)
@option(
    "-t",
    "--tracker",
    default="",
    metavar="HOST:PORT",
    help="An outside tracker; without it docket's own serves.",
)
@option(
    "--advertise",
    default="",
    metavar="HOST",
    help="The address of the registry's seed, where peers see another than it has.",
)
@zone_option("Where the registry's seed is; without it, its network counts.")
@option(
    "--pin-time",
    "pin",
    default=PIN_SECONDS,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long gc keeps a blob after the registry said that it has it.",
)
@option(
    "--idle-timeout",
    "idle",
    default=IDLE_SECONDS,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long an image is seeded after the last peer left.",
)
@limit_options
@option(
    "--scrub-interval",
    "scrub",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="DAYS",
    help="Read every blob again so often, to find what rotted; 0 never.",
)
@option(
    "--scrub-rate",
    default=SCRUB_RATE,
    show_default=True,
    type=click.IntRange(1),
    metavar="BYTES/S",
    help="The most that scrubbing reads.",
)
@option(
    "--json",
    "as_json",
    is_flag=True,
    help="Say the address as one line of JSON.",
)
def registry_command(
    bind: str,
    port: int,
    peer_port: int,
    location: Path | None,
    tracker: str,
    advertise: str,
    zone: str,
    pin: float,
    idle: float,
    scrub: float,
    scrub_rate: int,
    max_upload: int,
    max_download: int,
    as_json: bool,
) -> None:
    """Serve images: registry, tracker and seeder in one process, until Ctrl-C."""
    # a web server that no other command needs: a host's pull begins earlier without it
    from docket.daemon.registry import ServerOptions, serve

    place = location or config.registry_location()
    options = ServerOptions(
        location=place,
        bind=bind,
        port=port,
        peer_port=peer_port,
        tracker=config.tracker_url(tracker) if tracker else "",
        advertise=advertise,
        zone=zone,
        pin_seconds=pin,
        idle_seconds=idle,
        scrub_seconds=scrub * 86400,
        scrub_rate=scrub_rate,
        max_upload=max_upload,
        max_download=max_download,
    )

    def on_ready(url: str) -> None:
        if as_json:
            terminal.say_json({"url": url, "location": str(place)})
        else:
            terminal.say(f"docket registry at {url}, images in {place}")

    serve(options, on_ready=on_ready)


@cli.command()
@command_options
@click.argument("image", metavar="NAME:TAG")
@option(
    "--archive",
    metavar="FILE|-",
    help="Read a docker-save or OCI archive, or an OCI layout folder; - is stdin.",
)
@option(
    "--compression",
    type=click.Choice([ZSTD, GZIP]),
    default=ZSTD,
    show_default=True,
    help="gzip is for hosts that pull with Docker older than 23.",
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
    help="Compression threads a layer.",
)
def push(
    options: Options,
    image: str,
    archive: str | None,
    compression: str,
    level: int | None,
    threads: int,
) -> None:
    """Push an image from the container engine, or from an archive.

    Only layers that the registry lacks are compressed and uploaded.

    \b
    docket -h registry push app:1.0
    docker save app:1.0 | docket -h registry push app:1.0 --archive -
    """
    from docket.transfer import publish
    from docket.transfer.push import Compression

    if compression == GZIP and level and level > 9:
        raise click.BadParameter("gzip has levels 1 to 9", param_hint="--level")
    reference = Reference.parse(image)
    how = Compression(compression, level, threads)
    with options.client() as client, terminal.progress(quiet=options.silent) as progress:
        if archive is None:
            report = publish.push_from_engine(client, reference, how, progress=progress)
        else:
            report = publish.push_archive(client, reference, archive, how, progress=progress)
    reports.show_push(report, as_json=options.json)


@cli.command()
@command_options
@click.argument("image", metavar="NAME:TAG")
@option(
    "--layers-only",
    is_flag=True,
    help="Bring all layers into this host's store; leave the container engine alone.",
)
@option(
    "--output",
    metavar="FILE|-",
    help="Write an archive that docker, podman and skopeo load; - is stdout.",
)
@platform_option
@option(
    "--seed-for",
    "seed",
    default=0.0,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Go on serving peers for so long after the pull.",
)
@option(
    "--peer-timeout",
    "patience",
    default=PATIENCE,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to wait for a byte from peers before HTTP.",
)
@zone_option("Where this host is: peers of one zone give to each other first.")
@option(
    "--no-swarm",
    is_flag=True,
    help="Fetch over HTTP alone.",
)
@limit_options
@option(
    "--count-sources",
    "sources",
    is_flag=True,
    help="Count for each layer what the registry's seed gave and what other hosts gave.",
)
def pull(
    options: Options,
    image: str,
    layers_only: bool,
    output: str | None,
    wanted: Platform,
    **how: Any,
) -> None:
    """Fetch what is missing of an image and load it into the container engine.

    Layers come from other hosts and from the registry, over HTTP when no peer gives any.

    \b
    docket -h registry pull app:1.0
    docket -h registry pull app:1.0 --seed-for 60
    docket -h registry pull app:1.0 --layers-only
    docket -h registry pull app:1.0 --output - | docker load
    """
    from docket.transfer import deploy

    if layers_only and output:
        raise click.UsageError("--layers-only and --output exclude each other")
    request = deploy.PullRequest(
        reference=Reference.parse(image),
        platform=wanted,
        target=deploy.Target.of(layers_only=layers_only, output=output),
        output=output,
        **how,
    )
    with options.client() as client, ExitStack() as bars:
        progress = bars.enter_context(terminal.progress(quiet=options.silent))

        def on_done(report: PullReport) -> None:
            bars.close()
            reports.show_pull(report, as_json=options.json, to_stderr=output == "-")

        deploy.pull_image(client, options.store, request, progress=progress, on_done=on_done)


@cli.command()
@command_options
@click.argument("image", metavar="NAME:TAG")
@option(
    "--layers-only",
    is_flag=True,
    help="Plan for pull --layers-only: don't ask the container engine.",
)
@platform_option
def plan(options: Options, image: str, layers_only: bool, wanted: Platform) -> None:
    """Show what a pull would move, before doing it."""
    from docket.transfer import deploy

    with options.client() as client, options.store() as store:
        resolved, rows = deploy.plan_image(
            client, store, Reference.parse(image), wanted, ask_engine=not layers_only
        )
    reports.show_plan(resolved, rows, as_json=options.json)


@cli.command()
@command_options
@click.argument("name", required=False)
def images(options: Options, name: str | None) -> None:
    """List the images of the registry, with the bytes that no other image shares."""
    if name:
        parse_repository(name)
    with options.client() as client:
        rows = client.images(name)
    reports.show_images(rows, as_json=options.json)


@cli.command()
@command_options
@click.argument("image", metavar="NAME:TAG")
@platform_option
def inspect(options: Options, image: str, wanted: Platform) -> None:
    """Show an image's manifest, layers and torrent."""
    from docket.transfer import deploy

    with options.client() as client:
        found = deploy.inspect_image(client, Reference.parse(image), wanted)
    reports.show_inspect(found, as_json=options.json)


@cli.command()
@command_options
@click.argument("image", metavar="NAME:TAG")
def rm(options: Options, image: str) -> None:
    """Remove a tag from the registry; "docket gc" frees the space later.

    NAME@DIGEST removes the manifest and all tags that point to it.
    """
    reference = Reference.parse(image)
    with options.client() as client:
        client.delete(reference)
    if options.json:
        terminal.say_json({"removed": str(reference)})
    else:
        terminal.say(f"removed {reference}; docket gc frees what no other image needs")


@cli.command()
@command_options
def version(options: Options) -> None:
    """Show the versions of docket and of the libraries that matter."""
    import importlib.metadata  # slow to import, and of use here alone

    packages = ("libtorrent", "torf", "zstandard", "lmdb", "starlette", "uvicorn")
    versions = {"docket": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in packages}
    if options.json:
        terminal.say_json(versions)
    else:
        terminal.say("\n".join(f"{name} {number}" for name, number in versions.items()))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash: docket completion bash > /etc/bash_completion.d/docket
    zsh:  docket completion zsh > "${fpath[1]}/_docket"
    fish: docket completion fish > ~/.config/fish/completions/docket.fish
    """
    kind = get_completion_class(shell)
    assert kind
    # bash's version check runs bash; the script itself needs only what is given here
    terminal.say(kind(cli, {}, "docket", "_DOCKET_COMPLETE").source())


cli.add_command(maintenance.gc)
cli.add_command(maintenance.fsck)


def main() -> None:
    """Run the command line; errors end in one line and a documented exit code."""
    try:
        code = cli.main(prog_name="docket", standalone_mode=False)
    except click.exceptions.Exit as end:
        code = end.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        terminal.warn("docket: interrupted")
        code = terminal.exit_code(KeyboardInterrupt())
    except (DocketError, OSError) as error:
        terminal.warn(f"docket: {terminal.one_line(error)}")
        code = terminal.exit_code(error)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
