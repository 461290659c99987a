"""The ways of bringing an image to hosts: docket, a plain registry, one torrent of the tar."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.support import servers
from tests.support.commands import DOCKET, Commands
from tests.support.netns import Host

DEFAULT_LEVEL = 3

_BASELINE = (sys.executable, "-m", "benchmarks.fleet.baseline_2015")
_REGISTRY_PORT = 5000
_SEED_SECONDS = 100_000
"""Longer than any run: hosts serve each other until the last one is done, and are ended then."""


class SourceHost(Protocol):
    """The host of the source; *enter* goes before each command to run it there."""

    @property
    def address(self) -> str: ...

    @property
    def enter(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Loopback:
    """The machine itself."""

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was stored: *payload* is what moves to a host that has nothing, in bytes.

    *layers* has the stored size of each layer by its diff_id, where layers are stored so.
    """

    payload: int
    layers: Mapping[str, int]


class Strategy(Protocol):
    """A running source; images are pushed to it, then hosts pull them."""

    @property
    def pid(self) -> int:
        """The process that serves the images; valid after the first push."""

    def push(self, image: str, archive: Path) -> Pushed:
        """Make *archive* ready to be pulled as *image*; what the folder has already stays."""

    def command(self, image: str, host: Host, folder: Path, *, load: bool) -> list[str]:
        """The command to run on *host*, whose files are in *folder*.

        It prints a line once it has all of *image*, which *load* loads into an engine too, and
        then may serve other hosts until it is ended; or it ends.
        """


StartStrategy = Callable[[Path, SourceHost], AbstractContextManager[Strategy]]
"""Starts a source on a host, with its files in a folder; what was pushed before is there."""


@dataclass(frozen=True, slots=True)
class _Docket:
    server: servers.Server
    builder: Commands
    level: int

    @property
    def pid(self) -> int:
        return self.server.pid

    def push(self, image: str, archive: Path) -> Pushed:
        report = self.builder("push", image, "--archive", archive, "--level", self.level)
        sizes = {layer["digest"]: layer["size"] for layer in report["layers"]}
        by_diff_id = {layer["diff_id"]: layer["size"] for layer in report["layers"]}
        return Pushed(sum(sizes.values()), by_diff_id)

    def command(self, image: str, _host: Host, folder: Path, *, load: bool) -> list[str]:
        options = ("-h", self.server.url, "-l", str(folder), "--json")
        only_layers = () if load else ("--layers-only",)
        return [*DOCKET, *options, "pull", image, "--seed-for", str(_SEED_SECONDS), *only_layers]


@dataclass(frozen=True, slots=True)
class _DockerRegistry:
    server: servers.Server
    enter: tuple[str, ...]
    upstream: Callable[[str, Path], AbstractContextManager[str]]

    @property
    def pid(self) -> int:
        return self.server.pid

    def push(self, image: str, archive: Path) -> Pushed:
        target = f"docker://{self.server.netloc}/{image}"
        no_tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
        with self.upstream(image, archive) as source:
            self._skopeo("copy", "--quiet", *no_tls, source, target)
        manifest = json.loads(self._skopeo("inspect", "--raw", "--tls-verify=false", target))
        sizes = {layer["digest"]: layer["size"] for layer in manifest["layers"]}
        return Pushed(sum(sizes.values()), {})

    def _skopeo(self, *arguments: str) -> bytes:
        argv = [*self.enter, "skopeo", *arguments]
        return subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout

    def command(
        self,
        image: str,
        _host: Host,
        folder: Path,
        *,
        load: bool,  # noqa: ARG002  # nothing is loaded
    ) -> list[str]:
        # layers that were copied before are found in the shared folder, as an engine would
        copy = ("skopeo", "copy", "--quiet", "--src-tls-verify=false")
        blobs = f"--dest-shared-blob-dir={folder / 'blobs'}"
        source = f"docker://{self.server.netloc}/{image}"
        return [*copy, blobs, source, f"oci:{folder / 'images'}:{image}"]


@dataclass(slots=True)
class _Baseline:
    """A seed, which is a tracker too, for each image."""

    folder: Path
    source: SourceHost
    seeds: ExitStack
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return next(reversed(self.running.values())).pid

    def push(self, image: str, archive: Path) -> Pushed:
        task = ("seed", self.source.address, str(self._torrent(image)), str(archive))
        seed = subprocess.Popen([*self.source.enter, *_BASELINE, *task], stdout=subprocess.PIPE)
        self.running[image] = self.seeds.enter_context(seed)
        self.seeds.callback(seed.kill)
        if not seed.stdout or not seed.stdout.readline():
            raise RuntimeError("the torrent's seed didn't get ready")
        return Pushed(archive.stat().st_size, {})

    def command(
        self,
        image: str,
        host: Host,
        folder: Path,
        *,
        load: bool,  # noqa: ARG002  # nothing is loaded
    ) -> list[str]:
        return [*_BASELINE, "fetch", host.address, str(self._torrent(image)), str(folder)]

    def _torrent(self, image: str) -> Path:
        return self.folder / f"{image.replace(':', '-')}.torrent"


def docket(level: int = DEFAULT_LEVEL) -> StartStrategy:
    """Docket at a zstd *level*: hosts pull layers in a swarm, into their stores."""

    @contextmanager
    def start(folder: Path, source: SourceHost) -> Iterator[Strategy]:
        with docket_server(folder, source) as (server, builder):
            yield _Docket(server, builder, level)

    return start


@contextmanager
def docket_server(folder: Path, source: SourceHost) -> Iterator[tuple[servers.Server, Commands]]:
    """Docket's registry on *source*, and commands that run beside it."""
    running = servers.docket(folder / "registry", bind=source.address, wrapper=source.enter)
    with running as server:
        yield server, Commands(server.url, folder / "builder", source.enter)


@contextmanager
def gzip_layers(folder: Path, source: SourceHost) -> Iterator[Strategy]:
    """Debian's docker-registry with gzip layers: hosts copy those that they lack, by skopeo."""
    with _docker_registry(folder, source) as server:
        yield _DockerRegistry(server, source.enter, _from_archive)


@contextmanager
def same_layers(folder: Path, source: SourceHost) -> Iterator[Strategy]:
    """Debian's docker-registry with the same layers that docket stores."""

    @contextmanager
    def from_docket(image: str, archive: Path) -> Iterator[str]:
        with docket()(folder / "docket", source) as docket_source:
            docket_source.push(image, archive)
            assert isinstance(docket_source, _Docket)
            yield f"docker://{docket_source.server.netloc}/{image}"

    with _docker_registry(folder, source) as server:
        yield _DockerRegistry(server, source.enter, from_docket)


@contextmanager
def baseline_2015(folder: Path, source: SourceHost) -> Iterator[Strategy]:
    """One torrent of the whole archive, as docket made in 2015: hosts fetch all in a swarm."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as seeds:
        yield _Baseline(folder, source, seeds)


def _docker_registry(folder: Path, source: SourceHost) -> AbstractContextManager[servers.Server]:
    port = _REGISTRY_PORT if source.enter else 0
    return servers.docker_registry(
        folder / "registry", bind=source.address, port=port, wrapper=source.enter
    )


@contextmanager
def _from_archive(_image: str, archive: Path) -> Iterator[str]:
    yield f"docker-archive:{archive}"
