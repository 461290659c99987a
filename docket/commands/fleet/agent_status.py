"""``docket agent status``: how the agent of this host is, and what to do about what is wrong."""

from __future__ import annotations

from typing import Any

import click

from docket.commands.options import Options, command_options
from docket.commands.terminal import (
    format_rate,
    format_size,
    print_error,
    print_json,
    print_line,
    print_table,
)
from docket.progress import Silent


@click.command()
@command_options
@click.pass_context
def status(context: click.Context, options: Options) -> None:
    """Show whether this host's agent reaches what it needs; exit code 1 if it doesn't.

    Each thing is ok, a warning (the agent works without it) or an error, with what to do.

    \b
    docket agent status -l /var/lib/docket/agent
    """
    with options.agent() as agent:
        if agent is None:
            print_error(
                f"docket: no agent owns the store at {options.store_location}; start one with "
                "docket agent, or name its store with -l"
            )
            context.exit(1)
        report = agent.call("status", {}, progress=Silent())
    if options.json:
        print_json(report)
    else:
        _print(report)
    if any(check["state"] == "error" for check in report["checks"]):
        context.exit(1)


def _print(report: dict[str, Any]) -> None:
    print_line(
        f"docket agent {report['version']}, process {report['process']}, "
        f"up {int(report['uptime'])} s, store at {report['location']}"
    )
    for check in report["checks"]:
        print_line(f"{check['state']:8} {check['name']:9} {check['text']}")
        if check["state"] != "ok":
            print_line(f"{'':18} {check['advice']}")
    print_line(
        f"{report['held']} images held, {format_size(report['stored'])}; receives "
        f"{format_rate(report['download_rate'])}, sends {format_rate(report['upload_rate'])}"
    )
    running = [fetch for fetch in report["fetches"] if fetch["done"] < fetch["total"]]
    if running:
        print_table(
            ["FETCHES", "DONE", "OF", "RATE", "FROM REGISTRY", "FROM HOSTS"],
            [_row(fetch) for fetch in running],
            right=frozenset({"DONE", "OF", "RATE", "FROM REGISTRY", "FROM HOSTS"}),
        )


def _row(fetch: dict[str, Any]) -> list[str]:
    sizes = [format_size(fetch[key]) for key in ("done", "total")]
    sources = [format_size(fetch[key]) for key in ("from_registry", "from_hosts")]
    return [fetch["name"], *sizes, format_rate(fetch["rate"]), *sources]
