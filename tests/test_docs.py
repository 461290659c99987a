"""What exists is written down: every route, command, option and exit code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from starlette.routing import Route

from docket import errors
from docket.api import app
from docket.cli import EXIT_CODES, cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
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
    """docs/cli.md has the table of ``--help``."""
    text = (DOCS / "cli.md").read_text().replace("`", "").replace("\\|", "|")
    for code, meaning in EXIT_CODES.items():
        assert f"\n| {code} | {meaning} |\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """No link to a file of the repository, or to a heading of one, is broken."""
    for target, _, heading in re.findall(r"\]\(([^)#:]*)(#([^)]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        if heading:
            assert heading in headings(file), f"{target}#{heading}"


def test_errors_are_in_their_page() -> None:
    """docs/errors.md says of every error what to do."""
    text = (DOCS / "errors.md").read_text() + "`DocketError`"
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.DocketError):
            assert f"`{name}`" in text, f"docs/errors.md lacks {name}"


def headings(page: Path) -> set[str]:
    """The names by which links name the headings of *page*."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
