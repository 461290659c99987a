"""A folder that stands for a host's root, and what setup does there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from docket.hooks.files import HostFiles
from docket.hooks.plan import AgentAddress, Paths

AGENT = AgentAddress("127.0.0.1", 5000)
PATHS = Paths.of_system()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The host's root."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def open_files(root: Path) -> Callable[[], HostFiles]:
    """Opens the host's files, as each command does anew."""
    return lambda: HostFiles(root, PATHS.record)


def put(root: Path, path: str, content: str) -> Path:
    """Write a file of the host."""
    real = root / path.removeprefix("/")
    real.parent.mkdir(parents=True, exist_ok=True)
    real.write_text(content)
    return real


def snapshot(root: Path) -> dict[str, tuple[int, bytes | None]]:
    """Every file and folder of the host with its mode and content, apart from docket's own."""
    return {
        path.relative_to(root).as_posix(): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(root.rglob("*"))
        if not path.is_relative_to(root / "var")
    }
