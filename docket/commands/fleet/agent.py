"""``docket agent``: the service of a host, which engines pull through and the registry orders."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from docket import config
from docket.commands.agent import DEFAULT_LISTEN, parse_listen, setup
from docket.commands.fleet.agent_status import status
from docket.commands.fleet.hosts import parse_labels
from docket.commands.options import Options, command_options, limit_options, option, zone_option
from docket.commands.terminal import print_json, print_line
from docket.config import IDLE_SECONDS, LOG_LEVELS
from docket.hooks.plan import AgentAddress
from docket.remote.address import RegistryAddress


def _listen(context: click.Context, parameter: click.Parameter, text: str) -> AgentAddress:
    host, _, port = text.rpartition(":")
    if port == "0":
        return AgentAddress(host.strip("[]"), 0)
    return parse_listen(context, parameter, text)


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
@limit_options
@option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(LOG_LEVELS),
    help="What is logged to standard error: this, and what is more important.",
)
@click.pass_context
def agent(
    context: click.Context,
    options: Options,
    listen: AgentAddress,
    peer_port: int,
    name: str,
    zone: str,
    label: dict[str, str],
    idle_timeout: float,
    content_store: str,
    max_upload: int,
    max_download: int,
    log_level: str,
) -> None:
    """Serve this host: engines pull through it, other hosts fetch from it, deploys reach it.

    The agent owns the host's store and is a read-only registry on loopback. A tag is what the
    registry has now; layers that this host lacks come from other hosts while the engine reads them.

    \b
    docket agent -h http://registry:8000 --zone berlin --label role=web
    docker pull 127.0.0.1:5000/app:1.1
    """
    if context.invoked_subcommand:
        context.obj = options
        return
    # a web server and libtorrent, which setup and other commands have no use for
    from docket.daemon.agent import AgentOptions, run_agent
    from docket.daemon.process import log_to_stderr

    log_to_stderr(log_level)
    location: Path = options.location or config.data_location()
    chosen = AgentOptions(
        registry=RegistryAddress.parse(options.host, options.port),
        location=location,
        host=listen.host,
        port=listen.port,
        peer_port=peer_port,
        name=name or socket.gethostname(),
        zone=zone,
        labels=label,
        idle_seconds=idle_timeout,
        max_upload=max_upload,
        max_download=max_download,
        content_store=content_store,
    )

    def on_ready(url: str) -> None:
        if options.json:
            print_json({"url": url, "location": str(location), "registry": str(chosen.registry)})
        else:
            print_line(f"docket agent at {url}, for {chosen.registry}, images in {location}")

    run_agent(chosen, on_ready=on_ready)


agent.add_command(setup)
agent.add_command(status)
