"""The registries that are measured: docket's, and Debian's docker-registry."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import registry_process

_READY_SECONDS = 30.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Server:
    """A registry at *address* and *port*, and its process."""

    address: str
    port: int
    pid: int

    @property
    def netloc(self) -> str:
        """``host:port``, as references to images begin."""
        return f"{self.address}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return f"http://{self.netloc}"


StartServer = Callable[[Path], AbstractContextManager[Server]]


@contextmanager
def docket(
    folder: Path, *options: str, bind: str = "127.0.0.1", wrapper: Sequence[str] = ()
) -> Iterator[Server]:
    """Docket's registry with its store in *folder*."""
    with registry_process(folder, *options, bind=bind, wrapper=wrapper) as (url, pid):
        yield Server(bind, int(url.rpartition(":")[2]), pid)


@contextmanager
def docker_registry(
    folder: Path, *, bind: str = "127.0.0.1", port: int = 0, wrapper: Sequence[str] = ()
) -> Iterator[Server]:
    """Debian's docker-registry with its store in *folder*.

    Behind a *wrapper* that enters another network it needs a *port*, and is taken for ready when
    it listens there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = port or _free_port()
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "http": {"addr": f"{bind}:{chosen}"},
    }
    config = folder / "config.yml"
    config.write_text(json.dumps(settings))  # JSON is YAML too
    argv = [*wrapper, "docker-registry", "serve", str(config)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, stdout=quiet, stderr=quiet) as running:
        try:
            _wait_for(running, chosen)
            yield Server(bind, chosen, running.pid)
        finally:
            running.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for(running: subprocess.Popen[bytes], port: int) -> None:
    """Return once *running* listens at *port*, in whatever network it is."""
    deadline = time.monotonic() + _READY_SECONDS
    while not _listens(running.pid, port):
        with suppress(subprocess.TimeoutExpired):
            running.wait(_POLL_SECONDS)
            raise RuntimeError(f"{running.args!r} ended with {running.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{running.args!r} isn't ready after {_READY_SECONDS} s")


def _listens(pid: int, port: int) -> bool:
    # proc(5): the tables of the network that the process is in; state 0A is LISTEN
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False
