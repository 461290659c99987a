"""The options that commands share, and how every option gets its variable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from docket import config
from docket.commands import terminal
from docket.defaults import PIN_SECONDS
from docket.oci.manifest import Platform
from docket.remote.client import Client, registry_url

# stores and swarms are most of what there is to load: only commands that use them do
if TYPE_CHECKING:
    from docket.store import Store

F = TypeVar("F", bound=Callable[..., Any])


def option(*spellings: str, **more: Any) -> Callable[[F], F]:
    """A click option whose value may come from ``DOCKET_<NAME>`` too."""
    long = next(one for one in spellings if one.startswith("--"))
    variable = f"DOCKET_{long.removeprefix('--').replace('-', '_').upper()}"
    return click.option(*spellings, envvar=variable, show_envvar=True, **more)


def _platform(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Platform:
    return Platform.parse(text) if text else Platform.of_host()


platform_option = option(
    "--platform",
    "wanted",
    metavar="OS/ARCH",
    callback=_platform,
    help="The platform; that of this host by default.",
)


def _zone(_context: click.Context, _parameter: click.Parameter, label: str) -> str:
    from docket.torrent.tracker.announce import check_zone

    return check_zone(label) if label else ""


def zone_option(help_text: str) -> Callable[[F], F]:
    """--zone, checked."""
    return option("--zone", default="", metavar="NAME", callback=_zone, help=help_text)


def limit_options(command: F) -> F:
    """--max-upload and --max-download, in bytes a second."""
    for way in ("download", "upload"):
        command = option(
            f"--max-{way}",
            default=0,
            type=click.IntRange(0),
            metavar="BYTES/S",
            help=f"{way.capitalize()} limit; 0 is none.",
        )(command)
    return command


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

    @property
    def place(self) -> Path:
        """Where this host's own store is."""
        return self.location or config.data_location()

    def store(self, *, pin_seconds: float = PIN_SECONDS) -> Store:
        """This host's own store; waits while another docket command uses it."""
        from docket.pieces import PIECE_LENGTH, PieceHasher
        from docket.store import Store

        return Store(
            self.place,
            new_pieces=PieceHasher,
            piece_length=PIECE_LENGTH,
            owner=f"docket {click.get_current_context().info_name}",
            wait=self._wait,
            pin_seconds=pin_seconds,
        )

    def _wait(self, holder: str) -> bool:
        """Other commands end by themselves; a registry doesn't."""
        if "registry" in holder:
            return False
        if not self.quiet and not self._told_to_wait:
            terminal.warn(f"waiting for {holder}, which uses the same store")
            self._told_to_wait = True
        return True

    _told_to_wait: bool = dataclasses.field(default=False, repr=False)


def shared_options(command: F) -> F:
    """-h, -p, -l, --json and --quiet, before the command's name or behind it."""
    for decorate in reversed(
        (
            option(
                "-h",
                "--host",
                help="The registry: a host, or a URL such as http://10.1.2.3:8000.",
            ),
            option(
                "-p",
                "--port",
                type=click.IntRange(1, 65535),
                help="The registry's port, where -h names none; 8000 by default.",
            ),
            option(
                "-l",
                "--location",
                type=click.Path(file_okay=False, path_type=Path),
                help="This host's store; ~/.local/share/docket by default.",
            ),
            option(
                "--json",
                "as_json",
                is_flag=True,
                default=None,
                help="Print one line of JSON for machines.",
            ),
            option(
                "-q",
                "--quiet",
                is_flag=True,
                default=None,
                help="No progress.",
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
