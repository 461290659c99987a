"""``docket pull``: fetch what this host lacks of an image, and hand it to the engine."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from docket.commands import terminal
from docket.commands.options import (
    Options,
    command_options,
    engine_variables,
    image_argument,
    limit_options,
    option,
    platform_option,
    zone_option,
)
from docket.commands.terminal import format_rate, format_size
from docket.config import PEER_TIMEOUT
from docket.oci.manifest import Platform
from docket.oci.reference import Reference
from docket.progress import HELD, HTTP, SWARM

if TYPE_CHECKING:
    from docket.agent.control.channel import AgentConnection
    from docket.transfer.pull import PullReport


@click.command()
@command_options
@image_argument
@option(
    "--layers-only",
    is_flag=True,
    help="Fetch all layers into this host's store; leave the container engine alone.",
)
@option(
    "--output",
    metavar="FILE|-",
    help="Write an archive that docker, podman and skopeo load; - is standard output.",
)
@platform_option
@option(
    "--seed-for",
    default=0.0,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Serve other hosts for this long after the pull.",
)
@option(
    "--peer-timeout",
    default=PEER_TIMEOUT,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Use HTTP when no byte came from peers for this long.",
)
@zone_option("Zone of this host, such as its rack; hosts of one zone share layers first.")
@option(
    "--no-swarm",
    is_flag=True,
    help="Use HTTP only.",
)
@limit_options
@option(
    "--count-sources",
    is_flag=True,
    help="Count for each layer the bytes from the registry's seed and from other hosts.",
)
def pull(
    options: Options,
    image: str,
    layers_only: bool,
    output: str | None,
    platform: Platform,
    seed_for: float,
    peer_timeout: float,
    count_sources: bool,
    no_swarm: bool,
    **limits: Any,
) -> None:
    """Fetch the missing layers of an image and load it into the container engine.

    Layers come from other hosts and from the registry; over HTTP when no peer sends any. On a host
    whose store a docket agent owns, the agent pulls, and goes on serving the image.

    \b
    docket -h registry pull app:1.0
    docket -h registry pull app:1.0 --seed-for 60
    docket -h registry pull app:1.0 --layers-only
    docket -h registry pull app:1.0 --output - | docker load
    """
    from docket.transfer.output import is_replaced, is_stdout

    if layers_only and output:
        raise click.UsageError("--layers-only and --output exclude each other")
    to_stdout = output is not None and is_stdout(output)
    if to_stdout:
        terminal.require_standard_output()
    reference = Reference.parse(image)
    transfer = {
        "use_swarm": not no_swarm,
        "peer_timeout": peer_timeout,
        "count_sources": count_sources,
        **limits,
    }
    with options.agent() as agent:
        if agent:
            arguments = {
                "image": image,
                "platform": str(platform),
                "registry": options.registry,
                "target": "store" if layers_only else "archive" if output else "engine",
                "may_rewind": output is not None and is_replaced(output),
                "options": transfer,
                "variables": engine_variables(),
            }
            report = _pull_through(agent, arguments, output, is_quiet=options.silent)
            _print(report, as_json=options.json, to_stderr=to_stdout)
            return
    from docket.transfer.options import TransferOptions
    from docket.transfer.pull import PullRequest, Target
    from docket.transfer.pull import pull as pull_image

    request = PullRequest(
        reference=reference,
        platform=platform,
        target=Target.of(layers_only=layers_only, output=output),
        output=output or "",
        seed_for=seed_for,
        options=TransferOptions(**transfer),
    )
    with options.client() as client, ExitStack() as bars:
        progress = bars.enter_context(terminal.progress(quiet=options.silent))

        def on_done(report: PullReport) -> None:
            bars.close()
            _print(report.to_json(), as_json=options.json, to_stderr=to_stdout)

        pull_image(client, options.store, request, progress=progress, on_done=on_done)


def _pull_through(
    agent: AgentConnection, arguments: dict[str, Any], output: str | None, *, is_quiet: bool
) -> dict[str, Any]:
    """Pull through the agent of this host, which goes on serving the image to other hosts."""
    from docket.transfer.output import check_output, open_output

    with terminal.progress(quiet=is_quiet) as progress:
        if arguments["options"]["max_upload"] or arguments["options"]["max_download"]:
            progress.note("this host's agent pulls: its own limits hold")
        if output is None:
            return agent.call("pull", arguments, progress=progress)
        check_output(output)
        with open_output(output) as file:
            return agent.call("pull", arguments, progress=progress, descriptor=file.fileno())


def _print(report: dict[str, Any], *, as_json: bool, to_stderr: bool) -> None:
    """Print what a pull moved; *to_stderr* when standard output carries the archive."""
    if as_json and not to_stderr:
        terminal.print_json(report)
        return
    write = terminal.print_error if to_stderr else terminal.print_line
    moved = sum(report["payload"].values())
    total = sum({layer["digest"]: layer["size"] for layer in report["layers"]}.values())
    seconds = report["seconds"].get("fetch", 0.0)
    speed = f" at {format_rate(moved / seconds)}" if moved and seconds else ""
    write(
        f"pulled {report['name']}: {format_size(moved)} moved of {format_size(total)}{speed} "
        f"({_count(report, HELD)} layers held, {_count(report, SWARM)} from peers, "
        f"{_count(report, HTTP)} from the registry over HTTP)"
    )
    write(report["digest"])


def _count(report: dict[str, Any], source: str) -> int:
    return len({layer["digest"] for layer in report["layers"] if layer["source"] == source})
