"""Fixtures: a client's commands with a home of their own, and an image in the registry."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients import tools
from tests.support.commands import Commands
from tests.support.images import TinyImage, tiny_image


class ClientFailed(AssertionError):
    """A client's command ended with an error; its output is shown."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A client's command, run in *folder*, which is its home too."""

    path: Path
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: object, stdin: str = "") -> str:
        """Run it; its standard output without the last line's end. Raises ClientFailed."""
        argv = [str(self.path), *map(str, arguments)]
        inherited = {name: value for name, value in os.environ.items() if name in _INHERITED}
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        own = {"HOME": str(self.folder), "TMPDIR": str(temporary)}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            argv,
            cwd=self.folder,
            env={**inherited, **own, **self.variables},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClientFailed(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}")
        return done.stdout.removesuffix("\n")


_INHERITED = {"PATH", "GOPROXY", "GOSUMDB", "GOMODCACHE", "GOCACHE", "SSL_CERT_FILE"}

Tools = Callable[..., Tool]


@pytest.fixture
def tool(tmp_path: Path) -> Tools:
    """A client by its name in `tools.CLIENTS`; more environment variables by name."""

    def find(name: str, **variables: str) -> Tool:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        return Tool(tools.client(name), home, variables)

    return find


@pytest.fixture
def address(registry_url: str) -> str:
    """The registry as clients spell it: host and port."""
    return urlsplit(registry_url).netloc


@pytest.fixture
def image() -> TinyImage:
    """An image of two small layers."""
    return tiny_image("app", name="app:1.0")


@pytest.fixture
def pushed(image: TinyImage, address: str, host: Callable[[str], Commands], tmp_path: Path) -> str:
    """The name of *image* in the registry, where docket pushed it."""
    archive = tmp_path / "image.tar"
    archive.write_bytes(image.docker_save())
    host("builder")("push", "team/app:1.0", "--archive", archive)
    return f"{address}/team/app:1.0"
