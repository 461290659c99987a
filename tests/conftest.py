"""Fixtures that many tests share: a registry process, and small images made in code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import Commands, registry


@pytest.fixture
def registry_url(tmp_path: Path) -> Iterator[str]:
    """A registry process of the test's own, on free ports of the loopback address."""
    with registry(tmp_path / "registry") as url:
        yield url


@pytest.fixture
def host(registry_url: str, tmp_path: Path) -> Callable[[str], Commands]:
    """Docket's commands on a host with a name, which has a store of its own."""
    return lambda name: Commands(registry_url, tmp_path / name)
