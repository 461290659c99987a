"""docs/clients.md is about the clients that are tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.tools import CLIENTS

_PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


@pytest.mark.parametrize("name", CLIENTS)
def test_the_page_names_the_version_that_is_tried(name: str) -> None:
    """A new version changes the table too."""
    row = f"{CLIENTS[name].version.removeprefix('v')}"
    assert any(row in line for line in _PAGE.read_text().splitlines() if line.startswith("|"))
