"""``docket deploy``: bring an image to chosen hosts and show how far they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from docket.commands.fleet.hosts import parse_labels
from docket.commands.options import Options, command_options, option, parse_duration
from docket.commands.terminal import print_error, print_line
from docket.errors import InvalidOption
from docket.oci.digest import Digest
from docket.oci.reference import Reference

if TYPE_CHECKING:
    from docket.remote.fleet import FleetClient
    from docket.wire import DeployRequest, DeployStatus

INCOMPLETE = 9
"""The exit code of a deploy that did not reach every chosen host."""

_SHOWN_HOSTS = 12
_MAX_HOSTS_FILE = 4 << 20


@click.command()
@command_options
@click.argument("image", metavar="[NAME:TAG]", required=False)
@option("--all", "all_hosts", is_flag=True, help="Deploy to every known host.")
@option("--zone", default="", metavar="NAME", help="Deploy to the hosts of this zone.")
@option(
    "--label",
    multiple=True,
    metavar="KEY=VALUE",
    callback=parse_labels,
    help="Deploy to hosts with this label; can be repeated.",
)
@option(
    "--hosts",
    "hosts_file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Deploy to the hosts that FILE names, one a line; - is stdin.",
)
@option("--load", is_flag=True, help="Load the image into each host's container engine.")
@option(
    "--canary",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="Deploy to N hosts first; the others follow only if none of these fails.",
)
@option(
    "--pause",
    default="0",
    callback=parse_duration,
    metavar="TIME",
    help="Wait this long after the last canary host is done.",
)
@option(
    "--at-once",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="At most N hosts fetch at the same time; 0 is no limit.",
)
@option(
    "--deadline",
    default="1h",
    show_default=True,
    callback=parse_duration,
    metavar="TIME",
    help="Give up on hosts that are not done by then; hosts that are off may return until then.",
)
@option(
    "--max-download",
    default=0,
    type=click.IntRange(0),
    metavar="BYTES/S",
    help="Download limit of each host; 0 leaves each agent's own limit.",
)
@option("--attach", metavar="ID", help="Follow a deploy that is running, or show one that ended.")
@option("--stop", metavar="ID", help="Stop a deploy; hosts that have the image keep it.")
@option("--detach", is_flag=True, help="Begin the deploy and print its ID; don't follow it.")
@click.pass_context
def deploy(
    context: click.Context,
    options: Options,
    image: str | None,
    all_hosts: bool,
    zone: str,
    label: dict[str, str],
    hosts_file: Path | None,
    load: bool,
    canary: int,
    pause: float,
    at_once: int,
    deadline: float,
    max_download: int,
    attach: str | None,
    stop: str | None,
    detach: bool,
) -> None:
    """Bring an image to chosen hosts, and show how far each is.

    The image's digest is fixed when the deploy begins. Ends with exit code 0 only if every chosen
    host has the image, verified and, with --load, loaded into its engine. Ctrl-C stops watching,
    not the deploy.

    \b
    docket -h registry deploy app:1.1 --all
    docket -h registry deploy app:1.1 --zone berlin --load --canary 1 --pause 60s --at-once 20
    docket -h registry deploy --attach 1f2e3d4c
    """
    if sum(map(bool, (image, attach, stop))) != 1:
        raise click.UsageError("give NAME:TAG, --attach ID or --stop ID")
    with options.client() as client:
        fleet = client.fleet
        if stop:
            fleet.stop(stop)
            print_line(f"stopped {stop}")
            return
        if image:
            names = _names(hosts_file) if hosts_file else []
            if not (all_hosts or zone or label or names):
                raise click.UsageError("choose hosts: --all, --zone, --label or --hosts FILE")
            request = _request(image, zone, label, names)
            request = _with(
                request,
                load=load,
                canary=canary,
                pause=pause,
                at_once=at_once,
                deadline=deadline,
                max_download=max_download,
            )
            attach = fleet.create(request).id
        assert attach
        if detach:
            print_line(attach)
            return
        status = _follow(fleet, attach, options)
    if status.state != "done":
        context.exit(INCOMPLETE)


def _request(image: str, zone: str, labels: dict[str, str], names: list[str]) -> DeployRequest:
    from docket.wire import DeployRequest

    reference = Reference.parse(image)
    target = reference.target
    return DeployRequest(
        repository=reference.repository,
        tag=reference.tag or "",
        digest=str(target) if isinstance(target, Digest) else "",
        zone=zone,
        labels=labels,
        hosts=names,
    )


def _with(request: DeployRequest, **changes: object) -> DeployRequest:
    import msgspec

    return msgspec.structs.replace(request, **changes)


def _names(path: Path) -> list[str]:
    """The host names in a file: one a line, without comments and empty lines."""
    if str(path) == "-":
        text = sys.stdin.read(_MAX_HOSTS_FILE)
    else:
        with path.open() as file:
            text = file.read(_MAX_HOSTS_FILE)
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    names = [line for line in lines if line]
    if not names:
        raise InvalidOption(str(path), "it names no host")
    return names


def _follow(fleet: FleetClient, deploy_id: str, options: Options) -> DeployStatus:
    """Show the deploy until it has ended."""
    from docket.commands.fleet.view import deploy_view

    with deploy_view(quiet=options.quiet, as_json=options.json) as show:
        try:
            status = fleet.deploy(deploy_id, hosts=_SHOWN_HOSTS)
            show(status)
            while status.state == "running":
                status = fleet.deploy(deploy_id, hosts=_SHOWN_HOSTS, after=status.revision)
                show(status)
            status = fleet.deploy(deploy_id, hosts=status.total)
        except KeyboardInterrupt:
            print_error(f"the deploy goes on; docket deploy --attach {deploy_id} follows it")
            raise
    from docket.commands.fleet.view import print_result

    print_result(status, as_json=options.json)
    return status
