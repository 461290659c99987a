"""What exists is written down: every route, command, option and exit code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from starlette.routing import Route

from docket.api import app
from docket.cli import EXIT_CODES, cli

DOCS = Path(__file__).parent.parent / "docs"
ROUTES = [route.path for route in app(None).routes if isinstance(route, Route)]  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted(set(ROUTES)))
def test_route_is_in_the_api_page(path: str) -> None:
    """docs/api.md names every route."""
    text = (DOCS / "api.md").read_text()
    spelled = re.sub(r":path", "", path).rstrip("/")
    spelled = spelled.replace("{name}.torrent", "{name}:{tag}.torrent")
    assert spelled in text


def all_commands(group: click.Group = cli, prefix: str = "") -> dict[str, click.Command]:
    """Every command by its full name, those of groups in place of the group."""
    commands: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            commands |= all_commands(command, f"{prefix}{name} ")
        else:
            commands[f"{prefix}{name}"] = command
    return commands


COMMANDS = all_commands()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_and_its_options_are_in_the_cli_page(name: str) -> None:
    """docs/cli.md names every command, option and variable; --help explains each."""
    text = (DOCS / "cli.md").read_text()
    command = COMMANDS[name]
    assert f"## docket {name}" in text
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert any(spelling in text for spelling in parameter.opts), parameter.opts
            assert str(parameter.envvar) in text, parameter.name


def test_exit_codes_are_in_the_cli_page() -> None:
    """docs/cli.md has the table that the commands follow."""
    text = (DOCS / "cli.md").read_text()
    for code in EXIT_CODES:
        assert f"\n| {code} |" in text


def test_readme_links_lead_somewhere() -> None:
    """No link of the README is broken."""
    root = DOCS.parent
    for target in re.findall(r"\]\(([^)#:]+)\)", (root / "README.md").read_text()):
        assert (root / target).exists(), target
