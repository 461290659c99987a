"""The command line: parse, call, print. What is printed is made in `docket.console`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import get_completion_class

from docket import __version__, compress, config, console, deploy, reports
from docket.client import Client, registry_url
from docket.errors import DocketError, summary
from docket.fetch import PATIENCE
from docket.manifest import Platform
from docket.push import Compression
from docket.reference import Reference, parse_repository
from docket.seeder import IDLE_SECONDS
from docket.server import ServerOptions, serve
from docket.store import PIN_SECONDS, Store
from docket.torrent.pieces import PIECE_LENGTH, PieceHasher

F = TypeVar("F", bound=Callable[..., Any])

_EPILOG = "\b\nExit codes:\n   0  done\n   1  another error\n   2  wrong usage\n" + "\n".join(
    f" {code:3}  {meaning}" for _, code, meaning in console.EXIT_CODES
)


@dataclass(slots=True)
class Options:
    """What is the same for all commands."""

    host: str = "localhost"
    port: int | None = None
    location: Path | None = None
    json: bool = False
    quiet: bool = False

    def with_given(
        self,
        host: str | None,
        port: int | None,
        location: Path | None,
        as_json: bool | None,
        quiet: bool | None,
    ) -> Options:
        """The same, changed by what is not None."""
        return Options(
            host=self.host if host is None else host,
            port=self.port if port is None else port,
            location=self.location if location is None else location,
            json=self.json if as_json is None else as_json,
            quiet=self.quiet if quiet is None else quiet,
        )

    @property
    def silent(self) -> bool:
        """No progress: asked for, or the output is for a machine."""
        return self.quiet or self.json

    def client(self) -> Client:
        """A client of the registry that -h and -p name."""
        return Client(registry_url(self.host, self.port))

    def store(self) -> Store:
        """This host's own store; waits while another docket command uses it."""
        return Store(
            self.location or config.data_location(),
            new_pieces=PieceHasher,
            piece_length=PIECE_LENGTH,
            owner=f"docket {click.get_current_context().info_name}",
            wait=self._wait,
        )

    def _wait(self, holder: str) -> bool:
        """Other commands end by themselves; a registry doesn't."""
        if "registry" in holder:
            return False
        if not self.quiet and not self._told_to_wait:
            console.warn(f"waiting for {holder}, which uses the same store")
            self._told_to_wait = True
        return True

    _told_to_wait: bool = dataclasses.field(default=False, repr=False)


def shared_options(command: F) -> F:
    """-h, -p, -l, --json and --quiet, before the command's name or behind it."""
    for decorate in reversed(
        (
            click.option(
                "-h",
                "--host",
                envvar="DOCKET_HOST",
                help="The registry: a host, or a URL such as http://10.1.2.3:8000.",
                show_envvar=True,
            ),
            click.option(
                "-p",
                "--port",
                type=click.IntRange(1, 65535),
                envvar="DOCKET_PORT",
                help="The registry's port, where -h names none; 8000 by default.",
                show_envvar=True,
            ),
            click.option(
                "-l",
                "--location",
                type=click.Path(file_okay=False, path_type=Path),
                envvar="DOCKET_LOCATION",
                help="This host's store; ~/.local/share/docket by default.",
                show_envvar=True,
            ),
            click.option(
                "--json",
                "as_json",
                is_flag=True,
                default=None,
                envvar="DOCKET_JSON",
                help="Print one line of JSON for machines.",
                show_envvar=True,
            ),
            click.option(
                "-q",
                "--quiet",
                is_flag=True,
                default=None,
                envvar="DOCKET_QUIET",
                help="No progress.",
                show_envvar=True,
            ),
        )
    ):
        command = decorate(command)
    return command


def command_options(command: F) -> F:
    """`shared_options` of a command, put together with those before its name."""

    def merged(
        host: str | None,
        port: int | None,
        location: Path | None,
        as_json: bool | None,
        quiet: bool | None,
        **rest: Any,
    ) -> Any:
        options = click.get_current_context().ensure_object(Options)
        return command(options.with_given(host, port, location, as_json, quiet), **rest)

    merged.__name__ = command.__name__
    merged.__doc__ = command.__doc__
    merged.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    return shared_options(merged)  # type: ignore[return-value]


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
@click.option(
    "--bind",
    default="0.0.0.0",
    show_default=True,
    envvar="DOCKET_BIND",
    show_envvar=True,
    help="The address to listen on.",
)
@click.option(
    "-p",
    "--port",
    default=8000,
    type=click.IntRange(0, 65535),
    show_default=True,
    envvar="DOCKET_PORT",
    show_envvar=True,
    help="The port; 0 takes a free one.",
)
@click.option(
    "--peer-port",
    default=0,
    type=click.IntRange(0, 65535),
    show_default=True,
    envvar="DOCKET_PEER_PORT",
    show_envvar=True,
    help="The BitTorrent port of the registry's seed; 0 takes a free one.",
)
@click.option(
    "-l",
    "--location",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="DOCKET_LOCATION",
    show_envvar=True,
    help="The store; /var/local/docket for root, else ~/.local/share/docket/registry.",
)
@click.option(
    "-t",
    "--tracker",
    default="",
    metavar="HOST:PORT",
    envvar="DOCKET_TRACKER",
    show_envvar=True,
    help="An outside tracker; without it docket's own serves.",
)
@click.option(
    "--advertise",
    default="",
    metavar="HOST",
    envvar="DOCKET_ADVERTISE",
    show_envvar=True,
    help="The address of the registry's seed, where peers see another than it has.",
)
@click.option(
    "--pin",
    default=PIN_SECONDS,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    envvar="DOCKET_PIN",
    show_envvar=True,
    help="How long gc keeps a blob after the registry said that it has it.",
)
@click.option(
    "--idle",
    default=IDLE_SECONDS,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    envvar="DOCKET_IDLE",
    show_envvar=True,
    help="How long an image is seeded after the last peer left.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="DOCKET_JSON",
    show_envvar=True,
    help="Say the address as one line of JSON.",
)
def registry_command(
    bind: str,
    port: int,
    peer_port: int,
    location: Path | None,
    tracker: str,
    advertise: str,
    pin: float,
    idle: float,
    as_json: bool,
) -> None:
    """Serve images: registry, tracker and seeder in one process, until Ctrl-C."""
    place = location or config.registry_location()
    options = ServerOptions(
        location=place,
        bind=bind,
        port=port,
        peer_port=peer_port,
        tracker=config.tracker_url(tracker) if tracker else "",
        advertise=advertise,
        pin_seconds=pin,
        idle_seconds=idle,
    )

    def on_ready(url: str) -> None:
        if as_json:
            console.say_json({"url": url, "location": str(place)})
        else:
            console.say(f"docket registry at {url}, images in {place}")

    serve(options, on_ready=on_ready)


@cli.command()
@command_options
@click.argument("image", metavar="NAME:TAG")
@click.option(
    "--archive",
    metavar="FILE|-",
    envvar="DOCKET_ARCHIVE",
    show_envvar=True,
    help="Read a docker-save or OCI archive, or an OCI layout folder; - is stdin.",
)
@click.option(
    "--compression",
    type=click.Choice([compress.ZSTD, compress.GZIP]),
    default=compress.ZSTD,
    show_default=True,
    envvar="DOCKET_COMPRESSION",
    show_envvar=True,
    help="gzip is for hosts that pull with Docker older than 23.",
)
@click.option(
    "--level",
    type=click.IntRange(1, 22),
    envvar="DOCKET_LEVEL",
    show_envvar=True,
    help="Compression level; zstd 3 or gzip 6 by default.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    envvar="DOCKET_THREADS",
    show_envvar=True,
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
    """
    if compression == compress.GZIP and level and level > 9:
        raise click.BadParameter("gzip has levels 1 to 9", param_hint="--level")
    reference = Reference.parse(image)
    how = Compression(compression, level, threads)
    with options.client() as client, console.progress(quiet=options.silent) as progress:
        if archive is None:
            report = deploy.push_from_engine(client, reference, how, progress=progress)
        else:
            report = deploy.push_archive(client, reference, archive, how, progress=progress)
    reports.show_push(report, as_json=options.json)


@cli.command()
@command_options
@click.argument("image", metavar="NAME:TAG")
@click.option(
    "--layers-only",
    is_flag=True,
    envvar="DOCKET_LAYERS_ONLY",
    show_envvar=True,
    help="Bring all layers into this host's store; leave the container engine alone.",
)
@click.option(
    "--output",
    metavar="FILE|-",
    envvar="DOCKET_OUTPUT",
    show_envvar=True,
    help="Write an archive that docker, podman and skopeo load; - is stdout.",
)
@click.option(
    "--platform",
    "platform_text",
    metavar="OS/ARCH",
    envvar="DOCKET_PLATFORM",
    show_envvar=True,
    help="The platform; that of this host by default.",
)
@click.option(
    "--seed",
    default=0.0,
    type=click.FloatRange(0),
    metavar="SECONDS",
    envvar="DOCKET_SEED",
    show_envvar=True,
    help="Go on serving peers for so long after the pull.",
)
@click.option(
    "--patience",
    default=PATIENCE,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    envvar="DOCKET_PATIENCE",
    show_envvar=True,
    help="How long to wait for a byte from peers before HTTP.",
)
@click.option(
    "--no-swarm",
    is_flag=True,
    envvar="DOCKET_NO_SWARM",
    show_envvar=True,
    help="Fetch over HTTP alone.",
)
@click.option(
    "--max-upload",
    default=0,
    type=click.IntRange(0),
    metavar="BYTES/S",
    envvar="DOCKET_MAX_UPLOAD",
    show_envvar=True,
    help="Upload limit; 0 is none.",
)
@click.option(
    "--sources",
    is_flag=True,
    envvar="DOCKET_SOURCES",
    show_envvar=True,
    help="Count for each layer what the registry's seed gave and what other hosts gave.",
)
@click.option(
    "--max-download",
    default=0,
    type=click.IntRange(0),
    metavar="BYTES/S",
    envvar="DOCKET_MAX_DOWNLOAD",
    show_envvar=True,
    help="Download limit; 0 is none.",
)
def pull(
    options: Options,
    image: str,
    layers_only: bool,
    output: str | None,
    platform_text: str | None,
    **how: Any,
) -> None:
    """Fetch what is missing of an image and load it into the container engine."""
    if layers_only and output:
        raise click.UsageError("--layers-only and --output exclude each other")
    request = deploy.PullRequest(
        reference=Reference.parse(image),
        platform=Platform.parse(platform_text) if platform_text else Platform.of_host(),
        target=deploy.Target.of(layers_only=layers_only, output=output),
        output=output,
        **how,
    )
    with options.client() as client, console.progress(quiet=options.silent) as progress:
        deploy.pull_image(
            client,
            options.store,
            request,
            progress=progress,
            on_done=lambda report: reports.show_pull(
                report, as_json=options.json, to_stderr=output == "-"
            ),
        )


@cli.command()
@command_options
@click.argument("image", metavar="NAME:TAG")
@click.option(
    "--layers-only",
    is_flag=True,
    envvar="DOCKET_LAYERS_ONLY",
    show_envvar=True,
    help="Plan for pull --layers-only: don't ask the container engine.",
)
@click.option(
    "--platform",
    "platform_text",
    metavar="OS/ARCH",
    envvar="DOCKET_PLATFORM",
    show_envvar=True,
    help="The platform; that of this host by default.",
)
def plan(options: Options, image: str, layers_only: bool, platform_text: str | None) -> None:
    """Show what a pull would move, before doing it."""
    wanted = Platform.parse(platform_text) if platform_text else Platform.of_host()
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
@click.option(
    "--platform",
    "platform_text",
    metavar="OS/ARCH",
    envvar="DOCKET_PLATFORM",
    show_envvar=True,
    help="The platform; that of this host by default.",
)
def inspect(options: Options, image: str, platform_text: str | None) -> None:
    """Show an image's manifest, layers and torrent."""
    wanted = Platform.parse(platform_text) if platform_text else Platform.of_host()
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
        console.say_json({"removed": str(reference)})
    else:
        console.say(f"removed {reference}; docket gc frees what no other image needs")


@cli.command()
@command_options
@click.option(
    "--dry-run",
    is_flag=True,
    envvar="DOCKET_DRY_RUN",
    show_envvar=True,
    help="Say what would be freed; change nothing.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    metavar="SECONDS",
    envvar="DOCKET_GRACE",
    show_envvar=True,
    help="Keep what is younger than this; 3600 by default.",
)
def gc(options: Options, dry_run: bool, grace: float | None) -> None:
    """Free the space of images that no tag names, while pushes and pulls go on."""
    with options.client() as client:
        report = client.gc(dry_run=dry_run, grace=grace)
    reports.show_gc(report, as_json=options.json)


@cli.command()
@command_options
def version(options: Options) -> None:
    """Show the versions of docket and of the libraries that matter."""
    packages = ("libtorrent", "torf", "zstandard", "lmdb", "starlette", "uvicorn")
    versions = {"docket": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in packages}
    if options.json:
        console.say_json(versions)
    else:
        console.say("\n".join(f"{name} {number}" for name, number in versions.items()))


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
    console.say(kind(cli, {}, "docket", "_DOCKET_COMPLETE").source())


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
        console.warn("docket: interrupted")
        code = console.exit_code(KeyboardInterrupt())
    except (DocketError, OSError) as error:
        console.warn(f"docket: {_one_line(error)}")
        code = console.exit_code(error)
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return summary(error)


if __name__ == "__main__":
    main()
