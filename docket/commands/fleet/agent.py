"""``docket agent``: the service of a host, which engines pull through and the registry orders."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from docket.commands.agent import DEFAULT_LISTEN, parse_listen, setup
from docket.commands.fleet.agent_settings import SYSTEM_FILE, read_settings, settings_again
from docket.commands.fleet.agent_status import status
from docket.commands.fleet.hosts import parse_labels
from docket.commands.options import Options, command_options, option, zone_option
from docket.commands.terminal import print_json, print_line
from docket.config import IDLE_SECONDS, LOG_LEVELS
from docket.hooks.plan import AgentAddress
from docket.remote.address import RegistryAddress

if TYPE_CHECKING:
    from docket.agent.host.limits import RateSchedule
    from docket.agent.host.retention import KeepPolicy
    from docket.daemon.agent import AgentOptions


def _listen(context: click.Context, parameter: click.Parameter, text: str) -> AgentAddress:
    host, _, port = text.rpartition(":")
    if port == "0":
        return AgentAddress(host.strip("[]"), 0)
    return parse_listen(context, parameter, text)


def _schedule(
    _context: click.Context, _parameter: click.Parameter, text: str | RateSchedule
) -> RateSchedule:
    from docket.agent.host.limits import RateSchedule

    try:
        return RateSchedule.parse(str(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _space(_context: click.Context, _parameter: click.Parameter, text: str) -> KeepPolicy | None:
    if not text:
        return None
    from docket.agent.host.retention import parse_space

    try:
        return parse_space(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(
    invoke_without_command=True,
    short_help="Serve engines of this host and other hosts; obey deploys.",
)
@command_options
@option(
    "--listen",
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    callback=_listen,
    help="Where this host's engines reach the agent; port 0 takes a free one.",
)
@option(
    "--peer-port",
    default=0,
    type=click.IntRange(0, 65535),
    show_default=True,
    help="The BitTorrent port; 0 takes a free one.",
)
@option("--name", default="", metavar="NAME", help="This host's name; its host name by default.")
@zone_option("Where this host is: hosts of one zone fetch from each other first.")
@option(
    "--label",
    multiple=True,
    metavar="KEY=VALUE",
    callback=parse_labels,
    help="A label by which docket deploy chooses hosts; can be repeated.",
)
@option(
    "--idle-timeout",
    default=IDLE_SECONDS,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long an image is served after the last peer left.",
)
@option(
    "--content-store",
    default="auto",
    show_default=True,
    metavar="auto|none|DIR",
    help="Where this host's engine keeps blobs (containerd's content store): each is stored once.",
)
@option(
    "--max-upload",
    default="0",
    metavar="RATE[@HH:MM-HH:MM],…",
    callback=_schedule,
    help="Upload limit in bytes a second, with hours: 20M@08:00-18:00,0; 0 is no limit.",
)
@option(
    "--max-download",
    default="0",
    metavar="RATE[@HH:MM-HH:MM],…",
    callback=_schedule,
    help="Download limit, given as --max-upload is.",
)
@option(
    "--keep",
    type=click.IntRange(1),
    metavar="N",
    help="Keep the newest N releases of each repository; all by default.",
)
@option(
    "--max-space",
    default="",
    metavar="SIZE|PERCENT",
    callback=_space,
    help="Bytes of the store, such as 20G, or its part of the disk, such as 30%; releases used "
    "longest ago go first.",
)
@option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(LOG_LEVELS),
    help="What is logged to standard error: this, and what is more important.",
)
@option(
    "--config",
    is_eager=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=read_settings,
    help=f"TOML with these options; {SYSTEM_FILE} by default, if it is there.",
)
@click.pass_context
def agent(context: click.Context, /, options: Options, **values: Any) -> None:
    """Serve this host: engines pull through it, other hosts fetch from it, deploys reach it.

    The agent owns the host's store and is a read-only registry on loopback. A tag is what the
    registry has now; layers that this host lacks come from other hosts while the engine reads them.
    What the command line gives wins over the environment, that over the file, that over defaults.
    SIGHUP reads the file again.

    \b
    docket agent -h http://registry:8000 --zone berlin --label role=web
    docker pull 127.0.0.1:5000/app:1.1
    """
    if context.invoked_subcommand:
        context.obj = options
        return
    # a web server and libtorrent, which setup and other commands have no use for
    from docket.daemon.agent import run_agent

    chosen = _agent_options(options, values)

    def reread() -> AgentOptions:
        return _agent_options(options, settings_again(context, values["config"]))

    def on_ready(url: str) -> None:
        if options.json:
            print_json(
                {"url": url, "location": str(chosen.location), "registry": str(chosen.registry)}
            )
        else:
            print_line(f"docket agent at {url}, for {chosen.registry}, images in {chosen.location}")

    run_agent(chosen, on_ready=on_ready, reread=reread)


def _agent_options(options: Options, values: Mapping[str, Any]) -> AgentOptions:
    from docket.agent.host.retention import KeepPolicy
    from docket.daemon.agent import AgentOptions

    listen: AgentAddress = values["listen"]
    space = values["max_space"] or KeepPolicy()
    return AgentOptions(
        registry=RegistryAddress.parse(options.host, options.port),
        location=options.store_location,
        host=listen.host,
        port=listen.port,
        peer_port=values["peer_port"],
        name=values["name"] or socket.gethostname(),
        zone=values["zone"],
        labels=values["label"],
        idle_seconds=values["idle_timeout"],
        max_upload=values["max_upload"],
        max_download=values["max_download"],
        keep=dataclasses.replace(space, releases=values["keep"]),
        log_level=values["log_level"],
        content_store=values["content_store"],
    )


agent.add_command(setup)
agent.add_command(status)
