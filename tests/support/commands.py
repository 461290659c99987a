"""Docket's commands run as a user runs them: processes of their own, read through --json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCKET = (sys.executable, "-m", "docket.cli")
_READY_SECONDS = 30.0


class CommandFailed(RuntimeError):
    """A docket command ended with another code than 0; *code*, its *message*, what it said."""

    def __init__(self, argv: Sequence[str], code: int, message: str, output: str = "") -> None:
        self.code = code
        self.message = message
        self.output = output
        super().__init__(f"{' '.join(argv)} ended with {code}: {message}")


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands against the registry at *url*, on a host whose store is at *location*.

    *wrapper* goes before each command, such as what enters a network namespace; *engine* is the
    DOCKER_HOST.
    """

    url: str
    location: Path
    wrapper: tuple[str, ...] = ()
    engine: str = ""

    def __call__(self, *arguments: object) -> dict[str, Any]:
        """Run a command; gives what it says as JSON. Raises `CommandFailed`."""
        answer: dict[str, Any] = json.loads(self.plain("--json", *arguments))
        return answer

    def plain(self, *arguments: object, stdin: Any = None) -> bytes:
        """Run a command; gives its standard output. Raises `CommandFailed`."""
        argv = [*self.wrapper, *DOCKET, *self.options, *map(str, arguments)]
        done = subprocess.run(
            argv, capture_output=True, stdin=stdin, env=self.environment, check=False
        )
        if done.returncode:
            raise CommandFailed(
                argv,
                done.returncode,
                done.stderr.decode(errors="replace").strip(),
                done.stdout.decode(errors="replace"),
            )
        return done.stdout

    @property
    def options(self) -> tuple[str, ...]:
        """What goes before the command's name."""
        return ("-h", self.url, "-l", str(self.location))

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the commands."""
        return environment(self.engine)


def environment(engine: str = "") -> dict[str, str]:
    """The variables of commands that use *engine*: no proxies, none of docket's.

    Modules are compiled once, as they are where docket is installed.
    """
    variables = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("DOCKET_") and not key.lower().endswith("_proxy")
    }
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    if engine:
        variables["DOCKER_HOST"] = engine
    return variables


@contextmanager
def registry(
    folder: Path,
    *options: str,
    bind: str = "127.0.0.1",
    port: int = 0,
    wrapper: Sequence[str] = (),
) -> Iterator[str]:
    """A registry process with its store in *folder*; gives its URL, once it answers."""
    started = registry_process(folder, *options, bind=bind, port=port, wrapper=wrapper)
    with started as (url, _pid):
        yield url


@contextmanager
def registry_process(
    folder: Path,
    *options: str,
    bind: str = "127.0.0.1",
    port: int = 0,
    wrapper: Sequence[str] = (),
) -> Iterator[tuple[str, int]]:
    """The same; gives its URL and its process id."""
    options_first = ("--bind", bind, "-p", str(port), "-l", str(folder))
    argv = [*wrapper, *DOCKET, "registry", *options_first, *options, "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        # a registry that never gets ready is ended, so that the read below comes to an end
        watchdog = threading.Timer(_READY_SECONDS, running.kill)
        watchdog.start()
        try:
            line = running.stdout.readline()
            watchdog.cancel()
            if not line:
                raise CommandFailed(argv, running.wait(), "it didn't get ready")
            yield json.loads(line)["url"], running.pid
        finally:
            watchdog.cancel()
            running.terminate()
