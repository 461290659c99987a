"""The options that commands share; every option has an environment variable."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from docket import config
from docket.commands import terminal
from docket.config import PIN_SECONDS
from docket.oci.manifest import Platform
from docket.remote.address import RegistryAddress

# stores, swarms and HTTP take most of the time to import: only commands that use them do
if TYPE_CHECKING:
    from docket.agent.control.channel import AgentConnection
    from docket.remote.client import Client
    from docket.store import Store

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_HOST = "localhost"

_SERVICES = ("docket registry", "docket agent")

_ENGINE_VARIABLES = (
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"),
    *("HOME", "XDG_RUNTIME_DIR"),
)

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhdw]?)\Z")


class _Option(click.Option):
    """An option that refuses an empty value.

    ``-l "$DIR"`` without DIR would mean the working folder, ``--output "$FILE"`` the engine.
    (click takes an empty environment variable for none.)
    """

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        source = ctx.get_parameter_source(self.name or "")
        is_given = source is click.core.ParameterSource.COMMANDLINE
        if is_given and (value == "" or (self.multiple and "" in value)):
            raise click.BadParameter("the value is empty", ctx, self)
        return super().type_cast_value(ctx, value)


def option(*spellings: str, **more: Any) -> Callable[[F], F]:
    """A click option whose value may come from ``DOCKET_<NAME>`` too."""
    long = next(spelling for spelling in spellings if spelling.startswith("--"))
    variable = f"DOCKET_{long.removeprefix('--').replace('-', '_').upper()}"
    return click.option(*spellings, cls=_Option, envvar=variable, show_envvar=True, **more)


def image_argument(command: F) -> F:
    """NAME:TAG, as text."""
    return click.argument("image", metavar="NAME:TAG")(command)


def _platform(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Platform:
    return Platform.parse(text) if text else Platform.of_host()


platform_option = option(
    "--platform",
    metavar="OS/ARCH",
    callback=_platform,
    help="Platform to choose from a multi-platform image; this host's by default.",
)


def _zone(_context: click.Context, _parameter: click.Parameter, label: str) -> str:
    from docket.torrent.zone import check_zone

    return check_zone(label) if label else ""


def zone_option(help_text: str) -> Callable[[F], F]:
    """--zone, checked."""
    return option("--zone", default="", metavar="NAME", callback=_zone, help=help_text)


def limit_options(command: F) -> F:
    """--max-upload and --max-download, in bytes a second."""
    for direction in ("download", "upload"):
        command = option(
            f"--max-{direction}",
            default=0,
            type=click.IntRange(0),
            metavar="BYTES/S",
            help=f"{direction.capitalize()} limit; 0 is no limit.",
        )(command)
    return command


local_option = option(
    "--local",
    is_flag=True,
    help="Work on the store at -l itself: this host's own, or that of a stopped registry.",
)


def engine_variables() -> dict[str, str]:
    """The environment that says where this user's container engine is, for an agent."""
    return {name: os.environ[name] for name in _ENGINE_VARIABLES if name in os.environ}


def parse_duration(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> float | None:
    """The seconds in ``90``, ``90s``, ``15m``, ``12h``, ``30d`` or ``2w``, for click."""
    if text is None:
        return None
    match = _DURATION.match(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a duration such as 90s, 15m, 12h, 30d or 2w")
    return float(match[1]) * _UNITS[match[2]]


@dataclass(slots=True)
class Options:
    """The shared options."""

    host: str = DEFAULT_HOST
    port: int | None = None
    location: Path | None = None
    json: bool = False
    quiet: bool = False

    def override(
        self,
        host: str | None,
        port: int | None,
        location: Path | None,
        as_json: bool | None,
        quiet: bool | None,
    ) -> Options:
        """A copy in which every value that is not None replaces its option."""
        return Options(
            host=self.host if host is None else host,
            port=self.port if port is None else port,
            location=self.location if location is None else location,
            json=self.json if as_json is None else as_json,
            quiet=self.quiet if quiet is None else quiet,
        )

    @property
    def silent(self) -> bool:
        """True when no progress is to be shown: with --quiet, or --json."""
        return self.quiet or self.json

    def client(self) -> Client:
        """A client of the registry that -h and -p name."""
        from docket.remote.client import Client

        return Client(RegistryAddress.parse(self.host, self.port))

    @property
    def store_location(self) -> Path:
        """The folder of this host's own store."""
        return self.location or config.data_location()

    @property
    def registry(self) -> dict[str, Any] | None:
        """What -h and -p name, for an agent; None, which means its own, when they are not given."""
        if self.host == DEFAULT_HOST and self.port is None:
            return None
        return {"host": self.host, "port": self.port}

    @contextlib.contextmanager
    def agent(self) -> Iterator[AgentConnection | None]:
        """A connection to the agent that owns this host's store; None when none does."""
        from docket.agent.control.channel import connect

        connection = connect(self.store_location)
        with connection or contextlib.nullcontext():
            yield connection

    def store(self, *, pin_seconds: float = PIN_SECONDS) -> Store:
        """This host's own store; waits while another docket command uses it."""
        from docket.store import Store

        return Store(
            self.store_location,
            owner=f"docket {click.get_current_context().info_name}",
            wait=self._wait,
            pin_seconds=pin_seconds,
        )

    def _wait(self, holder: str) -> bool:
        """True to wait for *holder*: other commands end by themselves, a service doesn't."""
        if holder.startswith(_SERVICES):
            return False
        if not self.quiet and not self._announced_wait:
            terminal.print_error(f"waiting for {holder}, which uses the same store")
            self._announced_wait = True
        return True

    _announced_wait: bool = dataclasses.field(default=False, repr=False)


def shared_options(command: F) -> F:
    """-h, -p, -l, --json and --quiet, before or after the command's name."""
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
                help="The registry's port if -h has none; 8000 by default.",
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
                help="Print the result as one line of JSON.",
            ),
            option(
                "-q",
                "--quiet",
                is_flag=True,
                default=None,
                help="Show no progress.",
            ),
        )
    ):
        command = decorate(command)
    return command


def command_options(command: F) -> F:
    """`shared_options` of a command; those given before its name are its defaults."""

    def with_options(
        host: str | None,
        port: int | None,
        location: Path | None,
        as_json: bool | None,
        quiet: bool | None,
        **attributes: Any,
    ) -> Any:
        options = click.get_current_context().ensure_object(Options)
        return command(options.override(host, port, location, as_json, quiet), **attributes)

    with_options.__name__ = command.__name__
    with_options.__doc__ = command.__doc__
    params = getattr(command, "__click_params__", [])
    with_options.__click_params__ = params  # type: ignore[attr-defined]
    return shared_options(with_options)  # type: ignore[return-value]
