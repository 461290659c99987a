"""Registries for the tests: one that all share, and some of a test's own."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from tests.api.http import Registry, Repository

_ROOT = Path(__file__).parents[2]
_END_SECONDS = 30.0


@contextmanager
def running(
    location: Path, *options: str, pin_seconds: float = 3600, log_has: str = ""
) -> Iterator[Registry]:
    """A registry process at *location*, ended on the way out; it must end well.

    Its log stays empty; or each line of it contains *log_has*.
    """
    argv = [sys.executable, "-m", "docket.cli", "registry", "--bind", "127.0.0.1", "-p", "0"]
    argv += ["-l", str(location), "--pin-time", str(pin_seconds), "--scrub-interval", "0"]
    argv += ["--json", *options]
    with (
        (location.parent / f"{location.name}.log").open("wb") as log,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, cwd=_ROOT) as process,
        urllib3.PoolManager(retries=False, timeout=30) as pool,
    ):
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line, Path(log.name).read_text()
            yield Registry(json.loads(line)["url"], location, pool, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    lines = Path(log.name).read_text().splitlines()
    assert all(log_has and log_has in line for line in lines), lines


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The registry that tests share."""
    with running(tmp_path_factory.mktemp("registry") / "store", pin_seconds=3600) as opened:
        yield opened


@pytest.fixture
def repo(registry: Registry) -> Repository:
    """A repository of the test's own, in the registry that tests share."""
    return registry.repository(f"test/{uuid.uuid4().hex}")


@pytest.fixture
def sweeping(tmp_path: Path) -> Iterator[Registry]:
    """A registry of the test's own, which pins nothing."""
    with running(tmp_path / "store", pin_seconds=0) as opened:
        yield opened
