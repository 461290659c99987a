"""A store for the length of one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docket.store import Store
from tests.store.samples import open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store that pins nothing."""
    with open_store(tmp_path / "store") as opened:
        yield opened
