"""``docket agent setup``: make this host's container engines pull through docket's agent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from docket import config
from docket.commands.options import Options, command_options, option
from docket.commands.terminal import print_json, print_line
from docket.errors import EngineError
from docket.hooks.containerd import plan_containerd
from docket.hooks.docker import DockerFacts, plan_docker
from docket.hooks.files import Action, HostFiles, Step
from docket.hooks.plan import AgentAddress, Paths, Plan, Registry
from docket.hooks.podman import REGISTRIES, plan_podman
from docket.hooks.systemd import plan_systemd
from docket.remote.address import RegistryAddress

if TYPE_CHECKING:
    from docket.engine import Engine

DEFAULT_LISTEN = "127.0.0.1:5000"
_TARGETS = ("docker", "containerd", "podman", "systemd")
_VERSION_SECONDS = 10
_WORDS = {
    Action.CREATE: "created",
    Action.REPLACE: "changed",
    Action.RESTORE: "restored",
    Action.REMOVE: "removed",
    Action.UNCHANGED: "unchanged",
    Action.KEEP: "kept",
}


def parse_listen(_context: click.Context, _parameter: click.Parameter, text: str) -> AgentAddress:
    """``HOST:PORT`` as an address, for click."""
    try:
        return AgentAddress.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@command_options
@click.argument("target", type=click.Choice(_TARGETS))
@option(
    "--listen",
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    callback=parse_listen,
    help="The agent's address.",
)
@option(
    "--registry",
    "registries",
    multiple=True,
    metavar="HOST[:PORT]",
    help="podman: a registry whose images go through the agent; may be repeated. "
    f"{', '.join(REGISTRIES)} by default.",
)
@option("--print", "is_preview", is_flag=True, help="Show the new files; write nothing.")
@option("--undo", is_flag=True, help="Restore the files as they were before setup.")
@option(
    "--user",
    "is_user",
    is_flag=True,
    help="Change the files of this user's rootless engines; the default unless run as root.",
)
@option(
    "--root",
    default="/",
    metavar="DIR",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Change the files below this folder, such as a mounted image; engines are not asked.",
)
def setup(
    options: Options,
    target: str,
    listen: AgentAddress,
    registries: tuple[str, ...],
    is_preview: bool,
    undo: bool,
    is_user: bool,
    root: Path,
) -> None:
    """Write the configuration with which an engine asks the agent first.

    docker, containerd and podman (CRI-O reads the same files) get the agent as their first mirror;
    systemd gets the units that run it. What is there is kept and merged, with a backup of each file
    that changes. An image that the agent doesn't have comes from its registry as before.

    \b
    docket -h registry agent setup docker
    docket -h registry agent setup systemd --print
    docket agent setup docker --undo
    """
    is_live = root == Path("/")
    paths = _paths(is_user=is_user or (is_live and os.geteuid() != 0))
    files = HostFiles(root, paths.record)
    if undo:
        steps = files.preview_undo(target) if is_preview else files.undo(target)
        plan = Plan(target, ())
    else:
        plan = _plan(options, target, files, paths, listen, registries, is_live=is_live)
        steps = files.preview(plan) if is_preview else files.apply(plan)
    if options.json:
        print_json(_as_json(plan, steps, is_preview=is_preview))
    else:
        _show(plan, steps, is_preview=is_preview, is_undo=undo)
    if undo and not is_preview and any(step.is_edited for step in steps):
        click.get_current_context().exit(1)


def _paths(*, is_user: bool) -> Paths:
    if not is_user:
        return Paths.of_system()
    home = config.home()
    return Paths.of_user(
        config=Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config"),
        state=Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state"),
        store=config.data_location(),
    )


def _plan(
    options: Options,
    target: str,
    files: HostFiles,
    paths: Paths,
    listen: AgentAddress,
    registries: Sequence[str],
    *,
    is_live: bool,
) -> Plan:
    address = RegistryAddress.parse(options.host, options.port)
    # without -h, the agent's registry is not known here
    registry = None if options.host == "localhost" else _named_in_images(address)
    match target:
        case "docker":
            facts = _docker_facts() if is_live else DockerFacts()
            return plan_docker(files, paths, listen, facts, registry)
        case "containerd":
            version = _version_of("containerd") if is_live else None
            return plan_containerd(files, paths, listen, version, registry)
        case "podman":
            return plan_podman(files, paths, listen, registries or REGISTRIES, registry)
        case _:
            program = shutil.which("docket") or str(Path(sys.argv[0]).resolve())
            return plan_systemd(paths, listen, [program, "agent", "--host", str(address)])


def _named_in_images(address: RegistryAddress) -> Registry:
    """The registry as images' names begin: without the port where HTTPS needs none."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    is_usual = (address.scheme, address.port) == ("https", 443)
    authority = host if is_usual else f"{host}:{address.port}"
    return Registry(authority, is_plain_http=address.scheme == "http")


def _docker_facts() -> DockerFacts:
    """What the running Docker says; if there is none, the version of its program."""
    from docket.engine import Engine

    try:
        engine: Engine = Engine.connect()
    except EngineError:
        return DockerFacts(_version_of("dockerd"))
    try:
        if engine.is_podman:
            return DockerFacts(_version_of("dockerd"))
        return DockerFacts(engine.version, engine.is_containerd_store)
    finally:
        engine.close()


def _version_of(program: str) -> str | None:
    """The first number of the form 1.2 in what ``<program> --version`` prints."""
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\b\d{1,4}\.\d[\w.+~-]*", done.stdout)
    return match[0] if match else None


def _as_json(plan: Plan, steps: Sequence[Step], *, is_preview: bool) -> dict[str, Any]:
    rows = [
        {
            "path": str(step.path),
            "action": step.action.value,
            "reason": step.reason,
            "backup": str(step.backup) if step.backup else None,
            **({"content": (step.content or b"").decode(errors="replace")} if is_preview else {}),
        }
        for step in steps
    ]
    return {
        "target": plan.engine,
        "written": not is_preview,
        "files": rows,
        "notes": list(plan.notes),
        "next_steps": list(plan.next_steps),
    }


def _show(plan: Plan, steps: Sequence[Step], *, is_preview: bool, is_undo: bool) -> None:
    for step in steps:
        action = step.action.value if is_preview else _WORDS[step.action]
        print_line(f"{action} {step.path}: {step.reason}")
        if step.backup and step.action in {Action.REPLACE, Action.UNCHANGED}:
            print_line(f"  before setup: {step.backup}")
        if is_preview and step.content is not None:
            print_line(step.content.decode(errors="replace").rstrip("\n"))
    if not steps:
        nothing = "setup has written no file" if is_undo else "no file has to change"
        print_line(f"{plan.engine}: {nothing}")
    for note in plan.notes:
        print_line(f"note: {note}")
    for command in plan.next_steps:
        print_line(f"next: {command}")
    if not is_undo:
        print_line(f"undo: docket agent setup {plan.engine} --undo")
