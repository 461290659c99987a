"""Plain English: words that readers stumbled over stay out of docstrings, help and documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docket.cli import cli

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "docket").rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

BANNED = {
    r"tells?|telling|tellers?": "send, return, report, show",
    r"(?<!was )told": "received, reported, sent (a client *was told* is fine)",
    r"hears?|heard|hearing": "fetch, receive",
    r"crowds?": "fleet, swarm",
    r"(hang|hangs|hung|hanging) up": "disconnect",
    r"ow(e|es|ed)": "have outstanding",
    r"in the mean(?!time)": "on average",
    r"anew": "again, rebuild, rewrite, recompute",
    r"(is|are) over": "has expired, has ended",
    r"mend(s|ed|ing)?": "repair, fix",
    r"so (often|many)(?! [a-z]+ that)": "every N, N",
    r"drop it|no news": "no-op",
    r"in the place of": "instead of",
    r"of one's own": "its own",
    r"(ask|asks|asked|asking) for": "request, need",
    r"broken-off": "interrupted",
    r"(?<=[.;!] )Who [^.?]*\.": "the noun that Who stands for",
}
"""Regular expressions of words, and what to write instead."""


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Each docstring of a module with its line, those of constants too."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def complaints(text: str) -> list[str]:
    """Each banned word in *text*, and what to write."""
    return [
        f"{match.group()!r}: write {instead}"
        for pattern, instead in BANNED.items()
        for match in re.finditer(rf"\b(?:{pattern})(?!\w)", f". {text}", re.IGNORECASE)
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Tells others what was told.", 1),
        ("Hosts are told the hashes, intelligible as they are.", 1),
        ("Who comes late gets less.", 1),
        ("First. Who comes late gets less.", 1),
        ("Who may push is in docs/security.md?", 0),
        ("A client was told that the blob exists.", 0),
        ("so many changes that it matters; asked whether it is overdue", 0),
        ("intelligible, owed to the amending crowd", 2),
    ],
)
def test_the_check_finds_words(text: str, count: int) -> None:
    """It finds whole words in any case, and no others."""
    assert len(complaints(text)) == count


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstrings_are_plain(path: Path) -> None:
    """Docstrings use the field's words (CONTRIBUTING.md § How we write)."""
    assert [
        f"{path.relative_to(ROOT)}:{line}: {complaint}"
        for line, text in docstrings(path)
        for complaint in complaints(text)
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_documents_are_plain(page: Path) -> None:
    """So do documents."""
    assert complaints(page.read_text()) == []


def test_help_is_plain() -> None:
    """So does every ``--help``."""
    pending: list[click.Command] = [cli]
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        context = click.Context(command, info_name=command.name)
        assert complaints(command.get_help(context)) == [], command.name
