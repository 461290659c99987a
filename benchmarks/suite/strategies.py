"""Ways to bring an image to hosts: each pushes an archive once, and gives a command for a host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.start_barrier import prepared, prepared_program
from tests.support import servers
from tests.support.commands import Commands
from tests.support.namespaces import Host

WHOLE_TAR = "whole tar, one torrent"
GZIP = "docker-registry, gzip layers"
DEFAULT_LEVEL = 3
LEVELS = (1, 3, 9, 19)

_WHOLE_TAR = "benchmarks.suite.baseline_2015"
_REGISTRY_PORT = 5000
_PEER_PORT = 6881
# longer than any measurement: hosts go on serving until all have what they want
_SERVE_SECONDS = 3600


class Strategy(Protocol):
    """Images are pushed to a server once; then hosts run commands that bring them."""

    def push(self, image: str, archive: Path) -> dict[str, int]:
        """Make *archive* ready to be deployed; the stored size of each layer by its diff_id.

        Empty where nothing is stored by layers.
        """

    def command(self, image: str, host: Host, place: Path) -> list[str]:
        """The command that brings *image* to *host*, whose files are in *place*.

        It has all once it prints another line or ends; then it may serve until it is ended.
        """


StartStrategy = Callable[[Path, Sequence[Host]], AbstractContextManager[Strategy]]
"""Begin with a folder for the server, and with the server and all hosts."""


def docket_name(level: int) -> str:
    """What docket at a zstd *level* is called."""
    return f"docket, zstd -{level}"


@dataclass(frozen=True, slots=True)
class _Docket:
    url: str
    folder: Path
    enter: tuple[str, ...]
    level: int

    def push(self, image: str, archive: Path) -> dict[str, int]:
        builder = Commands(self.url, self.folder / "builder", self.enter)
        pushed = builder("push", image, "--archive", archive, "--level", self.level)
        return {layer["diff_id"]: layer["size"] for layer in pushed["layers"]}

    def command(self, image: str, host: Host, place: Path) -> list[str]:
        here = Commands(self.url, place)
        how = ("--layers-only", "--seed-for", str(_SERVE_SECONDS))
        argv = prepared("docket.cli", *here.options, "--json", "pull", image, *how)
        return [*host.enter, *argv]


@dataclass(frozen=True, slots=True)
class _Gzip:
    server: servers.Server
    enter: tuple[str, ...]

    def push(self, image: str, archive: Path) -> dict[str, int]:
        there = f"docker://{self.server.place}/{image}"
        copy = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false"]
        subprocess.run([*self.enter, *copy, f"docker-archive:{archive}", there], check=True)
        return {}

    def command(self, image: str, host: Host, place: Path) -> list[str]:
        # layers that were copied before are found in the shared folder, as an engine would
        copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false"]
        shared = f"--dest-shared-blob-dir={place / 'blobs'}"
        images = f"docker://{self.server.place}/{image}", f"oci:{place / 'images'}:{image}"
        return [*host.enter, *prepared_program(*copy, shared, *images)]


@dataclass(slots=True)
class _WholeTar:
    folder: Path
    server: Host
    hosts: Sequence[Host]
    seeds: ExitStack
    ports: dict[str, int] = field(default_factory=dict)

    def push(self, image: str, archive: Path) -> dict[str, int]:
        port = self.ports.setdefault(image, _PEER_PORT + len(self.ports))
        argv = [
            sys.executable,
            "-m",
            _WHOLE_TAR,
            *_task("seed", archive, self._torrent(image), port),
        ]
        running = subprocess.Popen([*self.server.enter, *argv], stdout=subprocess.PIPE)
        self.seeds.enter_context(running)
        self.seeds.callback(running.kill)
        assert running.stdout
        running.stdout.readline()
        return {}

    def command(self, image: str, host: Host, place: Path) -> list[str]:
        peers = [f"{self.server.address}:{self.ports[image]}"]
        peers += [f"{other.address}:{_PEER_PORT}" for other in self.hosts if other != host]
        task = _task("fetch", place, self._torrent(image), _PEER_PORT)
        return [*host.enter, *prepared(_WHOLE_TAR, *task, "--peers", *peers)]

    def _torrent(self, image: str) -> Path:
        return self.folder / f"{image.replace(':', '-')}.torrent"


def docket(level: int) -> StartStrategy:
    """Docket at a zstd *level*: hosts pull layers in a swarm, into their stores."""

    @contextmanager
    def start(folder: Path, hosts: Sequence[Host]) -> Iterator[Strategy]:
        enter = hosts[0].enter
        store = folder / "registry"
        with servers.docket(store, bind=hosts[0].address, wrapper=enter) as server:
            yield _Docket(server.url, folder, enter, level)

    return start


@contextmanager
def gzip_layers(folder: Path, hosts: Sequence[Host]) -> Iterator[Strategy]:
    """Debian's docker-registry: hosts copy layers that they lack, over HTTP."""
    here = hosts[0]
    started = servers.docker_registry(
        folder / "registry", bind=here.address, port=_REGISTRY_PORT, wrapper=here.enter
    )
    with started as server:
        yield _Gzip(server, here.enter)


@contextmanager
def whole_tar(folder: Path, hosts: Sequence[Host]) -> Iterator[Strategy]:
    """One torrent an archive, as docket did in 2015: hosts fetch all of it in a swarm."""
    with ExitStack() as seeds:
        yield _WholeTar(folder, hosts[0], hosts[1:], seeds)


def _task(task: str, place: Path, torrent: Path, port: int) -> list[str]:
    return [task, str(place), str(torrent), "--port", str(port)]
